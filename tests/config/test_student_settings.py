"""What student_sft and infer ask of a configuration, and the numbers of the distillation recipes."""

import pytest

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.validate import validate
from rlt.errors import ConfigError


@pytest.fixture
def student_sft(place) -> list[str]:
    return ["run_cfg=student_sft", "model_name_or_path=model", "dataset_id_or_path=rows.jsonl"]


@pytest.fixture
def infer(place) -> list[str]:
    return ["run_cfg=infer", "model_name_or_path=model", "infer.question=What is 6*7?"]


def refusal(words: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(resolve(compose(words)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_recipe_for_17_000_rows():
    c = compose(["run_cfg=student_sft"])
    assert (c.model_name_or_path, c.dataset_id_or_path) == (
        "Qwen/Qwen2.5-7B-Instruct",
        "results/collect_traces/traces.jsonl",
    )
    assert (c.train_batch_size, c.trainer.num_train_epochs, c.trainer.max_steps) == (96, 3, -1)
    assert (c.learning_rate, c.trainer.lr_scheduler_type, c.trainer.warmup_steps) == (1e-5, "cosine", 0.1)
    assert (c.trainer.adam_beta1, c.trainer.adam_beta2, c.trainer.weight_decay) == (0.9, 0.999, 0)
    assert (c.data.max_length, c.distill.turn_end, c.distill.malformed) == (16384, "end_of_text", "keep")
    assert c.layout.student_prompt == "from_dataset"


def test_the_recipe_for_1_000_rows():
    c = compose(["run_cfg=student_sft", "trainer_cfg=student_sft_1k", "model_cfg=qwen2_5_32b_instruct"])
    assert c.model_name_or_path == "Qwen/Qwen2.5-32B-Instruct"
    assert (c.train_batch_size, c.trainer.num_train_epochs, c.data.max_length) == (16, 5, 32768)
    assert (c.trainer.adam_beta1, c.trainer.adam_beta2, c.trainer.weight_decay) == (0.9, 0.95, 1e-4)
    assert (c.learning_rate, c.trainer.lr_scheduler_type, c.trainer.warmup_steps) == (1e-5, "cosine", 0.1)
    assert c.distill.turn_end == "end_of_text"


@pytest.mark.parametrize("size", ["7b", "32b"])
def test_released_students_are_gone_on_from_under_their_own_prompt(place, size):
    words = ["run_cfg=student_sft", f"model_cfg=rlt_{size}", "dataset_id_or_path=rows.jsonl"]
    config = compose(words)
    assert config.model_name_or_path == f"SakanaAI/RLT-{size.upper()}"
    validate(config)
    assert "because it was trained with a prompt that is data" in refusal(
        [*words, "layout.student_prompt=default"]
    )


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("trainer_args.packing=true", "`trainer_args.packing` is decided elsewhere: rows are never packed."),
        ("trainer_args.padding_free=true", "`trainer_args.padding_free` is decided elsewhere: rows are padd"),
        ("trainer_args.eos_token=x", "a student's by distill.turn_end"),
        ("distill.turn_end=stop", "`distill.turn_end` must be one of end_of_turn, end_of_text"),
        ("data.missing_trace=solution", "learns not to think"),
        ("data.max_length=40000", "must fit the context of model"),
        ("train_batch_size=5 per_device_train_batch_size=2", "must be a multiple of"),
        ("model_name_or_path=null", "`model_name_or_path` is empty"),
        ("dataset_id_or_path=nope.jsonl", "`dataset_id_or_path=nope.jsonl` does not exist"),
    ],
)
def test_rules_of_student_sft(student_sft, word, expected):
    assert expected in refusal([*student_sft, *word.split(" ")])


def test_a_student_needs_no_student_that_pays(student_sft):
    validate(resolve(compose([*student_sft, "+data.columns.explanation=text"])), num_processes=8)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("infer.question=null", "`infer.question` is empty: give infer.question="),
        ("generation.backend=vllm", "`generation.backend` on the command line has no effect in infer"),
        ("layout.student_prompt=from_dataset", "finds no dataset in infer"),
        ("model_name_or_path=SakanaAI/RLT-7B", "`layout.student_prompt` must be file:PATH with"),
        ("model_name_or_path=no/such/folder", "`model_name_or_path=no/such/folder` does not exist"),
        ("layout.student_prompt=file:nope.txt", "names a file that does not exist"),
        ("trainer_args.optim=sgd", "`trainer_args.optim` on the command line has no effect"),
        ("resume_from=latest", "`resume_from` on the command line has no effect"),
    ],
)
def test_rules_of_infer(infer, word, expected):
    assert expected in refusal([*infer, word])


def test_a_question_is_enough_and_a_teacher_reads_no_student_prompt(infer):
    validate(resolve(compose(infer)))
    validate(resolve(compose([*infer, "infer.solution=42"])))
    with pytest.raises(ConfigError, match=r"student_prompt` on .* has no effect with infer.solution=42"):
        compose([*infer, "infer.solution=42", "layout.student_prompt=from_dataset"])
