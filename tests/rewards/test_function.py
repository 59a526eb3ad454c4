"""The reward as a TRL reward function and in plain Python, beside what its formula says."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from helpers.rewards_cases import CLOSE
from peft import LoraConfig, get_peft_model
from test_scorer import TEMPERATURE, random_model, text_ids
from transformers import PreTrainedModel, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from rlt.config.schema import Config
from rlt.errors import DataError, ModelError
from rlt.formats.prompts import default_student_prompt
from rlt.formats.tags import TAG_STYLES
from rlt.quickstart.tokenizer import build_tokenizer
from rlt.rewards import RewardSpec, StudentLikelihood

QUESTION, SOLUTION = "What is 36 * 2?", "#### 72"
TEXTS = ["Twice 36 is 72.", "So."]
CHAT = [{"role": "system", "content": "Explain."}, {"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def models(tiny_tokenizer) -> tuple[Qwen2ForCausalLM, Qwen2ForCausalLM]:
    """Return a student and a teacher."""
    return random_model(len(tiny_tokenizer), 2), random_model(len(tiny_tokenizer), 1)


@pytest.fixture(scope="module")
def other_tokenizer():
    """Return a tokenizer with other ids for other words."""
    return build_tokenizer(["Twice the number of friends is what Natalia sold"])


def make(models, tokenizer, **options) -> StudentLikelihood:
    return StudentLikelihood(models[0], tokenizer, dtype="float32", tokens_per_batch=999, **options)


def log_p(
    model: PreTrainedModel, before: list[int], ids: list[int], temperature: float = TEMPERATURE
) -> list[float]:
    """Return the log-probabilities of `ids` after `before`, in float64 from the whole logits."""
    with torch.no_grad():
        logits_TV = model(torch.tensor([[*before, *ids]])).logits[0].double() / temperature
    rows = logits_TV[len(before) - 1 : -1]
    return [float(row[i] - row.logsumexp(0)) for row, i in zip(rows, ids, strict=True)]


def expected(
    models,
    tokenizer,
    text: str,
    teacher_prompt: list[int] | None,
    ids: list[int] | None = None,
    scored: str = f"{SOLUTION}\n\n",
) -> float:
    """Return the reward by hand; `teacher_prompt` None takes the student's own surprise."""
    tags = TAG_STYLES["bespoke"]
    ids = ids or text_ids(tokenizer, f"{text}\n\n")
    frame = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": default_student_prompt(tags)},
            {"role": "user", "content": QUESTION},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    before = tokenizer(f"{frame}{tags.thought.open}\n\n", add_special_tokens=False)["input_ids"]
    between = text_ids(tokenizer, f"{tags.thought.close}\n\n{tags.solution.open}\n\n")
    ell = log_p(models[0], [*before, *ids, *between], text_ids(tokenizer, scored))
    own = log_p(models[0], before, ids)
    teacher = [0.0] * len(ids) if teacher_prompt is None else log_p(models[1], teacher_prompt, ids)
    d = [t - s for t, s in zip(teacher, own, strict=True)]
    return sum(ell) / len(ell) + 0.01 * min(ell) - 3 * sum(d) / len(d) - 0.03 * max(d)


def test_plain_python_by_an_independent_computation(models, tiny_tokenizer):
    for options, scored in (({}, f"{SOLUTION}\n\n"), ({"solution_span": "content"}, SOLUTION)):
        reward = make(models, tiny_tokenizer, **options)
        scores = reward.score([QUESTION] * 2, [SOLUTION] * 2, TEXTS)
        by_hand = [expected(models, tiny_tokenizer, text, None, scored=scored) for text in TEXTS]
        assert [s.reward for s in scores] == pytest.approx(by_hand, abs=1e-4)
        assert scores[0].parts["solution_tokens"] == len(text_ids(tiny_tokenizer, scored))


def test_a_teacher_makes_the_divergence(models, tiny_tokenizer):
    prompt = "Explain it:\n"
    reward = make(models, tiny_tokenizer)
    reward.teacher = models[1]  # as one sets a trainer's model
    models[1].train()
    (score,) = reward.score([QUESTION], [SOLUTION], TEXTS[:1], prompts=[prompt])
    assert models[1].training
    models[1].eval()
    by_hand = expected(models, tiny_tokenizer, TEXTS[0], text_ids(tiny_tokenizer, prompt))
    assert score.reward == pytest.approx(by_hand, abs=1e-4)


def test_messages_and_texts_earn_the_same(models, tiny_tokenizer):
    reward = make(models, tiny_tokenizer)
    texts = reward([QUESTION] * 2, TEXTS, question=[QUESTION] * 2, solution=[SOLUTION] * 2)
    turns = [[{"role": "assistant", "content": text}] for text in TEXTS]
    assert reward([CHAT] * 2, turns, solution=[SOLUTION] * 2) == texts
    assert texts == pytest.approx([expected(models, tiny_tokenizer, text, None) for text in TEXTS], abs=1e-4)


def test_sampled_ids_count_as_they_are(models, tiny_tokenizer):
    """`So.` in pieces that no tokenizer would choose, with the end of turn after it."""
    ids = [i for part in ("S", "o", ".") for i in text_ids(tiny_tokenizer, part)]
    sampled = [*ids, tiny_tokenizer.eos_token_id]
    reward = make(models, tiny_tokenizer)
    (value,) = reward(["p"], ["So."], [sampled], question=[QUESTION], solution=[SOLUTION])
    assert value == pytest.approx(expected(models, tiny_tokenizer, "So.", None, ids), abs=1e-4)


def test_an_end_tag_ends_the_explanation_and_is_missed(models, tiny_tokenizer):
    reward = make(models, tiny_tokenizer, end_tag=CLOSE)
    columns = {"question": [QUESTION] * 2, "solution": [SOLUTION] * 2}
    closed, opened = reward(["p"] * 2, [f"{TEXTS[0]}\n\n{CLOSE}", f"{TEXTS[0]}\n\n"], **columns)
    assert closed == pytest.approx(expected(models, tiny_tokenizer, TEXTS[0], None), abs=1e-4)
    assert closed - opened == pytest.approx(1.0, abs=1e-6)


def test_a_student_of_nan_gives_no_number(models, tiny_tokenizer):
    broken = random_model(len(tiny_tokenizer), 2)
    with torch.no_grad():
        broken.lm_head.weight[0] = torch.nan
    logged = []
    reward = make((broken, None), tiny_tokenizer)
    columns = {"question": [QUESTION], "solution": [SOLUTION]}
    assert reward(["p"], TEXTS[:1], log_metric=lambda *item: logged.append(item), **columns) == [None]
    assert logged == []


def test_what_is_missing_is_said(models, tiny_tokenizer):
    reward = make(models, tiny_tokenizer)
    with pytest.raises(DataError, match=r"no column `solution`.*it has: answer, question.*add it"):
        reward(["p"], ["t"], question=["q"], answer=["a"])
    with pytest.raises(DataError, match="no column `question`"):
        reward(["p"], ["t"], solution=["s"])
    with pytest.raises(DataError, match="`prompts` is missing"):
        make(models, tiny_tokenizer, teacher=models[1], teacher_tokenizer=tiny_tokenizer).score(
            ["q"], ["s"], ["t"]
        )
    spec = replace(RewardSpec.from_config(Config()), kl_estimator="k1")
    with pytest.raises(ModelError, match="there is no teacher"):
        make(models, tiny_tokenizer, spec=spec).score(["q"], ["s"], ["t"])
    with pytest.raises(ModelError, match="tokenizer has to be given"):
        StudentLikelihood(models[0])


def columns_of(value, column: str) -> dict[str, list]:
    rows = {"question": [QUESTION] * 3, "solution": [SOLUTION] * 3}
    rows[column][1] = value
    return rows


@pytest.mark.parametrize("column", ["question", "solution"])
@pytest.mark.parametrize(("value", "what"), [(None, "is None"), (72, "is 72, a int"), (" ", "is empty")])
def test_values_that_are_no_text_are_named_before_and_while_training(
    models, tiny_tokenizer, column, value, what
):
    """None and 72 were AttributeErrors of `strip`, in the step that drew the row."""
    reward, rows = make(models, tiny_tokenizer), columns_of(value, column)
    listed = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
    with pytest.raises(DataError, match=f"^row 1, column `{column}`: the value {what}.*reads text: "):
        reward.check(listed)
    with pytest.raises(DataError, match=f"^row 1 of this batch, column `{column}`: the value {what}"):
        reward(["p"] * 3, ["t"] * 3, **rows)
    with pytest.raises(DataError, match=f"^row 1, column `{column}`: the value {what}"):
        reward.score(*rows.values(), ["t"] * 3)


def test_lists_of_different_lengths_are_named(models, tiny_tokenizer):
    """They were a ValueError of `zip`."""
    with pytest.raises(DataError, match="there are 2 in `questions`, 1 in `solutions`, 2 in `explanations`"):
        make(models, tiny_tokenizer).score(["q", "q"], ["s"], ["t", "t"])


def test_rows_beyond_the_students_context_are_marked(models, tiny_tokenizer):
    """They were scored like any other."""
    reward, logged = make(models, tiny_tokenizer), []
    long = "so " * 3000
    short, marked = reward.score([QUESTION] * 2, [SOLUTION] * 2, [TEXTS[0], long])
    assert short.reward == pytest.approx(expected(models, tiny_tokenizer, TEXTS[0], None), abs=1e-4)
    assert math.isnan(marked.reward)
    assert marked.parts == {"beyond_context": 1.0}
    columns = {"question": [QUESTION] * 2, "solution": [SOLUTION] * 2}
    values = reward(["p"] * 2, [TEXTS[0], long], log_metric=lambda *item: logged.append(item), **columns)
    assert values == [pytest.approx(short.reward), None]
    assert [item for item in logged if item[0] == "beyond_context"] == [
        ("beyond_context", 0.0),
        ("beyond_context", 1.0),
    ]
    rows = [{"question": QUESTION, "solution": text} for text in (SOLUTION, long, SOLUTION)]
    assert reward.check(rows) == [1]


def test_a_student_that_is_given_loaded_is_frozen_and_evaluates(tiny_tokenizer):
    """With dropout the same row had another reward each time."""
    student = random_model(len(tiny_tokenizer), 2).train().requires_grad_(True)
    for layer in student.model.layers:
        layer.self_attn.attention_dropout = 0.5
    reward = make((student, None), tiny_tokenizer)
    assert not student.training
    assert not any(parameter.requires_grad for parameter in student.parameters())
    scores = [reward.score([QUESTION], [SOLUTION], TEXTS[:1])[0].reward for _ in range(2)]
    assert scores[0] == scores[1]


def test_the_trained_model_is_no_student(models, tiny_tokenizer):
    reward = make(models, tiny_tokenizer)
    wrapped = get_peft_model(models[0], LoraConfig(target_modules=["q_proj"]))
    for policy in (models[0], wrapped):
        with pytest.raises(
            ModelError, match=r"student is the very model that is trained.*Hub name as `student`"
        ):
            reward.teacher = policy
    wrapped.unload()


def test_a_tokenizer_that_is_smaller_than_its_model_is_told_by_its_object(models, tiny_tokenizer):
    larger = deepcopy(tiny_tokenizer)
    larger.add_tokens(["<new>"])
    with pytest.raises(ModelError, match=r"makes '<new>' token .* embeddings"):
        make(models, larger)


def test_ids_of_another_tokenizer_are_noticed(models, tiny_tokenizer, other_tokenizer):
    """The ids of a policy were read as the student's: other text was scored, without a word."""
    ids = other_tokenizer(TEXTS[0])["input_ids"]
    columns = {"question": [QUESTION], "solution": [SOLUTION]}
    reward = make(models, tiny_tokenizer)
    with pytest.raises(
        ModelError, match=r"`completion_ids` are .* give `teacher_tokenizer`, that of the model"
    ):
        reward(["p"], TEXTS[:1], [ids], **columns)
    reward.teacher_tokenizer = other_tokenizer
    (value,) = reward(["p"], TEXTS[:1], [ids], **columns)
    given = make(models, tiny_tokenizer, teacher_tokenizer=other_tokenizer)
    assert [value] == given(["p"], TEXTS[:1], [ids], **columns)


def grpo(model, reward, rows, folder, **settings) -> GRPOTrainer:
    args = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        max_steps=1,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        **settings,
    )
    return GRPOTrainer(
        model=str(model), reward_funcs=reward, args=args, train_dataset=Dataset.from_list(rows)
    )


ROWS = [{"prompt": CHAT, "question": QUESTION, "solution": str(n)} for n in range(1, 5)]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if terse %}(terse)\n{% endif %}{% endif %}"
)


def test_a_trainers_tokenizer_temperature_and_template_are_the_teachers(
    tiny_tokenizer, other_tokenizer, tmp_path
):
    """The reward took the student's tokenizer, 0.7 and the plain template for all of them."""
    other = deepcopy(other_tokenizer)
    other.chat_template = TEMPLATE
    policy, student = random_model(len(other), 1), random_model(len(tiny_tokenizer), 2)
    policy.save_pretrained(tmp_path / "policy")
    other.save_pretrained(tmp_path / "policy")
    reward = StudentLikelihood(student, tiny_tokenizer, dtype="float32")
    calls, read = [], StudentLikelihood.__call__

    class Watched(StudentLikelihood):
        """Keeps what TRL hands over and gets."""

        def __call__(self, prompts, completions, completion_ids=None, **columns):
            values = read(self, prompts, completions, completion_ids, **columns)
            calls.append(
                (self._teacher_logprobs(prompts, [self._cut(i) for i in completion_ids]), completion_ids)
            )
            return values

    reward.__class__ = Watched
    trainer = grpo(
        tmp_path / "policy",
        reward,
        ROWS,
        tmp_path,
        temperature=1.3,
        chat_template_kwargs={"terse": True},
        learning_rate=0.0,
    )
    reward.teacher = trainer.model
    trainer.train()
    [(logprobs, sampled)] = calls
    text = other.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True, terse=True)
    before = other(text, add_special_tokens=False)["input_ids"]
    assert "(terse)" in text
    for values, ids in zip(logprobs, sampled, strict=True):
        ids = ids[: len(values)]
        by_hand = log_p(trainer.model, before, ids, 1.3)
        assert values.tolist() == pytest.approx(by_hand, abs=1e-4)


def test_a_trainer_that_contradicts_what_was_given_is_refused(
    models, tiny_teacher, tiny_tokenizer, other_tokenizer, tmp_path
):
    warm = make(models, tiny_tokenizer, teacher_temperature=0.7)
    trainer = grpo(tiny_teacher, warm, ROWS, tmp_path)
    with pytest.raises(ModelError, match=r"`teacher_temperature` is 0.7 and the trainer samples at 1.0"):
        warm.attach(trainer)
    with pytest.raises(
        ModelError, match=r"the trainer samples with the tokenizer .* leave `teacher_tokenizer` out"
    ):
        make(models, tiny_tokenizer, teacher_tokenizer=other_tokenizer).attach(trainer)
    itself = make((trainer.model, None), tiny_tokenizer)
    with pytest.raises(ModelError, match="the student is the very model that is trained"):
        itself.attach(trainer)
    none = grpo(tiny_teacher, warm, [*ROWS, ROWS[0] | {"solution": None}], tmp_path)
    with pytest.raises(DataError, match=r"^row 4, column `solution`: the value is None"):
        make(models, tiny_tokenizer).attach(none)


@pytest.mark.slow
@pytest.mark.parametrize("prompt", [f"{QUESTION}\n", CHAT], ids=["text", "messages"])
def test_as_the_reward_of_a_trl_trainer(tiny_teacher, tiny_student, tmp_path, prompt):
    reward = StudentLikelihood(str(tiny_student), dtype="float32")
    rows = [{"prompt": prompt, "question": QUESTION, "solution": str(n)} for n in range(4)]
    args = GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        max_steps=2,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        bf16=False,
        save_strategy="no",
    )
    trainer = GRPOTrainer(
        str(tiny_teacher), reward_funcs=reward, args=args, train_dataset=Dataset.from_list(rows)
    )
    reward.teacher = trainer.model
    trainer.train()
    first, second, _ = trainer.state.log_history
    for row in (first, second):
        assert row["rewards/student_likelihood/mean"] == pytest.approx(
            row["r_ss"] - row["r_kl"] + row["format"], abs=1e-4
        )
        assert row["rewards/student_likelihood/std"] > 0
        assert row["r_kl_max"] > row["r_kl_mean"]
