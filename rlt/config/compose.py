"""From the words of a command line to a typed `Config`, through Hydra and the schema.

Every failure is one ConfigError sentence. Rules between settings are checked by `validate.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NoReturn, cast, get_args

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import GrammarParseError, OmegaConfBaseException
from yaml import YAMLError

from rlt.config.overrides import (
    CONFIG_DIR,
    GLOBAL,
    CommandLine,
    groups,
    read,
    run_file_names,
    unknown_option,
    unknown_run_file,
)
from rlt.config.renames import OLD_PRESETS, SAME_FILES
from rlt.config.schema import RECIPES, Config
from rlt.config.settings_source import address
from rlt.config.stages import NOTHING, STAGES
from rlt.config.tree import Row, find, type_words
from rlt.config.typed import refuse_unread, refuse_void, take_moved, void_settings
from rlt.config.unknown import unknown_key
from rlt.config.yaml_files import check_yaml
from rlt.errors import ConfigError

_MAIN = "main"
"""The name under which Hydra knows cfgs/train.yaml, so that a user's own folder may come first."""
_NO_FILES = str(Path(__file__).parent)
"""Hydra must be given a folder that it reads by itself; ours are read by settings_source.py."""
_MEANT = " (write `\\${` where the text itself is meant)"


def compose(overrides: Sequence[str], *, launched: bool = False) -> Config:
    """Return the configuration behind a command line: `run_cfg=NAME KEY=VALUE … [--config-dir DIR]`.

    `launched` says that a program has composed what the user typed, and then added words of its own: those
    may make void what the user typed.
    """
    line = read(overrides)
    return cast(Config, _tree(line, lambda tree: None if launched else refuse_void(tree, line)))


def void_in(overrides: Sequence[str]) -> set[str]:
    """Return the settings of a command line that others make void."""
    line = read(overrides)
    found: set[str] = set()
    _tree(line, lambda tree: found.update(void.name for void in void_settings(tree, line)))
    return found


def _tree(line: CommandLine, look: Callable[[DictConfig], None]) -> Any:
    """Return the configuration of a command line, after a look at its tree."""
    if line.run_file:
        check_yaml("run_cfg", line.run_file, line.config_dirs)
    try:
        tree, chosen = _compose(line)
        if tree.recipe != chosen and tree.recipe in RECIPES:
            # A file named the recipe as a value; its preset must be the one that is loaded.
            typed = [word for word in line.overrides if not word.startswith("recipe=")]
            tree, _ = _compose(
                CommandLine(line.config_dirs, (*typed, f"recipe={tree.recipe}"), line.run_file)
            )
        _refuse_missing(tree, line)
        take_moved(tree, line)
        refuse_unread(tree, line)
        look(tree)
        return OmegaConf.to_object(tree)
    except MissingConfigException as error:
        _explain_missing_file(error, line)
    except (HydraException, OmegaConfBaseException) as error:
        _explain(error, line)
    except YAMLError as error:  # what the check of the files does not see, such as a key that occurs twice
        raise ConfigError(f"a configuration file is not valid YAML: {_one_line(error)}.") from None


def _compose(line: CommandLine) -> tuple[DictConfig, str]:
    """Return the composed tree under the schema, and the recipe whose preset it holds.

    What the files come to is put together once for all command lines that choose the same ones: a launcher
    composes several times, and Hydra takes seven times as long for the files as for the words.
    """
    if not (CONFIG_DIR / "train.yaml").is_file():
        raise ConfigError(f"{CONFIG_DIR}/train.yaml does not exist: run from a checkout of the project.")
    words = OverridesParser.create().parse_overrides(list(line.overrides))
    chosen = tuple(word.input_line or "" for word in words if _chooses_file(word))
    files, recipe = _compose_files(line.config_dirs, chosen, _versions(line.config_dirs))
    tree = deepcopy(files)
    # What `hydra.compose` does last, in a method of its own; Hydra has no public name for it.
    ConfigLoaderImpl._apply_overrides_to_config([word for word in words if not _chooses_file(word)], tree)  # pyright: ignore[reportPrivateUsage]
    return tree, recipe


def _chooses_file(word: Override) -> bool:
    return word.package is not None or word.key_or_group == "recipe"


def _versions(dirs: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    """Return the files of some folders, with what changes when one is written again."""
    found = [(str(path), path.stat()) for folder in dirs for path in sorted(folder.glob("*/*.yaml"))]
    return tuple((name, state.st_mtime_ns, state.st_size) for name, state in found)


@lru_cache(maxsize=64)
def _compose_files(dirs: Sequence[Path], chosen: Sequence[str], _: Any) -> tuple[DictConfig, str]:
    """Return the tree of the chosen files without any typed value, and the recipe whose preset it holds.

    The last argument, the files' versions, is there for the cache. Callers copy the tree.
    """
    _fill_store(CONFIG_DIR)
    places = ",".join(f"'{address(folder)}'" for folder in dirs)
    words = [*chosen, f"hydra.searchpath=[{places}]"]
    with _old_names(dirs), initialize_config_dir(config_dir=_NO_FILES, version_base="1.3"):
        tree = hydra_compose(_MAIN, words, return_hydra_config=True)
    recipe = tree.hydra.runtime.choices.recipe
    with open_dict(tree):
        del tree["hydra"]
    return tree, recipe


@cache
def _fill_store(folder: Path) -> None:
    """Tell Hydra of the schema, train.yaml and the recipes, once: a fifth of the time of composing."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(name=_MAIN, node=OmegaConf.load(folder / "train.yaml"))
    for recipe in RECIPES:
        store.store(group="recipe", name=recipe, node={"recipe": recipe}, package="_global_")


@contextmanager
def _old_names(dirs: Sequence[Path]) -> Iterator[None]:
    """Let group files be named as the original release and earlier versions do.

    A file of that name in one of the folders is left alone: Hydra refuses it beside an entry of its store.
    """
    store = ConfigStore.instance()
    known = groups(dirs)
    added = [
        (group, old, new)
        for group, names in SAME_FILES.items()
        for old, new in names.items()
        if old not in known.get(group, [])
    ]
    for group, old, new in added:
        store.store(group=group, name=old, node={"defaults": [new]})
    presets = [
        (group, name, settings)
        for group, names in OLD_PRESETS.items()
        for name, settings in names.items()
        if name not in known.get(group, [])
    ]
    for group, name, settings in presets:
        store.store(group=group, name=name, node=settings)
    try:
        yield
    finally:
        for group, old, _ in (*added, *presets):
            store.repo[group].pop(f"{old}.yaml")


def _refuse_missing(tree: DictConfig, line: CommandLine) -> None:
    """Raise ConfigError for a setting without a value, but fill in those that the stage does not read."""
    missing = OmegaConf.missing_keys(tree)
    if "stage" in missing:
        if line.run_file:
            raise ConfigError(
                f"{line.run_file}.yaml sets no `stage`, nor does a run file that it builds on: write `stage: "
                f"NAME` with one of {', '.join(STAGES)}, or begin it with `defaults: [RUN_FILE, _self_]`."
            )
        raise ConfigError(
            f"no run file is given: type run_cfg=NAME with one of {run_file_names(line.config_dirs)}, or "
            "another (python train.py --help lists all)."
        )
    if tree.stage not in STAGES:
        raise ConfigError(
            f"`stage` must be one of {', '.join(STAGES)}, got {tree.stage!r} (a run file sets it)."
        )
    stage = STAGES[tree.stage]
    for name in sorted(missing):
        if not stage.reads(name):
            tree[name] = NOTHING[name]
            continue
        row = find(name)
        raise ConfigError(f"`{name}` has no value: type {name}=VALUE ({row.doc if row else ''}).")


def _explain(error: Exception, line: CommandLine) -> NoReturn:
    """Raise our sentence for what Hydra or OmegaConf refused."""
    text = f"{error} {error.__cause__ or ''}"
    full_key = re.search(r"full_key: (\S+)", text)
    key = full_key[1].split("[")[0] if full_key else ""
    if missing := re.search(r"Interpolation key '([^']*)' not found", text):
        # It may be in a setting that this one refers to.
        key = next((w.partition("=")[0] for w in line.overrides if f"${{{missing[1]}}}" in w), key)
    where = _place(key, text, line)
    if re.search(r"Key '.*' (is )?not in", text):
        raise unknown_key(key, where) from None
    if group := re.search(r"Could not override '([^']+)'", text):
        name = group[1].rsplit("/", 1)[-1].split("@")[0]
        known = name in groups(line.config_dirs)
        hint = f"write /{name}{GLOBAL}" if known else "cfgs/train.yaml lists the groups"
        raise ConfigError(f"`override /{group[1]}` {where} names no group: {hint}.") from None
    if removed := re.search(r"Could not delete from config\. '?([\w.]+)", text):
        raise ConfigError(
            f"`~{removed[1]}` on the command line removes nothing, because no file sets "
            "that key or value: drop this word."
        ) from None
    row = find(key)
    if reason := _bad_reference(error, text, row):
        raise ConfigError(f"`{key}` {where} {reason}.") from None
    if row is None:
        raise ConfigError(f"the configuration cannot be put together: {_one_line(error)}.") from None
    if row.section is not None:
        raise ConfigError(f"`{key}` {where} is a section: set one of its settings, `{key}.NAME`.") from None
    kind = get_args(row.type)[1] if row.is_open and key != row.name else row.type
    value = re.search(r"[Vv]alue:? '?(?!assigned)(.*?)'?(?: of type| could not| is not a valid|\n)", text)
    got = f", got {value[1] or 'nothing'}" if value else ""
    raise ConfigError(f"`{key}` {where} must be {type_words(kind)}{got} ({row.doc}).") from None


def _place(key: str, text: str, line: CommandLine) -> str:
    """Return where the user wrote what was refused, as far as it can be known."""
    if from_file := re.search(r"^In '([^']+)'", text):
        return f"in {_file(from_file[1], line)}"
    typed = (word.lstrip("+~").partition("=")[0] for word in line.overrides)
    if any(key == word or key.startswith(f"{word}.") for word in typed):
        return "on the command line"
    return f"in {line.run_file}.yaml or a file that it names" if line.run_file else "on the command line"


def _bad_reference(error: Exception, text: str, row: Row | None) -> str | None:
    """Return what is wrong with a `${NAME}` in a value, if that is what was refused."""
    if isinstance(error, GrammarParseError) or isinstance(error.__cause__, GrammarParseError):
        return f"holds a `${{` without a whole `${{NAME}}`{_MEANT}"
    if missing := re.search(r"Interpolation key '([^']*)' not found", text):
        return f"refers to `${{{missing[1]}}}`, which is not a setting{_MEANT}"
    if variable := re.search(r"Environment variable '([^']*)' not found", text):
        return f"reads the environment variable {variable[1]}, which is not set"
    if "Recursive interpolation" in text:
        return "refers to itself"
    if resolver := re.search(r"Unsupported interpolation type (\S+)", text):
        return (
            f"uses `${{{resolver[1]}:…}}`, which does not exist: write `${{NAME}}` or `${{oc.env:VARIABLE}}`"
        )
    if got := re.search(r"While dereferencing interpolation '(.*?)': Value '(.*?)' of type", text):
        return f"must be {row.type_name if row else 'of another type'}, got {got[2]} from `{got[1]}`"
    return None


def _explain_missing_file(error: MissingConfigException, line: CommandLine) -> NoReturn:
    missing = (error.missing_cfg_file or str(error)).removesuffix(".yaml")
    group, _, name = missing.rpartition("/")
    if group == "run_cfg":
        raise unknown_run_file(name, line.config_dirs) from None
    known = groups(line.config_dirs)
    if group in known:
        raise unknown_option(group, name, known[group]) from None
    if (inner := group.rpartition("/")[2]) in known:
        hint = f"write `override /{inner}{GLOBAL}: {name}`"
        raise ConfigError(f"`{inner}: {name}` in {line.run_file}.yaml names no file: {hint}.") from None
    raise ConfigError(f"{missing}.yaml does not exist in {line.config_dirs[0]}.") from None


def _file(name: str, line: CommandLine) -> str:
    """Return the path of a configuration file that Hydra names without folder and suffix."""
    stem = "train" if name == _MAIN else name
    found = (folder / f"{stem}.yaml" for folder in line.config_dirs)
    return str(next((path for path in found if path.is_file()), f"{stem}.yaml"))


def _one_line(error: Any) -> str:
    return re.sub(r"\s+", " ", str(error)).strip().rstrip(".")
