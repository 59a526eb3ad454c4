"""The words of the project: plain English, as this field writes it.

One line per word: what to write instead, and the few files that may use it, each with the reason.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORDS = {
    r"told": "reported, logged, given; of two things: distinguished",
    r"said": "written, reported, named",
    r"whoever": "the caller, a client, a user",
    r"of ours": "of this project",
    r"mend(s|ed|ing)?": "fix, correct, repair",
    r"stand(s|ing)?|stood": "is, are; stands for: means, replaces",
    r"stand-ins?": "placeholder",
    r"left out|leave(s)? out|leaving out": "skipped, dropped, not included, remove",
    r"(go|goes|going|went) on": "continue",
    r"takes? no more": "is full",
    r"what came of": "result",
    r"ails?": "is wrong with",
}
PLACES = (
    "rlt/**/*.py",
    "rlt/templates/*.j2",
    "scripts/**/*.*",
    "cfgs/**/*.yaml",
    "docs/*.md",
    "*.md",
    "*.sh",
    "train.py",
)
FILES = sorted({path for place in PLACES for path in ROOT.glob(place) if path.suffix not in (".pyc", ".svg")})


def found(word: str, text: str) -> list[str]:
    """Return the lines that hold a word, each with its number."""
    pattern = re.compile(rf"(?<![\w-])({word})(?![\w-])", re.IGNORECASE)
    lines = enumerate(text.splitlines(), 1)
    return [f"{number}: {line.strip()}" for number, line in lines if pattern.search(line)]


@pytest.mark.parametrize("word", WORDS)
def test_plain_english(word):
    hits = [
        f"{path.relative_to(ROOT)}:{hit}" for path in FILES for hit in found(word, path.read_text("utf-8"))
    ]
    assert not hits, f"write: {WORDS[word]}\n" + "\n".join(hits)


def test_the_word_list_finds_whole_words_only():
    assert found("told", "it was Told so\nuntold\n`told-x`") == ["1: it was Told so"]
    assert found(r"stand(s|ing)?|stood", "standard understanding\nwhat stands here") == [
        "2: what stands here"
    ]
