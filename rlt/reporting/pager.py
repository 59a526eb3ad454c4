"""Entries of a page that are looked at one by one, with filters. Without scripts all are shown in order.

Every entry is in the page as escaped HTML from the start: the script only hides and shows, and reads no text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlt.reporting.page import escaped

STYLE = """
.pager nav { position: sticky; top: 0; background: var(--paper); padding: 8px 0; display: flex;
 flex-wrap: wrap; gap: 8px 12px; align-items: center; border-bottom: 1px solid var(--line) }
.pager nav[hidden] { display: none }
.pager span { white-space: nowrap }
.pager output { display: inline-block; min-width: 5em; text-align: center }
.pager button, .pager select { font: inherit; padding: 4px 10px }
"""
SCRIPT = """
for (const pager of document.querySelectorAll(".pager")) {
  const entries = [...pager.querySelectorAll("article")], choices = [...pager.querySelectorAll("select")];
  const [previous, next] = pager.querySelectorAll("button"), place = pager.querySelector("output");
  let shown = entries, at = 0;
  function show(index) {
    at = index;
    for (const entry of entries) entry.hidden = entry !== shown[at];
    place.textContent = shown.length ? `${at + 1} of ${shown.length}` : "none";
    previous.disabled = at <= 0;
    next.disabled = at >= shown.length - 1;
  }
  function choose() {
    const current = shown[at], asked = choices.filter(choice => choice.value);
    const fits = entry => choice => entry.dataset[choice.name].split("|").includes(choice.value);
    shown = entries.filter(entry => asked.every(fits(entry)));
    show(Math.max(0, shown.indexOf(current)));
  }
  for (const choice of choices) choice.addEventListener("change", choose);
  previous.addEventListener("click", () => show(at - 1));
  next.addEventListener("click", () => show(at + 1));
  pager.querySelector("nav").hidden = false;
  choose();
}
"""


@dataclass(frozen=True)
class Entry:
    """One entry: its HTML, the classes of its look, and by filter the words that find it."""

    body: str
    look: str
    words: Mapping[str, Sequence[str]]
    """No word holds a `|`; names are lower-case letters."""


def pager(entries: Sequence[Entry], filters: Mapping[str, Sequence[str]]) -> str:
    """Return the entries with their controls; `filters` gives the words that each filter offers."""
    choices = "".join(
        f'<label>{escaped(name)} <select name="{escaped(name)}"><option value="">all</option>'
        + "".join(f"<option>{escaped(word)}</option>" for word in words)
        + "</select></label>"
        for name, words in filters.items()
    )
    steps = "<span><button>previous</button> <output></output> <button>next</button></span>"
    controls = f"<nav hidden>{choices}{steps}</nav>"
    return f'<div class="pager">{controls}{"".join(map(_article, entries))}</div>'


def _article(entry: Entry) -> str:
    words = "".join(f' data-{name}="{escaped("|".join(of))}"' for name, of in entry.words.items())
    return f'<article class="{escaped(entry.look)}"{words}>{entry.body}</article>'
