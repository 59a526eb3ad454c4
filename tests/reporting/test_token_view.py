"""The token page in text and in a browser, and its terminal form."""

from __future__ import annotations

import html
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from rlt.records import Problem, Score
from rlt.reporting.token_view import Shown, print_token_view, write_token_page
from rlt.rewards.look import ExplanationToken, SolutionToken, TokenView

HOSTILE = "<script>document.title='owned'</script>\x1b[31m"
PARTS = {"r_ss": -1.5, "r_ss_mean": -1.2, "r_ss_min": -2.0, "r_kl": 0.5, "explanation_tokens": 3.0}
BARE = {"r_ss": -4.5, "r_ss_mean": -4.0, "r_ss_min": -6.0}


@pytest.fixture
def shown() -> Shown:
    solution = (
        SolutionToken("The", -0.4, -0.4),
        SolutionToken(" 72", -2.0, -6.0),  # gained four nats
        SolutionToken("\n.", -1.2, -0.2),  # lost one
    )
    explanation = (
        ExplanationToken("So", 0.0, -1.0, -1.0),
        ExplanationToken(HOSTILE, 7.5, -9.0, -1.5),
        ExplanationToken(" é", -2.0, -1.0, -3.0),
    )
    problem = Problem("p1", f"Why? {HOSTILE}", "The 72\n.")
    view = TokenView(problem, "student", solution, explanation, Score(-2.0, PARTS), Score(-5.0, BARE))
    return Shown("best 1 of 9", view)


@pytest.fixture
def page(tmp_path: Path, shown: Shown) -> Path:
    return write_token_page(tmp_path / "explain.html", "Rewards by token", [shown, shown])


def test_every_token_stands_with_its_numbers(page):
    text = page.read_text()
    tokens = re.findall(
        r'<span( class="extreme")? style="[^"]*" title="([^"]*)">(.*?)</span>', text, re.DOTALL
    )
    marked = [(html.unescape(title), body) for extreme, title, body in tokens[:6] if extreme]
    assert len(tokens) == 12
    assert [html.unescape(body) for _, body in marked] == [
        " 72<sup>min</sup>",
        f"{HOSTILE.replace(chr(27), chr(92) + 'x1b')}<sup>max</sup>",
    ]
    assert "with -2.000 (13.5 %) · without -6.000 (0.248 %) · gain +4.000" in marked[0][0]
    assert "divergence +7.500 · student -9.000 (0.0123 %) · teacher -1.500 (22.3 %)" in marked[1][0]
    assert '<td>r_ss</td><td class="n">-1.5</td><td class="n">-4.5</td><td class="n">+3</td>' in text
    assert "http" not in text.replace("http-equiv", "")


def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium or Chrome on this machine")


def browse(page: Path, *options: str) -> str:
    command = [
        browser(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--window-size=1000,1400",
    ]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run(
        [*command, profile, *options, page.as_uri()], capture_output=True, text=True, timeout=1000, check=True
    )
    return done.stdout


def test_a_browser_shows_the_colours_and_runs_nothing(page):
    from matplotlib.image import imread

    picture = page.with_name("page.png")
    browse(page, f"--screenshot={picture}")
    pixels = (imread(picture)[..., :3] * 255).round().astype(int)
    # By hand: blue (31, 95, 168) at 0.7 * 4/5 over white; orange (214, 106, 16) at 0.7, the strongest.
    for colour in ((130, 166, 206), (226, 151, 88)):
        assert (abs(pixels - list(colour)).max(axis=-1) <= 3).sum() > 50, colour
    dom = browse(page, "--dump-dom")
    assert "<title>Rewards by token</title>" in dom
    assert "<script>" not in dom


@pytest.mark.parametrize("colours", [True, False])
def test_terminal(shown, colours):
    out = io.StringIO()
    print_token_view(
        shown,
        Console(file=out, force_terminal=colours, color_system="truecolor" if colours else None, width=100),
    )
    text = out.getvalue()
    assert ("\x1b[30;48;2;" in text) == colours
    assert "\x1b[31m" not in text  # the model's own
    assert re.search(r"The⟦ 72⟧↵\. +-2\.000 +\+4\.000", text)
    assert re.search(r"r_ss +-1\.5 +-4\.5 +\+3", text)
    assert "divergence" in text
