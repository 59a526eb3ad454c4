"""One question to a student, which thinks and answers, or with its solution to a teacher, which explains.

The text goes to stdout as it is sampled, everything else to stderr. Leaves no run directory.
"""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from dataclasses import replace

from accelerate import PartialState
from transformers.utils import logging as transformers_logging

from rlt.config.schema import Config
from rlt.errors import DataError
from rlt.formats.encode import TokenBytes
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import tag_style
from rlt.formats.turns import TurnStyle, turn_style
from rlt.generation.transformers_backend import TransformersGenerator
from rlt.models.load import load_context, load_eos_ids, load_model, load_tokenizer
from rlt.records import Problem
from rlt.reporting.stream import TextStream
from rlt.stages.engine import make_sampling
from rlt.stages.layouts import student_layout, teacher_layout

logger = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write thought and answer, or the explanation, to stdout."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    assert config.infer.question is not None, "validate() has asked for a question"
    _be_quiet()
    name, settings = config.model_name_or_path, config.model

    # 1. Text: the prompt, and what replaces the tags.
    tokenizer = load_tokenizer(name, revision=settings.revision, trust=settings.trust_remote_code)
    tags = tag_style(config.layout.tags)
    layout: StudentLayout | TeacherLayout
    if config.infer.solution is None:
        layout = student_layout(config, tokenizer, name, revision=settings.revision, asks_only=True)
    else:
        layout = teacher_layout(config, tokenizer)
    prompt = layout.prompt_ids(Problem("", config.infer.question, config.infer.solution or ""))
    context = load_context(name, revision=settings.revision, trust=settings.trust_remote_code)
    room = config.max_completion_length if context is None else context - len(prompt)
    if room < 1:
        raise DataError(
            f"infer.question makes a prompt of {len(prompt)} tokens where the context of {name} has "
            f"{context}: shorten it"
        )

    # 2. Model and sampling.
    model = load_model(
        name,
        dtype=settings.dtype,
        attn_implementation=settings.attn_implementation,
        revision=settings.revision,
        trust=settings.trust_remote_code,
    )
    model.to(PartialState().device)  # pyright: ignore[reportArgumentType] - transformers' own annotation
    own_stops = load_eos_ids(name, revision=settings.revision, trust=settings.trust_remote_code)
    stop_ids = sorted({*layout.stop_token_ids, *own_stops})
    sampling = replace(make_sampling(config, stop_ids), max_tokens=min(config.max_completion_length, room))

    # 3. Sample, and write as it comes.
    style = layout.style if isinstance(layout, StudentLayout) else turn_style(tags)
    stream = TextStream(sys.stdout, TokenBytes(tokenizer), headings(style))
    if config.infer.solution is not None:
        stream.head("Explanation")
    elif style.prompt_opens:
        stream.head("Thought")

    def show(tokens: list[int]) -> None:
        if tokens[0] not in sampling.stop_token_ids:
            stream.write(tokens[0])

    pad = tokenizer.pad_token_id
    assert isinstance(pad, int), "load_tokenizer sees to it"
    generator = TransformersGenerator(
        lambda: nullcontext(model), pad, 1, decode=lambda ids: str(tokenizer.decode(ids)), on_step=show
    )
    try:
        ((completion,),) = generator.generate([prompt], 1, sampling, [config.seed])
    finally:
        stream.close()
    if completion.finish_reason == "length":
        logger.warning("cut after %d tokens: raise max_completion_length", len(completion.token_ids))


def _be_quiet() -> None:
    """Let nothing be written between the tokens."""
    logging.getLogger().setLevel(logging.WARNING)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def headings(style: TurnStyle) -> dict[str, str]:
    """Return what replaces each tag in the output."""
    tags, native = style.tags, style.native
    opens = {tags.solution.open: "Answer", tags.explanation.open: "Explanation"}
    thought = {tags.thought.open: "Thought", native.open: "Thought"}
    closes = {native.close: "Answer"} if style.is_bare else {native.close: ""}
    lead = {style.lead: "Answer"} if style.lead else {}
    return dict.fromkeys(tags.strings, "") | opens | closes | thought | lead
