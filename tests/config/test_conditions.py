"""A typed setting that another one makes void is refused, and each way out that the sentence names works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from rlt.config.compose import compose
from rlt.config.conditions import CONDITIONS, OnlyWith
from rlt.config.overrides import CONFIG_DIR, CommandLine
from rlt.config.schema import BENCHMARKS
from rlt.config.stages import STAGES
from rlt.config.tree import Row, rows
from rlt.config.typed import Void, void_sentence, void_settings
from rlt.errors import ConfigError

SETTINGS = [name for name, row in rows().items() if row.section is None]
GIVEN = ("model_name_or_path=model", "dataset_id_or_path=rows.jsonl", "output_dir=run")
OTHER_VALUES = {
    "data.decontaminate": ("[]", "[math500]"),
    "evaluate.tasks": ("[math500]",),
    "infer.solution": ("null", "42"),
    "generation.servers": ("[]", "[http://h:1]"),
    "generation.api": ("vllm", "openai"),
    "report_to": ("tensorboard", "null"),
    "trainer.lr_scheduler_type": ("constant",),
    "show.rows": ("[]", "[1]"),
    "model_name_or_path": ("model", "a/b"),
    "dataset_id_or_path": ("rows.jsonl", "a/b"),
    "evaluation.path": ("null",),
    "select.max_length": ("null",),
    "reward.students": ("[]",),
    "student_model": ("model", "policy"),
    "monitors.max_length_ratio": ("null",),
    "monitors.min_length_ratio": ("null",),
    "evaluate.paths": ("{}",),
    "reward.answers.servers": ("[]",),
    "answer_log_prob_coeff": ("[0,0]",),
    "kl_penalty_reward_coeff": ("[0,0]",),
    "data.subset.n": ("null",),
    "evaluation.subset.n": ("null",),
}
"""Values to look for one that makes others void; for the rest a table of choices, or off and on."""


def values_of(name: str) -> tuple[str, ...]:
    row = rows()[name]
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    return row.choices or (("true", "false") if row.type is bool else ("0", "1"))


def value_for(row: Row) -> str:
    """Return a value that says something, and not what the default says."""
    if row.name in ("evaluate.paths", "evaluate.revisions", "evaluate.prompts"):
        return "{gsm8k: x}"
    if row.choices:
        return next(choice for choice in row.choices if choice != row.default)
    if row.is_open or row.type_name.startswith("a list"):
        return "[problems]" if row.name == "evaluate.tasks" else "[1]"
    if row.type is bool:
        return "true"
    return "x" if row.is_text else "0.25" if row.type in (float, float | None) else "3"


def cases() -> Iterator[tuple[str, OnlyWith, tuple[str, ...]]]:
    """Yield each stage with each condition that holds in it, and the settings that it is about."""
    concerned = [[name for name in SETTINGS if condition.concerns(name)] for condition in CONDITIONS]
    for stage, record in STAGES.items():
        for condition, of_any_stage in zip(CONDITIONS, concerned, strict=True):
            names = tuple(name for name in of_any_stage if record.reads(name))
            if names and condition.read_by(stage, record):
                yield stage, condition, names


CASES = list(cases())


def command(stage: str, *words: str) -> list[str]:
    given = [w for w in GIVEN if STAGES[stage].reads(w.partition("=")[0])]
    latest = {word.partition("=")[0]: word for word in [f"run_cfg={stage}", *given, *words]}
    return list(latest.values())


def refusal(words: list[str]) -> str | None:
    try:
        compose(words)
    except ConfigError as error:
        return str(error)
    return None


@cache
def plain_tree(stage: str) -> DictConfig:
    return OmegaConf.create(asdict(compose(command(stage))))


def void(stage: str, words: dict[str, str]) -> tuple[DictConfig, list[Void]]:
    """Return what `compose` would find void with words typed on top of a stage's run file.

    The tree is made once for each stage, since composing takes most of a second.
    """
    tree = plain_tree(stage).copy()
    for name, value in words.items():
        OmegaConf.update(tree, name, yaml.safe_load(value), merge=False)
    line = CommandLine((CONFIG_DIR,), tuple(f"{n}={v}" for n, v in words.items()), None)
    return tree, list(void_settings(tree, line))


def voiding(stage: str, condition: OnlyWith, typed: dict[str, str]) -> dict[str, str]:
    """Return words under which the condition makes void all that is typed."""
    others = condition.read_by(stage, STAGES[stage])
    for number in range(max(len(values_of(other)) for other in others)):
        words = {o: values_of(o)[min(number, len(values_of(o)) - 1)] for o in others}
        if {v.name for v in void(stage, words | typed)[1] if v.condition is condition} == typed.keys():
            return words
    pytest.fail(f"{stage}: nothing makes {typed} void by {others}")


@pytest.fixture(autouse=True)
def _files(place: Path) -> None:
    """A model and rows to name."""


def test_every_condition_holds_somewhere_and_names_settings():
    held = {id(condition) for _, condition, _ in CASES}
    assert [condition for condition in CONDITIONS if id(condition) not in held] == []
    for condition in CONDITIONS:
        assert [name for name in (*condition.settings, *condition.others) if name not in rows()] == []
        assert len(condition.instead) == len(condition.others)
        for other, way in zip(condition.others, condition.instead, strict=True):
            assert way.startswith(f"{other}=")


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_void_is_refused_and_each_remedy_works(stage):
    for condition, names in ((c, names) for s, c, names in CASES if s == stage):
        typed = {name: value_for(rows()[name]) for name in names}
        words = voiding(stage, condition, typed)
        tree, found = void(stage, words | typed)
        told = [void_sentence(tree, one) for one in found if one.condition is condition]
        for name, sentence in zip(sorted(names), sorted(told), strict=True):
            assert re.match(
                rf"`{name}` on the command line has no effect with .+: remove it, or take ", sentence
            )
        assert not typed.keys() & {one.name for one in void(stage, words)[1]}  # removed
        for way in told[0].partition("or take ")[2].removesuffix(".").split(" or "):
            other, _, value = remedy(way).partition("=")
            again = void(stage, words | typed | {other: value})[1]
            assert not any(one.condition is condition for one in again), (told, way)


def remedy(way: str) -> str:
    """Return a way out as it is typed, with a name in place of `…`."""
    way = way.removesuffix(", on the Hub").removesuffix(" with all of its names").removesuffix(" with them")
    return way.replace("[…]", f"[{','.join(BENCHMARKS)}]").replace("TASK", "gsm8k")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "run_cfg=teacher_sft model.lora.alpha=64",
            "`model.lora.alpha` on the command line has no effect with model.lora.rank=0: remove it, or take "
            "model.lora.rank=8.",
        ),
        (
            "run_cfg=teacher_rl trainer.num_train_epochs=2",
            "`trainer.num_train_epochs` on the command line has no effect with trainer.max_steps=125: remove "
            "it, or take trainer.max_steps=-1.",
        ),
        (
            "run_cfg=student_sft evaluate.revisions={math500: main}",
            "`evaluate.revisions` on the command line has no effect with data.decontaminate=[] and "
            "evaluation.benchmarks.steps=0: remove it, or take data.decontaminate=[math500] or "
            "evaluation.benchmarks.steps=100.",
        ),
        (
            "run_cfg=teacher_sft data.revision=v2",
            "`data.revision` on the command line has no effect with dataset_id_or_path=rows.jsonl: remove "
            "it, or take dataset_id_or_path=OWNER/NAME, on the Hub.",
        ),
    ],
)
def test_sentences(words, told):
    assert (
        refusal([*words.split(" ", 1), "model_name_or_path=model", "dataset_id_or_path=rows.jsonl"]) == told
    )


def test_what_says_off_may_stand_anywhere():
    off = ["evaluation.path=null", "evaluation.steps=0", "trainer.beta=0", "trainer.ref_sync_steps=0"]
    off += ["reward.answers.servers=[]", "evaluation.at_start=false", "model.lora.dropout=0"]
    assert refusal(command("teacher_rl", "student_model=student", *off)) is None


def test_what_is_switched_off_later_is_no_mistake(place):
    (place / "run_cfg").mkdir()
    mine = place / "run_cfg" / "mine.yaml"
    mine.write_text("defaults: [teacher_sft, _self_]\nmodel: {lora: {rank: 8, alpha: 64}}\n")
    given = ["model_name_or_path=model", "dataset_id_or_path=rows.jsonl"]
    assert refusal([str(mine), *given, "model.lora.rank=0"]) is None
    mine.write_text("defaults: [teacher_sft, _self_]\nmodel: {lora: {rank: 0, alpha: 64}}\n")
    assert (refusal([str(mine), *given]) or "").startswith(f"`model.lora.alpha` in {mine} has no effect with")
    mine.write_text("defaults: [teacher_sft, _self_]\nmodel: {lora: {rank: 0, alpha: 32}}\n")
    assert refusal([str(mine), *given]) is None  # what it would be anyway


def test_a_launcher_may_make_void_what_was_typed():
    typed = command("teacher_sft", "trainer.num_train_epochs=3", "trainer.max_steps=-1")
    assert compose([*typed, "trainer.max_steps=2"], launched=True).trainer.num_train_epochs == 3


def test_shipped_run_files_hold_nothing_void_but_for_engines():
    """Those of tiny models also hold what counts where their engine is exchanged."""
    text = "".join(path.read_text() for path in (CONFIG_DIR / "run_cfg").glob("*.yaml"))
    assert text.count("backend: transformers # done before a server has started") == 3
