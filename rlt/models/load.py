"""Load tokenizers and models from a folder or the Hub, with errors that name the setting."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlt import devices
from rlt.config.attention import FLASH, is_from_hub, not_provided
from rlt.errors import ModelError, first_line
from rlt.models.attention import Abilities, Attention, resolve_attention
from rlt.models.ids import require_table

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def load_tokenizer(name: str, *, revision: str | None = None, trust: bool = False) -> PreTrainedTokenizerBase:
    """Return a model's tokenizer with a pad token that is not the end of turn.

    All tokens that it makes have an embedding in the model. A folder may hold the tokenizer alone.
    """
    _require_folder(name, "config.json", "tokenizer.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust)
    except (OSError, ValueError) as error:
        raise _cannot_load(f"the tokenizer of {name!r}", error) from error
    rows = _num_embeddings(name, tokenizer, revision, trust=trust)
    tokenizer.num_embeddings = rows  # formats/encode.py reads it
    _keep_pad_apart(tokenizer)
    if rows is not None:
        require_table(tokenizer, rows)
    return tokenizer


def _num_embeddings(
    name: str, tokenizer: PreTrainedTokenizerBase, revision: str | None, *, trust: bool
) -> int | None:
    """Return the rows of a model's embedding table, None where there is the tokenizer alone.

    Some tables have more rows than `vocab_size` (mllama's 8): where that is too small for the tokenizer, the
    table itself is looked at.
    """
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        return None
    try:
        config = load_config(name, revision=revision, trust=trust)
    except ModelError:  # who loads the model says so
        return None
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is None or max(tokenizer.get_vocab().values(), default=0) < rows:
        return rows
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
        return len(model.get_input_embeddings().weight)
    except Exception:  # whatever a family's own code says of its configuration; who loads the model says it
        return rows


def set_eos(tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    """Let a model stop at another token; padding stays apart from it."""
    tokenizer.eos_token = token
    _keep_pad_apart(tokenizer)


def _keep_pad_apart(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.pad_token is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    rows = getattr(tokenizer, "num_embeddings", None)
    ids = tokenizer.get_vocab()
    fitting = [t for t in tokenizer.all_special_tokens if rows is None or ids[t] < rows]
    spare = [t for t in fitting if t != tokenizer.eos_token]
    if not spare:
        raise ModelError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no pad token besides its end-of-turn token "
            f"{tokenizer.eos_token!r}; padding with it would teach the model never to stop: add one"
        )
    tokenizer.pad_token = next((t for t in spare if "pad" in t), spare[0])


def load_context(name: str, *, revision: str | None = None, trust: bool = False) -> int | None:
    """Return max_position_embeddings of a model, or None where its configuration has none."""
    _require_folder(name)
    config = load_config(name, revision=revision, trust=trust)
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def load_config(name: str, *, revision: str | None = None, trust: bool = False) -> Any:
    """Return a model's configuration."""
    try:
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust)
    except (OSError, ValueError) as error:
        raise _cannot_load(f"the configuration of {name!r}", error) from error


def load_eos_ids(name: str, *, revision: str | None = None, trust: bool = False) -> list[int]:
    """Return the ids that end a model's text by its generation_config, or else by its config; may be none."""
    _require_folder(name)
    try:
        found = GenerationConfig.from_pretrained(name, revision=revision or "main").eos_token_id
    except OSError:
        config = load_config(name, revision=revision, trust=trust)
        found = getattr(config.get_text_config(), "eos_token_id", None)
    return found if isinstance(found, list) else [] if found is None else [found]


def load_model(
    name: str,
    *,
    dtype: str,
    attn_implementation: str = "auto",
    revision: str | None = None,
    trust: bool = False,
    on_gpu: bool | None = None,
) -> PreTrainedModel:
    """Return a causal language model on the CPU (or partitioned, inside a ZeRO-3 run).

    `on_gpu` says where it will compute: by default on a GPU where there is one.
    """
    _require_folder(name)
    attention = attention_of(name, attn_implementation, dtype, on_gpu=on_gpu, revision=revision, trust=trust)
    how: dict[str, Any] = {"dtype": DTYPES[dtype], "attn_implementation": attention.implementation}
    try:
        return AutoModelForCausalLM.from_pretrained(name, **how, revision=revision, trust_remote_code=trust)
    except (OSError, ValueError, ImportError) as error:
        raise _cannot_load(f"the model {name!r}", error) from error


def attention_of(
    name: str,
    setting: str,
    dtype: str,
    *,
    on_gpu: bool | None = None,
    revision: str | None = None,
    trust: bool = False,
) -> Attention:
    """Return the attention that `model.attn_implementation` comes to for a model on this machine."""
    if on_gpu is None:
        on_gpu = devices.on_gpu()
    config = load_config(name, revision=revision, trust=trust)
    found = resolve_attention(setting, dtype, abilities_of(config, _gpu_problem(on_gpu=on_gpu)))
    if is_from_hub(found.implementation):
        _fetch_kernel(found.implementation)
    return found


def _fetch_kernel(name: str) -> None:
    """Load attention kernels of the Hub, as transformers would while it makes a model."""
    from transformers.modeling_flash_attention_utils import lazy_import_flash_attention

    try:
        lazy_import_flash_attention(name)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"`model.attn_implementation={name}` cannot be loaded ({first_line(error)}): take "
            "model.attn_implementation=sdpa"
        ) from error


def abilities_of(config: Any, gpu_problem: str | None = None) -> Abilities:
    """Return what the class that transformers takes for a configuration can do.

    Of a model with code of its own nothing is known before it is loaded: it is taken to do everything.
    """
    model_class: Any = AutoModelForCausalLM._model_mapping.get(type(config), None)
    capping = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    if model_class is None:
        return Abilities(softcapping=bool(capping), gpu_problem=gpu_problem)
    kernels = model_class._compatible_flash_implementations
    return Abilities(
        name=model_class.__name__,
        flash=model_class._supports_flash_attn,
        sdpa=model_class._supports_sdpa,
        flash_kernels=None if kernels is None else tuple(kernels),
        softcapping=bool(capping),
        gpu_problem=gpu_problem,
    )


def _gpu_problem(*, on_gpu: bool) -> str | None:
    """Return why FlashAttention cannot run here; transformers would fail late, at the first forward pass."""
    if not on_gpu:
        return "there is no GPU"
    if devices.on_gpu() and torch.cuda.get_device_capability() < (8, 0):
        return f"{torch.cuda.get_device_name()} is older than Ampere"
    if not_provided(FLASH) is None:
        try:
            import_module("flash_attn")
        except (ImportError, OSError) as error:  # built for another torch
            return f"flash-attn cannot be imported ({first_line(error)})"
    return None


def _cannot_load(what: str, error: Exception) -> ModelError:
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{what} comes with Python code of its own, which runs only if allowed; read it, and set "
            "model.trust_remote_code=true if you trust it"
        )
    return ModelError(f"cannot load {what}: {first_line(error)}")


def _require_folder(name: str, *any_of: str) -> None:
    path, needed = Path(name), any_of or ("config.json",)
    if path.is_dir() and not any((path / file).is_file() for file in needed):
        raise ModelError(
            f"the folder {name!r} holds no {' or '.join(needed)}, so it is not a model; check the path"
        )
    if name.startswith(("/", ".", "~")) and not path.exists():
        raise ModelError(f"there is no model folder {name!r}; check the path or give a Hub name")
