"""The reward token by token, as a page and in a terminal.

Solution tokens are coloured by what the explanation gained for them, explanation tokens by their divergence.
Colours are on a fixed scale, so pages can be compared; numbers are in each token's title and in lists of
the extreme tokens, so nothing hangs on colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from rlt.io import write_text
from rlt.pages import render
from rlt.rewards.look import ExplanationToken, SolutionToken, TokenView
from rlt.text import printable, shorten_middle

FULL_COLOUR = 5.0
"""Nats at which a colour is at its strongest."""
_UP, _DOWN, _DARK = (31, 95, 168), (214, 106, 16), (94, 60, 153)
"""Blue and orange for either side of zero, distinct for colour-blind readers; violet for improbable."""
_NUM_EXTREMES = 5
_TERMINAL_TOKENS = 600


@dataclass(frozen=True)
class Shown:
    """A view with the words over it, e.g. `best 1 of 283 · row 17`."""

    title: str
    view: TokenView


def write_token_page(path: Path, heading: str, shown: Sequence[Shown]) -> Path:
    """Return `path`, holding a page of the views."""
    views = [_view(item) for item in shown]
    page = render("tokens.html.j2", title=heading, full_colour=f"{FULL_COLOUR:g}", views=views)
    return write_text(path, page)


def print_token_view(item: Shown, console: Console) -> None:
    """Print a view; without colours there are still the lists of the extreme tokens."""
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


def _view(item: Shown) -> dict[str, Any]:
    """Return what the template shows of a view."""
    view = item.view
    lowest = _place(view.solution, lambda t: t.logprob)
    highest = _place(view.explanation, lambda t: -t.divergence)
    return {
        "title": _title(item),
        "question": view.problem.question,
        "components": _components(view),
        "solution": [_of_solution(t, "min" if i == lowest else "") for i, t in enumerate(view.solution)],
        "explanation": [
            _of_explanation(t, "max" if i == highest else "") for i, t in enumerate(view.explanation)
        ],
        "hardest": _hardest(view.solution),
        "unnatural": _unnatural(view.explanation),
    }


def _of_solution(token: SolutionToken, mark: str) -> dict[str, str]:
    colours = {
        "gain": _two_sided(token.gain),
        "with": _one_sided(token.logprob),
        "without": _one_sided(token.logprob_without),
    }
    chances = f"with {_chance(token.logprob)} · without {_chance(token.logprob_without)}"
    return _token(token.text, colours, f"{chances} · gain {token.gain:+.3f}", mark)


def _of_explanation(token: ExplanationToken, mark: str) -> dict[str, str]:
    title = f"divergence {token.divergence:+.3f} · student {_chance(token.student)}"
    title += "" if token.teacher is None else f" · teacher {_chance(token.teacher)}"
    return _token(token.text, {"gain": _two_sided(-token.divergence)}, title, mark)


def _token(text: str, colours: dict[str, tuple[int, ...]], title: str, mark: str) -> dict[str, str]:
    style = ";".join(f"--{name}:{_css(colour)}" for name, colour in colours.items())
    return {"text": text.replace("\n", "↵\n"), "style": style, "title": f"{text}: {title}", "mark": mark}


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
