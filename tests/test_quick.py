"""The quick selection follows the imports, and a quick process never holds torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.quick import changed, is_light, reaching, sample

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


def test_what_is_not_committed_is_changed(tmp_path):
    for words in (["init", "-q"], ["add", "-A"]):
        for name in ("a.py", "b c.py"):
            (tmp_path / name).write_text(words[0])
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    assert changed(tmp_path) == {tmp_path / "a.py", tmp_path / "b c.py"}
    author = ["-c", "user.name=x", "-c", "user.email=x"]
    subprocess.run(["git", "-C", str(tmp_path), *author, "commit", "-qm", "x"], check=True)
    changed.cache_clear()
    assert changed(tmp_path) == set()
    (tmp_path / "new").mkdir()
    (tmp_path / "new/d.py").touch()
    (tmp_path / "a.py").unlink()
    changed.cache_clear()
    assert changed(tmp_path) == {tmp_path / "new/d.py", tmp_path / "a.py"}
    assert changed(tmp_path / "new/none") == set()  # git does not say


def test_the_light_tests_that_import_a_file_are_chosen():
    chosen = reaching(frozenset([ROOT / "rlt/text.py"]))
    assert ROOT / "tests/test_text.py" in chosen
    assert ROOT / "tests/test_quick.py" not in chosen
    assert ROOT / "tests/stages/test_clean.py" not in chosen  # heavy
    assert reaching(frozenset([ROOT / "rlt/text.py", ROOT / "docs/opd.md"])) == set()
    assert reaching(frozenset()) == set()


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
