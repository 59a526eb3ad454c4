"""The quick selection follows the imports, and a quick process never holds torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.quick import is_light, sample

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("file", "light"),
    [
        ("tests/config/test_renames.py", True),
        ("tests/rewards/test_formula.py", False),  # imports torch itself
        ("tests/rewards/test_reductions.py", False),  # imports rlt.rewards.reductions, which does
        ("tests/stages/test_clean.py", False),  # through tests/helpers/stage_runs.py
    ],
)
def test_a_file_is_light_by_what_it_imports(file, light):
    assert is_light(ROOT / file) is light


def test_a_sample_holds_the_first_and_the_last_case_of_each_test():
    names = [f"a.py::test_x[{i}]" for i in range(7)] + ["a.py::test_y", "b.py::test_x[0]", "b.py::test_x[1]"]
    items: list[Any] = [SimpleNamespace(nodeid=name) for name in names]
    kept = [item.nodeid for item in sample(items, 3)]
    # of 7: 0, half way, 6
    assert kept == [*(f"a.py::test_x[{i}]" for i in (0, 3, 6)), *names[7:]]
    assert [item.nodeid for item in sample(items, 1)] == [names[0], names[7], names[8]]


def test_a_quick_process_holds_no_torch():
    words = [
        "--quick",
        "-v",
        "-p",
        "no:cacheprovider",
        "tests/config/test_renames.py",
        "tests/rewards/test_formula.py",
    ]
    code = f"import sys, pytest; done = pytest.main({words!r}); sys.exit('torch' in sys.modules or done)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert " 1 skipped" in done.stdout  # test_formula.py, at its import
