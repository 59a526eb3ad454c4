"""The page of a context budget loads nothing and shows its plot."""

import re
from xml.etree import ElementTree

from rlt.reporting.budget_page import draw_lengths, write_budget_page

BINS = [(0, 9, 3), (10, 19, 0), (20, 29, 1)]


def lines(svg: str) -> int:
    """Return how many vertical lines over the whole height a figure has, by colour."""
    return len(re.findall(r"stroke: #(?:555555|c2571a)", svg))


def test_a_line_for_each_cutoff_within_the_plot():
    bare, cut = draw_lengths(BINS, [], 100), draw_lengths(BINS, [15, 20, 100], 20)
    ElementTree.fromstring(cut)
    assert (lines(bare), lines(cut)) == (0, 2)
    assert draw_lengths(BINS, [15, 20, 100], 20) == cut  # byte for byte


def test_the_page_is_escaped_and_whole(tmp_path):
    page = write_budget_page(
        tmp_path / "plan.html",
        "Budget <1>",
        ["3 & 4"],
        draw_lengths(BINS, [15], 20),
        [("T", [["<x>"], ["1"]])],
    )
    text = page.read_text()
    assert "Budget &lt;1&gt;" in text
    assert "<p>3 &amp; 4</p>" in text
    assert '<img alt="lengths" src="data:image/svg+xml;base64,' in text
    assert "<script" not in text
    assert "http://" not in text
    assert "<x>" not in text
