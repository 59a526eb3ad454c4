"""The student-likelihood reward for any TRL trainer, and for plain Python.

With TRL (columns `question` and `solution` in the dataset)::

    from rlt.rewards import StudentLikelihood
    reward = StudentLikelihood("Qwen/Qwen2.5-7B-Instruct")
    trainer = GRPOTrainer(model, reward_funcs=reward, train_dataset=dataset, args=args)
    reward.attach(trainer)  # optional: looks at all rows now and not in the first step

Without a trainer::

    (score,) = reward.score(["What is 6 * 7?"], ["42"], ["Six sevens are 42."])
    score.reward, score.parts["r_ss"]

The teacher of `r_KL = log p_T - log p_S` is the model that wrote the explanations: `teacher=` a model, or
`reward.teacher = trainer.model` once there is a trainer. Without one the divergence is the student's own
surprise, `-log p_S` (RewardSpec.kl_estimator "student_nll"). A trainer's tokenizer, sampling temperature and
chat template settings are the teacher's. Equations: formula.py.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlt.config.schema import Config
from rlt.errors import DataError, ModelError
from rlt.formats.compare import tokens_unlike
from rlt.formats.cut import Cut, written_explanation
from rlt.formats.encode import Piece, TokenBytes, encode
from rlt.formats.layout import StudentLayout
from rlt.formats.prompts import default_student_prompt
from rlt.formats.tags import tag_style
from rlt.models.frozen import FrozenModel, load_whole
from rlt.models.ids import require_table
from rlt.models.logprobs import Request, add_token_query, token_logprobs
from rlt.records import Explanation, Problem, Score
from rlt.rewards.columns import column, content_of, problems_of, questions_of, same_length
from rlt.rewards.formula import RewardSpec
from rlt.rewards.likelihood import LikelihoodReward, WeightedStudent, is_scorable
from rlt.rewards.scorer import StudentScorer
from rlt.rewards.writer import (
    Text,
    Writer,
    require_written,
    same_vocabulary,
    share_weights,
    tokenizer_of,
    trainer_of,
    writer_of,
)

logger = logging.getLogger(__name__)
BEYOND_CONTEXT = "beyond_context"
"""Part of a score: 1 where the student's context is too short for the row, which then has no reward."""


class StudentLikelihood:
    """A reward function: how likely explanations make a solution to a frozen student.

    `student` and `teacher` are folders, Hub names or loaded causal models; a loaded model needs `tokenizer`
    (the student's) unless its `name_or_path` has one. A loaded student is frozen and put in evaluation mode;
    the model that is trained cannot be one: give its name for a frozen copy. `end_tag` ends an explanation
    inside a completion and costs RewardSpec.missing_tag_penalty where it is missing; None takes the whole
    completion. The student reads `student_prompt`, the question, and the explanation between the thought
    tags of `tags`. `solution_span` is the setting reward.solution_span: `released`, or `content`.
    `temperature` is the student's. The teacher's tokenizer and temperature are those of the trainer that
    calls the reward; without a trainer `teacher_tokenizer` (default: the one beside the teacher, else the
    student's) and `teacher_temperature` (default: the student's).
    Raises ModelError for a model or tokenizer that cannot be used, DataError for columns that are missing.
    """

    __name__ = "student_likelihood"  # TRL names metrics by it

    def __init__(  # noqa: PLR0913 - keyword options of a public entry point
        self,
        student: str | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        teacher: str | PreTrainedModel | None = None,
        teacher_tokenizer: PreTrainedTokenizerBase | None = None,
        spec: RewardSpec | None = None,
        solution_span: str = "released",
        temperature: float = 0.7,
        teacher_temperature: float | None = None,
        tags: str = "bespoke",
        student_prompt: str | None = None,
        end_tag: str | None = None,
        dtype: str = "bfloat16",
        tokens_per_batch: int = 32768,
    ) -> None:
        self._dtype = dtype
        self._tokens_per_batch = tokens_per_batch
        self._temperature = temperature
        self._teacher_temperature = teacher_temperature
        self._spec = spec
        self._end_tag = end_tag
        self._trainer: Any = None
        self._has_long_rows = False
        self._teacher: PreTrainedModel | None = None
        self._given_tokenizer = teacher_tokenizer
        self.tokenizer = tokenizer or tokenizer_of(student)
        """The student's."""
        style = tag_style(tags)
        prompt = default_student_prompt(style) if student_prompt is None else student_prompt
        self._layout = StudentLayout(self.tokenizer, style, prompt, solution_span=solution_span)
        self._student = self._load(student, self.tokenizer).requires_grad_(False).eval()
        context = getattr(self._student.config.get_text_config(), "max_position_embeddings", None)
        self._context: float = context or math.inf
        self._write_with(Writer(teacher_tokenizer or self.tokenizer, teacher_temperature or temperature))
        if teacher is not None:
            self.teacher = self._load(teacher, teacher_tokenizer)

    @property
    def teacher(self) -> PreTrainedModel | None:
        """Whose log-probabilities count in r_KL; may be set to a trainer's model later."""
        return self._teacher

    @teacher.setter
    def teacher(self, model: PreTrainedModel | None) -> None:
        if model is not None:
            self._require_other_student(model)
            if self._given_tokenizer is None and self._trainer is None and model.name_or_path:
                self._write_with(replace(self._writer, tokenizer=tokenizer_of(model)))
        self._teacher = model

    @property
    def teacher_tokenizer(self) -> PreTrainedTokenizerBase:
        """That of the model that writes the completions."""
        return self._writer.tokenizer

    @teacher_tokenizer.setter
    def teacher_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._given_tokenizer = tokenizer
        self._write_with(replace(self._writer, tokenizer=tokenizer))

    def attach(self, trainer: Any) -> None:
        """Take the tokenizer, temperature and chat template settings of a TRL trainer, and check its rows.

        Happens by itself at a trainer's first call. Raises ModelError where they contradict what was given,
        and where the student is the trained model; DataError as `check` does.
        """
        writer, given = writer_of(trainer), self._given_tokenizer
        self._require_other_student(trainer.model)
        if given is not None and not same_vocabulary(given, writer.tokenizer):
            raise ModelError(
                f"`teacher_tokenizer` is {given.name_or_path!r}, and the trainer samples with the tokenizer "
                f"{writer.tokenizer.name_or_path!r}, which is another one: leave `teacher_tokenizer` out"
            )
        expected = self._teacher_temperature
        if expected is not None and expected != writer.temperature:
            raise ModelError(
                f"`teacher_temperature` is {expected} and the trainer samples at {writer.temperature}, where "
                "the divergence is to be measured: leave `teacher_temperature` out"
            )
        self._write_with(writer)
        self._trainer = trainer
        for dataset in (trainer.train_dataset, trainer.eval_dataset):
            if isinstance(dataset, Dataset):
                self.check(dataset)

    def check(self, rows: Iterable[Any]) -> list[int]:
        """Look at all rows of a dataset; return which can have no reward: the student's context is too short.

        Raises DataError, by row and column, for a value that is no text, is empty, or cannot be scored.
        """
        too_long = []
        for number, row in enumerate(rows):
            lists = {name: [value] for name, value in row.items()}
            prompts = lists.get("prompt", [])
            try:
                [problem] = problems_of(questions_of(prompts, lists), column("solution", lists))
                size = len(self._layout.prefix_ids(problem)) + len(self._layout.suffix(problem).ids)
            except DataError as error:
                raise DataError(f"row {number}{str(error).removeprefix('row 0')}") from error
            if size >= self._context:
                too_long.append(number)
        if too_long:
            logger.warning(
                "%d rows have no reward, row %d for one: the student's context of %d tokens has no room for "
                "an explanation; remove them, or take a student with a longer context",
                *(len(too_long), too_long[0], self._context),
            )
        return too_long

    def __call__(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        completion_ids: Sequence[Sequence[int]] | None = None,
        *,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Return a reward per completion, as TRL asks for; None where a model gave no number.

        Reads the columns `solution` and `question` (for messages, the last user turn replaces a missing
        `question`). With `completion_ids` the very tokens that were sampled are scored. Every part of the
        score is logged through `log_metric`, and the share of rows that are too long for the student.
        """
        trainer = trainer_of(log_metric)
        if trainer is not None and trainer is not self._trainer:
            self.attach(trainer)
        problems = problems_of(questions_of(prompts, columns), column("solution", columns), " of this batch")
        if completion_ids is None:
            explanations = [self._read_completion(content_of(completion)) for completion in completions]
        else:
            if self._trainer is None:
                require_written(self.teacher_tokenizer, completion_ids, completions)
            explanations = [self._cut(ids) for ids in completion_ids]
        scores = self._score(problems, explanations, prompts)
        scorable = [score if is_scorable(score) else None for score in scores]
        if log_metric:
            for score in filter(None, scorable):
                for name, value in score.parts.items():
                    log_metric(name, value)
            for score in scores if self._has_long_rows else ():
                log_metric(BEYOND_CONTEXT, score.parts.get(BEYOND_CONTEXT, 0.0))
        return [score and score.reward for score in scorable]

    def score(
        self,
        questions: Sequence[str],
        solutions: Sequence[str],
        explanations: Sequence[str],
        *,
        prompts: Sequence[Text] | None = None,
    ) -> list[Score]:
        """Return the reward of each explanation (a text without tags) with its parts.

        `prompts` are what the teacher read, and needed when there is a teacher. A row that is too long for
        the student's context has the reward NaN and the part `beyond_context`.
        """
        if self.teacher is not None and prompts is None:
            raise DataError("`prompts` is missing: with a teacher, r_KL needs what the teacher read")
        prompts = [""] * len(explanations) if prompts is None else prompts
        same_length(questions=questions, solutions=solutions, explanations=explanations, prompts=prompts)
        read = [self.read(text) for text in explanations]
        return self._score(problems_of(questions, solutions), read, prompts)

    def read(self, text: str) -> Explanation:
        """Return a written explanation, without tags, as token ids of the model that writes."""
        return written_explanation(self.teacher_tokenizer, text)

    def _read_completion(self, text: str) -> Explanation:
        if self._end_tag is None:
            return self.read(text)
        return self._cut(encode(self.teacher_tokenizer, [Piece(text)]).ids)

    def _write_with(self, writer: Writer) -> None:
        """Read what this writer writes from now on."""
        self._writer = writer
        self._cut = Cut(writer.tokenizer, self._end_tag)
        unlike = tokens_unlike(writer.tokenizer, self.tokenizer)
        self._scorer = StudentScorer(
            FrozenModel(self._student, self._student.device, rests_on_cpu=False, collective=False),
            self._layout,
            temperature=self._temperature,
            tokens_per_batch=self._tokens_per_batch,
            teacher_bytes=TokenBytes(writer.tokenizer) if unlike else None,
        )

    def _require_other_student(self, model: Any) -> None:
        if share_weights(self._student, model):
            raise ModelError(
                "the student is the very model that is trained, so it would not stay frozen: give its folder "
                "or Hub name as `student`, which loads a copy"
            )

    def _score(
        self, problems: Sequence[Problem], explanations: Sequence[Explanation], prompts: Sequence[Text]
    ) -> list[Score]:
        """Return all scores; rows beyond the student's context are marked and read by no model."""
        lengths = self._scorer.lengths(problems, explanations)
        scores = [Score(math.nan, {BEYOND_CONTEXT: 1.0})] * len(lengths)
        rows = [row for row, length in enumerate(lengths) if length <= self._context]
        if len(rows) < len(lengths) and not self._has_long_rows:
            self._has_long_rows = True
            logger.warning(
                "a row of %d tokens has no reward, and others like it: the student's context is %d tokens",
                *(max(lengths), self._context),
            )
        read = [explanations[row] for row in rows]
        teacher = self._teacher_logprobs([prompts[row] for row in rows], read)
        for row, score in zip(
            rows, self._reward().score([problems[row] for row in rows], read, teacher), strict=True
        ):
            scores[row] = score
        return scores

    def _reward(self) -> LikelihoodReward:
        spec = self._spec
        if spec is None:
            estimator = "k1" if self.teacher is not None else "student_nll"
            spec = replace(RewardSpec.from_config(Config()), kl_estimator=estimator)
        if spec.group != "none" and PartialState().num_processes > 1:
            raise ModelError(
                f"group={spec.group} compares the explanations of a problem, which may be on several "
                "processes, and a reward function sees those of its own: train in one process, with the "
                "stage teacher_rl, or with group=none"
            )
        if spec.needs_teacher and self.teacher is None:
            raise ModelError(
                f"kl_estimator={spec.kl_estimator} reads a teacher's log-probabilities and there is no "
                "teacher: set `teacher`, or take kl_estimator=student_nll"
            )
        return LikelihoodReward([WeightedStudent("student", self._scorer)], spec)

    @torch.no_grad()
    def _teacher_logprobs(
        self, prompts: Sequence[Text], explanations: Sequence[Explanation]
    ) -> list[torch.Tensor | None]:
        model = self.teacher
        if model is None:
            return [None] * len(explanations)
        if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
            raise ModelError(
                "the teacher is sharded with ZeRO-3, where processes with other completions cannot ask it "
                "apart: give a whole model, or take kl_estimator=student_nll"
            )
        add_token_query(model)
        before = [self._writer.prompt_ids(prompt) for prompt in prompts]
        requests = [
            Request([*prompt, *e.token_ids], range(len(prompt), len(prompt) + len(e.token_ids)))
            for prompt, e in zip(before, explanations, strict=True)
        ]
        training = model.training
        model.eval()
        try:
            return list(
                token_logprobs(
                    model,
                    requests,
                    temperature=self._writer.temperature,
                    tokens_per_batch=self._tokens_per_batch,
                    device=model.device,
                )
            )
        finally:
            model.train(training)

    def _load(
        self, model: str | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None
    ) -> PreTrainedModel:
        if isinstance(model, str):
            device = PartialState().device
            assert device is not None, "set when the state is made"
            return load_whole(model, dtype=self._dtype, device=device)
        if tokenizer is not None:
            table: Any = model.get_input_embeddings()
            require_table(tokenizer, len(table.weight))
        add_token_query(model)
        return model
