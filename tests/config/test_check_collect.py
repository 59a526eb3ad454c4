"""What collect_traces asks of a configuration."""

import pytest

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.validate import validate
from rlt.errors import ConfigError


@pytest.fixture
def words(place) -> list[str]:
    """Return a command line of collect_traces that passes every check."""
    return [
        "run_cfg=collect_traces",
        "model_name_or_path=model",
        "dataset_id_or_path=rows.jsonl",
        "generation.backend=transformers",
    ]


def test_the_recipe_of_teacher_rl_samples():
    ours, rl = compose(["run_cfg=collect_traces"]), compose(["run_cfg=teacher_rl"])
    for name in ("temperature", "max_prompt_length", "max_completion_length"):
        assert getattr(ours, name) == getattr(rl, name)
    assert ours.generation == rl.generation
    assert ours.model_name_or_path == rl.output_dir


def test_a_model_and_problems_are_enough(words):
    validate(resolve(compose(words)), num_processes=3)
    validate(resolve(compose([*words, "temperature=0"])))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("collect.num_samples=0", "`collect.num_samples` must be greater than 0"),
        ("collect.only=nowhere.jsonl", "`collect.only=nowhere.jsonl` is no .jsonl file that exists"),
        ("collect.push_to_hub=https://huggingface.co/a/b", "`collect.push_to_hub` must be like OWNER/NAME"),
        ("resume_from=latest", "it resumes by itself in the same output_dir"),
        (
            "+trainer_args.optim=adamw_torch",
            "`trainer_args.optim` on the command line has no effect in collect_traces: remove it",
        ),
        ("data.on_long_row=truncate", "rows of collect_traces do not have"),
        ("max_completion_length=32768", "must fit the context of model"),
        ("generation.backend=vllm", "needs running servers: start through ./launch.sh"),
        ("model_name_or_path=null", "`model_name_or_path` is empty"),
        ("output_dir=model", "is the folder of model_name_or_path"),
    ],
)
def test_rules(words, word, expected):
    with pytest.raises(ConfigError) as caught:
        validate(resolve(compose([*words, word])))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_greedy_samples_are_all_the_same(words):
    with pytest.raises(ConfigError, match=r"`collect.num_samples=2` must be 1 with temperature=0"):
        validate(compose([*words, "temperature=0", "collect.num_samples=2"]))


def test_only_collecting_may_be_greedy(teacher_rl, score_traces):
    for others in (teacher_rl, score_traces):
        with pytest.raises(ConfigError, match="`temperature` must be greater than 0"):
            validate(compose([*others, "temperature=0"]))


def test_servers_are_asked_from_one_process(words):
    servers = ["generation.backend=vllm", "generation.servers=[http://127.0.0.1:8000]"]
    validate(compose([*words, *servers]))
    with pytest.raises(ConfigError, match="from one process, got 2"):
        validate(compose([*words, *servers]), num_processes=2)


def test_a_teacher_that_is_not_there_yet_is_told_of(place):
    with pytest.raises(
        ConfigError, match=r"teacher_rl writes, so run `./launch.sh cfgs/run_cfg/teacher_rl.yaml"
    ):
        validate(compose(["run_cfg=collect_traces", "dataset_id_or_path=rows.jsonl"]), servers_follow=True)
