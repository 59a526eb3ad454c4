"""The student-likelihood reward for any TRL trainer, and for plain Python.

With TRL (columns `question` and `solution` in the dataset)::

    from rlt.rewards import StudentLikelihood
    reward = StudentLikelihood("Qwen/Qwen2.5-7B-Instruct")
    trainer = GRPOTrainer(model, reward_funcs=reward, train_dataset=dataset, args=args)

Without a trainer::

    (score,) = reward.score(["What is 6 * 7?"], ["42"], ["Six sevens are 42."])
    score.reward, score.parts["r_ss"]

The teacher of `r_KL = log p_T - log p_S` is the model that wrote the explanations: `teacher=` a model, or
`reward.teacher = trainer.model` once there is a trainer. Without one the divergence is the student's own
surprise, `-log p_S` (RewardSpec.kl_estimator "student_nll"). Equations: formula.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlt.config.schema import Config
from rlt.errors import DataError, ModelError
from rlt.formats.compare import tokens_unlike
from rlt.formats.cut import Cut, written_explanation
from rlt.formats.encode import Piece, TokenBytes, encode
from rlt.formats.layout import StudentLayout
from rlt.formats.prompts import default_student_prompt
from rlt.formats.tags import TAG_STYLES
from rlt.models.frozen import FrozenModel, load_whole
from rlt.models.load import load_tokenizer
from rlt.models.logprobs import Request, add_token_query, token_logprobs
from rlt.records import Explanation, Problem, Score, problem_id
from rlt.rewards.formula import RewardSpec
from rlt.rewards.likelihood import LikelihoodReward, WeightedStudent, is_scorable
from rlt.rewards.scorer import StudentScorer

Text = str | list[dict[str, str]]
"""A prompt or completion of TRL: plain text, or messages."""


class StudentLikelihood:
    """A reward function: how likely explanations make a solution to a frozen student.

    `student` and `teacher` are folders, Hub names or loaded causal models; a loaded model needs `tokenizer`
    (the student's) unless its `name_or_path` has one. `end_tag` ends an explanation inside a completion and
    costs RewardSpec.missing_tag_penalty where it is missing; None takes the whole completion. The student
    reads `student_prompt`, the question, and the explanation between the thought tags of `tags`.
    `solution_span` is the setting reward.solution_span: `released`, or `content`.
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
        tags: str = "bespoke",
        student_prompt: str | None = None,
        end_tag: str | None = None,
        dtype: str = "bfloat16",
        tokens_per_batch: int = 32768,
    ) -> None:
        self._dtype = dtype
        self._tokens_per_batch = tokens_per_batch
        self._temperature = temperature
        self._spec = spec
        self.tokenizer = tokenizer or _tokenizer_of(student)
        """The student's."""
        self.teacher_tokenizer = teacher_tokenizer or (_tokenizer_of(teacher) if teacher else self.tokenizer)
        """That of the model that writes the completions."""
        self.teacher: PreTrainedModel | None = None if teacher is None else self._load(teacher)
        """Whose log-probabilities count in r_KL; may be set to a trainer's model later."""
        self._cut = Cut(self.teacher_tokenizer, end_tag)
        self._end_tag = end_tag
        style = TAG_STYLES[tags]
        prompt = default_student_prompt(style) if student_prompt is None else student_prompt
        model = self._load(student)
        unlike = tokens_unlike(self.teacher_tokenizer, self.tokenizer)
        self._scorer = StudentScorer(
            FrozenModel(model, model.device, rests_on_cpu=False, collective=False),
            StudentLayout(self.tokenizer, style, prompt, solution_span=solution_span),
            temperature=temperature,
            tokens_per_batch=tokens_per_batch,
            teacher_bytes=TokenBytes(self.teacher_tokenizer) if unlike else None,
        )

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

        Reads the columns `solution` and `question` (for messages, the last user turn stands for a missing
        `question`). With `completion_ids` the very tokens that were sampled are scored. Every part of the
        score is logged through `log_metric`.
        """
        questions = _questions(prompts, columns)
        solutions = _column("solution", columns)
        if completion_ids is None:
            explanations = [self._read_completion(_content(completion)) for completion in completions]
        else:
            explanations = [self._cut(ids) for ids in completion_ids]
        teacher = self._teacher_logprobs([self._prompt_ids(p) for p in prompts], explanations)
        scores = self._reward().score(_problems(questions, solutions), explanations, teacher)
        scorable = [score if is_scorable(score) else None for score in scores]
        if log_metric:
            for score in filter(None, scorable):
                for name, value in score.parts.items():
                    log_metric(name, value)
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

        `prompts` are what the teacher read, and needed when there is a teacher.
        """
        read = [self.read(text) for text in explanations]
        if self.teacher is not None and prompts is None:
            raise DataError("`prompts` is missing: with a teacher, r_KL needs what the teacher read")
        prompt_ids = [self._prompt_ids(p) for p in prompts or [""] * len(read)]
        teacher = self._teacher_logprobs(prompt_ids, read)
        return self._reward().score(_problems(questions, solutions), read, teacher)

    def read(self, text: str) -> Explanation:
        """Return a written explanation, without tags, as token ids of the model that writes."""
        return written_explanation(self.teacher_tokenizer, text)

    def _read_completion(self, text: str) -> Explanation:
        if self._end_tag is None:
            return self.read(text)
        return self._cut(encode(self.teacher_tokenizer, [Piece(text)]).ids)

    def _reward(self) -> LikelihoodReward:
        spec = self._spec
        if spec is None:
            estimator = "k1" if self.teacher is not None else "student_nll"
            spec = replace(RewardSpec.from_config(Config()), kl_estimator=estimator)
        if spec.needs_teacher and self.teacher is None:
            raise ModelError(
                f"kl_estimator={spec.kl_estimator} reads a teacher's log-probabilities and there is no "
                "teacher: set `teacher`, or take kl_estimator=student_nll"
            )
        return LikelihoodReward([WeightedStudent("student", self._scorer)], spec)

    def _prompt_ids(self, prompt: Text) -> list[int]:
        if self.teacher is None:
            return []
        if isinstance(prompt, str):
            return list(self.teacher_tokenizer(prompt)["input_ids"])
        ids: Any = self.teacher_tokenizer.apply_chat_template(
            prompt, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        return list(ids)

    @torch.no_grad()
    def _teacher_logprobs(
        self, prompt_ids: Sequence[list[int]], explanations: Sequence[Explanation]
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
        requests = [
            Request([*prompt, *e.token_ids], range(len(prompt), len(prompt) + len(e.token_ids)))
            for prompt, e in zip(prompt_ids, explanations, strict=True)
        ]
        training = model.training
        model.eval()
        try:
            return list(
                token_logprobs(
                    model,
                    requests,
                    temperature=self._temperature,
                    tokens_per_batch=self._tokens_per_batch,
                    device=model.device,
                )
            )
        finally:
            model.train(training)

    def _load(self, model: str | PreTrainedModel) -> PreTrainedModel:
        if isinstance(model, str):
            device = PartialState().device
            assert device is not None, "set when the state is made"
            return load_whole(model, dtype=self._dtype, device=device)
        add_token_query(model)
        return model


def _tokenizer_of(model: str | PreTrainedModel) -> PreTrainedTokenizerBase:
    name = model if isinstance(model, str) else model.name_or_path
    if not name:
        raise ModelError(
            "the model was not loaded from a folder or the Hub, so its tokenizer has to be given"
        )
    return load_tokenizer(name)


def _problems(questions: Sequence[str], solutions: Sequence[str]) -> list[Problem]:
    return [Problem(problem_id(q, s), q, s) for q, s in zip(questions, solutions, strict=True)]


def _column(name: str, columns: dict[str, Any]) -> list[str]:
    if name not in columns:
        have = ", ".join(sorted(k for k, v in columns.items() if isinstance(v, list))) or "none"
        raise DataError(
            f"the dataset has no column `{name}`, which the reward reads (it has: {have}): add it"
        )
    return columns[name]


def _questions(prompts: Sequence[Text], columns: dict[str, Any]) -> list[str]:
    if "question" in columns or not prompts or isinstance(prompts[0], str):
        return _column("question", columns)
    return [_last(prompt, "user") for prompt in prompts]


def _content(completion: Text) -> str:
    return completion if isinstance(completion, str) else _last(completion, "assistant")


def _last(messages: Text, role: str) -> str:
    found = [m["content"] for m in messages if isinstance(m, dict) and m["role"] == role]
    if not found:
        raise DataError(f"a chat without a turn of the role {role} cannot be scored: {messages!r:.80}")
    return found[-1]
