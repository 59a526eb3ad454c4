"""Teacher RL whose frozen student is behind a real vLLM server of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.stage_runs import run_here, run_processes, succeed
from test_strategies import assert_same_first_step

from rlt.errors import GenerationError

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.fixture(scope="module")
def on_server(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The words that put the student behind a running server."""
    pytest.importorskip("vllm")
    from rlt.launch.student_server import parse, running_student_server

    words = [str(tiny_student), "--temperature", "0.7", "--port", "0", "--dtype", "float32"]
    with running_student_server(parse([*words, "--dir", str(tmp_path_factory.mktemp("served"))])) as server:
        yield ["reward.placement=server", f"reward.servers=[{server.address}]"]


@pytest.mark.long
def test_two_processes_are_paid_as_by_a_replicated_student(on_server, run: Path, words, tmp_path: Path):
    output = tmp_path / "run"
    done = run_processes("ddp", words(output, *on_server, "trainer.max_steps=2", evaluate=False))
    succeed(done)
    assert "comparing the student's servers with" in done.stdout
    assert_same_first_step(output, run)


def test_a_student_that_is_not_the_servers(on_server, words, tiny_teacher: Path, tmp_path: Path):
    changes = [*on_server, f"student_model={tiny_teacher}"]
    with pytest.raises(
        GenerationError, match=r"differ from those of '.*teacher' computed here by .* at most"
    ):
        run_here(words(tmp_path / "run", *changes, evaluate=False))


def test_a_server_of_another_temperature(on_server, words, tmp_path: Path):
    changes = [*on_server, "reward.student_temperature=1.0"]
    with pytest.raises(GenerationError, match=r"so at temperature 0.7 where 1 is asked for; start it with"):
        run_here(words(tmp_path / "run", *changes, evaluate=False))
