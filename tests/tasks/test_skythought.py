"""SkyThought's words and verdicts: a stand-in for its package, and the package itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import skythought_program
from helpers.skythought_stand_in import stand_in

from rlt.config.original import skythought
from rlt.config.original.skythought import grader_paths, read_task_prompt
from rlt.config.schema import SLOT
from rlt.errors import ConfigError, ModelError
from rlt.tasks.skythought import SkyThoughtGrader, Turn

SHORT = 2.0
"""CPU seconds that end an endless verdict."""


def turn(text: str, reference: str, task: str = "math500", kind: str = "math") -> Turn:
    return Turn(task, kind, text, reference)


def test_the_program_in_the_folder_gives_the_verdicts(tmp_path, monkeypatch):
    paths = grader_paths(str(stand_in(tmp_path, monkeypatch)))
    assert paths is not None
    grader = SkyThoughtGrader(paths, SHORT, most_children=1)
    turns = [turn("5!", "5"), turn("5", "5"), turn("fault", "5"), turn("endless", "5"), turn("7!", "7")]
    turns += [turn("#### 4!", "4", "gsm8k"), turn("C!", "C", "gpqa_diamond", "choice")]
    turns += [turn("1+1", "2", "countdown", "countdown")]
    try:
        assert grader.grade(turns) == [True, False, False, False, True, True, True, None]
        assert grader.undecided == 1
    finally:
        grader.close()


def test_a_program_that_does_not_start_says_how_to_see_why(tmp_path, monkeypatch):
    paths = grader_paths(str(stand_in(tmp_path, monkeypatch)))
    assert paths is not None
    (tmp_path / "latex2sympy2.py").write_text("raise ImportError('broken')")
    with pytest.raises(
        ModelError, match=rf"PYTHONPATH={tmp_path}.* python -m rlt.tasks.skythought_process 2"
    ):
        SkyThoughtGrader(paths, SHORT).grade([turn("5!", "5")])


def test_without_its_libraries_there_is_no_grader(tmp_path, monkeypatch):
    folder = stand_in(tmp_path, monkeypatch, libraries=False)
    assert grader_paths(str(folder)) is None
    monkeypatch.setattr(skythought, "OWN_FOLDER", stand_in(tmp_path / "own", monkeypatch))
    assert grader_paths(str(folder / "skythought")) == [str(folder), str(tmp_path / "own")]


def test_another_program_or_other_words_are_refused_with_both_hashes(tmp_path, monkeypatch):
    folder = stand_in(tmp_path, monkeypatch)
    evals = folder / "skythought" / "evals"
    (evals / "util" / "math_parsing_util.py").write_text("def same(*_): return True")
    with pytest.raises(ConfigError, match=r"math_parsing_util.py is another program .*sha256 \w{12}… where "):
        grader_paths(str(folder))
    (evals / "tasks" / "math" / "math500.yaml").write_text('templating_parameters: {template: "{problem}"}')
    with pytest.raises(ConfigError, match=r"math500.yaml asks in other words .*evaluate.prompts=\{math500: "):
        read_task_prompt(str(folder), "math500")
    with pytest.raises(ConfigError, match=r"gsm8k.yaml holds no prompt for gsm8k .*scripts/setup.sh --sky"):
        read_task_prompt(str(folder), "gsm8k")
    with pytest.raises(ConfigError, match=r"evaluate.original=elsewhere. holds no skythought/evals/tasks"):
        read_task_prompt("elsewhere", "math500")


@pytest.mark.parametrize("template", ["no question", "{problem} {solution}", "{", "[1]", "{problem!r}x{"])
def test_a_template_holds_the_question_and_nothing_else(template, tmp_path, monkeypatch):
    folder = stand_in(tmp_path, monkeypatch)
    path = folder / "skythought" / "evals" / "tasks" / "math" / "math500.yaml"
    path.write_text(json.dumps({"templating_parameters": {"template": template}}))
    with pytest.raises(ConfigError, match=r"math500.yaml (holds no prompt|asks in other words)"):
        read_task_prompt(str(folder), "math500")


# ---- the program itself ----
NAMES = {"minerva": "minervamath", "olympiadbench": "olympiadbench_math_en"}
"""Names of its tasks that are others than ours."""
KINDS = [
    (r"\boxed{[-2,7]}", r"x \in [-2,7]"),
    (r"\boxed{3√13}", r"3\sqrt{13}"),
    (r"\boxed{2^8}", "256"),
    (r"\boxed{9 boys}", "9"),
    ("the answer: definitely 8000", "8000"),
    ("The answer is 255 I think that is all", "255"),
    ("So the final answer is three", "3"),
    (r"\boxed{\begin{pmatrix} -2 \\ -14 \end{pmatrix}}", r"\begin{pmatrix} -2 \\ -14 \end{pmatrix}"),
    ("She has 3,000 left", "3000"),
    ("it is 1/2", "2"),
    ("boxed in prose, then 5", "5"),
    (r"\boxed{}", "5"),
    (r"an open \boxed{5", "5"),
    (r"\boxed{0.25}", "25"),
    (r"\boxed{(0, 1]}", "[0, 1)"),
    (r"\boxed{\sqrt{8}}", r"2\sqrt{2}"),
    (r"\boxed{\frac{1}{3}}", "0.3333"),
    ("nothing", "5"),
]
"""Turns and references in which a program written after its rules has given other verdicts (or might)."""
LETTERS = [("B, not a surprise", "B"), ("the option c", "C"), ("none", "D"), (r"\boxed{\text{D}}.", "D")]
NUMBERS = [("The final answer is 3,000", "3000"), ("The final answer is $25.00", "25"), ("#### 7", "7")]


@pytest.fixture(scope="module")
def package() -> Path:
    folder = Path(os.environ.get("RLT_ORIGINAL", "")) / "skythought-package"
    if "RLT_ORIGINAL" not in os.environ or not (folder / "latex2sympy2.py").is_file():
        pytest.skip(
            "RLT_ORIGINAL names no folder with skythought-package/, see docs/evaluation-skythought.md"
        )
    return folder


def ask_program(package: Path, lines: list[list]) -> list[list]:
    """Return [user's turn, verdict] of each [task, row, turn]."""
    done = subprocess.run(
        [sys.executable, skythought_program.__file__],
        input="".join(json.dumps(line) + "\n" for line in lines),
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def as_program(one: Turn) -> list:
    """Return a turn as its program takes it."""
    row = {"problem": "", "question": "", "answer": one.reference, "Answer": one.reference}
    if one.task == "gsm8k":
        row["answer"] = f"#### {one.reference}"
    if one.kind == "choice":
        row |= {"Question": "", "Correct Answer": "1"} | {f"Incorrect Answer {i}": "0" for i in (1, 2, 3)}
    return [NAMES.get(one.task, one.task), row, one.text]


@pytest.mark.original
def test_questions_are_asked_in_the_programs_own_words(package):
    question = "What is {x} in $\\{1\\}$?\n"
    row = {"problem": question, "question": question, "answer": "1", "solution": "1", "final_answer": ["1"]}
    tasks = [task for task in skythought.TASK_PROMPTS if task != "gpqa_diamond"]
    asked = ask_program(package, [[NAMES.get(task, task), row, "1"] for task in tasks])
    for place in (package, package.parent / "SkyThought"):
        for task, (said, _) in zip(tasks, asked, strict=True):
            if task != "aime25" or place == package:  # which is newer than the commit
                assert read_task_prompt(str(place), task).replace(SLOT, question) == said, task


@pytest.mark.original
@pytest.mark.slow
def test_verdicts_are_those_of_the_program_on_public_turns(package, capsys):
    """MATH-500 and AMC answers that SkyThought has published, GSM8K's example solutions, and hard kinds."""
    turns = [turn(text, reference) for text, reference in KINDS]
    turns += [turn(text, letter, "gpqa_diamond", "choice") for text, letter in LETTERS]
    turns += [turn(text, number, "gsm8k") for text, number in NUMBERS]
    num_own = len(turns)
    turns += [*public_turns(package.parent)]
    paths = grader_paths(str(package))
    assert paths is not None
    grader = SkyThoughtGrader(paths, 60.0, most_children=2)
    try:
        ours = grader.grade(turns)
    finally:
        grader.close()
    theirs = [verdict for _, verdict in ask_program(package, [as_program(one) for one in turns])]
    differ = [one for one, a, b in zip(turns, ours, theirs, strict=True) if a is not b]
    with capsys.disabled():
        num = len(turns) - num_own
        sys.stdout.write(f"\n{num:,} public turns, {num_own} of ours: {len(differ)} verdicts differ\n")
    assert not differ
    assert len(turns) - num_own >= 2000, "see docs/evaluation-skythought.md for the files"


def public_turns(folder: Path):
    """Yield the turns of the checkouts in the folder."""
    for task in ("math500", "amc23"):
        for path in sorted((folder / "SkyThought-outputs").rglob(f"{task}/*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                yield from (turn(text, str(row["answer"]), task) for text in row["code"])
    for path in (folder / "grade-school-math").rglob("example_model_solutions.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines()[::4]:
            row = json.loads(line)
            reference = row["ground_truth"].rpartition("A:")[2].strip().replace(",", "")
            for model in ("6b_finetuning", "175b_verification"):
                yield turn(row[model]["solution"], reference, "gsm8k")
