#!/usr/bin/env python3
"""Draw the picture of README: launcher, servers, trainer, frozen student, and the run directory.

    .venv/bin/python scripts/draw_overview.py docs/overview.svg

Plain SVG from the two tables below. Colours follow the reader's light or dark mode; viewers without
these modes show the light ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

WIDTH, HEIGHT = 860, 436
LINE = 19
"""Pixels from one line of text to the next."""
STYLE = """\
text { font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 15px; }
.small { font-size: 12.5px; fill: #59636e; }
.box { fill: #f6f8fa; stroke: #818b98; }
.policy { fill: #ddf4ff; stroke: #0969da; }
.student { fill: #dafbe1; stroke: #1a7f37; }
.files { fill: #fff8c5; stroke: #9a6700; }
.group { fill: none; stroke: #818b98; stroke-dasharray: 5 4; }
.arrow { fill: none; stroke: #59636e; stroke-width: 1.6; marker-end: url(#tip); }
.tip { fill: #59636e; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .small { fill: #9ea7b3; }
  .box { fill: #161b22; stroke: #6e7681; }
  .policy { fill: #0c2d4f; stroke: #58a6ff; }
  .student { fill: #0f3320; stroke: #3fb950; }
  .files { fill: #332a06; stroke: #d29922; }
  .group { stroke: #6e7681; }
  .arrow { stroke: #9ea7b3; }
  .tip { fill: #9ea7b3; }
}"""


class Box(NamedTuple):
    """A rectangle with a title and lines below it."""

    kind: str
    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...] = ()


class Arrow(NamedTuple):
    """A line through points, and what goes along it."""

    points: tuple[tuple[int, int], ...]
    label: str = ""
    at: tuple[int, int] = (0, 0)
    anchor: str = "middle"


BOXES = (
    Box(
        "box",
        20,
        16,
        820,
        62,
        "launch.sh",
        ("checks, plans GPUs, starts servers and training, ends them again",),
    ),
    Box("group", 20, 110, 242, 180, "generation GPUs"),
    Box(
        "policy",
        36,
        148,
        210,
        126,
        "vLLM servers",
        ("the teacher's current weights", "write explanations of", "question + solution"),
    ),
    Box("group", 400, 110, 440, 180, "training GPUs"),
    Box(
        "policy",
        416,
        148,
        176,
        126,
        "trainer (GRPO)",
        ("teacher (is trained)", "reference (moves slowly)", "group advantages"),
    ),
    Box(
        "student",
        656,
        148,
        168,
        126,
        "frozen student",
        ("reads the explanation:", "how likely is the", "solution now? (r_SS)", "how unnatural? (r_KL)"),
    ),
    Box(
        "files",
        20,
        340,
        820,
        80,
        "run directory",
        (
            "model and checkpoints · metrics.jsonl · samples/ · report.html · run.json · logs/",
            "read by status, lineage, and the next stage",
        ),
    ),
)
ARROWS = (
    Arrow(((141, 78), (141, 108))),
    Arrow(((620, 78), (620, 108))),
    Arrow(((246, 184), (414, 184)), "explanations", (331, 176)),
    Arrow(((414, 236), (248, 236)), "weights, each step", (331, 254)),
    Arrow(((592, 190), (654, 190))),
    Arrow(((654, 236), (594, 236)), "reward", (624, 254)),
    Arrow(((141, 290), (141, 338)), "logs", (151, 319), "start"),
    Arrow(((620, 290), (620, 338)), "weights, metrics, samples", (630, 319), "start"),
)


def picture() -> str:
    """Return the SVG."""
    title = "A teacher-RL run: the launcher starts vLLM servers and a trainer with a frozen student"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{STYLE}\n</style>",
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
            'orient="auto"><path class="tip" d="M0 0L10 5L0 10z"/></marker></defs>',
            *(line for box in BOXES for line in draw_box(box)),
            *(line for arrow in ARROWS for line in draw_arrow(arrow)),
            "</svg>\n",
        ]
    )


def draw_box(box: Box) -> Iterator[str]:
    """Yield a rectangle and its text, from the top; lines of a group have no place below its title."""
    yield (
        f'<rect class="{box.kind}" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="8"/>'
    )
    name = "small" if box.kind == "group" else "title"
    yield from draw_text(name, box.x + 14, box.y + 25, box.title)
    for number, line in enumerate(box.lines, start=1):
        yield from draw_text("small", box.x + 14, box.y + 25 + number * LINE + 2, line)


def draw_arrow(arrow: Arrow) -> Iterator[str]:
    """Yield a line with its tip, and its label."""
    path = " L".join(f"{x} {y}" for x, y in arrow.points)
    yield f'<path class="arrow" d="M{path}"/>'
    if arrow.label:
        yield from draw_text("small", *arrow.at, arrow.label, arrow.anchor)


def draw_text(name: str, x: int, y: int, text: str, anchor: str = "start") -> Iterator[str]:
    """Yield one line of text."""
    yield f'<text class="{name}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
