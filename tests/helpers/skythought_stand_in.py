"""A package in the shape of SkyThought's, with rules of two lines, for tests without the real one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from rlt.config.original import skythought

HANDLER = """
from skythought.evals.util.math_parsing_util import same
from ..base import TaskHandler

class {name}(TaskHandler):
    def check_correctness(self, problem, generation):
        return same(problem[self.task_config.answer_key], generation)
"""
FILES = {
    "evals/util/math_parsing_util.py": """
import latex2sympy2

def same(reference, turn):
    while turn == "endless":
        pass
    if turn == "fault":
        raise ValueError(turn)
    return turn.strip() == reference + latex2sympy2.MARK
""",
    "evals/tasks/__init__.py": "raise ImportError('the handlers of all tasks')",
    "evals/tasks/math/math_handler.py": HANDLER.format(name="MathTaskHandler"),
    "evals/tasks/gsm8k/gsm8k_handler.py": HANDLER.format(name="GSM8KTaskHandler"),
    "evals/tasks/gpqa_diamond/gpqa_diamond_handler.py": HANDLER.format(name="GPQADiamondTaskHandler"),
    "evals/tasks/aime/aime24.yaml": 'templating_parameters: {template: "Box it: \\\\boxed{{}}. {prompt}"}\n',
    "evals/tasks/math/math500.yaml": 'templating_parameters: {template: "Say it in LaTeX. {problem}"}\n',
}
LIBRARIES = {
    "latex2sympy2.py": "MARK = '!'",
    "antlr4.py": "",
    "word2number/__init__.py": "",
    "sympy/__init__.py": "",
    "sympy/core/__init__.py": "",
    "sympy/core/random.py": "def seed(number):\n    pass\n",
}


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *, libraries: bool = True) -> Path:
    """Return the folder with such a package in it, whose hashes are taken for the known ones."""
    files = {f"skythought/{name}": text for name, text in FILES.items()}
    for name, text in {**files, **(LIBRARIES if libraries else {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    known = {
        name: hashlib.sha256((folder / "skythought" / "evals" / name).read_bytes()).hexdigest()
        for name in skythought.GRADER
    }
    monkeypatch.setattr(skythought, "GRADER", known)
    monkeypatch.setattr(skythought, "OWN_FOLDER", folder / "nothing")
    said = {"aime24": r"Box it: \boxed{}. {question}", "math500": "Say it in LaTeX. {question}"}
    prompts = {
        task: (name, skythought.sha256(said[task]) if task in said else digest)
        for task, (name, digest) in skythought.TASK_PROMPTS.items()
    }
    monkeypatch.setattr(skythought, "TASK_PROMPTS", prompts)
    return folder
