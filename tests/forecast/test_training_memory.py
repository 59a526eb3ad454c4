"""Memory of training against DeepSpeed's estimators, and against what a real model takes on this CPU."""

import pytest
import torch
from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs
from helpers.forecast_runs import configured
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlt.forecast.activations import Numbers, forward_by_layer, saved_by_layer, training_activations
from rlt.forecast.hardware import GIB, GPUS
from rlt.forecast.model_size import PUBLISHED
from rlt.forecast.training_memory import Models, state_bytes, tokens_that_fit, training_memory
from rlt.models.size import size_of

QWEN_7B = PUBLISHED["Qwen/Qwen2.5-7B-Instruct"]
BFLOAT16, FLOAT32, AUTOCAST = Numbers(2, 2, 2), Numbers(4, 4, 4), Numbers(4, 2, 4)


def rl(*words: str, strategy: str = "zero3", processes: int = 4):
    config = configured("teacher_rl", *words)
    return training_memory(config, strategy, processes, Models(QWEN_7B, (QWEN_7B,)))


@pytest.mark.parametrize("processes", [1, 4, 8])
def test_states_are_those_of_deepspeeds_estimators(processes):
    total, largest = QWEN_7B.parameters, QWEN_7B.embedding
    _, expected = estimate_zero2_model_states_mem_needs(total, processes, cpu_offload=False)
    assert sum(state_bytes(total, total, "zero2", processes, 2).values()) == pytest.approx(expected, abs=1)
    _, with_largest, gathered = estimate_zero3_model_states_mem_needs(
        total, largest, processes, cpu_offload=False
    )
    assert gathered == 4 * largest
    states = sum(state_bytes(total, total, "zero3", processes, 2).values())
    assert states == pytest.approx(with_largest - gathered, abs=1)


@pytest.mark.parametrize("batch", [1, 4])
def test_the_tokens_that_fit_are_the_most_whose_activations_may_be_kept(batch):
    models, gpu = Models(QWEN_7B), GPUS["h100-80g"]

    def memory(length: int, checkpointing: str):
        words = [f"data.max_length={length}", f"trainer.gradient_checkpointing={checkpointing}"]
        return configured("student_sft", *words, f"per_device_train_batch_size={batch}")

    found = tokens_that_fit(memory(32768, "auto"), "zero3", 8, models, gpu)
    assert found % 256 == 0
    assert found // batch < 32768
    one_more = (found + 256) // batch
    assert training_memory(memory(found // batch, "false"), "zero3", 8, models).fits(gpu)
    assert not training_memory(memory(one_more, "false"), "zero3", 8, models).fits(gpu)
    assert tokens_that_fit(memory(256, "auto"), "zero3", 8, models, gpu) == 256 * batch  # all rows
    assert tokens_that_fit(memory(32768, "auto"), "zero2", 1, models, gpu) == 0  # the states alone do not


def test_offloaded_states_rest_in_the_host():
    total, largest = QWEN_7B.parameters, QWEN_7B.embedding
    host, device, _ = estimate_zero3_model_states_mem_needs(
        total, largest, 4, cpu_offload=True, cpu_offload_params=True, zero_init=True
    )
    memory = rl("trainer.beta=0", "reward.placement=zero3", strategy="offload")
    student = 2 * total
    assert memory.host - student == pytest.approx(host, rel=1e-9)
    assert set(memory.kept.values()) == {0, 1 * GIB, 1.5 * GIB}  # nothing but CUDA's and NCCL's own
    wider = rl("trainer.beta=0", "trainer.grad_accum_dtype=float32", strategy="offload")
    assert wider.host - rl("trainer.beta=0", strategy="offload").host == pytest.approx(1.5 * 2 * total)
    # DeepSpeed counts weight and gradient of the largest module; up to 1e9 weights are gathered ahead
    update = memory.phases["update, in a layer"]
    assert update["gathered"] == device + 2 * (10**9 - largest)


def test_the_states_of_a_real_model_after_a_step():
    model, size = tiny(torch.float32)
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    state = [t for s in optimizer.state.values() for name, t in s.items() if name != "step"]
    expected = {
        "weights": sum(p.nbytes for p in model.parameters()),
        "gradients": sum(p.grad.nbytes for p in model.parameters() if p.grad is not None),
        "optimizer": sum(t.nbytes for t in state),
    }
    assert state_bytes(size.parameters, size.parameters, "single", 1, 4) == expected


@pytest.mark.parametrize(
    ("dtype", "autocast", "numbers"),
    [(torch.bfloat16, False, BFLOAT16), (torch.float32, False, FLOAT32), (torch.float32, True, AUTOCAST)],
)
def test_a_layer_keeps_what_autograd_saves(dtype, autocast, numbers):
    tokens = 64

    def saved(layers: int) -> int:
        model, _ = tiny(dtype, layers)
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in weights and tensor.shape[-2:] not in casts:
                kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        # autocast's copies of the weights are a part of their own
        casts = {p.shape[::-1] for p in model.parameters() if p.dim() == 2} if autocast else set()
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        ):
            model.model(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    assert saved(3) - saved(2) == tokens * saved_by_layer(tiny(dtype)[1], numbers)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_activations_are_at_most_a_tenth_above_the_real_peak(checkpointing):
    model, size = tiny(torch.float32, layers=4)
    tokens = 1024
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def step() -> None:
        ids = torch.zeros(1, tokens, dtype=torch.long)
        model.model(input_ids=ids, use_cache=False).last_hidden_state.sum().backward()

    kept, layer = training_activations(size, FLOAT32, tokens=tokens, checkpointing=checkpointing)
    assert 1 <= (kept + layer) / peak_of(step) <= 1.1


def test_a_pass_without_gradients_is_at_most_a_fifth_above_the_real_peak():
    model, size = tiny(torch.float32, layers=4)

    @torch.no_grad()
    def step() -> None:
        model.model(input_ids=torch.zeros(1, 1024, dtype=torch.long), use_cache=False)

    assert 1 <= 1024 * forward_by_layer(size, FLOAT32) / peak_of(step) <= 1.2


def tiny(dtype: torch.dtype, layers: int = 2):
    """Return a model with the proportions of Qwen2.5-7B, and its size."""
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=672,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=1,
        attn_implementation="sdpa",
    )
    return Qwen2ForCausalLM._from_config(config, dtype=dtype), size_of(config.to_dict(), "tiny")


def peak_of(step) -> int:
    """Return the most bytes that were allocated at once in a step, beyond what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def test_the_released_recipe_by_hand():
    # 7.6156e9 parameters over 4 GPUs: weights 2, gradients 4, optimizer 12, reference 2 bytes; a student
    memory = rl()
    quarter = 7_615_616_512 / 4
    expected = [2 * quarter, 4 * quarter, 12 * quarter, 2 * quarter, 2 * 7_615_616_512, GIB, 1.5 * GIB]
    assert list(memory.kept.values()) == pytest.approx(expected)
    update = memory.phases["update, in a layer"]
    assert update["waiting for backward"] == 32768 * 28 * 2 * 3584
    assert memory.peak == sum(expected) + sum(update.values())


@pytest.mark.parametrize(
    ("strategy", "sums", "bytes_of_a_parameter"),
    [
        ("zero3", "model", 4 / 4),
        ("zero3", "float32", 6 / 4),  # 3.5 GiB more of a 7B model on four GPUs
        ("zero2", "model", 6 / 4),
        ("zero2", "float32", 8 / 4),
        ("zero1", "model", 2 + 4 / 4),
        ("zero1", "float32", 2 + 4),
        ("ddp", "model", 4),
        ("ddp", "float32", 4),  # as they are anyway
    ],
)
def test_gradients_follow_the_dtype_of_their_sum(strategy, sums, bytes_of_a_parameter):
    kept = rl(f"trainer.grad_accum_dtype={sums}", strategy=strategy).kept
    assert kept["gradients"] == pytest.approx(7_615_616_512 * bytes_of_a_parameter)


@pytest.mark.parametrize(
    ("words", "strategy", "processes", "communicators"),
    [
        ([], "zero3", 4, 3),  # torch's, DeepSpeed's, the weight sync's
        (["generation.weight_sync=checkpoint"], "zero3", 4, 2),
        (["generation.backend=transformers"], "ddp", 2, 1),
        ([], "single", 1, 1),
    ],
)
def test_each_nccl_communicator_has_its_buffers(words, strategy, processes, communicators):
    kept = rl(*words, strategy=strategy, processes=processes).kept
    assert kept["NCCL"] == communicators * 0.5 * GIB


@pytest.mark.parametrize(
    ("words", "part", "gibibytes"),
    [
        (["reward.placement=zero3"], "student", 7_615_616_512 * 2 / 4 / GIB),
        (["reward.placement=cpu_offload"], "student", 0),
        (["reward.placement=server", "reward.servers=[http://a:1]"], "student", 0),
        (["reward.dtype=float32"], "student", 7_615_616_512 * 4 / GIB),
        (["model.lora.rank=32"], "reference", 0),  # the model without its adapters
        (["trainer.beta=0"], "reference", 0),
    ],
)
def test_parts_follow_the_settings(words, part, gibibytes):
    assert rl(*words).kept.get(part, 0) == pytest.approx(gibibytes * GIB)


def test_an_offloaded_student_takes_room_while_it_scores():
    student = 7_615_616_512 * 2
    memory = rl("reward.placement=cpu_offload")
    assert memory.phases["scoring"]["student"] == student
    assert memory.host == 4 * student  # each process has its own


def test_adapters_need_neither_gradients_nor_states_of_the_rest():
    kept = rl("model.lora.rank=32", strategy="zero2").kept
    trained = QWEN_7B.lora_parameters(32, ["all-linear"])
    assert kept["optimizer"] == 12 * trained / 4
    assert kept["weights"] == 2 * QWEN_7B.parameters


def test_masks_of_sdpa_and_scores_of_eager_grow_with_the_square():
    lengths = ["max_prompt_length=1024", "max_completion_length=3072"]
    one_row = rl(*lengths, "model.attn_implementation=sdpa").phases["update, in a layer"]
    padded = rl(*lengths, "model.attn_implementation=sdpa", "per_device_train_batch_size=2")
    eager = rl(*lengths, "model.attn_implementation=eager").phases["update, in a layer"]
    assert one_row["attention"] == 0  # nothing is padded, so there is no mask
    assert padded.phases["update, in a layer"]["attention"] == 2 * 4096**2 * 3
    assert eager["attention"] == 4096**2 * 28 * 8
    assert rl(*lengths).phases["update, in a layer"]["attention"] == 0
