"""The quickstart's base model: a tiny Qwen2, trained from scratch on the toy world in both layouts.

Both layouts, because the method needs a teacher that can calculate and a student that can read: a base
that has only seen the student's layout calculates wrongly as a teacher, and RL then rightly prefers vague
words. The same base becomes the teacher (after its warm-up) and stays the frozen student.

It lacks everything a real pre-training needs: data loading, checkpoints, several processes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
import transformers
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM, set_seed

from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.quickstart import world as chains
from rlt.quickstart.world import ToyRow
from rlt.records import Problem

logger = logging.getLogger(__name__)

_MADE_OF = "made_of.json"
_IGNORED = -100


@dataclass(frozen=True)
class BaseSettings:
    """Size and training of the base; measured to learn the world in about two minutes on two cores."""

    hidden_size: int = 128
    """Four heads of 32: smaller heads end vLLM's CPU engine at its first request."""
    num_layers: int = 2
    num_heads: int = 4
    intermediate_size: int = 256
    context: int = 256
    steps: int = 600
    lesson_share: float = 0.6
    """Share of the steps in which most explanations are good, before the corpus as it is."""
    batch_size: int = 64
    learning_rate: float = 3e-3
    warmup_share: float = 0.05


@dataclass(frozen=True)
class Sample:
    """A row in one layout: a context, and what the model learns to write after it."""

    context: list[int]
    target: list[int]


class ToyWorld(Protocol):
    """What a corpus needs of a toy world; a module is one (world.py, hidden.py)."""

    LESSONS: dict[str, float]
    """Shares of kinds in the teacher's layout while the base learns to calculate."""
    KINDS: dict[str, float]
    """The same afterwards."""
    STUDENT_LESSONS: dict[str, float]
    STUDENT_KINDS: dict[str, float]
    """Both in the student's layout."""
    UNSHOWN: float
    """Share of the teacher's rows without the solution."""

    def draw_questions(self, rng: random.Random, without: frozenset[str] = ...) -> Iterator[str]: ...
    def draw_row(self, question: str, rng: random.Random, shares: Mapping[str, float]) -> ToyRow: ...


class Corpus:
    """Endless random samples of a toy world, every other one in the teacher's layout."""

    def __init__(
        self,
        teacher: TeacherLayout,
        student: StudentLayout,
        held_out: frozenset[str],
        seed: int,
        world: ToyWorld = chains,
    ) -> None:
        self._teacher, self._student, self._world = teacher, student, world
        self._unshown = TeacherLayout(
            teacher.tokenizer, teacher.tags, teacher.system_prompt, show_solution=False
        )
        self._rng = random.Random(f"corpus {seed}")
        self._questions = world.draw_questions(self._rng, without=held_out)

    def lessons(self) -> Iterator[Sample]:
        """Yield samples for a base that learns to calculate."""
        return self.samples(self._world.LESSONS, self._world.STUDENT_LESSONS)

    def mixture(self) -> Iterator[Sample]:
        """Yield samples of the corpus as it is."""
        return self.samples(self._world.KINDS, self._world.STUDENT_KINDS)

    def samples(self, teacher: Mapping[str, float], student: Mapping[str, float]) -> Iterator[Sample]:
        """Yield samples whose kinds are drawn by the shares of each layout."""
        while True:
            yield self.in_teacher_layout(self.row(teacher))
            yield self.in_student_layout(self.row(student))

    def row(self, shares: Mapping[str, float]) -> ToyRow:
        """Return a row with a random question."""
        return self._world.draw_row(next(self._questions), self._rng, shares)

    def in_teacher_layout(self, row: ToyRow) -> Sample:
        """Return a row as the teacher writes it: the explanation follows the solution."""
        problem = Problem("", row.question, row.solution)
        is_unshown = self._world.UNSHOWN > 0 and self._rng.random() < self._world.UNSHOWN
        layout = self._unshown if is_unshown else self._teacher
        return Sample(layout.prompt_ids(problem), layout.completion_ids(row.reasoning_trace))

    def in_student_layout(self, row: ToyRow) -> Sample:
        """Return a row as the student writes it, from the opening of its thought to the end of its turn."""
        turn = self._student.turn(Problem("", row.question, row.solution), row.reasoning_trace)
        return Sample(turn.prompt_ids, turn.completion_ids)


def make_base(
    directory: Path, tokenizer: PreTrainedTokenizerBase, corpus: Corpus, settings: BaseSettings, seed: int
) -> bool:
    """Write the base model and its tokenizer to `directory`; return whether it was there already.

    It is there already when the same settings, seed, corpus, code and library versions made it.
    """
    first = [asdict(sample) for sample in islice(corpus.mixture(), 256)]
    made_of = {
        "settings": asdict(settings),
        "seed": seed,
        "tokenizer": _digest(tokenizer.get_vocab()),
        "corpus": _digest(first),
        "code": _digest(Path(__file__).read_text()),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if _made_of(directory) == made_of:
        return True
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a second one gains nothing on so small a model, and stalls on a busy machine
    try:
        model = train_base(tokenizer, corpus, settings, seed)
    finally:
        torch.set_num_threads(threads)
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / _MADE_OF).write_text(json.dumps(made_of, indent=2))
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)
    return False


def train_base(
    tokenizer: PreTrainedTokenizerBase, corpus: Corpus, settings: BaseSettings, seed: int
) -> Qwen2ForCausalLM:
    """Return a tiny Qwen2 trained on the corpus: lessons first, then the corpus' own mixture."""
    set_seed(seed)
    model = Qwen2ForCausalLM(_model_config(tokenizer, settings))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings))
    num_lessons = round(settings.steps * settings.lesson_share)
    lessons, mixture = corpus.lessons(), corpus.mixture()
    start = time.monotonic()
    for step in range(1, settings.steps + 1):
        source = lessons if step <= num_lessons else mixture
        loss = next_token_loss(model, list(islice(source, settings.batch_size)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == settings.steps:
            seconds = time.monotonic() - start
            logger.info(
                "base model: step %d/%d  %s  loss %.3f  %.0f s, %.0f s left",
                step,
                settings.steps,
                "lessons" if step <= num_lessons else "corpus",
                loss.item(),
                seconds,
                seconds / step * (settings.steps - step),
            )
    return model


def next_token_loss(model: Qwen2ForCausalLM, samples: list[Sample]) -> Tensor:
    """Return the mean loss over the samples' targets; only their positions are projected."""
    length = max(len(sample.context) + len(sample.target) for sample in samples)
    ids_BT = torch.zeros(len(samples), length, dtype=torch.long)  # padding is right of all that counts
    labels_BT = torch.full_like(ids_BT, _IGNORED)
    for row, sample in enumerate(samples):
        start, end = len(sample.context), len(sample.context) + len(sample.target)
        ids_BT[row, :end] = torch.tensor(sample.context + sample.target)
        labels_BT[row, start:end] = ids_BT[row, start:end]
    hidden_BTH = model.model(input_ids=ids_BT).last_hidden_state[:, :-1]
    counted_BT = labels_BT[:, 1:] != _IGNORED
    return functional.cross_entropy(model.lm_head(hidden_BTH[counted_BT]), labels_BT[:, 1:][counted_BT])


def _model_config(tokenizer: PreTrainedTokenizerBase, settings: BaseSettings) -> Qwen2Config:
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    assert isinstance(end, int), "the quickstart's tokenizer has an end of turn"
    assert isinstance(pad, int), "the quickstart's tokenizer has padding"
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        num_key_value_heads=settings.num_heads,
        max_position_embeddings=settings.context,
        # Tied, vLLM's CPU engine would keep its packed copy of the output layer when weights are reloaded.
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
    )


def _rate(step: int, settings: BaseSettings) -> float:
    """Return the learning rate's factor: linear warm-up, then a cosine down to 0."""
    warmup = min(1.0, (step + 1) / (settings.warmup_share * settings.steps + 1))
    return warmup * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def _made_of(directory: Path) -> object:
    path = directory / _MADE_OF
    return json.loads(path.read_text()) if path.is_file() else None


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
