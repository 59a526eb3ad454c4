"""Where a model's size is read from: its folder, the Hub's cache, or a table of published ones. No torch.

What is not calculated from a few fields is counted in a process of its own, once in a launch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

from rlt.io import hub_file
from rlt.models.size import Cache, Decoder, ModelSize, NoForecast, is_plain, size_of

_QWEN_7B = Decoder(3584, 18944, 28, 28, 4, 128, 152064, tied=False, qkv_bias=True).size
_QWEN_32B = Decoder(5120, 27648, 64, 40, 8, 128, 152064, tied=False, qkv_bias=True).size
_QWEN_3B = Decoder(2048, 11008, 36, 16, 2, 128, 151936, tied=True, qkv_bias=True).size
PUBLISHED = {
    "Qwen/Qwen2.5-3B-Instruct": _QWEN_3B,
    "Qwen/Qwen2.5-7B-Instruct": _QWEN_7B,
    "Qwen/Qwen2.5-32B-Instruct": _QWEN_32B,
    "bespokelabs/Bespoke-Stratos-7B": _QWEN_7B,
    "bespokelabs/Bespoke-Stratos-32B": _QWEN_32B,
    "SakanaAI/RLT-7B": _QWEN_7B,
    "SakanaAI/RLT-32B": _QWEN_32B,
}
"""Models of the recipes that may not be on this machine: from the config.json of Qwen2.5 on the Hub; those of
bespokelabs and SakanaAI are fine-tuned from Qwen2.5-7B/32B-Instruct and keep their shape."""
_COUNTING_TIMEOUT = 300.0
"""Seconds: torch and transformers take about ten to load, a pass of a large model one more."""


def read_size(model: str, *, revision: str | None = None, trust: bool = False) -> ModelSize:
    """Return the size of a model in a folder, in the Hub's cache, or in the table; raises NoForecast.

    `trust` says whether Python code that comes with the model may be run.
    """
    path = Path(model) / "config.json"
    if not path.is_file() and model in PUBLISHED:
        return PUBLISHED[model]
    if not path.is_file():
        path = _cached_config(model, revision)
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text)
    except (OSError, ValueError) as error:
        raise NoForecast(f"{path} cannot be read ({error})") from None
    if is_plain(values, model):
        return size_of(values, model)
    found = _counted(str(path.parent), text, trust)
    if isinstance(found, str):
        family = values.get("model_type")
        raise NoForecast(f"{model} is of the type {family}, which cannot be counted ({found})")
    return found


@cache
def _counted(folder: str, _config: str, trust: bool) -> ModelSize | str:
    """Return the size of the model that a folder's config.json describes, or why it cannot be counted.

    Memory and disk of a run are planned one after the other, and further students may be the same model.
    """
    command = [sys.executable, "-m", "rlt.models.counting", folder, *(["--trust"] if trust else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COUNTING_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return f"it took more than {_COUNTING_TIMEOUT:.0f} s"
    try:
        values = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        return f"the count ended with code {done.returncode}: {last}"
    if "why" in values:
        return values["why"]
    caches = tuple(Cache(**cache) for cache in values.pop("caches"))
    return ModelSize(**values, caches=caches)


def _cached_config(model: str, revision: str | None) -> Path:
    found = hub_file(model, "config.json", revision)
    if found is None:
        raise NoForecast(f"{model} is not on this machine, and its size is not in rlt/forecast/model_size.py")
    return found
