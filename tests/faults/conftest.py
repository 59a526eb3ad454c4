"""The fault test-bed: every test is a scenario, and their table is printed at the end.

A scenario says what goes wrong and what must come of it (`@pytest.mark.fault`), and where something could be
lost it counts what was: steps or rows that are missing, doubled or different.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.fault_runs import AHEAD, LONG, SPLIT
from helpers.launch_models import write_model
from helpers.launchers import Launcher

from rlt.text import markdown


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --faults-table."""
    parser.addoption("--faults-table", help="file for the table of all fault scenarios, in Markdown")


@pytest.fixture(autouse=True)
def scenario(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Hand what the test is about to the table."""
    mark = request.node.get_closest_marker("fault")
    assert mark is not None, "a test of tests/faults says what goes wrong, and what must come of it"
    what, outcome = mark.args
    record_property("fault", [what, outcome])


@pytest.fixture
def lost(record_property: Callable[[str, object], None]) -> Callable[[int], None]:
    """Return a function that takes how many steps or rows were lost, doubled or changed; none may be."""

    def count(number: int) -> None:
        record_property("lost", number)
        assert number == 0

    return count


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Print the table of the scenarios that were run."""
    rows, survived, losses = [], 0, []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            told = dict(report.user_properties)
            if "fault" not in told or (outcome == "passed" and report.when != "call"):
                continue
            survived += outcome == "passed"
            losses += [told["lost"]] if "lost" in told else []
            seconds = f"{report.duration:.0f}"
            rows.append([*told["fault"], "as it must" if outcome == "passed" else "FAILED", seconds])
    if not rows:
        return
    told = (
        f"{survived} of {len(rows)} fault scenarios end as they must; in the {len(losses)} in which steps or "
        f"rows could be lost, {sum(losses)} were."
    )
    table = markdown([["what goes wrong", "what must come of it", "ended", "s"], *sorted(rows)])
    terminalreporter.write_line(f"\n{table}\n{told}")
    if path := config.getoption("--faults-table", default=None):
        Path(path).write_text(f"{table}\n{told}\n", encoding="utf-8")


SETTINGS = {
    "train_batch_size": 4,
    "per_device_train_batch_size": 2,
    "num_generations": 2,
    "max_prompt_length": 1500,
    "max_completion_length": 16,
    "model.dtype": "float32",
    "reward.dtype": "float32",
    "generation.dtype": "float32",
    "layout.student_prompt": "default",
    "learning_rate": 1e-3,
    "trainer.max_steps": 6,
    "trainer.save_steps": 2,
    "trainer.ref_sync_steps": 2,
    "report_to": "null",
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two tiny random models, `teacher` and `student`, and `problems.jsonl`."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("teacher", "student"):
        write_model(folder / name, head_size=32)
    rows = [
        {
            "question": f"What is {n} plus {n}?",
            "solution": f"{2 * n}",
            "reasoning_trace": f"{n} and {n} are {2 * n}.",
        }
        for n in range(1, 13)
    ]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="session")
def rl_words(models: Path) -> list[str]:
    """Return the words of a small RL run with servers; a later word for the same key wins."""
    files = {
        "model_name_or_path": models / "teacher",
        "student_model": models / "student",
        "dataset_id_or_path": models / "problems.jsonl",
    }
    return ["cfgs/run_cfg/teacher_rl.yaml", *(f"{k}={v}" for k, v in {**SETTINGS, **files}.items())]


@pytest.fixture(scope="session")
def local_words(rl_words: list[str]) -> list[str]:
    """Return the words of a small RL run whose policy writes by itself."""
    kept = [word for word in rl_words if not word.startswith("generation.dtype=")]
    return [*kept, "generation.backend=transformers"]


@pytest.fixture(scope="session")
def sft_words(models: Path) -> list[str]:
    """Return the words of a small warm-up of six steps, two epochs."""
    left_out = ("num_generations", "max_prompt_length", "max_completion_length", "trainer.ref_sync_steps")
    left_out += ("reward.dtype", "generation.dtype", "layout.student_prompt")
    kept = {k: v for k, v in SETTINGS.items() if k not in left_out}
    files = {
        "model_name_or_path": models / "teacher",
        "dataset_id_or_path": models / "problems.jsonl",
        "data.max_length": 1500,
    }
    return ["cfgs/run_cfg/teacher_sft.yaml", *(f"{k}={v}" for k, v in {**kept, **files}.items())]


def undisturbed(folder: Path, *words: str) -> Path:
    """Return the directory of a run beside a server to which nothing happens."""
    launcher = Launcher(folder / "run", SPLIT, "1", "1", *words)
    try:
        assert launcher.wait() == 0, launcher.console()
    finally:
        launcher.end()
    return launcher.run


@pytest.fixture(scope="session")
def calm(rl_words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of an undisturbed run whose steps wait for their own completions."""
    return undisturbed(tmp_path_factory.mktemp("calm"), *rl_words, *LONG)


@pytest.fixture(scope="session")
def calm_ahead(rl_words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of an undisturbed run whose completions are written a step ahead."""
    return undisturbed(tmp_path_factory.mktemp("calm_ahead"), *rl_words, *LONG, *AHEAD)


@pytest.fixture
def start_launcher(tmp_path: Path):
    """Return a function that starts a launcher into `under`/run; launchers end with the test."""
    started: list[Launcher] = []

    def start(*words: str, under: Path = tmp_path, **env: str) -> Launcher:
        started.append(Launcher(under / "run", *words, **env))
        return started[-1]

    yield start
    for launcher in started:
        launcher.end()
