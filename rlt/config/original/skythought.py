"""What SkyThought at 4bb8f3e asks with, and what it grades with, read from a checkout or an unpacked package.

None of its texts is part of this project; their hashes are. The system prompt is the one that `skythought
evaluate --system-prompt-name skythought` asks with. Students are trained under a similar one that is not
byte-equal: there the blank line between two steps is a literal backslash-n, here it is a real one.
"""

from __future__ import annotations

import hashlib
import string
import sys
from importlib.machinery import PathFinder
from importlib.metadata import distributions
from pathlib import Path

import yaml

from rlt.config.schema import SLOT
from rlt.errors import ConfigError

SHA256 = "c5ae4aa0b0d6fcadd6fa8977f5e55b1f2dccb7582bd05b80385e2f22650a9f8d"
"""Of the system prompt."""
_FILE = "evals/models/model_configs.yaml"
_TASKS = "evals/tasks"
_GPQA = "tasks/gpqa_diamond/gpqa_diamond"
_FINAL_BOX = "b90dc80cd3b8d7fb4c13dc7148ba57227953abb0a9c33dc06a8a8d0cd04a40b8"
TASK_PROMPTS = {
    "aime24": ("tasks/aime/aime24.yaml", _FINAL_BOX),
    "aime25": (
        "tasks/aime/aime25.yaml",
        "84d38362a4d7b46d035646fbdd2b34e1c38d8eb18e140faf3a6bcc3119488f79",
    ),
    "amc23": ("tasks/amc23/amc23.yaml", _FINAL_BOX),
    "math500": ("tasks/math/math500.yaml", _FINAL_BOX),
    "minerva": ("tasks/minervamath/minervamath.yaml", _FINAL_BOX),
    "olympiadbench": ("tasks/olympiadbench/olympiadbench_math_en.yaml", _FINAL_BOX),
    "gsm8k": ("tasks/gsm8k/gsm8k.yaml", "01163f30e49f9dd1980264dcff94dc7165ed8718d80ca629ba3eab8e30814b25"),
    "gpqa_diamond": (
        _GPQA + ".yaml",
        "ab2ebedc25f6e05a0425b69c40947b437c53c9f6c93de66e81009748d150c391",
    ),
}
"""Task -> its file under evals, and the sha256 of the user's turn there, with SLOT for the question."""
GRADER = {
    "util/math_parsing_util.py": "e173e1cfbf123b986ba05a263cdd7917a7cd7fbda3e9b0a1c4129aff7a2d49e8",
    "tasks/math/math_handler.py": "ad1df3dea3e31dfa62d2681e50abb7b27b42d95902b6ab0629d7eccb73474bc7",
    "tasks/gsm8k/gsm8k_handler.py": "3db24e8d479d0146f774f944d2deab6311c8a1eb1a96185834ad940af9be2abd",
    _GPQA + "_handler.py": "b708dd2c5a55efb45df40af460dd98ee9db3a7911711d86e93494ecca2e44ea6",
}
"""File under evals -> sha256, of all that its verdicts of these tasks come from."""
LIBRARIES = ("latex2sympy2", "antlr4", "sympy", "word2number")
"""What its grader imports, of versions that cannot be installed beside this project's."""


def is_skythought(prompt: str | None) -> bool:
    """Whether a text is its system prompt."""
    return prompt is not None and sha256(prompt) == SHA256


def asks_as_skythought(task: str, prompt: str) -> bool:
    """Whether a user's turn, with SLOT for the question, is in SkyThought's words."""
    return task in TASK_PROMPTS and sha256(prompt) == TASK_PROMPTS[task][1]


def sha256(text: str) -> str:
    """Return the hash of a text."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def skythought_file(place: str) -> Path | None:
    """Return the file that holds the system prompt, in a checkout, in the package's folder, or itself."""
    folder = Path(place)
    return next((p for p in (folder, folder / "skythought" / _FILE, folder / _FILE) if p.is_file()), None)


def read_skythought_prompt(place: str) -> str:
    """Return the system prompt from a checkout, a package's folder, or the file; ConfigError for another."""
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


def _package(place: str) -> Path:
    """Return the folder of the package, which may be `place` itself; ConfigError where it is not there."""
    folder = Path(place).expanduser()
    for package in (folder / "skythought", folder):
        if (package / _TASKS).is_dir():
            return package
    raise ConfigError(f"`evaluate.original={place}` holds no skythought/{_TASKS}: {_GET}.")


def read_task_prompt(place: str, task: str) -> str:
    """Return what the user's turn says in a task's file, with SLOT for the question.

    Raises ConfigError where the file is not there or says something else than at 4bb8f3e.
    """
    name, known = TASK_PROMPTS[task]
    path = _package(place) / "evals" / name
    try:
        text = _with_slot(yaml.safe_load(path.read_bytes())["templating_parameters"]["template"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path} holds no prompt for {task} ({error!r}): {_GET}, or give evaluate.prompts={{{task}: …}}."
        ) from error
    if sha256(text) != known:
        raise ConfigError(
            f"{path} asks in other words than SkyThought's at 4bb8f3e (sha256 {sha256(text):.12s}… where "
            f"{known:.12s}… is known): {_GET}, or give them as your own in evaluate.prompts={{{task}: …}}."
        )
    return text


def _with_slot(template: str) -> str:
    """Return a template of str.format with SLOT for its one field."""
    pieces, fields = [], 0
    for literal, field, _, _ in string.Formatter().parse(template):
        pieces.append(literal)
        if field is not None:
            fields += 1
            pieces.append(SLOT)
    if fields != 1:
        raise ValueError(f"{fields} fields where the question alone has one")
    return "".join(pieces)


def grader_paths(place: str) -> list[str] | None:
    """Return the folders that its grader is imported from, in their order; None where a library lacks.

    Raises ConfigError where the grader is not that of 4bb8f3e.
    """
    package = _package(place)
    for name, known in GRADER.items():
        path = package / "evals" / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "nothing"
        if found != known:
            raise ConfigError(
                f"{path} is another program than SkyThought's at 4bb8f3e (sha256 {found:.12s}… where "
                f"{known:.12s}… is known), whose verdicts evaluate.original adds: {_GET}."
            )
    paths = [str(path) for path in (package.resolve().parent, OWN_FOLDER)]
    return paths if all(PathFinder.find_spec(name, paths) for name in LIBRARIES) else None


def grader_versions(paths: list[str]) -> dict[str, str]:
    """Return the versions of what is installed in these folders; the first one counts."""
    found: dict[str, str] = {}
    for one in distributions(path=paths):
        found.setdefault(one.metadata["Name"], one.version)
    return dict(sorted(found.items()))


OWN_FOLDER = Path(sys.prefix) / "skythought"
"""Where `scripts/setup.sh --skythought` puts the package with its libraries."""
_GET = (
    "run scripts/setup.sh --skythought and give .venv/skythought, or a checkout (git clone "
    "https://github.com/NovaSky-AI/SkyThought && git -C SkyThought checkout 4bb8f3e)"
)
