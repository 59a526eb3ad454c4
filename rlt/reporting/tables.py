"""Tables of text cells for Markdown files, terminals and HTML pages: the head first, numbers on the right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rlt.reporting.page import escaped

Rows = Sequence[Sequence[str]]
_NUMBER = re.compile(r"[-+]?[\d.]+( %)?")


def markdown(rows: Rows) -> str:
    """Return a Markdown table whose columns line up."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(cells[0]))]
    right = [_is_right(rows, i) for i in range(len(widths))]
    rule = [f"{'-' * (w - 1)}:" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    lines = [cells[0], rule, *cells[1:]]
    padded = (
        (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        for line in lines
    )
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def html_table(rows: Rows) -> str:
    """Return an HTML table."""
    right = [_is_right(rows, i) for i in range(len(rows[0]))]

    def line(row: Sequence[str], tag: str) -> str:
        starts = (f'<{tag} class="n">' if r else f"<{tag}>" for r in right)
        return "".join(f"{start}{escaped(cell)}</{tag}>" for start, cell in zip(starts, row, strict=True))

    body = (line(row, "th" if i == 0 else "td") for i, row in enumerate(rows))
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in body) + "</table>"


def named_values(rows: Iterable[tuple[str, str]]) -> str:
    """Return an HTML table of names with their values, which may be long and are broken anywhere."""
    cells = (f"<tr><td>{escaped(name)}</td><td>{escaped(value)}</td></tr>" for name, value in rows)
    return f'<table class="named">{"".join(cells)}</table>'


def _is_right(rows: Rows, column: int) -> bool:
    """Whether every cell below the head is a number."""
    return all(_NUMBER.fullmatch(row[column]) for row in rows[1:])
