"""A run file of the original release becomes one of ours that composes, and says what it left out."""

import resource

import pytest
import yaml

from rlt.config.compose import compose
from rlt.errors import ConfigError
from rlt.migrate.__main__ import main
from rlt.surroundings.leaving import run_command

RL = """\
defaults:
  - override /model_cfg@_global_: qwen7bi
  - override /data_cfg@_global_: teacher_custom
  - override /trainer_cfg@_global_: teacher_grpo
  - _self_
model_name_or_path: results/pre_rl_model
dataset_id_or_path: my/rows
train_batch_size: 256
num_generations: 16
learning_rate: 2e-6
student_model: null
sync_ref_model: true
ref_model_sync_steps: 8
not_matched_penalty: -2.0
kl_penalty_reward_coeff: [3, 0.03]
vllm_host: some-host
exp_name: mine
output_dir: ${results_dir}/${exp_name}/${now:%Y}
beta: 0.0
trainer_args: {dataloader_num_workers: 2}
colour: red
"""


@pytest.fixture
def migrated(tmp_path, monkeypatch, capsys):
    """Return a function: text of a run file -> (exit code, what was said, path of the new one)."""
    monkeypatch.chdir(tmp_path)

    def migrate(text: str, *words: str):
        (tmp_path / "old.yaml").write_text(text)
        code = run_command(main, ["old.yaml", *words])
        said = capsys.readouterr()
        return code, said.out + said.err, tmp_path / "run_cfg" / "old.yaml"

    return migrate


def test_a_teacher_rl_of_ones_own(migrated):
    code, said, path = migrated(RL)
    assert code == 0, said
    assert max(map(len, said.splitlines())) <= 80
    assert "next:\n  ./launch_with_server.sh 4 4 run_cfg/old.yaml --dry-run\n" in said
    config = compose([str(path)])
    assert (config.stage, config.train_batch_size, config.num_generations) == ("teacher_rl", 256, 16)
    assert config.learning_rate == 2e-6
    assert config.student_model == "results/pre_rl_model"
    assert config.dataset_id_or_path == "my/rows"
    assert config.layout.student_prompt == "from_dataset:bespokelabs/Bespoke-Stratos-17k"
    assert config.output_dir == "results/mine"
    assert config.reward.missing_tag_penalty == 2.0
    assert config.trainer_args["dataloader_num_workers"] == 2
    # of its groups: grpo.yaml and the reward's file, whose numbers the released run file overrides
    assert (config.temperature, config.max_prompt_length, config.trainer.max_steps) == (1.0, 2048, 200)
    assert config.answer_log_prob_coeff == [5, 0.05]
    text = path.read_text()
    comments = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert "colour: is not known" in comments
    assert "student_model: null was the reference model, which moves" in comments
    assert "vllm_host: is not needed" in comments
    assert "ref_sync_steps=8" in comments or "`trainer.ref_sync_steps`" in comments  # beta 0 has no reference
    assert max(map(len, text.splitlines())) <= 110


def test_numbers_of_the_groups_that_a_file_leaves_alone(migrated):
    """An empty file is the original's own default run: the 3B model, base_sft with 4,096 tokens."""
    code, said, path = migrated("")
    assert code == 0, said
    config = compose([str(path)])
    assert (config.stage, config.model_name_or_path) == ("teacher_sft", "Qwen/Qwen2.5-3B-Instruct")
    assert (config.learning_rate, config.train_batch_size, config.data.max_length) == (2e-4, 64, 4096)
    assert config.trainer.lr_scheduler_type == "constant"
    assert "packing: was true, but has no counterpart" in " ".join(said.split())


def test_a_students_fine_tuning(migrated):
    text = (
        "defaults: [{override /data_cfg@_global_: bespoke_stratos}, _self_]\npacking: false\nmax_steps: 3\n"
    )
    code, said, path = migrated(text)
    assert code == 0, said
    assert "not the same" not in said
    config = compose([str(path)])
    assert (config.stage, config.trainer.max_steps) == ("student_sft", 3)
    assert config.dataset_id_or_path == "bespokelabs/Bespoke-Stratos-17k"


def test_a_file_that_is_named_as_one_of_ours(migrated, tmp_path):
    code, _, _ = migrated("max_steps: 3\n", "run_cfg/teacher_sft.yaml")
    assert code == 0
    assert compose([str(tmp_path / "run_cfg" / "teacher_sft.yaml")]).trainer.max_steps == 3


def test_nothing_is_written_over(migrated):
    assert migrated("max_steps: 3\n")[0] == 0
    code, said, path = migrated("max_steps: 4\n")
    assert (code, said.count("\n")) == (2, 1)
    assert "run_cfg/old.yaml exists, and is not written over: name another file, as in" in said
    assert yaml.safe_load(path.read_text())["trainer"]["max_steps"] == 3
    assert migrated("max_steps: 4\n", "run_cfg/old_new.yaml")[0] == 0  # what the sentence advises


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("stage: teacher_rl\n", (), "old.yaml sets `stage`, so it is a run file of this project already."),
        ("- a\n", (), "old.yaml must hold lines of KEY: VALUE"),
        ("a: [\n", (), "old.yaml is not valid YAML"),
        ("max_steps: 3\n", ("out.yaml",), "must be in a folder named run_cfg, where launch.sh looks: take"),
        ("max_steps: 3\n", ("run_cfg/out",), "run_cfg/out must end in .yaml"),
        ("max_steps: 3\n", ("a", "b"), "unrecognized arguments: b: `python -m rlt migrate --help` lists"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence(migrated, text, words, expected):
    code, said, path = migrated(text, *words)
    assert (code, said.count("\n")) == (2, 1)
    assert expected in said
    assert not path.exists()


def test_a_full_disk_leaves_no_part_of_a_file(migrated):
    """Nor does one that is full for the copy which is tried first."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        code, said, path = migrated("max_steps: 3\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (code, said.count("\n")) == (2, 1)
    assert "run_cfg/old.yaml cannot be written: " in said
    assert not path.exists()
    assert migrated("max_steps: 3\n")[0] == 0


def test_a_missing_file_is_one_sentence(capsys):
    assert run_command(main, ["/nowhere/x.yaml"]) == 2
    assert capsys.readouterr().err == "error: /nowhere/x.yaml cannot be read: no such file or directory.\n"


def test_the_normal_run_names_all_unknown_keys_at_once(migrated, tmp_path):
    _, _, path = migrated("max_steps: 3\n")
    path.write_text(
        "bf16: true\npacking: false\ncolour: red\nseed: 3\ntrainer: {max_step: 3}\nuse_cache: true\n"
    )
    with pytest.raises(ConfigError) as caught:
        compose([str(path)])
    assert str(caught.value) == (
        f"5 keys in {path} are not settings: `bf16` is `model.dtype`, `colour` is unknown "
        "(`data.columns`?), `trainer.max_step` is unknown (`trainer.max_steps`?), `use_cache` is "
        "`trainer_args.use_cache`, `packing` has no use here. "
        f"(`python -m rlt.migrate {path}` writes the file in our words.)"
    )


@pytest.mark.original
@pytest.mark.slow
@pytest.mark.parametrize("name", ["teacher_sft", "teacher_rlt", "default"])
def test_the_released_run_files_are_accepted_after_one_round(migrated, original, tmp_path, monkeypatch, name):
    """By the launcher's dry run, with a model; what is typed there is what the summary says."""
    from helpers.launch_models import write_model

    from rlt.launch.main import main as launch

    model = write_model(tmp_path / "model", head_size=16)
    config = (
        (model / "config.json")
        .read_text()
        .replace('"max_position_embeddings": 4096', '"max_position_embeddings": 65536')
    )
    (model / "config.json").write_text(config)
    code = run_command(main, [str(original / "cfgs" / "run_cfg" / f"{name}.yaml")])
    assert code == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
    path = f"run_cfg/{name}.yaml"
    words = ["launch_with_server.sh", "4", "4", path] if name == "teacher_rlt" else ["launch.sh", path]
    assert launch([*words, f"model_name_or_path={model}", "--dry-run"]) == 0
    assert compose([path]).layout.teacher_prompt == f"original:{original}"
