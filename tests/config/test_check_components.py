"""The rules of the reward's further components."""

import pytest

from rlt.config.compose import compose
from rlt.config.save import load_config, save_config
from rlt.config.schema import FunctionSettings
from rlt.config.validate import validate
from rlt.errors import ConfigError

ANSWERS = "reward.answers.weight=1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reward.length.weight=1"], "`reward.length.weight` needs a range: give reward.length.min_tokens"),
        (
            ["reward.length={weight: 1, min_tokens: 9, max_tokens: 8}"],
            "must be at most reward.length.max_to",
        ),
        (["reward.copy.weight=-1"], "`reward.copy.weight` must be at least 0, got -1"),
        (["reward.functions=[{weight: 1}]"], "such as my_rewards:brevity, got ''."),
        (["reward.functions=[{path: my_rewards.py}]"], "a path MODULE:FUNCTION, such as my_rewards:brevity"),
        (
            ["reward.functions=[{path: a:f}, {path: b:f}]"],
            "names a:f, but component/f is the value of another",
        ),
        (["reward.functions=[{path: mine:copy}]"], "names mine:copy, but component/copy is the value of"),
        (["reward.functions=[{path: a:f, weight: inf}]"], "must give a:f a finite weight, got inf."),
        (
            [ANSWERS, "reward.answers.temperature=0"],
            "num_samples=4` must be 1 with reward.answers.temperature=0",
        ),
        ([ANSWERS, "reward.answers.servers=[x]"], "`reward.answers.servers` must hold addresses like http"),
        (
            [ANSWERS, "reward.placement=server", "reward.servers=[http://h:1]"],
            "`reward.placement=server` leaves no process a whole student that could answer: take replicated",
        ),
        (
            [
                ANSWERS,
                "reward.answers.servers=[http://h:1]",
                "generation.backend=vllm",
                "generation.servers=[http://h:1]",
            ],
            "names http://h:1, which is also in generation.servers and changes with the policy",
        ),
    ],
)
def test_a_broken_rule_gets_a_sentence(teacher_rl, words, said):
    with pytest.raises(ConfigError) as error:
        validate(compose([*teacher_rl, *words]))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    ["[{pth: a:f}]", "[{path: a:f, weight: much}]", "[a:f]", "{path: a:f}", "a:f", "[{path: a:f, x: 1}]"],
)
def test_a_list_of_another_shape_gets_a_sentence(teacher_rl, value):
    with pytest.raises(ConfigError) as error:
        compose([*teacher_rl, f"reward.functions={value}"])
    assert "reward.functions" in str(error.value)
    assert "a list of {path: …, weight: …}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_list_of_another_shape_in_a_file_gets_a_sentence(teacher_rl, tmp_path):
    path = tmp_path / "run_cfg" / "mine.yaml"
    path.parent.mkdir()
    words = [word for word in teacher_rl if not word.startswith("run_cfg=")]
    shapes = {"[{pth: a:f}]": False, "a:f": False, "[{path: a:f, weight: no}]": False, "[{path: a:f}]": True}
    for value, is_good in shapes.items():
        path.write_text(f"defaults: [teacher_rl, _self_]\nreward: {{functions: {value}}}\n")
        if is_good:
            assert compose([f"run_cfg={path}", *words]).reward.functions == [FunctionSettings("a:f", 1.0)]
            continue
        with pytest.raises(
            ConfigError, match=r"`reward\.functions` in .*mine\.yaml must be a list of {path: "
        ):
            compose([f"run_cfg={path}", *words])


def test_functions_are_saved_with_their_paths(teacher_rl, tmp_path):
    config = compose(
        [*teacher_rl, "reward.functions=[{path: my.rewards:brevity, weight: -0.5}, {path: a:f}]"]
    )
    validate(config)
    save_config(config, tmp_path / "config.yaml")
    expected = [FunctionSettings("my.rewards:brevity", -0.5), FunctionSettings("a:f", 1.0)]
    assert config.reward.functions == load_config(tmp_path / "config.yaml").reward.functions == expected


def test_all_components_are_off_in_the_recipes(teacher_rl):
    reward = compose(teacher_rl).reward
    assert (reward.length.weight, reward.copy.weight, reward.answers.weight) == (0, 0, 0)
    assert reward.functions == []


@pytest.mark.parametrize(
    "word", ["reward.copy.weight=1", "reward.answers.weight=0.1", "reward.functions=[{path: a:f}]"]
)
def test_scoring_traces_knows_no_components(place, word):
    words = ["run_cfg=score_traces", "dataset_id_or_path=rows.jsonl", "student_model=student", word]
    with pytest.raises(ConfigError, match="has no effect in score_traces: remove it"):
        compose(words)
