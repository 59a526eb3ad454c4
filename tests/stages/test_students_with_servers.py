"""student_rl and student_opd with real vLLM servers: one step ahead, and a teacher behind a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.ahead import AHEAD, Asked, assert_learns_from_the_weights_before, watch_requests
from helpers.opd_by_hand import CASES, SHARED, by_hand
from helpers.stage_runs import count_differences, interrupted_copy, later_win, run_here, train_rows

from rlt.rundir.samples import read_samples, sample_files
from rlt.trainers.writing import FOLDER

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.fixture(scope="module")
def ahead_words(opd_words, tmp_path_factory) -> Iterator[Any]:
    """Return a function that gives the words of four steps of a stage, written one step ahead.

    student_rl is paid by the likelihood of the solutions, so that both learn from the same problems.
    """
    pytest.importorskip("vllm")
    from rlt.config.compose import compose
    from rlt.launch.server import running_servers

    usual = [*AHEAD, "generation.backend=vllm", "generation.dtype=float32", "learning_rate=1e-2"]
    usual += ["trainer.max_steps=4", "trainer.save_steps=1", "data.subset.n=8", "temperature=0.7"]
    for_rl = ["run_cfg=student_rl", "correctness.grader=likelihood", "student_model=policy"]
    for_rl += ["layout.student_prompt=Think.", "trainer.beta=0", "trainer.ref_sync_steps=0"]

    def build(stage: str, output: Path, *changes: str) -> list[str]:
        words = opd_words(output, *usual)
        if stage == "student_rl":
            words = [word for word in words if not word.startswith(("teacher_model=", "opd."))]
            words = later_win(*words, *for_rl)
        return later_win(*words, *changes)

    with running_servers(compose(build("student_opd", tmp_path_factory.mktemp("server")))) as servers:
        address = servers[0].address
        yield lambda *args: build(*args, f"generation.servers=[{address}]")


@pytest.fixture(scope="module", params=["student_rl", "student_opd"])
def ahead(request, ahead_words, tmp_path_factory) -> tuple[str, Path, list[Asked]]:
    """Return a stage, the directory of its run, and what it has asked for."""
    stage = request.param
    with watch_requests() as asked:
        run = run_here(ahead_words(stage, tmp_path_factory.mktemp(stage) / "run"), stage)
    assert [len(one.rows) for one in asked] == [8] * 4
    return stage, run, asked


def test_a_step_learns_from_completions_of_the_weights_before(ahead, thinker: Path):
    _, run, asked = ahead
    assert_learns_from_the_weights_before(run, asked, thinker, temperature=0.7)


def test_a_run_resumed_from_completions_written_ahead_is_the_same(ahead, ahead_words, tmp_path: Path):
    stage, run, _ = ahead
    copy = interrupted_copy(run, tmp_path / "copy", step=2)
    assert (copy / "checkpoint-2" / FOLDER / "completions.parquet").is_file()
    resumed = run_here(ahead_words(stage, copy, "resume_from=latest"), stage)
    assert count_differences(resumed, run) == 0
    for step, file in sample_files(resumed / "samples").items():
        assert read_samples(file) == read_samples(run / "samples" / file.name), step


def test_a_teacher_behind_a_server(opd_words, opd_step, thinker: Path, tiny_teacher: Path, tmp_path: Path):
    """The likeliest tokens that a server gives make the loss and the gradient of a plain computation."""
    pytest.importorskip("vllm")
    from rlt.launch.student_server import parse, running_student_server

    case = CASES["answers_top_k"]
    words = [str(tiny_teacher), "--temperature", str(SHARED), "--port", "0", "--dtype", "float32"]
    with running_student_server(parse([*words, "--dir", str(tmp_path / "served")])) as server:
        on_server = ["opd.placement=server", f"opd.servers=[{server.address}]"]
        output = opd_words(tmp_path / "run", *case.changes, f"temperature={SHARED}", *on_server)
        output = run_here(output, "student_opd")
    row = train_rows(output)[1]
    expected = by_hand(case, output, thinker, tiny_teacher, opd_step, temperature=SHARED)
    assert row["loss"] == pytest.approx(expected.loss, rel=1e-4)
    assert row["divergence"] == pytest.approx(expected.divergence, rel=1e-4)
    assert row["grad_norm"] == pytest.approx(expected.gradient().item(), rel=1e-4)
