"""SkyThought's own system prompt, read byte for byte from a checkout or an installed package of it.

It is the one that `skythought evaluate --system-prompt-name skythought` asks with at 4bb8f3e, the protocol of
the paper's numbers. Students are trained under a similar one that is not byte-equal: there the blank line
between two steps is a literal backslash-n, here it is a real one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml

from rlt.errors import ConfigError

SHA256 = "c5ae4aa0b0d6fcadd6fa8977f5e55b1f2dccb7582bd05b80385e2f22650a9f8d"
"""Of the prompt."""
_FILE = "evals/models/model_configs.yaml"


def is_skythought(prompt: str | None) -> bool:
    """Whether a text is that prompt."""
    return prompt is not None and hashlib.sha256(prompt.encode(errors="replace")).hexdigest() == SHA256


def skythought_file(place: str) -> Path | None:
    """Return the file that holds the prompt, in a checkout, in the package's folder, or itself."""
    folder = Path(place)
    return next((p for p in (folder, folder / "skythought" / _FILE, folder / _FILE) if p.is_file()), None)


def read_skythought_prompt(place: str) -> str:
    """Return the prompt out of a checkout, a package's folder, or the file; ConfigError for any other."""
    path = skythought_file(place)
    if path is None:
        raise ConfigError(f"`layout.student_prompt=skythought:{place}` holds no skythought/{_FILE}: {_GET}.")
    try:
        text = yaml.safe_load(path.read_bytes())["system_prompts"]["skythought"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} holds no system prompt named skythought ({error!r}): {_GET}.") from error
    if not isinstance(text, str) or not is_skythought(text):
        raise ConfigError(
            f"{path} holds another prompt than SkyThought's at 4bb8f3e (sha256 {SHA256:.12s}…): {_GET}."
        )
    return text


_GET = (
    "give a checkout (git clone https://github.com/NovaSky-AI/SkyThought && git -C SkyThought checkout "
    "4bb8f3e), or the folder of the installed package"
)
