"""The report of an evaluation: which answers it holds, what it counts, and that nothing in them runs."""

import base64
import hashlib
import json
import re
from xml.etree import ElementTree

import pytest
from helpers.page_tags import parse

from rlt.reporting.evaluation_page import Counted, Results, choose, write_evaluation_page
from rlt.reporting.evaluation_plots import Accuracy, draw_accuracies, draw_lengths
from rlt.rundir.run_record import RunRecord

RIGHT = {"correct": True, "correct_skythought": True, "finish_reason": "stop", "rule": "last boxed"}
WRONG = {**RIGHT, "correct": False, "correct_skythought": False}
CUT = {**WRONG, "finish_reason": "length", "rule": "none"}
DIFFERS = {**WRONG, "correct_skythought": True}
LONG = "start " + "& " * 32_000 + "MIDDLE" + "& " * 32_000 + " end"


def sample(index: int, **changes) -> dict:
    facts = {
        "task": "gsm8k",
        "problem_id": f"p{index}",
        "sample_index": 0,
        "question": "1+1?",
        "text": "It is 2.",
    }
    return {**facts, "num_tokens": 10 + index, "why": None, "reference": "2", "extracted": "2", **changes}


@pytest.fixture
def write(tmp_path):
    """Return a function that writes the report of these rows, with at most so many answers."""

    def write(rows, num_samples=100):
        with RunRecord.start(tmp_path, stage="evaluate", seed=1, inputs={}):
            (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            facts = {"model": "a0" * 32, "model.dtype": "float32", "data": {"gsm8k": {"file": "rows.jsonl"}}}
            facts |= {"grading": {"extraction": "lenient"}, "libraries": {"left to": "the versions"}}
            (tmp_path / "manifest.json").write_text(json.dumps(facts))
        results = Results("student@1", "Sampled.", [["task", "accuracy"], ["gsm8k", "50.0"]], [])
        return write_evaluation_page(tmp_path, results, num_samples)

    return write


def counted(outcome: str, task: str = "a", differs: bool = False) -> Counted:
    return Counted(task, outcome, differs, 1, "stop", "last boxed")


def test_every_task_and_outcome_has_its_share_of_the_answers():
    answers = [counted("wrong")] * 6 + [counted("right")] * 2 + [counted("cut", "b")]
    assert choose(answers, 100) == list(range(9))
    # of 5 the cut one, 4 // 2 right ones, and the 2 left go to wrong ones: the first, and that half way
    assert choose(answers, 5) == [0, 3, 6, 7, 8]
    assert choose(answers, 1) == [0]
    assert choose(answers, 0) == []
    assert choose([*answers, counted("wrong", differs=True)], 4) == [0, 6, 8, 9]


def test_the_tables_count_what_happened(write):
    page = parse(write([sample(0, **RIGHT), sample(1, **WRONG), sample(2, **CUT), sample(3, **WRONG)]))
    assert re.search(
        r"finish reason.*gsm8k\s*stop\s*3\s*75\.0 %\s*1\s*2\s*0\s*gsm8k\s*length\s*1", page.text, re.S
    )
    assert re.search(
        r"gsm8k\s*last boxed\s*3\s*75\.0 %\s*1\s*2\s*0\s*gsm8k\s*none\s*1\s*25\.0 %\s*0\s*0\s*1", page.text
    )
    assert (
        "mean 12, median 12, longest 13 tokens" in page.text
    )  # of 10, 11, 12, 13: 11.5, which rounds to even
    protocol, origins = page.text.split("Protocol")[1].split("What the numbers go back to")
    assert ("model.dtype" in protocol, "grading.extraction" in protocol) == (True, True)
    assert ("a0a0" in origins, "data.gsm8k.file" in origins) == (True, True)
    assert "left to" not in page.text


def test_entries_are_found_by_task_and_verdict(write):
    page = parse(write([sample(0, **RIGHT), sample(1, **DIFFERS, task="math500"), sample(2, **CUT)]))
    entries = [found for tag, found in page.tags if tag == "article"]
    assert [(entry["data-task"], entry["data-verdict"]) for entry in entries] == [
        ("gsm8k", "right"),
        ("math500", "wrong|graders differ"),
        ("gsm8k", "cut"),
    ]
    assert [entry["class"] for entry in entries] == ["sample", "sample worst", "sample worst"]


def test_only_our_own_script_runs(write, hostile):
    texts = dict.fromkeys(("text", "question", "extracted", "reference", "rule", "why"), f"</pre>{hostile}")
    path = write([sample(0, **{**RIGHT, **texts})])
    raw, page = path.read_text(), parse(path)
    (script,) = re.findall(r"<script>(.*?)</script>", raw, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in raw
    )
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not {name for _, found in page.tags for name in found} & {"href", "onerror", "onload", "srcset"}
    assert all(found["src"].startswith("data:") for tag, found in page.tags if tag == "img")
    assert page.text.count("alert('x')") == 7  # six texts, and the rule once more in its table


def test_long_answers_are_shortened_in_their_middle(write):
    rows = [sample(i, **(RIGHT if i % 2 else WRONG), text=LONG, extracted="9" * 100_000) for i in range(40)]
    page = write(rows, 20).read_text()
    assert page.count("<article") == page.count("start &amp;") == page.count("&amp;  end") == 20
    assert "MIDDLE" not in page
    # an answer keeps 8,000 characters, at most every second of them written as five
    assert len(page) < 20 * 8_000 * 3 + 20 * 3_000 + 60_000


def test_of_a_private_question_no_text_is_shown(write):
    page = write([sample(0, **RIGHT, question=None, text="You asked about QUARKS.")]).read_text()
    assert "QUARKS" not in page
    assert "the question is private" in page
    assert page.count("<article") == 1


def test_plots_are_whole_and_the_same_each_time():
    lines = [Accuracy("this run", 40.0, (30.0, 50.0)), Accuracy("RLT-7B", 42.4, source="N")]
    lengths = {"right": [3, 4], "wrong": [], "cut": [64]}
    for svg, again in (
        (draw_accuracies("t", lines), draw_accuracies("t", lines)),
        (draw_lengths("t", lengths), draw_lengths("t", lengths)),
    ):
        ElementTree.fromstring(svg)
        assert svg == again
    assert "fill: #ffffff; stroke: #555555" in draw_accuracies("t", lines)
    assert "stroke: #555555" not in draw_accuracies("t", lines[:1])
    assert "fill: #1f5fa8" in draw_lengths("t", lengths)
    assert "fill: #c2571a" not in draw_lengths("t", lengths)  # no answer is wrong
