"""Thought and solution of an assistant turn, cut out by its tags. Pure text.

Only the assistant turn is read, so tags that are quoted in a question do no harm. What a turn should
look like is in tags.py; which column holds it is known to rlt/data.
"""

from __future__ import annotations

from itertools import pairwise

from rlt.errors import DataError
from rlt.formats.tags import TAG_STYLES, Tag, TagStyle
from rlt.formats.turns import TurnStyle

_FIRST = "data.tag_match=first takes the first of each tag pair and ignores the rest"


def parse_tagged(text: str, tags: TagStyle) -> tuple[str, str]:
    """Return (thought, solution), both stripped, of `open thought close open solution close`.

    Each of the four tags is there exactly once and in this order, with nothing but white space
    around and between the two blocks; otherwise DataError says what is wrong with which tag.
    See `parse_first` for turns that are to be read nevertheless.
    """
    order = (tags.thought.open, tags.thought.close, tags.solution.open, tags.solution.close)
    if missing := [tag for tag in order if tag not in text]:
        raise DataError(f"the assistant turn lacks {', '.join(missing)} (was it cut off?)")
    if doubled := [tag for tag in order if text.count(tag) > 1]:
        raise DataError(
            f"the assistant turn has {doubled[0]} {text.count(doubled[0])} times, must be once ({_FIRST})"
        )
    for tag, following in pairwise(order):
        if text.index(following) < text.index(tag):
            raise DataError(f"the assistant turn has {following} before {tag}, must be {' … '.join(order)}")

    before, rest = text.split(order[0])
    thought, rest = rest.split(order[1])
    between, rest = rest.split(order[2])
    solution, after = rest.split(order[3])
    for where, stray in (
        (f"before {order[0]}", before),
        (f"between {order[1]} and {order[2]}", between),
        (f"after {order[3]}", after),
    ):
        if stray.strip():
            raise DataError(f"the assistant turn has text {where}: {stray.strip()[:40]!r} ({_FIRST})")
    return thought.strip(), _solution(solution)


def parse_first(text: str, tags: TagStyle) -> tuple[str, str]:
    """Return (thought, solution), each the first match of its own tag pair, both stripped.

    What is elsewhere is ignored, and so is the order of the two: the reading of the original (its
    reasoning_datasets_info.py). A thought that quotes a solution's tags gives that solution.
    """
    return _first(text, tags.thought)[0], _solution(_first(text, tags.solution)[0])


def _first(text: str, tag: Tag) -> tuple[str, str]:
    """Return what the first pair of a tag encloses, stripped, and what follows it."""
    content, closed, after = text.partition(tag.open)[2].partition(tag.close)
    if not closed:
        raise DataError(f"the assistant turn lacks {tag.open} … {tag.close} (was it cut off?)")
    return content.strip(), after


def parse_think(text: str) -> tuple[str, str]:
    """Return (thought, solution) of `<think> thought </think> solution`, as R1-like models write it.

    A solution that was cut off looks like a whole one here: it has no closing tag.
    """
    tag = TAG_STYLES["r1"].thought
    for string in (tag.open, tag.close):
        if text.count(string) != 1:
            raise DataError(f"the assistant turn has {string} {text.count(string)} times, must be once")
    before, _, rest = text.partition(tag.open)
    thought, close, solution = rest.partition(tag.close)
    if not close:
        raise DataError(f"the assistant turn has {tag.close} before {tag.open}")
    if before.strip():
        raise DataError(f"the assistant turn has text before {tag.open}: {before.strip()[:40]!r}")
    return thought.strip(), _solution(solution)


def parse_native(turn: str, style: TurnStyle) -> tuple[str, str]:
    """Return (thought, answer), both stripped, of a turn whose thought is in the model's own form.

    The thought's tags are there once and in order, but for an opening that the prompt has written; nothing
    but white space comes before. The answer follows bare, or in the solution's tags of a style that has them.
    Where the prompt holds an empty thought there is none, and the answer is the turn.
    """
    tag, solution = style.thought, style.tags.solution
    if style.prompt_empties:
        if tag.open in turn or tag.close in turn:
            raise DataError("the assistant turn has a thought, which its prompt has switched off")
        return "", _solution(turn.strip().removeprefix(style.lead))
    text = tag.open + turn if style.prompt_opens else turn
    for string in (tag.open, tag.close):
        if text.count(string) != 1:
            raise DataError(f"the assistant turn has {string} {text.count(string)} times, must be once")
    before, _, rest = text.partition(tag.open)
    thought, close, answer = rest.partition(tag.close)
    if not close or before.strip():
        raise DataError(f"the assistant turn must be {tag.open} … {tag.close} and an answer")
    if not style.is_bare:
        written = [answer.count(solution.open), answer.count(solution.close)]
        inside, _, after = answer.partition(solution.open)[2].partition(solution.close)
        if written != [1, 1] or answer.partition(solution.open)[0].strip() or after.strip():
            raise DataError(f"the answer must be {solution.open} … {solution.close} and nothing else")
        answer = inside
    return thought.strip(), _solution(answer)


def parse_assistant_turn(text: str, tags: TagStyle, match: str = "once") -> tuple[str, str]:
    """Return (thought, solution), whichever built-in style the turn was written in.

    A dataset need not be written in the tags that the run trains with: a turn that begins with the
    opening tag of another style is read in that style; with `match` first, one that has that tag anywhere
    and not the run's own. In the r1 style the solution may be bare, and so are answers in data for a run of
    `native`, where no model's own form is known.
    """
    tags = TAG_STYLES["r1"] if tags.is_native else tags
    style = next((s for s in (tags, *TAG_STYLES.values()) if _opens(text, s, match)), tags)
    has_solution_tag = style.solution.open in text or style.solution.close in text
    is_bare = style.name == "r1" and not has_solution_tag
    if match == "once":
        return parse_think(text) if is_bare else parse_tagged(text, style)
    if not is_bare:
        return parse_first(text, style)
    thought, solution = _first(text, style.thought)
    return thought, _solution(solution)


def _opens(text: str, style: TagStyle, match: str) -> bool:
    tag = style.thought.open
    return tag in text if match == "first" else text.lstrip().startswith(tag)


def _solution(text: str) -> str:
    if not text.strip():
        raise DataError("the assistant turn has an empty solution")
    return text.strip()
