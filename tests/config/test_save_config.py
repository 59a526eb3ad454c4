"""A saved configuration reads back equal; help pages come from the schema."""

import pytest
import yaml

from rlt.config.compose import compose
from rlt.config.explain import explain, help_page
from rlt.config.save import load_config, save_config, to_yaml
from rlt.config.tree import find, rows
from rlt.errors import ConfigError


@pytest.mark.parametrize("run_file", ["teacher_sft", "teacher_rl"])
def test_saved_configuration_reads_back_equal(run_file, tmp_path):
    config = compose([f"run_cfg={run_file}", "data.columns.question=problem", "trainer_args.tf32=true"])
    path = tmp_path / "deep" / "config.yaml"
    save_config(config, path)
    assert load_config(path) == config
    assert [p.name for p in path.parent.iterdir()] == ["config.yaml"]
    plain = yaml.safe_load(path.read_text())
    assert plain["data"]["columns"] == {"question": "problem"}
    assert "${" not in path.read_text()


@pytest.mark.parametrize("text", ["use ${x}", "\\${x} and ${results_dir}", "${", "\\"])
def test_a_saved_prompt_reads_back_as_it_was_typed(text, tmp_path):
    save_config(compose(["run_cfg=teacher_rl", f"layout.teacher_prompt={text}"]), tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml").layout.teacher_prompt == text


def test_a_file_from_before_a_setting_says_what_was_done_then(tmp_path):
    """Else a resumed run would change its reward in silence: the default is what the original does."""
    save_config(compose(["run_cfg=teacher_rl"]), tmp_path / "config.yaml")
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved["reward"].pop("solution_span") == "released"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    assert load_config(tmp_path / "config.yaml").reward.solution_span == "content"


def test_damaged_or_foreign_files_are_refused(tmp_path):
    path = tmp_path / "config.yaml"
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(path)
    path.write_text("stage: teacher_sft\nnonsense: 3\n")
    with pytest.raises(ConfigError, match="Key 'nonsense' not in 'Config'"):
        load_config(path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="is not a configuration of this version"):
        load_config(path)


def test_yaml_of_a_part():
    config = compose(["run_cfg=teacher_rl"])
    assert to_yaml(config, "learning_rate") == "1.0e-06\n" or float(to_yaml(config, "learning_rate")) == 1e-6
    assert yaml.safe_load(to_yaml(config, "model.lora"))["rank"] == 0
    with pytest.raises(ConfigError, match="did you mean `generation`"):
        to_yaml(config, "generaton")


def test_help_names_every_root_setting_and_section():
    page = help_page()
    assert all(name in page for name in rows() if "." not in name)


@pytest.mark.parametrize("section", [name for name, row in rows().items() if row.section])
def test_explain_lists_a_section(section):
    page = explain(section)
    assert all(name in page for name in rows() if name.startswith(f"{section}."))


def test_explain_gives_default_bound_and_choices():
    assert "greater" not in explain("generation.top_p")
    assert "> 0; <= 1 (default 1.0)" in " ".join(explain("generation.top_p").split())
    assert "one of k1, k3, student_nll (default k1)" in " ".join(explain("reward.kl_estimator").split())
    with pytest.raises(ConfigError, match="did you mean `trainer`"):
        explain("trainr")


def test_every_setting_has_a_meaning():
    assert all(row.doc for row in rows().values())


def test_find_knows_open_dicts():
    assert (row := find("trainer_args.anything")) is not None
    assert row.name == "trainer_args"
    assert find("trainer.anything") is None
