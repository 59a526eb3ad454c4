"""Tables of HTML pages: the head first, numbers on the right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rlt.reporting.page import escaped
from rlt.text import Rows, is_right


def html_table(rows: Rows) -> str:
    """Return an HTML table."""
    right = [is_right(rows, i) for i in range(len(rows[0]))]

    def line(row: Sequence[str], tag: str) -> str:
        starts = (f'<{tag} class="n">' if r else f"<{tag}>" for r in right)
        return "".join(f"{start}{escaped(cell)}</{tag}>" for start, cell in zip(starts, row, strict=True))

    body = (line(row, "th" if i == 0 else "td") for i, row in enumerate(rows))
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in body) + "</table>"


def named_values(rows: Iterable[tuple[str, str]]) -> str:
    """Return an HTML table of names with their values, which may be long and are broken anywhere."""
    cells = (f"<tr><td>{escaped(name)}</td><td>{escaped(value)}</td></tr>" for name, value in rows)
    return f'<table class="named">{"".join(cells)}</table>'
