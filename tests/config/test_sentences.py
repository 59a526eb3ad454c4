"""Every setting that a sentence names exists, and in a stage's own module is one that the stage reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from helpers.sources import nodes_of

from rlt.config.overrides import CONFIG_DIR, groups
from rlt.config.stages import STAGES
from rlt.config.tree import rows

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "rlt").rglob("*.py"))
SECTIONS = {name.split(".")[0] for name in rows() if "." in name}
IN_SECTION = re.compile(rf"(?<![\w.\-/\[{{])({'|'.join(sorted(SECTIONS))})(\.[a-z]\w*)+(?![\w(])")
"""`section.name`, but no file, call or attribute of something else."""
TYPED = re.compile(r"(?<![\w.\-{\[/])([a-z][a-z_]+_[a-z_]+|seed|stage|temperature|recipe)=(?![=\s'\"])")
"""`name=value`: what a message shows as a word to type."""
FILE_ENDINGS = {
    "json",
    "jsonl",
    "md",
    "html",
    "py",
    "yaml",
    "csv",
    "parquet",
    "log",
    "png",
    "txt",
    "sh",
    "safetensors",
}


@dataclass(frozen=True)
class Named:
    """A setting that a string names."""

    file: str
    line: int
    name: str
    others: tuple[str, ...] = ()
    """Stages that the same sentence sends the reader to, by `run_cfg=STAGE`."""

    def is_read_by(self, stage: str) -> bool:
        return any(STAGES[one].reads(self.name) for one in (stage, *self.others))


def strings(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    """Yield every text of a module that is no docstring, the parts of an f-string joined."""
    inside = set()
    for node in nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inside.add(id(node.value))  # a docstring
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            yield (
                node.lineno,
                "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values),
            )
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def named_in(path: Path) -> Iterator[Named]:
    """Yield the settings that a module's sentences name; a text without a space is no sentence."""
    place = str(path.relative_to(ROOT))
    for line, text in strings(nodes_of(path)):
        if " " not in text:
            continue
        others = tuple(stage for stage in re.findall(r"run_cfg=(\w+)", text) if stage in STAGES)
        for match in IN_SECTION.finditer(text):
            if match[0].rpartition(".")[2] not in FILE_ENDINGS:
                yield Named(place, line, match[0], others)
        for match in TYPED.finditer(text):
            yield Named(place, line, match[1], others)


NO_SETTINGS = {
    (
        "rlt/rewards/function.py",
        "kl_estimator",
    ): "a field of the function's own specification, for other trainers",
    ("*", "trust_remote_code"): "an argument of transformers",
    ("*", "run_cfg"): "the group of run files",
    ("*", "sample_index"): "a column",
    **{("*", group): "a group of files" for group in groups([CONFIG_DIR])},
}


@cache
def all_named() -> list[Named]:
    """Return what all sentences name, once: reading them takes a second."""
    return [
        named
        for path in FILES
        for named in named_in(path)
        if not {(named.file, named.name), ("*", named.name)} & NO_SETTINGS.keys()
    ]


def exists(name: str) -> bool:
    """Whether a name is a setting, or a free key below one (`reward.students.NAME.model`)."""
    parts = name.split(".")
    above = (".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1))
    is_free_key = any(part in rows() and rows()[part].section is None for part in above)
    return name in rows() or is_free_key


def test_sentences_are_found():
    assert len(all_named()) > 300
    assert {"generation.base_port", "resume_from"} <= {named.name for named in all_named()}


def test_every_setting_that_a_sentence_names_exists():
    wrong = [named for named in all_named() if not exists(named.name)]
    assert wrong == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_what_it_reads(stage):
    own = [named for named in all_named() if named.file == f"rlt/stages/{stage}.py"]
    wrong = [named for named in own if not named.is_read_by(stage)]
    assert wrong == []


@cache
def imported(path: Path) -> set[str]:
    """Return the modules of ours that a module imports anywhere."""
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & MODULES.keys()


MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
SERVERS = "only stages that ask or start such servers come there"
FOR_OTHERS = {
    "rlt/evaluation/protocol.py": "the others only compare their rows with the questions",
    "rlt/data/sources.py": "the dataset of a prompt has no revision",
    "rlt/data/prompts.py": "each prompt names its own setting",
    "rlt/data/model_layout.py": "make_countdown reads no model",
    "rlt/data/own_layout.py": "make_countdown reads no model",
    "rlt/data/owners.py": "make_countdown reads no model",
    "rlt/data/load.py": "data.missing_trace is for rows that need a trace, those of teacher_sft",
    "rlt/data/traces.py": "score.fallback_index is handed in by the stages that read it",
    "rlt/formats/chat.py": "each layout names its own prompt",
    "rlt/formats/layout.py": "each layout names its own prompt; prompts of rows are the student's",
    "rlt/formats/turn_end.py": "the others take the end that a model was taught, and name none",
    "rlt/models/attention.py": "only stages that load a model come there",
    "rlt/models/frozen.py": "only stages that place a frozen model come there",
    "rlt/models/ids.py": "make_countdown reads no model",
    "rlt/models/scaled_head.py": "a student on a server is one of a likelihood reward",
    "rlt/models/load.py": "make_countdown loads nothing, and the others no weights",
    "rlt/reporting/card.py": "a student that moves is one of RL",
    "rlt/reporting/outcome.py": "only trainings have this report",
    "rlt/reporting/trackers.py": "only trainings report",
    "rlt/stages/benchmarks.py": "only students are asked benchmarks",
    "rlt/stages/common.py": "only trainings resume",
    "rlt/trainers/beside.py": "only trainings resume",
    "rlt/stages/pause.py": "only trainings pause",
    "rlt/stages/turn_ends.py": "RL only checks the end of a turn there",
    "rlt/trainers/lora.py": "only trainings add adapters; the others read a trained model's",
    "rlt/trainers/own_loss.py": "only trainings come there",
    "rlt/trainers/drift_log.py": "student_rl has no limit that ends a run",
    **{f"rlt/generation/{name}.py": SERVERS for name in ("log_remedies", "nccl_group", "nccl_sync")},
    **{f"rlt/generation/{name}.py": SERVERS for name in ("names", "openai_pool", "openai_server", "silence")},
    **{f"rlt/generation/{name}.py": SERVERS for name in ("vllm_pool", "vllm_server", "checkpoint_sync")},
    **{f"rlt/generation/{name}.py": SERVERS for name in ("server_checks", "sockets", "completions")},
    "rlt/stages/engine.py": SERVERS,
    "rlt/trainers/finite.py": "only trainings come there; the others know the name of a trainer's type",
}
"""Modules with sentences for some of the stages that import them, each with the reason."""


def test_a_module_names_what_the_stages_that_use_it_read():
    """All of them, or with a reason at least one."""
    readers: dict[str, set[str]] = {}
    for stage in STAGES:
        todo, seen = [f"rlt.stages.{stage}"], set()
        while todo:
            module = todo.pop()
            if module in MODULES and module not in seen:
                seen.add(module)
                todo += imported(MODULES[module])
        for module in seen:
            readers.setdefault(str(MODULES[module].relative_to(ROOT)), set()).add(stage)
    wrong = []
    for named in all_named():
        stages = readers.get(named.file, set()) if not named.file.startswith("rlt/config/") else set()
        reading = {stage for stage in stages if named.is_read_by(stage)}
        if stages - reading and not (reading and named.file in FOR_OTHERS):
            wrong.append((named, sorted(stages - reading)))
    assert wrong == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_check_names_what_a_stage_that_it_belongs_to_reads(stage):
    """A rule that one stage alone has speaks of what that stage reads."""
    from rlt.config.validate import CHECKS

    alone = [check for check in STAGES[stage].checks if sum(check in s.checks for s in STAGES.values()) == 1]
    own = {CHECKS[check].__module__.replace(".", "/") + ".py" for check in alone} - {"rlt/config/validate.py"}
    shared = {CHECKS[c].__module__.replace(".", "/") + ".py" for c in CHECKS if c not in alone}
    found = [named for named in all_named() if named.file in own - shared]
    wrong = [n for n in found if not n.is_read_by(stage)]
    assert wrong == []
