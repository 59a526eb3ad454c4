"""Tables line up, escape what they hold, and put numbers on the right."""

from rlt.pages import Figure, render
from rlt.text import markdown

ROWS = [["rule", "rows", "share"], ["a|b", "7", "5.0 %"], ["<b>", "12", "95.0 %"]]


def test_markdown():
    assert markdown(ROWS) == (
        "| rule | rows |  share |\n"
        "| ---- | ---: | -----: |\n"
        "| a\\|b |    7 |  5.0 % |\n"
        "| <b>  |   12 | 95.0 % |\n"
    )


def test_html_is_escaped():
    table = render("budget.html.j2", title="", advice=[], lengths=Figure("", "", ""), tables=[("", ROWS)])
    assert '<tr><td>&lt;b&gt;</td><td class="n">12</td>' in table
    assert "<b>" not in table
