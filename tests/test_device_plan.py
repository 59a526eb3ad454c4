"""GPUs counted and split by hand-worked examples."""

import pytest

from rlt.device_plan import (
    choose_strategy,
    plan_generation,
    plan_training,
    plan_with_servers,
)
from rlt.errors import ConfigError

EIGHT = tuple("01234567")


def test_mig_instances_work_alone():
    assert plan_generation(("MIG-1", "MIG-2"), None, 1).servers == (("MIG-1",), ("MIG-2",))
    halves = plan_with_servers(("MIG-1", "MIG-2"), None, None, 1, None, True)
    assert (halves.servers, halves.training_gpus, halves.gpus) == (
        (("MIG-1",),),
        ("MIG-2",),
        ("MIG-1", "MIG-2"),
    )
    with pytest.raises(ConfigError, match="MIG-1,MIG-2 cannot work together: a process sees one"):
        plan_training(("MIG-1", "MIG-2"), None, None, True)
    with pytest.raises(ConfigError, match="cannot work together"):
        plan_generation(("MIG-1", "MIG-2"), None, 2)


def test_sft_trains_on_all_gpus_with_zero3():
    plan = plan_training(EIGHT, None, None, True)
    assert (plan.servers, plan.training_gpus, plan.num_processes, plan.strategy) == ((), EIGHT, 8, "zero3")


def test_rl_gives_half_of_the_gpus_to_servers_of_one():
    plan = plan_with_servers(EIGHT, None, None, 1, "offload", True)
    assert plan.servers == (("0",), ("1",), ("2",), ("3",))
    assert plan.training_gpus == ("4", "5", "6", "7")
    assert (plan.num_processes, plan.strategy) == (4, "offload")


def test_a_count_takes_the_first_gpus_and_the_odd_one_trains():
    plan = plan_with_servers(EIGHT, None, 5, 1, None, True)
    assert plan.servers == (("0",), ("1",))
    assert plan.training_gpus == ("2", "3", "4")


def test_tensor_parallel_groups_gpus_and_keeps_their_names():
    plan = plan_with_servers(("2", "3", "5", "7", "9", "11"), 4, 2, 2, None, True)
    assert plan.servers == (("2", "3"), ("5", "7"))
    assert plan.training_gpus == ("9", "11")


def test_halving_respects_tensor_parallel():
    # half of 6 is 3, of which one server of 2 can be made; the other 4 train
    plan = plan_with_servers(EIGHT[:6], None, None, 2, None, True)
    assert plan.servers == (("0", "1"),)
    assert plan.training_gpus == ("2", "3", "4", "5")


def test_collecting_gives_every_gpu_to_a_server():
    plan = plan_generation(EIGHT, None, 1)
    assert plan.servers == tuple((gpu,) for gpu in EIGHT)
    assert (plan.training_gpus, plan.num_processes, plan.strategy, plan.num_gpus) == ((), 1, "single", 8)
    assert plan_generation(EIGHT[:7], None, 2).servers == (("0", "1"), ("2", "3"), ("4", "5"))
    assert plan_generation(EIGHT, 4, 4).servers == (EIGHT[:4],)
    assert plan_generation((), 2, 1).servers == ((), ())


def test_without_gpus_the_numbers_count_processes():
    plan = plan_with_servers((), 1, 2, 1, None, True)
    assert (plan.servers, plan.training_gpus, plan.num_processes, plan.strategy) == (((),), (), 2, "zero3")
    assert plan.on_cpu


@pytest.mark.parametrize(
    ("word", "processes", "on_gpu", "has_deepspeed", "expected"),
    [
        (None, 1, False, True, "single"),  # nothing to shard
        (None, 2, False, True, "zero3"),
        (None, 2, False, False, "ddp"),  # a Mac
        (None, 1, True, True, "zero3"),
        ("zero3", 1, False, True, "zero3"),  # asked for, so done
        ("ddp", 1, True, True, "single"),
        ("ddp", 4, True, True, "ddp"),
        ("zero1", 4, True, True, "zero1"),
    ],
)
def test_strategies(word, processes, on_gpu, has_deepspeed, expected):
    assert choose_strategy(word, processes, on_gpu, has_deepspeed) == expected


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: plan_training(("0",), 8, None, True), "8 GPUs are asked for training, but 1 is visible"),
        (lambda: plan_with_servers(EIGHT, 4, 5, 1, None, True), "4 GPUs for generation and 5 for training"),
        (lambda: plan_with_servers(EIGHT, 3, 4, 2, None, True), "cannot hold servers of"),
        (lambda: plan_with_servers(("0",), None, None, 1, None, True), "1 GPU cannot be shared"),
        (lambda: plan_with_servers(EIGHT, None, 16, 1, None, True), "16 GPUs are asked for"),
        (lambda: plan_generation(EIGHT, 9, 1), "9 GPUs are asked for generation, but 8 are visible"),
        (
            lambda: plan_generation(("0",), None, 2),
            "1 GPU cannot hold a server of generation.tensor_parallel=2",
        ),
        (lambda: choose_strategy("offload", 2, True, False), "needs DeepSpeed"),
    ],
)
def test_what_does_not_fit_is_one_sentence(call, sentence):
    with pytest.raises(ConfigError, match=sentence) as error:
        call()
    assert str(error.value).endswith(".")
