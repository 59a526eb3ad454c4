"""A copy of a model on disk whose log-probabilities are those of the original at a temperature.

The LM head is divided by the temperature, and untied where it was tied to the embeddings; every other tensor
is the original's, byte for byte. The head is written in float32, so that dividing rounds nothing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from rlt.errors import ModelError
from rlt.models.family import scales_with_head, tiny_of
from rlt.models.load import load_config

_INDEX = "model.safetensors.index.json"
_OTHER_FILES = (".json", ".txt", ".model", ".jinja", ".py")
_HUB_FILES = ["*.safetensors", *(f"*{suffix}" for suffix in _OTHER_FILES)]


def model_folder(name: str, *, download: bool, revision: str | None = None) -> Path | None:
    """Return the folder of a model with its weights; None for one on the Hub that is not on this machine."""
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=_HUB_FILES, local_files_only=not download
            )
        )
    except (OSError, HFValidationError) as error:  # offline, absent, gated, or no name at all
        if not download:
            return None
        raise ModelError(f"the model {name!r} is no folder, and the Hub does not give it: {error}") from error


def weights_bytes(folder: Path) -> int:
    """Return the size of a model's weights on disk."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def write_scaled_copy(source: Path, target: Path, temperature: float) -> None:
    """Write the copy into a new folder, one shard in memory at a time."""
    tiny = tiny_of(str(source))
    if tiny is not None and not scales_with_head(tiny):
        raise ModelError(
            f"the logits of {type(tiny).__name__} do not scale with its LM head, so a server of {source} "
            "cannot score at a temperature: take reward.placement=replicated, zero3 or cpu_offload"
        )
    head, embeddings, tied = _head_names(source)
    shards = _shards(source)
    origin = embeddings if tied else f"{head}.weight"
    if origin not in shards:
        raise ModelError(f"the weights of {source} hold no {origin!r}, which its LM head is made from")
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix in _OTHER_FILES and not file.name.endswith(".index.json"):
            shutil.copyfile(file, target / file.name)
    _untie(target / "config.json")

    head_names = {f"{head}.weight", f"{head}.bias"}
    files = sorted(set(shards.values()))
    names = [f"model-{i:05d}-of-{len(files) + 1:05d}.safetensors" for i in range(1, len(files) + 2)]
    weight_map = {}
    for file, name in zip(files, names, strict=False):
        kept = [key for key, place in shards.items() if place == file and key not in head_names]
        _copy_shard(file, target / name, kept)
        weight_map |= dict.fromkeys(kept, name)
    scaled = {f"{head}.weight": _read(shards[origin], origin).float() / temperature}
    if not tied and (bias := f"{head}.bias") in shards:
        scaled[bias] = _read(shards[bias], bias).float() / temperature
    save_file(scaled, target / names[-1], metadata={"format": "pt"})
    weight_map |= dict.fromkeys(scaled, names[-1])
    (target / _INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=2))


def _head_names(folder: Path) -> tuple[str, str, bool]:
    """Return the name of the LM head, of the embeddings' weight, and whether the two are tied."""
    config = load_config(str(folder))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    names = {module: name for name, module in model.named_modules()}
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    return names[head], f"{names[embeddings]}.weight", config.get_text_config().tie_word_embeddings


def _shards(folder: Path) -> dict[str, Path]:
    """Return the file that holds each tensor."""
    if (folder / _INDEX).is_file():
        weight_map = json.loads((folder / _INDEX).read_text())["weight_map"]
        return {key: folder / name for key, name in weight_map.items()}
    single = folder / "model.safetensors"
    if not single.is_file():
        raise ModelError(f"{folder} holds no model.safetensors; save the model in that format")
    with safe_open(single, framework="pt") as file:
        return dict.fromkeys(file.keys(), single)


def _copy_shard(source: Path, target: Path, kept: list[str]) -> None:
    with safe_open(source, framework="pt") as file:
        if set(kept) == set(file.keys()):
            shutil.copyfile(source, target)
        else:
            save_file({key: file.get_tensor(key) for key in kept}, target, metadata={"format": "pt"})


def _read(path: Path, key: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(key)


def _untie(config_path: Path) -> None:
    config = json.loads(config_path.read_text())
    for section in (config, config.get("text_config", {})):
        section["tie_word_embeddings"] = False
    config_path.write_text(json.dumps(config, indent=2))
