"""A folder with a model's config.json and a data file: enough for every check of the configuration."""

from pathlib import Path

import pytest
from helpers.fake_models import fake_model


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder that holds `model/`, `student/` and `rows.jsonl`."""
    for name in ("model", "student"):
        fake_model(tmp_path / name, '{"max_position_embeddings": 32768}')
    (tmp_path / "rows.jsonl").write_text('{"question": "1+1?", "solution": "2"}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def teacher_rl(place: Path) -> list[str]:
    """Return a command line of teacher_rl that passes every check."""
    return [
        "run_cfg=teacher_rl",
        "model_name_or_path=model",
        "student_model=student",
        "dataset_id_or_path=rows.jsonl",
        "generation.backend=transformers",
    ]


@pytest.fixture
def teacher_sft(place: Path) -> list[str]:
    """Return a command line of teacher_sft that passes every check."""
    return ["run_cfg=teacher_sft", "model_name_or_path=model", "dataset_id_or_path=rows.jsonl"]


@pytest.fixture
def score_traces(place: Path) -> list[str]:
    """Return a command line of score_traces that passes every check."""
    return ["run_cfg=score_traces", "student_model=student", "dataset_id_or_path=rows.jsonl"]
