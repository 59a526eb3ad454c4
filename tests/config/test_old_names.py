"""Files and words of the original release: they work as they are typed, or are answered with the new name."""

import pytest

from rlt.config.compose import compose
from rlt.config.overrides import CONFIG_DIR, groups
from rlt.config.renames import OTHER_FILES, SAME_FILES
from rlt.errors import ConfigError


def sentence(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "word",
    [
        *("teacher_sft", "teacher_sft.yaml", "run_cfg/teacher_sft", "run_cfg/teacher_sft.yaml"),
        *("cfgs/run_cfg/teacher_sft", "cfgs/run_cfg/teacher_sft.yaml", "run_cfg=teacher_sft.yaml"),
        *("run_cfg@_global_=teacher_sft", "run_cfg@_global_=teacher_sft.yaml"),
        "run_cfg@_global_=run_cfg/teacher_sft.yaml",
    ],
)
def test_a_run_file_by_any_of_its_names(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # not where cfgs/ is
    assert compose([word, "seed=3"]).stage == "teacher_sft"


def test_a_users_own_run_file_by_its_name_alone(tmp_path):
    (tmp_path / "run_cfg").mkdir()
    (tmp_path / "run_cfg" / "mine.yaml").write_text("defaults: [teacher_sft, _self_]\nseed: 5\n")
    for word in ("mine", "mine.yaml", "run_cfg/mine.yaml"):
        assert compose([f"--config-dir={tmp_path}", word]).seed == 5


@pytest.mark.parametrize(
    ("group", "old"), [(group, old) for group, names in SAME_FILES.items() for old in names]
)
def test_old_group_files_work(group, old, tmp_path):
    """On the command line and in the defaults of a run file."""
    new = compose(["teacher_sft", f"{group}={SAME_FILES[group][old]}"])
    assert compose(["teacher_sft", f"{group}={old}"]) == new
    assert compose(["teacher_sft", f"{group}@_global_={old}"]) == new
    (tmp_path / "run_cfg").mkdir()
    path = tmp_path / "run_cfg" / "x.yaml"
    path.write_text(f"defaults: [teacher_sft, override /{group}@_global_: {old}, _self_]\n")
    assert compose([str(path)]) == new


def test_a_users_own_file_of_an_old_name_comes_first(tmp_path):
    for folder, content in (("model_cfg", "model_name_or_path: own/model\n"), ("run_cfg", "seed: 1\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "qwen7bi.yaml").write_text(content)
    words = [f"--config-dir={tmp_path}", "teacher_sft", "model_cfg=qwen7bi"]
    assert compose(words).model_name_or_path == "own/model"
    assert compose(["teacher_sft", "model_cfg=qwen7bi"]).model_name_or_path == "Qwen/Qwen2.5-7B-Instruct"


@pytest.mark.parametrize(
    ("group", "old"), [(group, old) for group, names in OTHER_FILES.items() for old in names]
)
def test_other_old_files_are_answered(group, old):
    if old in groups([CONFIG_DIR])[group]:
        return
    words = [f"run_cfg={old}"] if group == "run_cfg" else ["teacher_rl", f"{group}={old}"]
    assert f"{group}={old} is a file of the original release: it is {OTHER_FILES[group][old]}." in sentence(
        *words
    )


def test_the_originals_empty_run_file_and_one_without_stage(tmp_path):
    assert "is a file of the original release: it is an empty run file" in sentence("default.yaml")
    (tmp_path / "run_cfg").mkdir()
    path = tmp_path / "run_cfg" / "x.yaml"
    path.write_text("defaults:\n  - override /model_cfg@_global_: qwen7bi\n  - _self_\n")
    assert "x.yaml sets no `stage`, nor does a run file that it builds on: write" in sentence(str(path))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["kl_penalty_reward_coeff=[0,", "0]"],
            "`kl_penalty_reward_coeff=[0,` on the command line is cut, because the shell ends a word at a "
            "space: type 'kl_penalty_reward_coeff=[0, 0]' in quotes, or kl_penalty_reward_coeff=[0,0] ",
        ),
        (["data.columns={question:", "a,", "answer:", "b}"], "'data.columns={question: a, answer: b}' in"),
        (["reward.students=[{name: a,", "model: b}]"], "or reward.students=[{name:a,model:b}] without "),
        (["kl_penalty_reward_coeff=[3,0.03"], "a closing `]`: type 'kl_penalty_reward_coeff=[3,0.03]' "),
        (["data.columns={a: [b"], "lacks a closing `]}`"),
        (["layout.teacher_prompt=Explain", "it."], "put both in quotes: 'layout.teacher_prompt=Explain it.'"),
        (["teacher_rtl"], "is not KEY=VALUE, a run file, or a known word: did you mean teacher_rl"),
        (["+report_to=null"], "`report_to` is a setting already: type report_to=null."),
        (["~trainer_args.x"], "`~trainer_args.x` on the command line removes nothing, because no file sets"),
        (
            ["bf16=true", "seed=3", "packing=false", "learing_rate=1"],
            "3 keys on the command line are not settings: `bf16` is `model.dtype`, `learing_rate` is unknown "
            "(`learning_rate`?), `packing` has no use here. (`python train.py --help` lists the settings.)",
        ),
    ],
)  # fmt: skip
def test_words_that_are_no_settings(words, expected):
    assert expected in sentence("teacher_rl", *words)


def test_what_the_sentences_advise_works():
    for word in (
        "kl_penalty_reward_coeff=[0, 0]",
        "kl_penalty_reward_coeff=[0,0]",
        "data.columns={question:a,solution:b}",
        "reward.students=[{name:a,model:b}]",
        "layout.teacher_prompt=Explain [it.",
        "report_to=null",
        "+trainer_args.optim=adamw_torch",
    ):
        compose(["teacher_rl", word])
