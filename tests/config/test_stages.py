"""The table of stages: what is typed is read by the stage or refused, for every stage and every setting."""

import re
from pathlib import Path

import pytest
import yaml

from rlt.config.compose import compose
from rlt.config.explain import explain
from rlt.config.old_words import moved_in
from rlt.config.save import load_config, save_config, to_yaml
from rlt.config.schema import Config
from rlt.config.stages import NOTHING, STAGES
from rlt.config.tree import get, rows
from rlt.config.validate import CHECKS
from rlt.errors import ConfigError

SETTINGS = [name for name, row in rows().items() if row.section is None]
RUN_FILES = sorted((Path(__file__).parents[2] / "cfgs" / "run_cfg").glob("*.yaml"))
NEEDED = ("model_name_or_path=model", "dataset_id_or_path=rows.jsonl", "output_dir=run")


def word(name: str, stage: str) -> str:
    """Return a setting with a value of its type, as one types it."""
    row = rows()[name]
    if name == "stage":
        return f"stage={stage}"
    if row.type_name.startswith("a list") or row.is_open:
        return f"{name}={'{}' if row.is_open else '[]'}"
    if row.choices or row.is_text:
        return f"{name}={row.choices[0] if row.choices else 'x'}"
    return f"{name}={'true' if row.type is bool else 1}"


def files(stage: str) -> list[str]:
    """Return the run file of a stage, with what it cannot be composed without."""
    return [f"run_cfg={stage}", *(w for w in NEEDED if STAGES[stage].reads(w.partition("=")[0]))]


def refusal(words: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(words)
    return str(caught.value)


def unread(stage: str) -> list[str]:
    """Return what is refused; a name of an earlier version is taken for that of today (old_words.py)."""
    old = moved_in(STAGES[stage])
    return [name for name in SETTINGS if not STAGES[stage].reads(name) and name not in old]


def test_every_setting_is_read_by_a_stage():
    unread = [name for name in SETTINGS if not any(stage.reads(name) for stage in STAGES.values())]
    assert not unread, (
        f"{unread}: read by no stage, so nobody may type them. Add each to the group in rlt/config/stages.py "
        "whose settings are read together (or to a stage's own `settings`), in one line"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_the_table_names_settings_and_rules_that_exist(stage):
    record = STAGES[stage]
    names = [*record.settings, *(name for name, _ in record.needs)]
    assert [name for name in names if name not in rows()] == []
    assert [name for name in record.checks if name not in CHECKS] == []
    assert all(record.reads(name) for name, _ in record.needs)


def test_every_rule_belongs_to_a_stage():
    assert set(CHECKS) == {name for stage in STAGES.values() for name in stage.checks}


@pytest.mark.parametrize("stage", STAGES)
def test_all_that_a_stage_reads_may_be_typed_at_once(stage):
    """What one value makes void under another (conditions.py) is for test_conditions.py."""
    read = [word(name, stage) for name in SETTINGS if STAGES[stage].reads(name) and name not in NOTHING]
    assert compose([*files(stage), *read], launched=True).stage == stage


@pytest.mark.parametrize("stage", STAGES)
def test_all_else_is_refused_in_one_sentence(stage):
    told = refusal([*files(stage), *(word(name, stage) for name in unread(stage))])
    what, _, remedy = told.partition(" on the command line have no effect in ")
    assert re.findall(r"`([\w.]+)`", what) == unread(stage)
    assert remedy.startswith(f"{stage}: ")
    assert remedy.endswith(".")
    assert "\n" not in told


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_file_is_refused_as_a_command_line_is(stage, place):
    content: dict = {"defaults": [stage, "_self_"]}
    for name in unread(stage):
        *sections, leaf = name.split(".")
        inner = content
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[leaf] = yaml.safe_load(word(name, stage).partition("=")[2])
    path = place / "run_cfg" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(content))
    told = refusal([str(path), *files(stage)[1:]])
    what, _, rest = told.partition(f" in {path} have no effect in {stage}: ")
    assert sorted(re.findall(r"`([\w.]+)`", what)) == sorted(unread(stage))
    assert rest


def test_a_sentence_says_where_each_was_typed(place):
    (place / "run_cfg").mkdir()
    mine, base = place / "run_cfg" / "mine.yaml", place / "run_cfg" / "base.yaml"
    base.write_text("defaults: [student_sft, _self_]\ntrainer: {beta: 0.1, weight_decay: 0.1}\n")
    mine.write_text("defaults: [base, _self_]\nreward: {kl_estimator: k3}\n")
    assert refusal([str(mine), "dataset_id_or_path=a/b", "num_generations=8"]) == (
        f"`num_generations` on the command line and `reward.kl_estimator` in {mine} and `trainer.beta` in "
        f"{base} have no effect in student_sft: remove them."
    )
    assert refusal([str(base), "trainer.beta=1", "dataset_id_or_path=a/b"]) == (
        "`trainer.beta` on the command line has no effect in student_sft: remove it (read by teacher_rl, "
        "student_rl and student_opd)."
    )


def test_values_and_words_around_a_setting_make_no_difference():
    sft = ["run_cfg=teacher_sft"]
    default = rows()["trainer.beta"].default
    for typed in (f"trainer.beta={default}", f"++trainer.beta={default}", "trainer={beta: 1}"):
        assert refusal([*sft, typed]).startswith("`trainer.beta` on the command line has no effect")
    assert refusal([*sft, "reward={length: {weight: 1}, dtype: float32}"]).startswith(
        "`reward.length.weight` and `reward.dtype` on the command line have no effect in teacher_sft"
    )
    assert refusal(["run_cfg=make_countdown", "trainer_args.tf32=true"]).startswith("`trainer_args.tf32` on")


def test_groups_are_shared_so_what_they_set_for_others_is_no_mistake(place):
    config = compose(["run_cfg=teacher_rl", "eval_cfg=skythought", "reward_cfg=qwen2_5_7b_instruct"])
    assert config.evaluate.extraction == "skythought"
    (place / "data_cfg").mkdir()
    (place / "data_cfg" / "ours.yaml").write_text("layout: {student_prompt: Think.}\n")
    compose([f"--config-dir={place}", "run_cfg=teacher_sft", "data_cfg=ours", "dataset_id_or_path=a/b"])


def test_what_another_setting_refers_to_counts(place):
    config = compose(["run_cfg=make_countdown", "seed=7", "output_dir=${results_dir}/of_${seed}"])
    assert config.output_dir == "results/of_7"
    assert refusal(["run_cfg=make_countdown", "seed=7"]).startswith("`seed` on the command line has no")
    (place / "run_cfg").mkdir()
    path = place / "run_cfg" / "mine.yaml"
    path.write_text("defaults:\n  - evaluate\n  - override /trainer_cfg@_global_: teacher_rl_${recipe}\n")
    compose([str(path), "recipe=modern"])


def test_a_word_for_nothing_may_stand_where_nothing_is_read():
    nothing = ["model_name_or_path=null", "dataset_id_or_path=none"]
    config = compose(["run_cfg=make_countdown", *nothing])
    assert config == compose(["run_cfg=make_countdown"])
    assert refusal(["run_cfg=make_countdown", "dataset_id_or_path=a/b"]).startswith("`dataset_id_or_path` on")
    assert compose(["run_cfg=infer", "model_name_or_path=m"]).output_dir == NOTHING["output_dir"]


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.stem)
def test_shipped_run_files_set_what_their_stages_read(path):
    given = [w for w in NEEDED[:2] if w.partition("=")[0] in missing(path)]
    compose([str(path), *given])


def missing(path: Path) -> str:
    """Return the setting that a run file leaves to the command line, as the sentence about it says."""
    try:
        compose([str(path)])
    except ConfigError as error:
        return str(error).partition(" has no value")[0]
    return ""


@pytest.mark.parametrize("stage", STAGES)
def test_a_saved_configuration_holds_what_the_stage_reads_and_nothing_else(stage, tmp_path):
    config = compose(files(stage))
    save_config(config, tmp_path / "config.yaml")
    assert sorted(leaves(yaml.safe_load((tmp_path / "config.yaml").read_text()))) == sorted(
        name for name in SETTINGS if STAGES[stage].reads(name)
    )
    loaded = load_config(tmp_path / "config.yaml")
    assert all(get(loaded, n) == get(config, n) for n in SETTINGS if STAGES[stage].reads(n) or n in NOTHING)


def leaves(values: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        row = rows()[f"{prefix}{key}"]
        found += leaves(value, f"{row.name}.") if row.section else [row.name]
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_the_help_of_a_stage_shows_its_settings_alone(stage):
    page = explain(f"run_cfg={stage}")
    shown = [line.split()[0] for line in page.splitlines() if re.match(r"  \S", line)]
    assert shown == [name for name in SETTINGS if STAGES[stage].reads(name)]
    assert STAGES[stage].about in page
    assert page.splitlines()[0] in explain(stage)


def test_a_run_file_is_explained_by_its_stage():
    path = str(RUN_FILES[0].with_name("quickstart_evaluate.yaml"))
    assert explain(path) == explain("run_cfg=quickstart_evaluate") == explain("run_cfg=evaluate")
    with pytest.raises(ConfigError, match="run_cfg=evalute does not exist: did you mean evaluate"):
        explain("run_cfg=evalute")


def test_a_configuration_of_an_earlier_version_is_read(tmp_path):
    """One that held every setting, those of other stages too."""
    config = compose(files("student_sft"))
    whole = yaml.safe_load(to_yaml(config)) | {"reward": {"kl_estimator": "k3"}, "num_generations": 7}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(whole))
    loaded = load_config(tmp_path / "config.yaml")
    assert isinstance(loaded, Config)
    assert (loaded.reward.kl_estimator, loaded.num_generations) == ("k3", 7)
    assert loaded.trainer == config.trainer
