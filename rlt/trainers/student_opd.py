"""On-policy distillation: the student writes, and a teacher that knows the solution judges every token.

Rows, engine, weight sync, resume and monitors are those of RL (rl.py). TRL's DistillationTrainer is not the
base: it lets both models read one prompt, where the teacher here has read the solution; its completions come
from one engine of its own; and it pads a step's rows to one width. Of GRPO's loss there remains what holds
for any per-token objective: the importance-sampling ratio between engine and policy, the reference term, the
reduction, the metrics.

What is overridden of it:
- the advantages. GRPO compares the rewards of a group. On the sampled token each token has its own,
  log p_T - log p_S, set once the pass with gradients has given log p_S: its loss is then the estimate of the
  reverse KL, and its gradient that of each token's reverse KL.
- over several tokens of the vocabulary there is no advantage: they are 0, and the divergence is added.
- with `answers`, the completions: the loss reads the solution behind each thought (taught_answer.py).

B rows, C columns of completions, K likeliest tokens of the teacher, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import override

from rlt.formats.layout import StudentLayout
from rlt.formats.leakage import copied_share, states_first
from rlt.formats.place import Places
from rlt.formats.reply import Reply, ReplyReader
from rlt.generation.collective import on_every_process
from rlt.models.distributions import HiddenStates, TopTokens
from rlt.models.logprobs import Extra
from rlt.records import Completion, Problem, Score
from rlt.trainers.divergence import sampled_advantage
from rlt.trainers.narrow import SIZE
from rlt.trainers.opd_head import Against, Divergence, TopTargets, WholeTargets, add_divergence
from rlt.trainers.opd_limits import opd_limits
from rlt.trainers.opd_teacher import Teacher
from rlt.trainers.opd_view import View, fit, renamed, request, spread, view_of
from rlt.trainers.own_loss import IGNORED
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.reference import MovingReference
from rlt.trainers.rl import RLTrainer
from rlt.trainers.taught_answer import TaughtAnswers, put_behind


@dataclass(frozen=True)
class Objective:
    """What the student is trained on."""

    support: str
    """`sampled`, `top_k` or `full`: the tokens of the vocabulary that count."""
    divergence: Divergence | None
    """None on the sampled token, whose estimate is that of the reverse KL."""
    temperature: float
    """Of both distributions."""
    top_k: int
    vocabulary: int
    """Ids below are tokens of both models."""

    @property
    def extra(self) -> Extra | None:
        """What is read of the teacher besides the sampled tokens' log-probabilities."""
        if self.support == "top_k":
            return TopTokens(self.top_k, self.temperature, self.vocabulary)
        return HiddenStates(self.vocabulary) if self.support == "full" else None


@dataclass(frozen=True)
class OPDParts:
    """The teacher's side; the teacher needs the trainer to be made."""

    objective: Objective
    places: Places
    make_teacher: Callable[[StudentOPDTrainer], Teacher]
    make_average: Callable[[StudentOPDTrainer], MovingReference] | None = None
    """For a teacher that follows the student; called after `make_teacher`."""
    opening_ids: Sequence[int] = ()
    """What the prompts open a thought with, where the student does not do it."""
    answers: TaughtAnswers | None = None
    """What teaches the student to answer from its thought; None: the loss is the teacher's alone."""
    teacher_context: int | None = None
    """Tokens that the teacher reads; None where that is not known."""


class StudentOPDTrainer(RLTrainer[StudentLayout]):
    """Trains a student towards a teacher's distributions on its own completions."""

    limits = staticmethod(opd_limits)
    reads_policy = False
    compares_rewards = False
    without_reward = (
        "the teacher's log-probabilities are NaN or infinite, or no completion begins with a thought in the "
        "student's tags: look at samples/ and at teacher_model's weights; where earlier steps had thoughts, "
        "lower learning_rate or temperature, or keep the tags in the loss with opd.answer_coeff=1"
    )

    def __init__(self, *args: Any, opd: OPDParts, **kwargs: Any) -> None:
        """The other arguments are those of `RLTrainer`."""
        super().__init__(*args, **kwargs)
        self._reply = ReplyReader(self.layout.tokenizer, self.layout.style)
        self._opening = tuple(opd.opening_ids)
        self.objective, self.places = opd.objective, opd.places
        self.rows_travel = self.objective.support == "sampled"  # the teacher's distributions stay
        self._views: list[View] = []
        self._sums: dict[str, list[Tensor]] = {}
        """By metric: sum and number of tokens of each pass since the last log line."""
        self._answers = opd.answers
        self._context = opd.teacher_context
        plain: Any = self.accelerator.unwrap_model(self.policy)
        if self.objective.divergence is not None:
            add_divergence(plain, self.temperature)
        self.teacher = opd.make_teacher(self)
        self.average: MovingReference | None = None
        if opd.make_average is not None:
            self.average = opd.make_average(self)
            self.add_callback(self.average)

    @property
    def moving_models(self) -> list[MovingReference]:
        """The models that follow the policy, which checkpoints hold."""
        return [*super().moving_models, *([self.average] if self.average else [])]

    # ---- the teacher reads --------------------------------------------------------------------------

    def while_reading(self) -> AbstractContextManager[Any]:
        """Keep a teacher that rests in host memory on its device."""
        return self.teacher.in_place()

    def measure(
        self,
        items: Sequence[PromptedProblem],
        completions: Sequence[Completion],
        policy_logprobs: Sequence[Tensor | None],  # noqa: ARG002 - the loss has its own
        *,
        runs: Sequence[int] | None,
    ) -> list[View]:
        """Return what the teacher makes of each completion; one that fails on a process ends all of them."""
        pairs = zip(items, completions, strict=True)
        places = [
            fit(self.places(item.problem, completion.token_ids), self._context) for item, completion in pairs
        ]
        requests = [request(place) for place in places]
        read = partial(self.teacher.read, requests, self.objective.extra, runs or [len(requests)])
        found = on_every_process(self.accelerator, read)
        return [
            view_of(len(completion.token_ids), place, values)
            for completion, place, values in zip(completions, places, found, strict=True)
        ]

    def judge(
        self,
        items: Sequence[PromptedProblem],
        completions: Sequence[Completion],
        measured: Sequence[View],
    ) -> list[Score]:
        """Return the mean of log p_T - log p_S over each completion's tokens, which nothing is paid by."""
        return [
            self._score(item, completion, view)
            for item, completion, view in zip(items, completions, measured, strict=True)
        ]

    def read_reply(self, completion: Completion) -> Reply:
        """Return thought and answer of a completion, with what its prompt has opened."""
        return self._reply(replace(completion, token_ids=(*self._opening, *completion.token_ids)))

    def _score(self, item: PromptedProblem, completion: Completion, view: View) -> Score:  # noqa: ARG002
        inside_C = view.chunk_C >= 0
        num_inside = int(inside_C.sum())
        sampled_C = torch.tensor(completion.logprobs, dtype=torch.float64)
        student = float(sampled_C[inside_C].sum())
        # Each chunk once: its value is at each of its tokens.
        numbers_C = view.chunk_C[inside_C]
        is_first_C = torch.ones_like(numbers_C, dtype=torch.bool)
        is_first_C[1:] = numbers_C[1:] != numbers_C[:-1]
        teacher = float(view.teacher_C[inside_C][is_first_C].double().sum())
        tokens = num_inside or math.nan
        reply = self.read_reply(completion)
        parts = {
            "reverse_kl": (student - teacher) / tokens,
            "teacher_logprob": teacher / tokens,
            "student_logprob": student / tokens,
            "judged_tokens": float(num_inside),
            "explanation_tokens": float(reply.thought_tokens),
        }
        return Score(-parts["reverse_kl"], parts)

    def tell(self, problem: Problem, completion: Completion) -> dict[str, Any]:
        """Return thought and answer, and what the thought gives away of the solution that it has not read."""
        reply = self.read_reply(completion)
        return {
            "explanation": reply.thought,
            "student_answer": reply.answer,
            "well_formed": reply.answer is not None,
            "solution_copied": copied_share(problem.solution, reply.thought),
            "solution_first": states_first(problem.question, problem.solution, reply.thought),
        }

    # ---- from the samples to the loss ---------------------------------------------------------------

    def total(self, **kwargs: Any) -> list[float | None]:
        """Return what each completion is worth; TRL calls this. Keeps what the teacher made of them."""
        self._views = [self._values[row].measured for row in range(len(self._batch))]
        return super().total(**kwargs)

    # TRL's gives every token of a row the advantage of the row. Ours gives each its own, made in the update,
    # and leaves tokens without a place in the teacher's text out of the loss by TRL's own mask for them.
    @override
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Return TRL's batch, with the teacher's values and the tokens that are in the loss."""
        output = super()._generate_and_score_completions(inputs)
        if self._answers is not None:
            pairs = zip(self._batch, self._completions, strict=True)
            taught = [self._answers(item.problem, completion.token_ids) for item, completion in pairs]
            self._views = [view.within(row) for view, row in zip(self._views, taught, strict=True)]
            pad = self.layout.tokenizer.pad_token_id
            assert isinstance(pad, int), "load_tokenizer has seen to a pad token"
            output = put_behind(output, taught, pad)
            shares: Any = self.accelerator.gather(output["around"].any(1).float())
            self._metrics["train"]["answer_taught"].append(shares.mean().item())
        mask_BC = output["completion_mask"]
        width, device = mask_BC.size(1), mask_BC.device
        support = self.objective.support
        output["tool_mask"] = _padded([view.counts_C(support).long() for view in self._views], width, device)
        counted: Any = self.accelerator.gather((mask_BC * output["tool_mask"]).sum())
        output["num_items_in_batch"] = counted.sum()
        output["advantages"] = torch.zeros_like(output["advantages"])
        if support == "sampled":
            output["teacher_logprobs"] = _padded([view.teacher_C for view in self._views], width, device)
            chunks = [view.chunk_C + 1 for view in self._views]  # padding is 0
            output["teacher_chunks"] = _padded(chunks, width, device)
        else:
            output["view"] = torch.arange(len(self._views), device=device)
        return output

    # TRL's loss reads the advantages after this call, so that they can be made from what it returns: a pass
    # of its own for log p_S would cost as much as the update's forward pass.
    @override
    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        """Return log-probabilities; in the pass with gradients they make the advantages of the tokens."""
        result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._logprobs_BC = result[0]
        if torch.is_grad_enabled() and self.objective.support == "sampled":
            inputs = self._loss_inputs
            inputs["advantages"] = sampled_advantage(
                result[0], inputs["teacher_logprobs"], inputs["teacher_chunks"] - 1
            )
        return result

    @override
    def forward_pass(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, **kwargs: Any
    ) -> Any:
        """Return log-probabilities and entropies, and keep the divergences of the same pass."""
        if self.objective.divergence is None or not torch.is_grad_enabled():
            return super().forward_pass(model, input_ids, attention_mask, logits_to_keep, **kwargs)
        labels = input_ids.masked_fill(attention_mask == 0, IGNORED)
        labels[:, :-logits_to_keep] = IGNORED
        routed = {"output_router_logits": True} if kwargs.get("compute_aux_loss") else {}
        with self.accelerator.autocast():
            output = model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                labels=labels,
                against=self._against(self._loss_inputs),
                **routed,
            )
        self._divergence_BC = output.divergence[:, -logits_to_keep:]
        return output.log_probs[:, -logits_to_keep:], output.entropy[:, -logits_to_keep:], None

    def _against(self, inputs: dict[str, Any]) -> Against:
        """Return the teacher's distributions at the tokens of a micro-batch, 0 where it has none."""
        counts: list[int] = inputs["completion_mask"].sum(1).tolist()
        views = [self._views[row] for row in inputs["view"].tolist()]
        columns = [
            torch.cat([spread(view, index, count) for view, count in zip(views, counts, strict=True)])
            for index in (0, 1)
        ]
        first, second = (column.to(self.accelerator.device) for column in columns)
        objective = self.objective
        assert objective.divergence is not None
        if objective.support == "top_k":
            ids = renamed(second, self.places.renamed)
            targets = TopTargets(first, ids, is_whole=objective.top_k >= objective.vocabulary)
        else:
            targets = WholeTargets(
                first, second, self.teacher.head(), objective.temperature, self.places.renamed
            )
        return Against(targets, objective.divergence, objective.temperature, objective.vocabulary)

    # TRL's knows losses of advantages alone. With advantages of 0 its loss is the reference term, and it logs
    # its metrics as ever.
    @override
    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return TRL's loss and what is added to it, reduced as it is.

        That is the divergence over several tokens of the vocabulary, and the loss of the answers.
        """
        loss = super()._compute_loss(model, inputs)
        mask_BC = inputs["completion_mask"] * inputs["tool_mask"]
        if self.objective.divergence is not None:
            divergence_BC = self._divergence_BC
            self._note("divergence", divergence_BC, mask_BC)
            if self.vllm_importance_sampling_correction:
                divergence_BC = divergence_BC * self._loss_inputs["importance_sampling_ratio"]
            loss = loss + self._reduced(divergence_BC * mask_BC, mask_BC, inputs)
        if self._answers is not None:
            around_BC = inputs["around"] * (1 - inputs["tool_mask"])
            self._note("answer_loss", -self._logprobs_BC, around_BC)
            weighted_BC = -self._answers.coefficient * self._logprobs_BC * around_BC
            loss = loss + self._reduced(weighted_BC, mask_BC, inputs)
        return loss

    def _note(self, metric: str, values_BC: Tensor, mask_BC: Tensor) -> None:
        """Keep sum and number of some tokens for the next log line."""
        total = torch.stack([(values_BC.detach() * mask_BC).sum(), mask_BC.sum()])
        self._sums.setdefault(metric, []).append(total)

    # The base class's adds means of passes, each weighted by all of its tokens. Not all of them are judged.
    @override
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean divergence and the mean loss of the answers, a token, since the last call."""
        if self.policy.training and math.isfinite(logs.get("loss", math.nan)):
            for metric, noted in self._sums.items():  # in one order on all processes
                totals: Any = self.accelerator.reduce(torch.stack(noted).sum(0), "sum")
                logs[metric] = (totals[0] / totals[1].clamp(min=1)).item()
            self._sums = {}
        super().log(logs, start_time)

    def _reduced(self, values_BC: Tensor, mask_BC: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Return per-token values as TRL reduces its own under the same loss_type (OPD_LOSS_TYPES)."""
        passes = self.current_gradient_accumulation_steps
        if self.loss_type == "dapo":
            args: Any = self.args
            items = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
            return values_BC.sum() / (items * passes / args.steps_per_generation)
        assert self.loss_type == "grpo", "validate() has refused the others"
        mean = (values_BC.sum(1) / mask_BC.sum(1).clamp(min=1.0)).mean() / passes
        return mean * inputs[SIZE].item() if SIZE in inputs else mean


def _padded(values: Sequence[Tensor], width: int, device: torch.device) -> Tensor:
    """Return rows (B, width), padded with 0 on the right."""
    padded = pad_sequence(list(values), batch_first=True).to(device)
    return torch.nn.functional.pad(padded, (0, width - padded.size(1)))
