"""What the files come to is put together once, and the words of each command line are laid over it."""

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from rlt.config.compose import _MAIN, _NO_FILES, _compose, _old_names, compose
from rlt.config.overrides import read
from rlt.config.settings_source import address


@pytest.mark.parametrize(
    "words",
    [
        ["seed=3", "trainer_args.tf32=true", "recipe=modern"],
        ["model_cfg=qwen2_5_3b_instruct", "model_name_or_path=m", "eval_cfg=skythought"],
        ["reward.students=[{name: a, model: b}]", "data.columns={question: q}", "++trainer_args.x.y=1"],
        ["results_dir=x/${seed}", "kl_penalty_reward_coeff=[1,2]", "trainer={beta: 0.1, save_steps: 2}"],
    ],
)
def test_files_put_together_before_are_as_if_hydra_did_all_at_once(words):
    """Hydra is given every word of a line at once, as its documentation shows."""
    line = read(["teacher_rl", *words])
    _compose(line)  # known from now on
    found, recipe = _compose(line)
    places = ",".join(f"'{address(folder)}'" for folder in line.config_dirs)
    with _old_names(line.config_dirs), initialize_config_dir(config_dir=_NO_FILES, version_base="1.3"):
        whole = hydra_compose(_MAIN, [*line.overrides, f"hydra.searchpath=[{places}]"])
    assert OmegaConf.to_container(found) == OmegaConf.to_container(whole)
    assert recipe == ("modern" if "recipe=modern" in words else "released")


def test_a_file_that_is_written_again_is_read_again_and_no_word_stays(tmp_path):
    (tmp_path / "run_cfg").mkdir()
    path = tmp_path / "run_cfg" / "x.yaml"
    for seed in (5, 6):
        path.write_text(f"defaults: [teacher_sft, _self_]\nseed: {seed}\n")
        assert compose([str(path), "trainer_args.tf32=true"]).trainer_args["tf32"] is True
        config = compose([str(path)])
        assert config.seed == seed
        assert "tf32" not in config.trainer_args
    (tmp_path / "model_cfg").mkdir()
    (tmp_path / "model_cfg" / "qwen7bi.yaml").write_text("model_name_or_path: own/model\n")
    words = [f"--config-dir={tmp_path}", str(path), "model_cfg=qwen7bi"]
    assert compose(words).model_name_or_path == "own/model"
