"""Names of settings in earlier versions: understood on command lines, in files, in saved configurations."""

import logging

import pytest

from rlt.config import old_words
from rlt.config.compose import compose
from rlt.config.explain import explain
from rlt.config.overrides import CONFIG_DIR
from rlt.config.renames import MOVED, MOVED_IN_STAGES
from rlt.config.save import load_config
from rlt.config.schema import PipelineSettings
from rlt.config.stages import STAGES
from rlt.config.tree import get, rows
from rlt.errors import ConfigError
from rlt.migrate.__main__ import main as migrate
from rlt.pipeline.steps import read_steps

SFT = ["student_sft", "model_name_or_path=m", "dataset_id_or_path=d"]
WORDS = {
    "data.eval_path": ("evaluation.path", "rows.jsonl"),
    "data.eval_split": ("evaluation.split", "test_2"),
    "data.eval_subset.n": ("evaluation.subset.n", 5),
    "trainer.eval_steps": ("evaluation.steps", 7),
    "trainer.per_device_eval_batch_size": ("evaluation.per_device_batch_size", 3),
    "evaluate.during_training.every_steps": ("evaluation.benchmarks.steps", 11),
    "evaluate.during_training.max_tokens": ("evaluation.benchmarks.max_tokens", 99),
    "evaluate.tasks": ("evaluation.benchmarks.tasks", ["gsm8k"]),
}
"""An old name -> today's, and a value."""
TYPED = [f"{name}={str(value).replace(chr(39), '')}" for name, (_, value) in WORDS.items()]


def nested(names: dict) -> dict:
    """Return nested settings from dotted names."""
    tree: dict = {}
    for name, value in names.items():
        *sections, leaf = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = value
    return tree


@pytest.fixture
def said(caplog):
    """Return a function that gives what was said of old names, each once in a process."""
    old_words.tell.cache_clear()
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file of settings into a group."""

    def write(group: str, content: dict, *, stem: str = "mine") -> str:
        import yaml

        path = tmp_path / group / f"{stem}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return str(path)

    return write


def test_the_tables_hold_together():
    assert not {*MOVED, *MOVED.values()} - {*MOVED, *rows()}
    assert not MOVED.keys() & rows().keys()
    for old, new in MOVED_IN_STAGES.items():
        assert not [n for n, stage in STAGES.items() if stage.reads(old) and stage.reads(new)]
    assert {old for old in MOVED if any(name.startswith(old) for name in WORDS)} == MOVED.keys()


def expected(config, said, where: str) -> None:
    """Check that every setting has its value, and that one sentence names each old name and today's."""
    for new, value in WORDS.values():
        assert get(config, new) == value, new
    for old, (new, _) in WORDS.items():
        assert f"`{old}` {where} is `{new}` now; the old name still works." in said()
    assert len(said()) == len(WORDS)


def test_on_a_command_line(said):
    config = compose([*SFT, *TYPED])
    expected(config, said, "on the command line")
    compose([*SFT, *TYPED])
    assert len(said()) == len(WORDS)
    assert config == compose([*SFT, *(f"{new}={str(v).replace(chr(39), '')}" for new, v in WORDS.values())])


def test_in_a_run_file(said, write):
    content = {"defaults": ["student_sft", "_self_"]} | nested({old: v for old, (_, v) in WORDS.items()})
    path = write("run_cfg", content)
    expected(compose([path, *SFT[1:]]), said, f"in {path}")


def test_in_a_group_file_of_the_users(write):
    content = nested({old: v for old, (_, v) in WORDS.items() if old not in MOVED_IN_STAGES})
    folder = write("eval_cfg", content).rpartition("/eval_cfg")[0]
    config = compose([f"--config-dir={folder}", *SFT, "eval_cfg=mine"])
    for old, (new, value) in WORDS.items():
        assert old in MOVED_IN_STAGES or get(config, new) == value


def test_what_is_nearer_to_the_user_wins_under_either_name(write):
    old = write("run_cfg", {"defaults": ["student_sft", "_self_"], "data": {"eval_path": "a"}})
    assert compose([old, *SFT[1:], "evaluation.path=b"]).evaluation.path == "b"
    new = write("run_cfg", {"defaults": ["student_sft", "_self_"], "evaluation": {"path": "a"}}, stem="new")
    assert compose([new, *SFT[1:], "data.eval_path=b"]).evaluation.path == "b"
    both = {"defaults": ["student_sft", "_self_"], "data": {"eval_path": "a"}, "evaluation": {"path": "b"}}
    assert compose([write("run_cfg", both), *SFT[1:]]).evaluation.path == "b"


def test_references_and_text_that_is_none(write):
    content = {"defaults": ["student_sft", "_self_"], "output_dir": "runs/${data.eval_path}"}
    content |= {"data": {"eval_path": "held"}, "layout": {"student_prompt": r"a \${data.eval_split} b"}}
    config = compose([write("run_cfg", content), *SFT[1:], "results_dir=x/${trainer.eval_steps}"])
    assert (config.output_dir, config.results_dir) == ("runs/held", "x/0")
    assert config.layout.student_prompt == "a ${data.eval_split} b"
    typed = compose([*SFT, "layout.student_prompt=${data.eval_path}"])
    assert typed.layout.student_prompt == "${data.eval_path}"


def test_tasks_are_those_of_the_stage(said):
    assert compose(["evaluate", "model_name_or_path=m", "evaluate.tasks=[gsm8k]"]).evaluate.tasks == ["gsm8k"]
    assert said() == []
    with pytest.raises(ConfigError, match=r"`evaluation.benchmarks.tasks` .* has no effect in evaluate"):
        compose(["evaluate", "model_name_or_path=m", "evaluation.benchmarks.tasks=[gsm8k]"])
    with pytest.raises(ConfigError, match=r"`evaluation.benchmarks.tasks` .* with evaluation.benchmarks.st"):
        compose([*SFT, "evaluate.tasks=[gsm8k]"])


def test_a_preset_that_is_no_more(said, write):
    given = ["evaluation.path=rows.jsonl"]
    new = compose([*SFT, *given, "evaluation.steps=25", "evaluation.subset.n=64"])
    assert compose([*SFT, *given, "eval_cfg=held_out"]) == new
    defaults = ["student_sft", {"override /eval_cfg@_global_": "held_out"}, "_self_"]
    path = write("run_cfg", {"defaults": defaults})
    assert compose([path, *SFT[1:], *given]) == new
    ways = "evaluation.steps=25 evaluation.subset.n=64 evaluation.subset.seed=0` now"
    assert [text.partition(" is `")[2][: len(ways)] for text in said()] == [ways, ways]


def test_a_saved_configuration_of_an_earlier_version(write):
    saved = {"stage": "student_sft"} | nested({old: value for old, (_, value) in WORDS.items()})
    saved["layout"] = {"student_prompt": r"\${data.eval_path}"}
    config = load_config(write("run", saved))
    assert [get(config, new) for new, _ in WORDS.values()] == [value for _, value in WORDS.values()]
    assert config.layout.student_prompt == "${data.eval_path}"
    # evaluate.tasks was kept with the defaults of stages that ask nothing, too
    config = load_config(write("run", {"stage": "evaluate", "evaluate": {"tasks": ["math500"]}}))
    assert (config.evaluate.tasks, config.evaluation.benchmarks.tasks[0]) == (["math500"], "aime24")


def test_in_the_steps_of_a_pipeline():
    every = {"evaluate": {"tasks": ["gsm8k"], "during_training": {"every_steps": 5}}}
    steps = {"student_sft": {"data": {"eval_path": "a", "eval_subset": {"n": 3}}}, "evaluate": None}
    sft, evaluate = read_steps(PipelineSettings(steps=steps, every=every), "out")
    assert sft.settings == {
        "output_dir": "out/student_sft",
        "evaluation.path": "a",
        "evaluation.subset.n": 3,
        "evaluation.benchmarks.steps": 5,
        "evaluation.benchmarks.tasks": ["gsm8k"],
    }
    assert evaluate.settings == {"output_dir": "out/evaluate", "evaluate.tasks": ["gsm8k"]}


def test_help_of_an_old_name():
    assert explain("data.eval_path") == explain("evaluation.path")
    assert explain("evaluate.during_training") == explain("evaluation.benchmarks")


def test_a_run_file_is_migrated(said, write, capsys):
    defaults = ["student_sft", {"override /eval_cfg@_global_": "held_out"}, "_self_"]
    content = {"defaults": defaults} | nested({old: value for old, (_, value) in WORDS.items()})
    old, new = write("run_cfg", content), write("run_cfg", {}, stem="new")
    with open(old, encoding="utf-8") as file:
        text = file.read()
    with open(old, "w", encoding="utf-8") as file:
        file.write(f"# How it is run.\n{text}")
    before = compose([old, *SFT[1:]])
    assert len(said()) == len(WORDS) + 1
    assert migrate([old, new.replace("new", "newer")]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} -> {today}\n" in shown for name, (today, _) in WORDS.items())
    with open(new.replace("new", "newer"), encoding="utf-8") as file:
        assert file.read().startswith("# How it is run.\ndefaults:\n")
    assert compose([new.replace("new", "newer"), *SFT[1:]]) == before
    assert len(said()) == len(WORDS) + 1  # nothing is left to say


def test_every_shipped_file_uses_todays_names():
    for path in CONFIG_DIR.glob("*_cfg/*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert not [old for old in ("eval_path", "eval_steps", "during_training") if old in text]
