"""What two tokenizers have in common, found before a run depends on it. Pure: text and ids only."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rlt.errors import ModelError
from rlt.formats.encode import Piece, TokenBytes, encode
from rlt.formats.layout import Chat
from rlt.formats.tags import TagStyle


@dataclass(frozen=True)
class Comparison:
    """What was found about a teacher's and a student's tokenizer."""

    same_ids: bool
    """Every token id of the teacher means the same text with the student."""
    findings: tuple[str, ...]
    """One line each, for the log."""


def compare_tokenizers(
    teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase, tags: TagStyle
) -> Comparison:
    """Return what the two have in common; raises ModelError where a tag does not survive one of them."""
    different = tokens_unlike(teacher, student)
    findings = [_vocabulary(len(teacher), len(student), different)]
    for who, tokenizer in (("teacher", teacher), ("student", student)):
        findings.append(f"{who}: {_tags(tokenizer, tags)}; {_turn(tokenizer)}")
    if teacher.chat_template == student.chat_template:
        findings.append("chat template: the same")
    else:
        findings.append("chat template: they differ, and each reads its own")
    return Comparison(not different, tuple(findings))


def tokens_unlike(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase) -> list[str]:
    """Return the teacher's tokens that have no or another id with the student; with none it reads its ids."""
    theirs = student.get_vocab()
    return sorted(token for token, i in teacher.get_vocab().items() if theirs.get(token) != i)


def _vocabulary(ours: int, theirs: int, different: list[str]) -> str:
    sizes = f"teacher {ours:,} tokens, student {theirs:,}"
    if not different and ours == theirs:
        return f"vocabulary: {ours:,} tokens, the same"
    if not different:
        return f"vocabulary: {sizes}, the teacher's all under the same ids: the sampled ids are scored"
    return (
        f"vocabulary: {sizes}; {len(different):,} of the teacher's are others to the student, "
        f"{different[0]!r} among them: the student reads the text in its own tokens, and the divergence is "
        "taken over common text boundaries"
    )


def _tags(tokenizer: PreTrainedTokenizerBase, tags: TagStyle) -> str:
    as_bytes = TokenBytes(tokenizer)
    lengths = []
    for tag in tags.strings:
        ids = encode(tokenizer, [Piece(tag, trusted=True)]).ids
        read_back = b"".join(map(as_bytes, ids)).decode(errors="replace")
        if read_back != tag:
            raise ModelError(
                f"the tokenizer {tokenizer.name_or_path!r} makes {read_back!r} of the tag {tag!r}, so the "
                "end of an explanation could not be found: choose another layout.tags or another tokenizer"
            )
        lengths.append(len(ids))
    if set(lengths) == {1}:
        return "each tag is one token"
    return f"tags of {min(lengths)} to {max(lengths)} tokens read back exactly"


def _turn(tokenizer: PreTrainedTokenizerBase) -> str:
    chat = Chat(tokenizer)
    others = {name: getattr(tokenizer, name) for name in ("eos_token", "pad_token")}
    shown = ", ".join(f"{name} {token}" for name, token in others.items())
    return f"a turn ends with {chat.end_of_turn} ({chat.end_of_turn_id}); {shown}"
