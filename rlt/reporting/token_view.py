"""The reward token by token, as a page and in a terminal.

Solution tokens are coloured by what the explanation gained for them, explanation tokens by their divergence.
Colours are on a fixed scale, so pages can be compared; numbers stand in each token's title and in lists of
the extreme tokens, so nothing hangs on colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from rlt.io import write_text
from rlt.reporting.page import escaped, html_page
from rlt.rewards.look import ExplanationToken, SolutionToken, TokenView
from rlt.text import printable, shorten_middle

FULL_COLOUR = 5.0
"""Nats at which a colour is at its strongest."""
_UP, _DOWN, _DARK = (31, 95, 168), (214, 106, 16), (94, 60, 153)
"""Blue and orange for either side of zero, which colour-blind readers tell apart; violet for improbable."""
_NUM_EXTREMES = 5
_TERMINAL_TOKENS = 600

_STYLE = """
.tokens { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9; padding: 10px;
 border: 1px solid var(--line); font: 14px/1.9 ui-monospace, monospace; unicode-bidi: isolate }
.tokens span { padding: 2px 0; border-radius: 2px }
.tokens .extreme { outline: 2px solid var(--ink) }
.tokens sup { font: bold 10px system-ui; padding-left: 1px }
.gain:checked ~ .tokens span { background: var(--gain) }
.with:checked ~ .tokens span { background: var(--with) }
.without:checked ~ .tokens span { background: var(--without) }
.side { display: flex; flex-wrap: wrap; gap: 40px } .side > div { min-width: 260px }
section { border-top: 3px solid var(--ink); margin-top: 34px; padding-top: 4px }
nav a { display: block }
"""


@dataclass(frozen=True)
class Shown:
    """A view with the words over it, e.g. `best 1 of 283 · row 17`."""

    title: str
    view: TokenView


def write_token_page(path: Path, heading: str, shown: Sequence[Shown]) -> Path:
    """Return `path`, holding a page of the views."""
    links = "".join(f'<a href="#view{i}">{escaped(_title(item))}</a>' for i, item in enumerate(shown))
    about = (
        "<p>Solution tokens: blue where the explanation made them likelier to the student, orange where less "
        "likely. Explanation tokens: orange where the teacher finds them likelier than the student does "
        "(without a teacher: where the student is surprised), blue where the student would rather have "
        f"said them. Full colour at {FULL_COLOUR:g} nats.</p>"
    )
    body = [f"<h1>{escaped(heading)}</h1>", about, f"<nav>{links}</nav>"]
    body += [_section(index, item) for index, item in enumerate(shown)]
    return write_text(path, html_page(heading, body, _STYLE))


def print_token_view(item: Shown, console: Console) -> None:
    """Print a view; without colours the lists of the extreme tokens still tell."""
    view = item.view
    console.rule(printable(_title(item)))
    console.print(Text(shorten_middle(printable(view.problem.question), 600)), highlight=False)
    for row in _components(view):
        console.print(Text(f"{row[0]:<26}" + "".join(f"{cell:>12}" for cell in row[1:])))
    console.print(Text("\nsolution, by gain", style="bold"))
    console.print(_coloured(view.solution, lambda t: _two_sided(t.gain)), highlight=False)
    console.print(Text(_list_text(_hardest(view.solution))))
    console.print(Text("explanation, by divergence", style="bold"))
    console.print(_coloured(view.explanation, lambda t: _two_sided(-t.divergence)), highlight=False)
    console.print(Text(_list_text(_unnatural(view.explanation))))


def _title(item: Shown) -> str:
    view = item.view
    return f"{item.title} · problem {view.problem.id} · {view.student} · reward {view.score.reward:.4g}"


def _section(index: int, item: Shown) -> str:
    view = item.view
    lowest = _place(view.solution, lambda t: t.logprob)
    highest = _place(view.explanation, lambda t: -t.divergence)
    solution = "".join(
        _token(
            t.text,
            {
                "gain": _two_sided(t.gain),
                "with": _one_sided(t.logprob),
                "without": _one_sided(t.logprob_without),
            },
            f"with {_chance(t.logprob)} · without {_chance(t.logprob_without)} · gain {t.gain:+.3f}",
            "min" if i == lowest else "",
        )
        for i, t in enumerate(view.solution)
    )
    explanation = "".join(
        _token(
            t.text,
            {"gain": _two_sided(-t.divergence)},
            f"divergence {t.divergence:+.3f} · student {_chance(t.student)}"
            + ("" if t.teacher is None else f" · teacher {_chance(t.teacher)}"),
            "max" if i == highest else "",
        )
        for i, t in enumerate(view.explanation)
    )
    choices = "".join(
        f'<input type="radio" class="{name}" name="s{index}" id="{name}{index}"'
        f"{' checked' * (name == 'gain')}>"
        f'<label for="{name}{index}">{label}</label> '
        for name, label in (
            ("gain", "gain"),
            ("with", "log p with the explanation"),
            ("without", "log p without it"),
        )
    )
    return (
        f'<section id="view{index}"><h2>{escaped(_title(item))}</h2>'
        f'<div class="label">question</div><pre>{escaped(view.problem.question)}</pre>'
        f"{_table(_components(view))}"
        f'<h3>Solution</h3><div>{choices}<div class="tokens" role="text">{solution}</div></div>'
        f'<h3>Explanation</h3><div><input type="radio" class="gain" hidden checked>'
        f'<div class="tokens" role="text">{explanation or "(no token)"}</div></div>'
        f'<div class="side"><div><h3>Hardest for the student</h3>{_table(_hardest(view.solution))}</div>'
        f"<div><h3>Most unnatural</h3>{_table(_unnatural(view.explanation))}</div></div></section>"
    )


def _token(text: str, colours: dict[str, tuple[int, ...]], title: str, mark: str) -> str:
    style = ";".join(f"--{name}:{_css(colour)}" for name, colour in colours.items())
    extreme = ' class="extreme"' if mark else ""
    shown = escaped(text).replace("\n", "↵\n")
    note = f"<sup>{mark}</sup>" if mark else ""
    return f'<span{extreme} style="{style}" title="{escaped(text)!s}: {title}">{shown}{note}</span>'


def _components(view: TokenView) -> list[list[str]]:
    """Return the table of the reward's parts, with the explanation and with an empty one."""
    rows = [["", "explanation", "none", "gain"]]
    for name in ("r_ss", "r_ss_mean", "r_ss_min"):
        ours, bare = view.score.parts[name], view.score_without.parts[name]
        rows.append([name, f"{ours:.5g}", f"{bare:.5g}", f"{ours - bare:+.5g}"])
    rest = [*view.score.parts.items(), ("reward", view.score.reward)]
    rows += [[name, f"{value:.5g}", "", ""] for name, value in rest if not name.startswith("r_ss")]
    return rows


def _hardest(tokens: Sequence[SolutionToken]) -> list[list[str]]:
    places = sorted(range(len(tokens)), key=lambda i: tokens[i].logprob)[:_NUM_EXTREMES]
    rows = [[_context(tokens, i), f"{tokens[i].logprob:.3f}", f"{tokens[i].gain:+.3f}"] for i in places]
    return [["solution token", "log p", "gain"], *rows]


def _unnatural(tokens: Sequence[ExplanationToken]) -> list[list[str]]:
    places = sorted(range(len(tokens)), key=lambda i: -tokens[i].divergence)[:_NUM_EXTREMES]
    rows = [[_context(tokens, i), f"{tokens[i].divergence:+.3f}", f"{tokens[i].student:.3f}"] for i in places]
    return [["explanation token", "divergence", "log p_S"], *rows]


def _context(tokens: Sequence[SolutionToken] | Sequence[ExplanationToken], place: int) -> str:
    """Return a token in brackets with a little text around it, on one line."""
    before = "".join(t.text for t in tokens[max(0, place - 6) : place])[-24:]
    after = "".join(t.text for t in tokens[place + 1 : place + 5])[:12]
    return f"{before}⟦{tokens[place].text}⟧{after}".replace("\n", "↵")


def _list_text(rows: Iterable[Sequence[str]]) -> str:
    lines = [f"  {printable(row[0]):<48}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        numbers = "".join(f'<{tag} class="n">{escaped(cell)}</{tag}>' for cell in row[1:])
        return f"<tr><{tag}>{escaped(row[0])}</{tag}>{numbers}</tr>"

    return f"<table>{cells(rows[0], 'th')}{''.join(cells(row, 'td') for row in rows[1:])}</table>"


def _coloured(
    tokens: Sequence[SolutionToken] | Sequence[ExplanationToken], colour: Callable[..., tuple[int, ...]]
) -> Text:
    text = Text()
    for token in tokens[:_TERMINAL_TOKENS]:
        red, green, blue = _on_white(colour(token))
        text.append(printable(token.text), style=f"black on rgb({red},{green},{blue})")
    if len(tokens) > _TERMINAL_TOKENS:
        text.append(f" … and {len(tokens) - _TERMINAL_TOKENS} more tokens (the page has all)")
    return text


def _two_sided(value: float) -> tuple[int, ...]:
    """Return red, green, blue and opacity in percent: blue above zero, orange below."""
    if not math.isfinite(value):
        return (*_DOWN, 100)
    strength = min(abs(value) / FULL_COLOUR, 1.0)
    return (*(_UP if value > 0 else _DOWN), round(70 * strength))


def _one_sided(logprob: float) -> tuple[int, ...]:
    strength = min(-logprob / FULL_COLOUR, 1.0) if math.isfinite(logprob) else 1.0
    return (*_DARK, round(70 * strength))


def _on_white(colour: tuple[int, ...]) -> tuple[int, ...]:
    *channels, percent = colour
    return tuple(round(255 - (255 - channel) * percent / 100) for channel in channels)


def _css(colour: tuple[int, ...]) -> str:
    red, green, blue, percent = colour
    return f"rgba({red},{green},{blue},{percent / 100:g})"


def _chance(logprob: float) -> str:
    """Return a log-probability with the probability in percent."""
    return f"{logprob:.3f} ({100 * math.exp(min(logprob, 0)):.3g} %)"


def _place(tokens: Sequence, key: Callable[..., float]) -> int | None:
    return min(range(len(tokens)), key=lambda i: key(tokens[i]), default=None)
