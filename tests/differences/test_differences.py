"""The list of what differs from the original: complete, current, and with switches that can be typed."""

import shutil
from pathlib import Path

import pytest
import yaml

from rlt.config.compose import compose
from rlt.config.original.groups import DEFAULTS, GROUPS, ROOT, RUN_FILES, released
from rlt.config.original.run_file import compose_run_file
from rlt.config.original.translate import meaning_of
from rlt.config.overrides import CONFIG_DIR
from rlt.config.typed import flat
from rlt.differences.__main__ import main
from rlt.differences.compare import differences, preset, value_of
from rlt.differences.records import KINDS, NO_SWITCH, REASONS, RENAMED, THERE
from rlt.differences.text import markdown
from rlt.surroundings.leaving import run_command

ROOT_FOLDER = Path(__file__).parents[2]
STAGES = {"teacher_sft": "teacher_sft", "teacher_rl": "teacher_rlt"}


@pytest.fixture(scope="module")
def rows():
    return differences()


def test_the_page_in_the_docs_is_current(rows):
    page = (ROOT_FOLDER / "docs" / "differences.md").read_text(encoding="utf-8")
    assert page == markdown(rows), "write it with: python -m rlt.differences --markdown > docs/differences.md"


def test_a_row_says_what_is_there_and_here(rows):
    by_name = {(row.name, row.stages): row for row in rows}
    prompt = by_name["the teacher's system prompt", ("teacher_sft", "teacher_rl")]
    assert (prompt.kind, prompt.switch) == ("deliberate", "layout.teacher_prompt=original:DIR")
    renamed = by_name["warmup_ratio", ("teacher_sft",)]
    assert (renamed.kind, renamed.there, renamed.here) == ("renamed", "0.05", "trainer.warmup_steps=0.05")
    fused = by_name["trainer_args.optim", ("teacher_sft", "teacher_rl")]
    assert (fused.there, fused.here, fused.switch) == (
        "adamw_torch",
        "adamw_torch_fused",
        "trainer_args.optim=adamw_torch",
    )
    assert {row.kind for row in rows} <= set(KINDS)


@pytest.mark.parametrize(("stage", "run_file"), STAGES.items())
def test_every_number_of_a_released_preset_is_compared(stage, run_file):
    """Nothing that a preset pins is without a value of the original beside it."""
    values = released(run_file)
    compared = {name for key in values for name in meaning_of(key, values, stage=stage).settings}
    path = CONFIG_DIR / "trainer_cfg" / f"{stage}_released.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    pinned = {*flat(content), *(f"trainer_args.{name}" for name in content["trainer_args"])}
    assert pinned - compared - THERE[stage].keys() - {"recipe", "trainer_args"} == set()


def test_every_reason_is_of_a_setting_that_is_compared():
    compared = {name for known in THERE.values() for name in known}
    for stage, run_file in STAGES.items():
        values = released(run_file)
        compared |= {name for key in values for name in meaning_of(key, values, stage=stage).settings}
    assert REASONS.keys() <= compared


def test_every_switch_can_be_typed_and_gives_the_originals_value(rows):
    presets = {stage: preset(stage) for stage in STAGES}
    for row in rows:
        if row.kind == RENAMED or row.switch == NO_SWITCH or not row.has_counterpart:
            continue
        word = row.switch.partition(", ")[0]
        for stage in row.stages:
            config = compose([f"run_cfg={stage}", word])
            if row.name == word.partition("=")[0] and row.name != "output_dir":
                assert value_of(config, row.name) != value_of(presets[stage], row.name), row


def test_the_command(capsys):
    assert run_command(main, []) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "  trainer_args.optim (teacher_sft, teacher_rl)\n    there  adamw_torch\n" in said
    assert run_command(main, ["--json"]) == 0
    assert '"name": "trainer_args.optim"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--against", "/nowhere"], "--against /nowhere is no checkout of SakanaAI/RLT, as it has no"),
        (["--agains=x"], "unrecognized arguments: --agains=x: `python -m rlt differences --help` lists"),
        (["--json", "--markdown"], "argument --markdown: not allowed with argument --json: `python -m"),
    ],
)  # fmt: skip
def test_wrong_words_are_one_sentence(capsys, words, expected):
    assert run_command(main, words) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1


@pytest.mark.original
@pytest.mark.parametrize("run_file", RUN_FILES)
def test_the_recorded_values_are_what_hydra_composes(original, run_file):
    tree = compose_run_file(original / "cfgs", run_file)
    known = released(run_file)
    wiring = {
        *("exp_name", "tags", "tokenizer_name_or_path", "dataset_local_directory", "call_post_training")
    }
    names = {key for key in tree if key.endswith(("_log_name", "_ctx_name", "_run_name", "_group_name"))}
    scalars = {key for key, value in tree.items() if not isinstance(value, dict)}
    assert scalars - known.keys() - wiring - names == set()
    assert {key: tree[key] for key in known} == known


@pytest.mark.original
def test_every_recorded_group_file_is_what_hydra_composes(original, tmp_path):
    """A run file that chooses it, in a copy of the checkout's cfgs."""
    cfgs = shutil.copytree(original / "cfgs", tmp_path / "cfgs")
    for group, files in GROUPS.items():
        for name, values in files.items():
            (cfgs / "run_cfg" / "one.yaml").write_text(f"defaults: [override /{group}@_global_: {name}]\n")
            tree = compose_run_file(cfgs, "one")
            # A later group, and custom data that refer to themselves until a run file names them.
            later = [*DEFAULTS][[*DEFAULTS].index(group) + 1 :]
            over = {key for other in later for key in GROUPS[other][DEFAULTS[other]]}
            own = {key: value for key, value in values.items() if key not in over and value is not None}
            assert {key: tree[key] for key in own} == own, (group, name)
    (cfgs / "run_cfg" / "one.yaml").write_text("")
    tree = compose_run_file(cfgs, "one")
    over = {key for group, name in DEFAULTS.items() for key in GROUPS[group][name]}
    assert {k: v for k, v in ROOT.items() if k not in over}.items() <= tree.items()


@pytest.mark.original
def test_another_checkout_is_compared_by_its_own_values(original, tmp_path, capsys):
    shutil.copytree(original / "cfgs", tmp_path / "cfgs")
    path = tmp_path / "cfgs" / "run_cfg" / "teacher_rlt.yaml"
    path.write_text(path.read_text().replace("beta: 0.04", "beta: 0.07"))
    assert run_command(main, ["--against", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert (
        "  trainer.beta (teacher_rl)\n    there  0.07\n    here   0.04\n    switch trainer.beta=0.07\n"
        in said
    )
    assert "  teacher_rlt.yaml, beta: 0.04 there, 0.07 in it\n" in said
    assert "custom_data/teacher_data.py" in said  # the copy has no prompt
    assert run_command(main, ["--against", str(original)]) == 0
    assert "  Its run files come to the same values.\n" in capsys.readouterr().out
