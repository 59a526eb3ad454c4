"""The rows of `python -m rlt.differences` for a terminal, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rlt.config.original.prompt import COMMIT, REPOSITORY
from rlt.differences.compare import Difference
from rlt.differences.records import DELIBERATE, NO_SWITCH, RENAMED, UNKNOWN
from rlt.text import markdown as table

COLUMNS = 80
COMMAND = "python -m rlt.differences --markdown"
_TITLES = {
    DELIBERATE: "Deliberately different",
    UNKNOWN: "Not known",
    RENAMED: "Only renamed, with the same value",
}
_HEAD = """\
# What differs from SakanaAI/RLT

The released presets of teacher_sft and teacher_rl beside the run files teacher_sft.yaml and teacher_rlt.yaml
of SakanaAI/RLT at {commit}, with the libraries that it ran with. What is in no table is the same.
`python -m rlt.differences --against DIR` compares with a checkout instead. (Written by
`{command}`.)

- `python -m rlt.migrate FILE.yaml` translates a run file of the original, and lists what it could not
translate.
- The released teacher prompt, byte for byte:
  `git clone {repository} DIR && git -C DIR checkout {commit}`, then
  `layout.teacher_prompt=original:DIR`. Its text is read, nothing of the checkout is run.
- A student's own prompt for rows without a `system` column:
  `layout.student_prompt=from_dataset:bespokelabs/Bespoke-Stratos-17k`.
"""


def text(rows: Sequence[Difference]) -> str:
    """Return the rows for a terminal, by kind."""
    parts = []
    for title, of_kind in _parts(rows):
        parts.append(f"{title} ({len(of_kind)})\n")
        parts += [_entry(row) if _is_full(row) else _short(row) for row in of_kind]
        parts.append("")
    return "\n".join(parts)


def markdown(rows: Sequence[Difference]) -> str:
    """Return the page with one table for each kind."""
    parts = [_HEAD.format(command=COMMAND, repository=REPOSITORY, commit=COMMIT)]
    for title, of_kind in _parts(rows):
        parts.append(f"## {title}\n")
        cells = _table(of_kind) if _is_full(of_kind[0]) else _narrow(of_kind)
        parts.append(table(cells, padded=False))
    return "\n".join(parts).rstrip("\n") + "\n"


def _parts(rows: Sequence[Difference]) -> Iterator[tuple[str, list[Difference]]]:
    """Yield a title for each kind that there is, and its rows; keys without counterpart are by themselves."""
    for kind, title in _TITLES.items():
        for has_counterpart in (True, False):
            of_kind = [r for r in rows if r.kind == kind and r.has_counterpart == has_counterpart]
            if of_kind:
                yield (title if has_counterpart else "Deliberately without a counterpart"), of_kind


def _is_full(row: Difference) -> bool:
    return row.kind != RENAMED and row.has_counterpart


def _table(rows: Sequence[Difference]) -> list[list[str]]:
    lines = [["setting or behaviour", "stage", "kind", "there", "here", "for the original's way"]]
    for row in rows:
        is_setting = " " not in row.name
        name, there, here = (
            (_code(row.name), _code(row.there), _code(row.here))
            if is_setting
            else (row.name, row.there, row.here)
        )
        here = f"{here}: {row.why}" if row.why else here
        switch = row.switch if row.switch == NO_SWITCH else _code(row.switch)
        lines.append([name, ", ".join(row.stages), row.kind, there, here, switch])
    return lines


def _narrow(rows: Sequence[Difference]) -> list[list[str]]:
    """Return rows of keys that have another name here, or none; there is no switch to name."""
    lines = [["there", "stage", "kind", "here"]]
    for row in rows:
        here = _code(row.here) if row.kind == RENAMED else row.here
        lines.append([f"`{row.name}: {row.there}`", ", ".join(row.stages), row.kind, here])
    return lines


def _code(value: str) -> str:
    return f"`{value}`"


def _short(row: Difference) -> str:
    line = f"  {row.name}: {row.there}"
    if row.kind == RENAMED and len(line) + len(row.here) + 4 <= COLUMNS:
        return f"{line} -> {row.here}"
    return "\n".join([line, *_wrapped(row.here, "    ", "    ")])


def _entry(row: Difference) -> str:
    lines = [f"  {row.name} ({', '.join(row.stages)})"]
    for label, text in (("there", row.there), ("here", row.here), ("why", row.why), ("switch", row.switch)):
        if text:
            lines += _wrapped(text, f"    {label:<7}", " " * 11)
    return "\n".join(lines)


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
