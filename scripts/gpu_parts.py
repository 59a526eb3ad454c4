#!/usr/bin/env python3
"""The parts of bench_gpu.py: what each measures on the GPU, or on a CPU where it is only tried.

N positions, D hidden size, T tokens, V vocabulary. Imports of a part are its own, so that it alone fails.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rlt.forecast.activations import Numbers, training_activations
from rlt.forecast.hardware import GIB
from rlt.forecast.model_size import PUBLISHED
from rlt.models.size import Decoder

Line = dict[str, Any]
SHAPE = PUBLISHED["Qwen/Qwen2.5-7B-Instruct"]
TINY_SHAPE = Decoder(64, 128, 2, 4, 2, 16, 500, tied=False, qkv_bias=True).size
TINY_FACTOR = 256
"""How many times shorter --tiny makes every sequence and every other measure."""
WIDTH = 2
"""Bytes of a bfloat16 number."""
SCORER_BATCH = 32_768
"""The default of reward.tokens_per_batch."""


class Bench:
    """Measures the cases of a part and prints a JSON line for each; one that fails prints its reason."""

    def __init__(self, part: str, *, tiny: bool) -> None:
        self.part, self.tiny = part, tiny
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.on_gpu = self.device.type == "cuda"
        self.shape = TINY_SHAPE if tiny else SHAPE
        torch.manual_seed(0)

    def short(self, size: int) -> int:
        """Return a size as it is, or what --tiny makes of it."""
        return max(2, size // TINY_FACTOR) if self.tiny else size

    def random(self, *size: int) -> Tensor:
        """Return standard normal bfloat16 numbers."""
        return torch.randn(*size, device=self.device, dtype=torch.bfloat16)

    def tokens(self, *size: int) -> Tensor:
        """Return random token ids."""
        return torch.randint(0, self.shape.vocabulary, size, device=self.device)

    def case(self, name: str, call: Callable[[], object], *, repeats: int = 1, **facts: Any) -> None:
        """Print the median seconds of a call after one that warms up, and its highest memory.

        Of the facts, `operations` and `moved` (bytes) become rates; a call may return more facts.
        """
        line: Line = {"part": self.part, "case": name, **facts}
        try:
            line |= self._measure(call, repeats)
        except Exception as error:  # kernels fail with many types, and the cases after this one still count
            line["failed"] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        for amount, rate in (("operations", "operations_per_second"), ("moved", "bytes_per_second")):
            if amount in line and "seconds" in line:
                line[rate] = float(f"{line[amount] / line['seconds']:.4g}")
        print(json.dumps(line), flush=True)

    def _measure(self, call: Callable[[], object], repeats: int) -> Line:
        gc.collect()
        before = 0
        if self.on_gpu:
            torch.cuda.empty_cache()
        seconds, found = [], None
        for turn in range(repeats + 1):
            found = None  # what the call before returned is not part of the peak
            if turn == 1 and self.on_gpu:
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            self._wait()
            start = time.perf_counter()
            found = call()
            self._wait()
            seconds.append(time.perf_counter() - start)
        line: Line = {"seconds": float(f"{statistics.median(seconds[1:]):.4g}")}
        if self.on_gpu:
            peak = torch.cuda.max_memory_allocated()
            line |= {"peak_gib": round(peak / GIB, 2), "above_gib": round((peak - before) / GIB, 2)}
        return line | (found if isinstance(found, dict) else {})

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def make_model(bench: Bench) -> Any:
    """Return a Qwen2 model with random bfloat16 weights on the device."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    size = bench.shape
    config = Qwen2Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=32_768,
        tie_word_embeddings=False,
    )
    with bench.device:
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa", trust_remote_code=False
        )
    return model.eval()


# ---- the parts ------------------------------------------------------------------------------------------


def measure_device(bench: Bench) -> None:
    """One large product, weights read as decoding reads them, copies between host and device, memory."""
    side = bench.short(8192)
    a, b = bench.random(side, side), bench.random(side, side)
    bench.case("matrix product", lambda: a @ b, repeats=20, operations=2 * side**3)

    size, layers = bench.shape, 4 if bench.tiny else 40
    weights = [bench.random(size.intermediate, size.hidden) for _ in range(layers)]
    rows = bench.random(16, size.hidden)
    moved = WIDTH * layers * size.intermediate * size.hidden
    bench.case("weights read", lambda: [rows @ w.T for w in weights], repeats=5, rows=16, moved=moved)

    numbers = bench.short(2**28)
    here, there = torch.ones(numbers), torch.ones(numbers, device=bench.device)
    bench.case("host to device", lambda: there.copy_(here), repeats=3, moved=4 * numbers)
    bench.case("device to host", lambda: here.copy_(there), repeats=3, moved=4 * numbers)
    other = torch.ones(numbers)
    bench.case("host sum", lambda: here.add_(other), repeats=3, moved=3 * 4 * numbers)
    if bench.on_gpu:
        bench.case("context", lambda: {"context_gib": context_bytes() / GIB})


def context_bytes() -> int:
    """Return what is in use of the GPU beside this process's tensors: other processes count too."""
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved()


def measure_scorer(bench: Bench) -> None:
    """Log-probabilities of four fifths of each sequence, as the reward asks for them."""
    from rlt.models.logprobs import Request, add_token_query, token_logprobs

    model = make_model(bench).requires_grad_(False)
    add_token_query(model)
    for rows, length in ((12, 5_120), (4, 17_408), (2, 32_768)):
        tokens = bench.short(length)
        requests = [Request(ids, range(tokens // 5, tokens)) for ids in bench.tokens(rows, tokens).tolist()]
        settings = {"temperature": 0.7, "tokens_per_batch": bench.short(SCORER_BATCH)}
        score = partial(token_logprobs, model, requests, device=bench.device, **settings)
        operations = rows * bench.shape.forward_flops(tokens, tokens / 2)
        bench.case(f"{rows} x {tokens:,} tokens", score, operations=operations)


def measure_head(bench: Bench) -> None:
    """The scorer's LM head with tiles of several sizes, and how exact it is."""
    from rlt.models.logprobs import _GPU_TILE_ELEMENTS, _tiled_logprobs

    size, positions = bench.shape, bench.short(16_384)
    head = torch.nn.Linear(
        size.hidden, size.vocabulary, bias=False, device=bench.device, dtype=torch.bfloat16
    )
    head.requires_grad_(False)
    hidden_ND, targets_N = bench.random(positions, size.hidden), bench.tokens(positions)

    def project(rows: int) -> list[Tensor]:
        parts = zip(hidden_ND.split(rows), targets_N.split(rows), strict=True)
        return [_tiled_logprobs(head, h, t, 0.7, size.vocabulary) for h, t in parts]

    operations = 2 * positions * size.vocabulary * size.hidden
    for elements in (2**25, 2**26, 2**27, 2**28, 2**29):
        rows = max(1, elements // size.vocabulary)
        used = " (used)" if elements == _GPU_TILE_ELEMENTS else ""
        name = f"tiles of 2^{elements.bit_length() - 1} logits{used}"
        bench.case(name, partial(project, rows), operations=operations, rows=rows)

    def difference() -> Line:
        few = min(256, positions)
        logits_NV = hidden_ND[:few].double() @ head.weight.double().T / 0.7
        exact_N = logits_NV.log_softmax(-1).gather(1, targets_N[:few, None])[:, 0]
        tiled_N = _tiled_logprobs(head, hidden_ND[:few], targets_N[:few], 0.7, size.vocabulary)
        gap_N = (tiled_N.double() - exact_N).abs()
        return {"mean_difference": gap_N.mean().item(), "largest_difference": gap_N.max().item()}

    bench.case("against float64", difference)


def measure_update(bench: Bench) -> None:
    """Forward, recomputation and backward of one row on an unsharded model, gradients added to older ones.

    The loss is taken in checkpointed tiles over all positions: the same products as in TRL's loss, whose
    kernel is not needed here. The optimizer's step is not included.
    """
    model = make_model(bench).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    size, numbers = bench.shape, Numbers(WIDTH, WIDTH, WIDTH)
    for name, length, real in (
        ("trimmed", 5_120, 1.0),
        ("padded", 17_408, 5_120 / 17_408),
        ("whole", 17_408, 1.0),
        ("whole", 32_768, 1.0),
        ("padded", 32_768, 0.9),
    ):
        tokens = bench.short(length)
        mask_1T = (torch.arange(tokens, device=bench.device) < real * tokens).long()[None]
        waiting, layer = training_activations(size, numbers, tokens=tokens, checkpointing=True)
        bench.case(
            f"{name}, {tokens:,} tokens",
            partial(update, model, bench.tokens(1, tokens), mask_1T if real < 1 else None),
            masked=real < 1,
            operations=4 * size.forward_flops(tokens, tokens / 2),
            forecast_gib=None if real < 1 else round((waiting + layer) / GIB, 2),
        )
    lengths = [bench.short(length) for length in (5_120, 24_576, 9_216, 17_408)]

    def mixed() -> Line:
        for tokens in lengths:
            update(model, bench.tokens(1, tokens), None)
        if not bench.on_gpu:
            return {}
        used, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return {"used_of_reserved": round(used / reserved, 3)}

    operations = 4 * sum(size.forward_flops(tokens, tokens / 2) for tokens in lengths)
    bench.case("rows of four lengths", mixed, operations=operations)


def update(model: Any, ids_1T: Tensor, mask_1T: Tensor | None) -> None:
    """Add a row's gradients to those of the model's parameters."""
    from torch.utils.checkpoint import checkpoint

    hidden_TD = model.model(input_ids=ids_1T, attention_mask=mask_1T, use_cache=False).last_hidden_state[0]
    rows = max(1, 2**27 // model.config.vocab_size)

    def tile_loss(h: Tensor, targets: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(model.lm_head(h).float(), targets, reduction="sum")

    parts = zip(hidden_TD.split(rows), ids_1T[0].roll(-1).split(rows), strict=True)
    losses: list[Any] = [checkpoint(tile_loss, h, targets, use_reentrant=False) for h, targets in parts]
    (torch.stack(losses).sum() / len(hidden_TD)).backward()


def measure_attention(bench: Bench) -> None:
    """One layer's attention, forward and backward, with each kernel of SDPA, as transformers calls it."""
    size = bench.shape
    for length, is_masked in itertools.product((16_384, 32_768), (False, True)):
        tokens = bench.short(length)
        states = [
            bench.random(1, h, tokens, size.head_dim) for h in (size.heads, size.kv_heads, size.kv_heads)
        ]
        gradient = bench.random(1, tokens, size.heads, size.head_dim)
        mask_11TT = None
        if is_masked:
            mask_11TT = torch.ones(1, 1, tokens, tokens, device=bench.device, dtype=torch.bool).tril_()
        for kernel in ("default", "FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION"):
            bench.case(
                f"{kernel.lower()}, {tokens:,} tokens{', masked' if is_masked else ''}",
                partial(attend, kernel, [x.requires_grad_() for x in states], mask_11TT, gradient),
                repeats=3,
                operations=3.5 * 4 * tokens * (tokens / 2) * size.query,  # backward: 2.5 times forward
            )


def attend(kernel: str, states: list[Tensor], mask_11TT: Tensor | None, gradient: Tensor) -> None:
    """Run attention over query, key and value forward and backward; `default` lets torch choose."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    query, key, value = states
    module: Any = SimpleNamespace(num_key_value_groups=query.shape[1] // key.shape[1], is_causal=True)
    chosen = None if kernel == "default" else getattr(SDPBackend, kernel)
    with contextlib.nullcontext() if chosen is None else sdpa_kernel(chosen):
        output, _ = sdpa_attention_forward(module, query, key, value, mask_11TT)
        output.backward(gradient)


def measure_generate(bench: Bench) -> None:
    """Decoding steps of the transformers back end, after a prompt of three tokens."""
    from rlt.generation.transformers_backend import TransformersGenerator
    from rlt.generation.types import Sampling

    model, steps = make_model(bench), 4 if bench.tiny else 48
    sampling = Sampling(temperature=0.7, max_tokens=steps, stop_token_ids=())
    for rows in (1, 16, 64):
        generator = TransformersGenerator(lambda: contextlib.nullcontext(model), 0, rows)
        generate = partial(generator.generate, [[1, 2, 3]] * rows, 1, sampling, range(rows))
        bench.case(f"{rows} rows", generate, rows=rows, steps=steps, weights=WIDTH * bench.shape.parameters)


PARTS = {
    "device": measure_device,
    "scorer": measure_scorer,
    "head": measure_head,
    "update": measure_update,
    "attention": measure_attention,
    "generate": measure_generate,
}


def main() -> None:
    """Measure one part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    PARTS[options.part](Bench(options.part, tiny=options.tiny))


if __name__ == "__main__":
    main()
