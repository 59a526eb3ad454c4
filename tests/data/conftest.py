"""Rows and files for the data tests."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "../shared/data"


def _sharegpt(question: str = "2+2?", thought: str = "Two and two.", solution: str = "4", **columns) -> dict:
    """A row as Bespoke-Stratos writes it."""
    reply = (
        f"<|begin_of_thought|>\n\n{thought}\n\n<|end_of_thought|>\n\n"
        f"<|begin_of_solution|>\n\n{solution}\n\n<|end_of_solution|>"
    )
    turns = [{"from": "user", "value": question}, {"from": "assistant", "value": reply}]
    return {"conversations": turns, **columns}


def _write_jsonl(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def sharegpt() -> Callable[..., dict]:
    """The maker of tagged ShareGPT rows; columns by keyword."""
    return _sharegpt


@pytest.fixture
def write_jsonl() -> Callable[[Path, list[dict]], str]:
    """The writer of one row per line, which returns the path as text."""
    return _write_jsonl


@pytest.fixture(autouse=True)
def own_datasets_cache(tmp_path_factory, monkeypatch):
    """Keep what `datasets` prepares out of the home folder, and nothing from one test to the next."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets_cache"))


@pytest.fixture
def shared_data() -> Path:
    """The folder of real samples beside the project."""
    if not SHARED.is_dir():
        pytest.skip(f"no sample data in {SHARED}")
    return SHARED
