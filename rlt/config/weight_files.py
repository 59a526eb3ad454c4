"""Whether the weights in a model's folder are all there, from the files' heads alone.

A download that was cut, or left as pointers by git, would otherwise be noticed after minutes, when a
program loads it.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from rlt.errors import ConfigError

NO_TENSORS = (2).to_bytes(8, "little") + b"{}"
"""A whole safetensors file without any tensor."""
_INDEX = "model.safetensors.index.json"
_POINTER = b"version https://git-lfs"
_LARGEST_HEAD = 2**27


def check_weights(setting: str, model: str, *, needed: bool) -> None:
    """Raise ConfigError when weights in a local folder are cut or missing; without any only if `needed`."""
    folder = Path(model)
    if not folder.is_dir():
        return  # a Hub name: its loader sees to whole files
    found = sorted(folder.glob("*.safetensors"))
    for file in found:
        if reason := _why_broken(file):
            raise ConfigError(f"`{setting}={model}` holds {file.name}, {reason}: copy or download it again.")
    if missing := sorted(_indexed(folder) - {file.name for file in found}):
        raise ConfigError(
            f"`{setting}={model}` lacks {', '.join(missing[:3])}{' …' * (len(missing) > 3)}, which its "
            f"{_INDEX} lists: copy or download it again."
        )
    if needed and not found and not list(folder.glob("*.bin")):
        raise ConfigError(
            f"`{setting}={model}` holds no weights (*.safetensors): copy or download it again, or take the "
            "folder of a finished run."
        )


def read_head(file: Path) -> tuple[dict[str, Any], int]:
    """Return the tensors that a safetensors file says it holds, and the bytes that it then has.

    Such a file is 8 bytes of length, a JSON head, then the tensors. Raises ValueError for any other.
    """
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        try:
            head = json.loads(stream.read(length) if 0 < length < _LARGEST_HEAD else "")
            tensors = {name: entry for name, entry in head.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise ValueError(f"{file} is no safetensors file") from None
    return tensors, 8 + length + end


def _why_broken(file: Path) -> str | None:
    """Return what is wrong with a safetensors file, None for a whole one."""
    with file.open("rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            return "a pointer of git-lfs instead of the weights"
    try:
        _, expected = read_head(file)
    except ValueError:
        return "which is no safetensors file"
    size = file.stat().st_size
    return None if size == expected else f"of {size:,} bytes where its head says {expected:,}"


def _indexed(folder: Path) -> set[str]:
    """Return the files that the folder's index names, if it has one."""
    try:
        values = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        return set(values["weight_map"].values())
    except FileNotFoundError:
        return set()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{folder / _INDEX} is no index of weights ({error}): download it again.") from None
