"""The reward as a TRL reward function and in plain Python, beside what its formula says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from rewards_cases import CLOSE
from test_scorer import TEMPERATURE, random_model, text_ids
from transformers import PreTrainedModel, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from rlt.config.schema import Config
from rlt.errors import DataError, ModelError
from rlt.formats.prompts import default_student_prompt
from rlt.formats.tags import TAG_STYLES
from rlt.rewards import RewardSpec, StudentLikelihood

QUESTION, SOLUTION = "What is 36 * 2?", "#### 72"
TEXTS = ["Twice 36 is 72.", "So."]
CHAT = [{"role": "system", "content": "Explain."}, {"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def models(tiny_tokenizer) -> tuple[Qwen2ForCausalLM, Qwen2ForCausalLM]:
    """Return a student and a teacher."""
    return random_model(len(tiny_tokenizer), 2), random_model(len(tiny_tokenizer), 1)


def make(models, tokenizer, **options) -> StudentLikelihood:
    return StudentLikelihood(models[0], tokenizer, dtype="float32", tokens_per_batch=999, **options)


def log_p(model: PreTrainedModel, before: list[int], ids: list[int]) -> list[float]:
    """Return the log-probabilities of `ids` after `before`, in float64 from the whole logits."""
    with torch.no_grad():
        logits_TV = model(torch.tensor([[*before, *ids]])).logits[0].double() / TEMPERATURE
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
