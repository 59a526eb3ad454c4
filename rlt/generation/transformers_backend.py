"""Generation with a transformers model in this process: the back end without a server.

B rows of a batch, V vocabulary. One row is one sample. Every row draws from its own seeded stream of
uniform numbers, so a sample depends on its prompt, its seed and the weights: not on the rows beside it
(but for rounding), not on torch's global generators, which are never read or moved.
The distribution is shaped in the order of vLLM's sampler, so its log-probabilities compare with
`processed_logprobs` of a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from rlt.errors import GenerationError, NotFinite
from rlt.generation.seeds import spread_seed
from rlt.generation.types import Sampling
from rlt.records import Completion


class TransformersGenerator:
    """A `Generator` on top of `model.generate`.

    `model_context()` is opened around each call and yields the plain model: a trainer unwraps there, or
    gathers weights. `batch_size` counts samples of one forward pass. `decode` turns ids into text and is
    needed for stop strings only. `on_step` is given the token of every row as soon as it is drawn, those
    after a row's end too. With `synced_gpus` (ZeRO-3) every process has to call with the same
    number of prompts and the same n, since each forward pass is a collective.
    """

    def __init__(
        self,
        model_context: Callable[[], AbstractContextManager[PreTrainedModel]],
        pad_token_id: int,
        batch_size: int,
        *,
        decode: Callable[[list[int]], str] | None = None,
        synced_gpus: bool = False,
        on_step: Callable[[list[int]], None] | None = None,
    ) -> None:
        self._model_context = model_context
        self._pad_token_id = pad_token_id
        self._batch_size = batch_size
        self._decode = decode
        self._synced_gpus = synced_gpus
        self._on_step = on_step

    def generate(
        self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """Return n completions for each prompt, in order."""
        assert len(prompts) == len(seeds), "one seed per prompt"
        assert all(len(prompt) for prompt in prompts), "a prompt has at least one token"
        if sampling.stop_strings and self._decode is None:
            raise GenerationError(
                f"stop strings {list(sampling.stop_strings)} need text, and this generator was made without "
                "`decode`; pass the tokenizer's decode function"
            )
        rows = [
            (list(prompt), spread_seed(seed, sample))
            for prompt, seed in zip(prompts, seeds, strict=True)
            for sample in range(n)
        ]
        flat: list[Completion] = []
        with self._model_context() as model, _plain_inference(model), torch.no_grad():
            for start in range(0, len(rows), self._batch_size):
                flat += self._generate_batch(model, rows[start : start + self._batch_size], sampling)
        if any(value != value for completion in flat for value in completion.logprobs):
            raise NotFinite(
                "the model's log-probabilities are NaN while generating with transformers; "
                "its weights or activations have overflowed"
            )
        return [flat[i * n : (i + 1) * n] for i in range(len(prompts))]

    def _generate_batch(
        self, model: PreTrainedModel, rows: list[tuple[list[int], int]], sampling: Sampling
    ) -> list[Completion]:
        device = next(model.parameters()).device
        width = max(len(prompt) for prompt, _ in rows)
        ids_BT = torch.full((len(rows), width), self._pad_token_id)
        mask_BT = torch.zeros_like(ids_BT)
        for row, (prompt, _) in enumerate(rows):
            ids_BT[row, width - len(prompt) :] = torch.tensor(prompt)
            mask_BT[row, width - len(prompt) :] = 1
        ids_BT, mask_BT = ids_BT.to(device), mask_BT.to(device)
        sampler = _RowSampler(sampling, [seed for _, seed in rows], mask_BT, self._on_step)
        criteria = StoppingCriteriaList()
        text_stop = None
        if sampling.stop_strings:
            assert self._decode is not None, "checked by generate"
            text_stop = _StopStrings(sampling.stop_strings, self._decode, width, len(rows))
            criteria.append(text_stop)
        model.generate(  # pyright: ignore[reportCallIssue]
            input_ids=ids_BT,
            attention_mask=mask_BT,
            generation_config=_generation_config(sampling, self._pad_token_id),
            logits_processor=LogitsProcessorList([sampler]),
            stopping_criteria=criteria,
            synced_gpus=self._synced_gpus,
        )
        stop_lengths = text_stop.stop_lengths if text_stop else [None] * len(rows)
        return sampler.completions(stop_lengths)


@contextmanager
def _plain_inference(model: PreTrainedModel) -> Iterator[None]:
    """Put the model in evaluation mode without its own generation defaults; restore both afterwards.

    `generate` fills every unset field of the config it is given from `model.generation_config`: an
    end-of-sequence id, a repetition penalty. With an empty one nothing is left to fill in. PEFT's `generate`
    hands its own config on to the model under the adapters, whose config is the one that gets saved.
    """
    under: Any = getattr(model, "get_base_model", lambda: model)()
    training, own_config, config_under = model.training, model.generation_config, under.generation_config
    model.eval()
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config, under.generation_config = own_config, config_under
        model.train(training)


def _generation_config(sampling: Sampling, pad_token_id: int) -> GenerationConfig:
    """Return a config that only counts, stops and takes the maximum: `_RowSampler` does the sampling."""
    return GenerationConfig(
        max_new_tokens=sampling.max_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        repetition_penalty=1.0,
        eos_token_id=list(sampling.stop_token_ids) or None,
        pad_token_id=pad_token_id,
    )


class _RowSampler(LogitsProcessor):
    """Chooses the next token of every row, and remembers it with its log-probability.

    `generate` sees scores in which only the chosen token is possible. Inverting the cumulative
    distribution at one uniform number per token keeps the rows independent of each other.
    """

    def __init__(
        self,
        sampling: Sampling,
        seeds: list[int],
        prompt_mask_BT: Tensor,
        on_step: Callable[[list[int]], None] | None = None,
    ) -> None:
        self._sampling = sampling
        self._on_step = on_step
        self._prompt_mask_BT = prompt_mask_BT
        self._seen_BV: Tensor | None = None
        self._warpers = _warpers(sampling)
        uniforms_BT = torch.stack([_uniforms(seed, sampling.max_tokens) for seed in seeds])
        device = prompt_mask_BT.device
        self._uniforms_BT = uniforms_BT.to(_widest_float(device)).to(device)
        self._tokens: list[Tensor] = []
        self._logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Any:
        logits_BV = self._penalise_repetition(input_ids, scores)
        for warper in self._warpers:
            logits_BV = warper(input_ids, logits_BV)
        logprobs_BV = logits_BV.log_softmax(-1)
        if self._sampling.temperature == 0:
            chosen_B1 = logits_BV.argmax(-1, keepdim=True)
        else:
            # The loop of `generate` may take a step too many on GPUs before it sees that all rows stopped.
            step = min(len(self._tokens), self._uniforms_BT.shape[1] - 1)
            cdf_BV = logprobs_BV.to(self._uniforms_BT.dtype).exp().cumsum(-1)
            target_B1 = self._uniforms_BT[:, step : step + 1] * cdf_BV[:, -1:]
            # The first token whose cumulative probability exceeds the target: never one of probability 0.
            chosen_B1 = torch.searchsorted(cdf_BV, target_B1, right=True).clamp(max=cdf_BV.shape[1] - 1)
        self._tokens.append(chosen_B1.squeeze(1))
        self._logprobs.append(logprobs_BV.gather(1, chosen_B1).squeeze(1))
        if self._on_step is not None:
            self._on_step(self._tokens[-1].tolist())
        return torch.full_like(scores, -torch.inf).scatter(1, chosen_B1, 0.0)

    def _penalise_repetition(self, input_ids: Tensor, logits_BV: Tensor) -> Tensor:
        """Return logits with the penalty on every token of prompt and completion, but not on padding."""
        penalty = self._sampling.repetition_penalty
        if penalty == 1.0:
            return logits_BV
        if self._seen_BV is None:
            counts_BV = torch.zeros_like(logits_BV)
            counts_BV.scatter_add_(1, input_ids, self._prompt_mask_BT.to(logits_BV.dtype))
            self._seen_BV = counts_BV > 0
        else:
            self._seen_BV.scatter_(1, input_ids[:, -1:], True)
        penalised_BV = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
        return torch.where(self._seen_BV, penalised_BV, logits_BV)

    def completions(self, stop_lengths: Sequence[int | None]) -> list[Completion]:
        """Return one completion per row, cut after its first stop id or where its text stopped."""
        tokens = torch.stack(self._tokens, 1)[:, : self._sampling.max_tokens].tolist()
        logprobs = torch.stack(self._logprobs, 1)[:, : self._sampling.max_tokens].tolist()
        stop_ids = set(self._sampling.stop_token_ids)
        done = []
        for row, text_length in enumerate(stop_lengths):
            id_length = next((i + 1 for i, token in enumerate(tokens[row]) if token in stop_ids), None)
            lengths = [length for length in (id_length, text_length) if length is not None]
            end = min(lengths, default=len(tokens[row]))
            reason = "stop" if lengths else "length"
            done.append(Completion(tuple(tokens[row][:end]), tuple(logprobs[row][:end]), reason))
        return done


def _warpers(sampling: Sampling) -> list[Callable[[Any, Any], Any]]:
    """Return what shapes the distribution, in vLLM's order; greedy decoding ignores all of it."""
    if sampling.temperature == 0:
        return []
    warpers: list[Callable[[Any, Any], Any]] = [TemperatureLogitsWarper(float(sampling.temperature))]
    if sampling.min_p > 0:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    if sampling.top_k > 0:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(_Nucleus(sampling.top_p))
    return warpers


class _Nucleus:
    """The tokens of TopPLogitsWarper, which sorts the whole vocabulary: three quarters of a step on a CPU.

    Here their mass is added up in buckets by the first 16 bits of the logits, and only the tokens of the
    bucket where the nucleus ends are put in order.
    """

    def __init__(self, top_p: float) -> None:
        self._top_p = top_p
        self._by_sorting = TopPLogitsWarper(top_p)

    def __call__(self, input_ids: Any, logits_BV: Any) -> Tensor:
        if logits_BV.device.type != "cpu":  # which sort fast, and would wait for each row here
            return self._by_sorting(input_ids, logits_BV)
        bits_BV = logits_BV.float().view(torch.int32)
        ordered_BV = bits_BV ^ ((bits_BV >> 31) & 0x7FFFFFFF)  # as whole numbers in the order of the logits
        bucket_BV = (ordered_BV >> 16).long() + 2**15
        probs_BV = logits_BV.softmax(-1).double()
        mass_BK = probs_BV.new_zeros(len(logits_BV), 2**16).scatter_add_(1, bucket_BV, probs_BV)
        above_BK = mass_BK.flip(-1).cumsum(-1).flip(-1) - mass_BK
        last_B1 = (above_BK < self._top_p).int().argmax(-1, keepdim=True)
        dropped_BV = bucket_BV < last_B1
        for row, last in enumerate(last_B1[:, 0].tolist()):
            inside_N = (bucket_BV[row] == last).nonzero()[:, 0]
            probs_N, order_N = probs_BV[row, inside_N].sort(descending=True, stable=True)
            before_N = above_BK[row, last] + probs_N.cumsum(-1) - probs_N
            dropped_BV[row, inside_N[order_N]] = before_N >= self._top_p
        return logits_BV.masked_fill(dropped_BV, -torch.inf)


def _uniforms(seed: int, count: int) -> Tensor:
    """Return numbers in [0, 1) that depend on the seed alone: made on the CPU, whatever the device."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _widest_float(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on Apple GPUs, which have no wider one."""
    return torch.float32 if device.type == "mps" else torch.float64


class _StopStrings(StoppingCriteria):
    """Ends a row when the text of its completion contains one of the strings."""

    def __init__(
        self, strings: Sequence[str], decode: Callable[[list[int]], str], prompt_width: int, num_rows: int
    ) -> None:
        self._strings = strings
        self._decode = decode
        self._prompt_width = prompt_width
        # A token holds at least one byte, so a string that has just ended lies within this many tokens.
        self._window = max(len(s.encode()) for s in strings) + 1
        self.stop_lengths: list[int | None] = [None] * num_rows

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Any:  # noqa: ARG002
        completions = input_ids[:, self._prompt_width :].tolist()
        for row, ids in enumerate(completions):
            if self.stop_lengths[row] is None:
                text = self._decode(ids[-self._window :])
                if any(s in text for s in self._strings):
                    self.stop_lengths[row] = len(ids)
        done = [length is not None for length in self.stop_lengths]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)
