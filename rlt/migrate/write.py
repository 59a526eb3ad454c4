"""A migrated run file as YAML with comments, tried before it is written."""

from __future__ import annotations

import shlex
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rlt.config.bounds import check_bounds
from rlt.config.compose import compose
from rlt.config.original.prompt import COMMIT, REPOSITORY
from rlt.config.overrides import CONFIG_DIR
from rlt.config.resolve import resolve
from rlt.config.rules.trainer import check_trainer
from rlt.errors import ConfigError
from rlt.io import leaves
from rlt.migrate.translate import Migrated, not_in_checkout

WIDTH = 110
_MANY = 100
"""Settings that may turn out not to be accepted; each takes one composition."""


def tried(new: Migrated, source: Path, target: Path) -> str:
    """Return the text of the run file; what the configuration does not accept is taken out, and named."""
    for _ in range(_MANY):
        text = to_text(new, source, target)
        try:
            _try(text, target.name)
            return text
        except ConfigError as error:
            message = str(error)
            bad = [name for name in new.settings if f"`{name}`" in message or f"`{name}=" in message]
            if not bad:
                raise
            for name in bad:
                new.drop(name, message.rstrip("."))
    raise AssertionError("each round drops a setting")


def _try(text: str, name: str) -> None:
    """Raise what composing the file raises; models and data are not looked for."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run_cfg" / name
        try:
            path.parent.mkdir()
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise not_written(path, error) from None
        try:
            config = resolve(compose([str(path)]))
            check_bounds(config)
            check_trainer(config)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(path), name)) from None


def not_written(path: Path, error: OSError) -> ConfigError:
    """Return the error for a file that could not be written."""
    return ConfigError(f"{path} cannot be written: {(error.strerror or 'an error').lower()}.")


def to_text(new: Migrated, source: Path, target: Path) -> str:
    """Return the run file, with its command, what differs and what was dropped in comments."""
    lines = [f"# {command(new, target)}"]
    lines += wrapped(
        f"The run file {source} of SakanaAI/RLT, written by `python -m rlt.migrate`. What is not here is as "
        f"in our {new.stage}.yaml, recipe released; `python -m rlt.differences` lists where that is not the "
        "original's.",
        "# ",
    )
    if not_in_checkout(new):
        lines += wrapped(
            f"The teacher's prompt is in our own words. For the released one: git clone {REPOSITORY} DIR && "
            f"git -C DIR checkout {COMMIT}, and layout.teacher_prompt=original:DIR.",
            "# ",
        )
    for title, texts in parts(new):
        lines += ["#", f"# {title[0].upper()}{title[1:]}:"]
        lines += [line for text in texts for line in wrapped(text, "#   ")]
    base = yaml.safe_load((CONFIG_DIR / "run_cfg" / f"{new.stage}.yaml").read_text(encoding="utf-8"))
    lines += ["", "defaults:", *(f"  - {_yaml(entry).strip('{}')}" for entry in base.pop("defaults")), ""]
    own = {name: (value, "") for name, value in leaves(base)}
    return "\n".join([*lines, *_body({"stage": (new.stage, "")} | own | new.settings)]) + "\n"


def parts(new: Migrated) -> Iterator[tuple[str, list[str]]]:
    """Yield the notes on a migrated file: a title, and lines of the form KEYS: reason."""
    for title, reasons in (
        ("not the same here", new.differs),
        ("dropped", new.dropped),
        ("to know", new.notes),
    ):
        keys: dict[str, list[str]] = {}
        for key, why in reasons.items():
            keys.setdefault(why, []).append(key)
        if reasons:
            yield title, [f"{', '.join(names)}: {why}" for why, names in keys.items()]


def command(new: Migrated, target: Path) -> str:
    """Return the command that runs the file."""
    script = "./launch_with_server.sh 4 4" if new.stage == "teacher_rl" else "./launch.sh"
    return f"{script} {shlex.quote(str(target))}"


def wrapped(text: str, prefix: str, width: int = WIDTH) -> list[str]:
    """Return a text in lines; entries of a list are indented from their second line on."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=prefix,
        subsequent_indent=prefix if prefix == "# " else f"{prefix}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _body(settings: dict[str, tuple[Any, str]]) -> Iterator[str]:
    """Yield the lines of the settings: those of the root first, then sections."""
    tree: dict[str, Any] = {}
    for name, value in settings.items():
        *sections, leaf = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = value
    plain = {key: value for key, value in tree.items() if isinstance(value, tuple)}
    yield from _lines(plain | {key: value for key, value in tree.items() if key not in plain})


def _lines(tree: dict[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _lines(value, f"{indent}  ")
            continue
        setting, comment = value
        yield f"{indent}{key}: {_yaml(setting)}{f' # {comment}' if comment else ''}"


def _yaml(value: Any) -> str:
    """Return a value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
