"""What evaluate asks of a configuration, and what its presets mean."""

import re

import pytest
from helpers.fake_models import fake_model

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.validate import validate
from rlt.errors import ConfigError

MINE = "{name: Mine}"
CHEMISTRY = """
evaluate:
  num_samples: 1
  tasks: [chemistry, gsm8k]
  benchmarks:
    - name: chemistry
      hub: my-team/chemistry
      split: test
      question: question
      grader: choice
      options: [right, wrong_1, wrong_2]
      answer: right
      shuffle: true
      groups: [topic]
temperature: 0.0
"""


@pytest.fixture
def words(place) -> list[str]:
    """Return a command line of evaluate that passes every check."""
    return ["run_cfg=evaluate", "model_name_or_path=model", "generation.backend=transformers"]


def test_the_presets_are_the_protocols():
    sky, robust = compose(["run_cfg=evaluate"]), compose(["run_cfg=evaluate", "eval_cfg=robust"])
    assert (sky.temperature, sky.evaluate.num_samples, sky.seed) == (0.0, 1, 41)
    assert (robust.temperature, robust.evaluate.num_samples, robust.generation.top_p) == (0.6, None, 0.95)
    assert sky.max_completion_length == robust.max_completion_length == 32768
    assert (sky.evaluate.option_order, robust.evaluate.option_order) == ("stream", "row")


def test_a_model_is_enough_and_so_are_problems_of_ones_own(words):
    """Its context holds 32,768 tokens; an answer of as many may continue to the end of it."""
    validate(resolve(compose(words)), num_processes=3)
    validate(resolve(compose([*words, "eval_cfg=robust"])))
    own = ["evaluate.tasks=[problems]", "dataset_id_or_path=rows.jsonl"]
    validate(resolve(compose([*words, *own, "layout.student_prompt=from_dataset"])))


def test_tasks_may_be_named_as_in_lighteval(words):
    theirs = "lighteval|aime24|0,lighteval|math_500|0|0,lighteval|gpqa:diamond|0"
    config = resolve(compose([*words, f"evaluate.tasks=[{theirs}]"]))
    assert config.evaluate.tasks == ["aime24", "math500", "gpqa_diamond"]
    config = resolve(compose([*words, "evaluate.tasks=[mmlu_pro|0,olympiad_bench:OE_TO_maths_en_COMP|0]"]))
    assert config.evaluate.tasks == ["mmlu_pro", "olympiadbench"]
    with pytest.raises(ConfigError, match=r"got 'lighteval\|gsm8k\|5'.*write lighteval\|gsm8k\|0"):
        validate(resolve(compose([*words, "evaluate.tasks=[lighteval|gsm8k|5]"])))


def test_a_benchmark_of_ones_own_in_a_file(words, place):
    """As docs/evaluation.md shows it: a group file of the user's own."""
    (place / "eval_cfg").mkdir()
    (place / "eval_cfg" / "chemistry.yaml").write_text(CHEMISTRY)
    config = resolve(compose([f"--config-dir={place}", *words, "eval_cfg=chemistry"]))
    validate(config)
    (record,) = config.evaluate.benchmarks
    assert (record.name, record.options, record.shuffle) == (
        "chemistry",
        ["right", "wrong_1", "wrong_2"],
        True,
    )
    assert config.evaluate.tasks == ["chemistry", "gsm8k"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ("evaluate.tasks=[aime]", "got 'aime': did you mean aime24?"),
        ("evaluate.tasks=[]", "`evaluate.tasks` is empty"),
        ("evaluate.tasks=[gsm8k,gsm8k]", "names gsm8k twice"),
        ("evaluate.tasks=[countdown]", "run `python train.py run_cfg=make_countdown"),
        ("evaluate.tasks=[problems]", "give a file or a Hub name there"),
        ("dataset_id_or_path=rows.jsonl", "is not read, because evaluate.tasks does not name problems"),
        ("evaluate.paths={aime99: rows.jsonl}", "`evaluate.paths` may name"),
        ("evaluate.tasks=[extended|lcb:codegeneration|0]", "is LiveCodeBench: its answers are programs"),
        ("evaluate.tasks=[livecodebench]", "is LiveCodeBench: its answers are programs"),
        (f"evaluate.benchmarks=[{MINE}]", "the record Mine needs a `name` of small letters"),
        ("evaluate.benchmarks=[{name: gsm8k}]", "has the name of a known benchmark"),
        ("evaluate.benchmarks=[{name: a},{name: a}]", "the record a is there twice"),
        ("evaluate.benchmarks=[{name: a,grader: essay}]", "has `grader` essay, which must be one of math"),
        ("evaluate.benchmarks=[{name: a,grader: choice10}]", "has the grader choice10 but no `options`"),
        (
            "evaluate.benchmarks=[{name: a,options: [x]}]",
            "has `options`, which the grader math does not",
        ),
        ("evaluate.benchmarks=[{name: a,prompt: Solve}]", "must hold {question} once in `prompt`"),
        ("evaluate.benchmarks=[{name: a,num_samples: 0}]", "must have `num_problems` and `num_samples`"),
        ("evaluate.benchmarks=[{name: a}] evaluate.tasks=[a]", "no `hub`: give one, or evaluate.paths={a"),
        ("evaluate.benchmarks=[{name: a,colour: x}]", "colour"),
        ("evaluate.paths={gsm8k: rows.jsonl}", r"has no effect with evaluate.tasks=\[aime24,math500,gpqa_d"),
        ("evaluate.paths={aime24: nowhere.jsonl}", "`evaluate.paths.aime24=nowhere.jsonl` does not exist"),
        ("evaluate.prompts={aime24: Solve it.}", "must hold {question} once"),
        ("temperature=0.7 evaluate.num_samples=0", "`evaluate.num_samples` must be greater than 0"),
        ("evaluate.num_samples=4", "must be 1 with temperature=0"),
        ("eval_cfg=robust temperature=0", "must be 1 with temperature=0, because greedy .* got null"),
        ("layout.student_prompt=from_dataset", "finds no system prompt in the rows of aime24"),
        ("generation.stop_at_tag=true", "the tag is a teacher's"),
        ("data.on_long_row=drop", "would skip problems"),
        ("resume_from=latest", "it resumes by itself in the same output_dir"),
        ("generation.api=openai generation.backend=vllm", "`generation.api=openai` needs generation.servers"),
        (
            "generation.api=openai",
            "`generation.api` on .* has no effect with generation.backend=",
        ),
        (
            "generation.api_model=m",
            "`generation.api_model` on .* has no effect with generation.api=vllm",
        ),
        (
            "generation.retry_seconds=5",
            "`generation.retry_seconds` on the command line has no effect with generation.api=",
        ),
        (
            "generation.api=openai generation.backend=vllm generation.servers=[http://127.0.0.1:1] "
            "temperature=0.7 generation.top_k=5",
            "`generation.top_k` must be 0",
        ),
        ("max_prompt_length=4096 model_name_or_path=small", "`max_prompt_length . 1 = 4096 . 1` must fit"),
        ("model_name_or_path=SakanaAI/RLT-7B", "`layout.student_prompt` must be file:PATH"),
    ],
)
def test_what_is_refused(words, place, changes, expected):
    fake_model(place / "small", '{"max_position_embeddings": 1024}')
    latest = {word.split("=", 1)[0]: word for word in [*words, *re.split(r" (?=[a-z_.]+=)", changes)]}
    with pytest.raises(ConfigError, match=expected):
        validate(resolve(compose(list(latest.values()))))
