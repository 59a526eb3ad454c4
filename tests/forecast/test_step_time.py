"""Times by hand, on a GPU with round numbers: 1e12 operations and 1e12 bytes a second."""

from dataclasses import replace

import pytest
from helpers.forecast_runs import configured

from rlt.device_plan import Plan
from rlt.forecast.hardware import BANDWIDTH_SHARE, HOST_BANDWIDTH, HOST_LINK, LINK_SHARE, SERVER_TICK
from rlt.forecast.server_memory import ServerMemory
from rlt.forecast.step_time import AHEAD, BOTH, Lengths, StepTimes, assumed_lengths, longest_lengths
from rlt.forecast.training_memory import Models
from rlt.models.size import Decoder
from rlt.surroundings.gpus import GPU

_DECODER = Decoder(1000, 4000, 10, 10, 10, 100, 50_000, tied=True).size
SIZE = replace(_DECODER, active=_DECODER.parameters)  # norms too, so that one number is enough
WEIGHTS = SIZE.parameters
ATTENTION = 4 * 10 * 1000
"""Operations of one token's attention to one other."""
ROUND = GPU("round", 80 * 2**30, None, 1e12 / BANDWIDTH_SHARE, 1e12 / LINK_SHARE)
SERVER = ServerMemory(0, 0, pool=4e9, kv_bytes=SIZE.kv_bytes(2, 1), sequence=1, max_sequences=256)
LENGTHS = Lengths(prompt=100, completion=200, longest=1000)
SERIAL = ("teacher_rl", "generation.overlap=false")
CORRECTED = ("trainer_args.vllm_importance_sampling_correction=true",)


def times(
    *words: str, strategy: str = "zero3", server: ServerMemory = SERVER, flops: float = 1e12
) -> StepTimes:
    """Return the times on two GPUs that train and, where the run has servers, two that generate."""
    config = configured(*words, "train_batch_size=64")
    plan = Plan((("0",), ("1",)), ("2", "3"), 2, strategy)
    return StepTimes(config, plan, Models(SIZE, (SIZE,)), ROUND, server, flops)


def test_an_update_is_four_passes_over_every_token():
    # forward, recomputed forward, backward twice as long; 32 rows on each of two GPUs
    found = times("teacher_sft").seconds(Lengths(300, 0, 0))["update"]
    assert found == pytest.approx(4 * 32 * 300 * (2 * WEIGHTS + ATTENTION * 150) / 1e12)


@pytest.mark.parametrize(
    ("words", "passes"),
    [(["trainer.gradient_checkpointing=false"], 3), (["model.lora.rank=8"], 3)],  # no gradients of weights
)
def test_what_an_update_leaves_out(words, passes):
    all_four = times("teacher_sft").seconds(Lengths(300, 0, 0))["update"]
    assert times("teacher_sft", *words).seconds(Lengths(300, 0, 0))["update"] == pytest.approx(
        all_four * passes / 4
    )


def test_short_rows_keep_their_activations():
    auto = ("trainer.gradient_checkpointing=auto", "trainer.recompute_above=300")
    for length, passes in ((300, 3), (301, 4)):
        all_four = times("teacher_sft").seconds(Lengths(length, 0, 0))["update"]
        found = times("teacher_sft", *auto).seconds(Lengths(length, 0, 0))["update"]
        assert found == pytest.approx(all_four * passes / 4)


def test_short_rows_wait_for_the_weights_of_zero3():
    # each of 32 micro-batches gathers the weights twice and shares gradients once, in bfloat16
    found = times("teacher_sft", flops=1e15).seconds(Lengths(1, 0, 0))["update"]
    assert found == pytest.approx(32 * 3 * 2 * WEIGHTS / 1e12)


def test_short_rows_of_rl_share_the_weights_of_zero3():
    # two of 1,024 tokens are joined; bnpo averages over the tokens of each pass, so there none are
    each = 3 * 2 * WEIGHTS / 1e12
    found = times("teacher_rl", flops=1e17).seconds(Lengths(24, 1000, 1000))["update"]
    assert found == pytest.approx(16 * each)
    apart = times("teacher_rl", "trainer.loss_type=bnpo", flops=1e17).seconds(Lengths(24, 1000, 1000))
    assert apart["update"] == pytest.approx(32 * each)
    four = times("teacher_rl", "per_device_train_batch_size=4", flops=1e17).seconds(Lengths(24, 1000, 1000))
    assert four["update"] == pytest.approx(8 * each)


def test_offloading_adds_the_way_to_the_host_and_its_work():
    seconds = {s: times("teacher_sft", strategy=s).seconds(Lengths(300, 0, 0)) for s in ("zero3", "offload")}
    moved = (2 * 2 * WEIGHTS + 2 * WEIGHTS) / 2 / HOST_LINK
    summed = 12 * WEIGHTS / HOST_BANDWIDTH
    optimizer = 28 * WEIGHTS / HOST_BANDWIDTH
    added = seconds["offload"]["update"] - seconds["zero3"]["update"]
    assert added == pytest.approx(32 * (moved + summed) + optimizer)


def test_each_pass_of_rl_is_as_wide_as_its_own_rows():
    seconds = times(*SERIAL).seconds(LENGTHS)
    a_pass = 32 * 300 * (2 * WEIGHTS + ATTENTION * 150) / 1e12
    assert seconds["reward"] == pytest.approx(2 * a_pass)  # student and policy
    assert seconds["reference"] == pytest.approx(a_pass)
    assert seconds["update"] == pytest.approx(4 * a_pass)


@pytest.mark.parametrize(
    ("words", "phase", "share"),
    [
        (["trainer.beta=0"], "reference", 0),
        (["reward.kl_estimator=student_nll"], "reward", 0.5),
        (["reward.placement=server", "reward.servers=[http://a:1]"], "reward", 0.5),
        # The correction reads the policy's pass, or is made in the update; it takes none of its own.
        ([*CORRECTED], "reward", 1),
        (["reward.teacher_logprobs=engine"], "reward", 0.5),
        ([*CORRECTED, "reward.teacher_logprobs=engine"], "reward", 0.5),
        (["generation.weight_sync=checkpoint"], "weights to servers", 2 * 1e12 / 1e9),  # written and read
    ],
)
def test_phases_follow_the_settings(words, phase, share):
    usual = times(*SERIAL).seconds(LENGTHS)
    assert times(*SERIAL, *words).seconds(LENGTHS).get(phase, 0) == pytest.approx(share * usual[phase])


def test_rows_that_are_read_one_by_one_wait_for_the_weights():
    found = times(*SERIAL, flops=1e15).seconds(LENGTHS)
    assert found["reference"] == pytest.approx(32 * 2 * WEIGHTS / 1e12)
    together = 32 * 300 * (2 * WEIGHTS + ATTENTION * 150) / 1e15
    for others in (
        times(*SERIAL, "generation.backend=transformers", flops=1e15),
        times("teacher_rl", flops=1e15, strategy="offload"),  # each row alone would bring the weights
    ):
        assert others.seconds(LENGTHS)["reference"] == pytest.approx(together)


SHORT = ("max_prompt_length=100", "max_completion_length=900", "reward.tokens_per_batch=16000")
"""Sixteen rows at their limits fill a pass."""


def test_rows_that_are_read_together_gather_the_weights_once():
    # 32 rows of 300 tokens in two units of 16, each in passes of some 2,048 tokens
    gather = 2 * WEIGHTS / 1e12
    found = times(*SERIAL, *SHORT, flops=1e16).seconds(LENGTHS)
    assert found["reference"] == pytest.approx(32 / (2048 / 300) * gather)
    shorter = times(*SERIAL, *SHORT, flops=1e16).seconds(Lengths(10, 10, 20))
    assert shorter["reference"] == pytest.approx(2 * gather)  # a pass for each unit
    whole = times(*SERIAL, *SHORT, strategy="zero2", flops=1e16).seconds(LENGTHS)
    assert whole["reference"] == pytest.approx(32 * 300 * (2 * WEIGHTS + ATTENTION * 150) / 1e16)


# ---- scoring while servers write: 16 of each server's 32 sequences at once, so in two turns --------------

IN_TURNS = ServerMemory(0, 0, pool=4e9, kv_bytes=SIZE.kv_bytes(2, 1), sequence=1, max_sequences=16)
PASS = 32 * 300 * (2 * WEIGHTS + ATTENTION * 150)
"""Operations of one model's pass over the 32 rows of a GPU."""


def rest_of_scoring(lengths: Lengths, flops: float, server: ServerMemory = IN_TURNS) -> float:
    """Return the seconds that scoring adds to generation."""
    overlapped = times("teacher_rl", server=server, flops=flops).seconds(lengths)
    serial = times(*SERIAL, server=server, flops=flops).seconds(lengths)
    assert overlapped.keys() == {BOTH, "weights to servers", "update"}
    assert all(overlapped[name] == serial[name] for name in ("weights to servers", "update"))
    return overlapped[BOTH] - serial["generation"]


def test_slow_scoring_hides_behind_what_follows_the_first_turn():
    flops = 1e12
    turn = 200 * (16 * (2 * WEIGHTS + ATTENTION * 200) / flops + SERVER_TICK)
    longest = 800 * ((2 * WEIGHTS + ATTENTION * 1100) / flops + SERVER_TICK)
    scoring = 3 * PASS / flops  # student, policy, reference
    assert scoring / 2 > turn  # the training GPUs work from the end of the first turn on
    assert rest_of_scoring(LENGTHS, flops) == pytest.approx(scoring - turn - longest)


def test_fast_scoring_leaves_the_longest_row():
    row = 1100 * (2 * WEIGHTS + ATTENTION * 550)
    assert rest_of_scoring(LENGTHS, 1e14) == pytest.approx(3 * row / 1e14)


def test_the_longest_row_keeps_its_unit_waiting():
    row, longest = (n * (2 * WEIGHTS + ATTENTION * n / 2) for n in (300, 1100))
    overlapped = times("teacher_rl", *SHORT, server=IN_TURNS, flops=1e13).seconds(LENGTHS)
    serial = times(*SERIAL, *SHORT, server=IN_TURNS, flops=1e13).seconds(LENGTHS)
    assert overlapped[BOTH] - serial["generation"] == pytest.approx(3 * (longest + 15 * row) / 1e13)


def test_where_none_is_longer_the_last_turn_is_scored_after_it():
    assert rest_of_scoring(Lengths(100, 200, 200), 5e13) == pytest.approx(3 * PASS / 5e13 / 2)


def test_a_single_turn_without_a_longer_row_hides_nothing():
    assert rest_of_scoring(Lengths(100, 200, 200), 1e12, SERVER) == pytest.approx(3 * PASS / 1e12)


def test_what_is_hidden_is_told():
    found = times("teacher_rl", server=IN_TURNS, flops=5e13).hidden(Lengths(100, 200, 200))
    assert found == pytest.approx((3 * PASS / 5e13, 3 * PASS / 5e13 / 2))
    assert times(*SERIAL).hidden(LENGTHS) is None
    assert times("teacher_sft").hidden(Lengths(300, 0, 0)) is None


@pytest.mark.parametrize("flops", [1e12, 1e15])
def test_a_step_ahead_takes_the_longer_of_writing_and_learning(flops):
    keys = SIZE.kv_bytes(2, 1)
    together = max((2 * WEIGHTS + 32 * 200 * keys) / 1e12, 32 * (2 * WEIGHTS + ATTENTION * 200) / flops)
    alone = max((2 * WEIGHTS + 1100 * keys) / 1e12, (2 * WEIGHTS + ATTENTION * 1100) / flops)
    prompt = 100 * (2 * WEIGHTS + ATTENTION * 50) / flops
    writing = prompt + 200 * (together + SERVER_TICK) + 800 * (alone + SERVER_TICK)
    a_pass = 32 * 300 * (2 * WEIGHTS + ATTENTION * 150) / flops
    # student, policy, reference, and the update's four; fast GPUs wait for its weights instead
    learning = 3 * a_pass + 4 * a_pass
    assert (learning > writing) == (flops == 1e12)
    ahead = times("teacher_rl", *CORRECTED, "generation.max_staleness=1", flops=flops)
    assert ahead.seconds(LENGTHS) == {
        AHEAD: pytest.approx(max(writing, learning)),
        "weights to servers": pytest.approx(2 * WEIGHTS / 1e12),
    }
    if learning > writing:
        assert ahead.hidden(LENGTHS) == pytest.approx((learning, writing))


def test_a_student_is_scored_by_its_grader_alone():
    """In student_rl without a reference no model scores, whether the correction is on or off."""
    for words in (CORRECTED, ["trainer_args.vllm_importance_sampling_correction=false"]):
        found = times("student_rl", "trainer.beta=0", *words).seconds(LENGTHS)
        serial = times("student_rl", "generation.overlap=false", "trainer.beta=0", *words).seconds(LENGTHS)
        assert found[BOTH] == serial["generation"]
        assert serial.keys() == {"generation", "weights to servers", "update"}


def test_the_policy_itself_writes_and_scores_in_turn():
    words = ["generation.backend=transformers"]
    assert times("teacher_rl", *words).seconds(LENGTHS) == times(*SERIAL, *words).seconds(LENGTHS)
    assert BOTH not in times("teacher_rl", *words).seconds(LENGTHS)


def test_servers_read_weights_and_keys_for_each_token():
    # of two servers each has 32 sequences; their prompt is read once; at last one continues alone
    keys = SIZE.kv_bytes(2, 1)
    together = (2 * WEIGHTS + 32 * 200 * keys) / 1e12 + SERVER_TICK
    alone = (2 * WEIGHTS + 1100 * keys) / 1e12 + SERVER_TICK
    prompt = 100 * (2 * WEIGHTS + ATTENTION * 50) / 1e15
    found = times(*SERIAL, flops=1e15).seconds(LENGTHS)["generation"]
    assert found == pytest.approx(prompt + 200 * together + 800 * alone)


def test_servers_without_room_take_turns():
    room = ServerMemory(
        0, 0, pool=16 * 200 * SIZE.kv_bytes(2, 1), kv_bytes=SIZE.kv_bytes(2, 1), sequence=1, max_sequences=256
    )
    length = Lengths(100, 200, 200)
    half = times(*SERIAL, server=room, flops=1e15).seconds(length)["generation"]
    whole = times(*SERIAL, flops=1e15).seconds(length)["generation"]
    assert 1.5 * whole < half < 2 * whole  # twice the turns, each with half the keys


def test_the_policy_itself_is_slower_than_servers():
    words = ["teacher_rl", "generation.backend=transformers"]
    alone = times(*words).seconds(LENGTHS)
    assert alone["generation"] > 5 * times(*SERIAL).seconds(LENGTHS)["generation"]
    assert "weights to servers" not in alone


def test_lengths_are_the_users_or_a_part_of_the_limits():
    config = configured("teacher_rl")
    assert assumed_lengths(config) == Lengths(1024, 4096, 16384)
    assert longest_lengths(config) == Lengths(16384, 16384, 16384)
    means = ["hardware.mean_prompt_tokens=700", "hardware.mean_completion_tokens=99999"]
    assert assumed_lengths(configured("teacher_rl", *means)) == Lengths(700, 16384, 16384)
    assert assumed_lengths(configured("teacher_sft", *means)) == Lengths(700, 16384 - 700, 0)
