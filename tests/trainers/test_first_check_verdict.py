"""The prompts of the check before the first step, and what it says of two sides that differ."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.generation_tiny import save_tiny

from rlt.config.compose import compose
from rlt.errors import GenerationError, RLTError
from rlt.models.frozen import load_whole
from rlt.models.logprobs import Request
from rlt.models.plain import PlainModel, score_plainly
from rlt.stages.rl import drift_limit, rounding, starting_weights
from rlt.trainers.first_check import check_prompts, num_sampled
from rlt.trainers.first_check_verdict import FirstCheck, Judge, Scored, difference


def test_the_long_prompt_leaves_room_for_what_is_sampled():
    long, short = check_prompts([[1, 2, 3], [4, 5]], 300)
    assert long == [1, 2, 3, 4, 5] * 47 + [1]  # 236 ids, and 64 to sample
    assert short == long[-64:]


def test_a_small_context_has_one_prompt():
    assert check_prompts([[1, 2, 3]], 10) == [[1, 2, 3, 1, 2]]
    assert num_sampled(10) == 5
    assert [len(prompt) for prompt in check_prompts([[7]], 191)] == [127]
    assert [len(prompt) for prompt in check_prompts([[7]], 192)] == [128, 64]


def test_the_difference_by_hand():
    drift = difference((-1.0, -2.0), (-1.5, -2.1))
    assert (drift.mean, drift.max) == pytest.approx((0.3, 0.5))


def words(*changes: str) -> list[str]:
    return ["run_cfg=teacher_rl", "model_name_or_path=org/model", "student_model=org/student", *changes]


def test_the_limit_holds_where_the_samples_of_a_step_are_not_the_policys_own():
    shaped = compose(words("generation.top_p=0.9"))
    assert (drift_limit(shaped), rounding(shaped)) == (float("inf"), 0.05)
    exact = compose(words("model.dtype=float32", "generation.dtype=float32"))
    assert rounding(exact) == 0.001
    assert rounding(compose(words("generation.drift_limit=0.2"))) == 0.2


def test_the_weights_that_a_run_starts_with(tmp_path: Path):
    fresh = compose(words("model.revision=abc"))
    assert starting_weights(fresh, None) == PlainModel("org/model", "bfloat16", "abc")
    adapted = compose(words("model.lora.rank=4"))
    assert starting_weights(adapted, None) == PlainModel("org/model", "bfloat16")  # new ones change nothing
    assert "in the trainer alone" in str(starting_weights(adapted, tmp_path))
    assert starting_weights(fresh, tmp_path) == f"{tmp_path} holds no whole weights"
    (tmp_path / "model.safetensors").touch()
    assert starting_weights(fresh, tmp_path) == PlainModel(str(tmp_path), "bfloat16")


LONG, SHORT = 0, 1


def judge(apart: dict[tuple[str, str, int], float]) -> str:
    """Return what is said where there is no plain load; `apart` is by engine, model and prompt."""
    scored = [
        Scored(engine, model, 0, prompt, (5, 6), (-1.0, -1.0), (-1.0 - size, -1.0 - size))
        for (engine, model, prompt), size in apart.items()
    ]
    check = FirstCheck(300, 0.7, 0.05, "it is gone", True, note=lambda _: None)
    trainer: Any = None  # without a plain load nothing of it is read
    with pytest.raises(GenerationError) as error:
        Judge(trainer, check, check_prompts([[1]], 300), scored).settle()
    return str(error.value)


def test_without_a_plain_load_the_other_servers_tell():
    said = judge({("B", "policy", LONG): 0.5, ("B", "policy", SHORT): 0.01, ("A", "policy", LONG): 0.02})
    assert said == (
        "before the first step the trainer's policy and B differ by 0.5 on average in the log-probabilities "
        "of 2 tokens sampled after 236 (limit 0.05), by 0.01 after 64, from A by 0.02; the trainer's policy "
        "agrees with another part of the engine, so B is wrong, and there is no plain load of the weights "
        "to compare with: it is gone; it grows with the position, as with rotary frequencies that are "
        "rounded or of another rope_theta or rope scaling (generation.drift_limit=1 would let the run "
        "continue as it is)"
    )


def test_without_a_plain_load_the_other_model_tells():
    said = judge({("A", "reference", LONG): 0.5, ("A", "reference", SHORT): 0.3, ("A", "policy", LONG): 0.02})
    assert "A agrees with the other model, so the trainer's reference is wrong, and there is no plain" in said
    assert "it does not come from the position alone: weights that are stale or incomplete" in said


def test_alone_neither_side_is_suspected():
    assert "; which of them is wrong is not known, and there" in judge({("A", "policy", LONG): 0.5})


@pytest.fixture(scope="module")
def beside_plain(tmp_path_factory: pytest.TempPathFactory):
    """Return a judge of a policy and an engine that differ so much from a plain load of a real tiny model."""
    folder = save_tiny(tmp_path_factory.mktemp("model"), seed=0)
    prompts, tokens = check_prompts([[5, 9, 4, 8]], 300), (7, 6, 11)
    plain = PlainModel(str(folder), "float32")
    ids = [*prompts[SHORT], *tokens]
    scores = score_plainly(
        plain,
        [Request(ids, range(len(ids) - len(tokens), len(ids)))],
        temperature=0.7, tokens_per_batch=300, device=torch.device("cpu"),
    ).logprobs[0]  # fmt: skip

    def make(of_policy: float, of_engine: float) -> Judge:
        sampled, scored = ((scores + by).tolist() for by in (of_engine, of_policy))
        found = Scored("A", "policy", 0, SHORT, tokens, tuple(sampled), tuple(scored))
        trainer: Any = SimpleNamespace(
            policy=load_whole(str(folder), dtype="float32", device=torch.device("cpu")),
            accelerator=SimpleNamespace(device=torch.device("cpu")),
            engine=None,
        )
        return Judge(trainer, FirstCheck(300, 0.7, 0.05, plain, True, note=lambda _: None), prompts, [found])

    return make


def test_two_roundings_away_from_each_other_are_no_fault(beside_plain):
    assert beside_plain(-0.04, 0.04).settle() == {
        "policy and A": {"policy": pytest.approx(0.04, abs=1e-5), "engine": pytest.approx(0.04, abs=1e-5)}
    }


@pytest.mark.parametrize(
    ("of_policy", "of_engine", "wrong"),
    [(0.0, 0.06, "A is wrong"), (-0.06, 0.0, "the trainer's policy is wrong"), (0.1, -0.1, "are both wrong")],
)
def test_a_side_that_a_plain_load_does_not_confirm(beside_plain, of_policy, of_engine, wrong):
    with pytest.raises(RLTError, match=wrong):
        beside_plain(of_policy, of_engine).settle()
