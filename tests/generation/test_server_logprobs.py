"""The frozen student behind a real vLLM server, started as a user starts it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlt.config.server_key import VARIABLE
from rlt.errors import GenerationError
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.generation.server_logprobs import ServerLogprobs, served_name, served_temperature
from rlt.models.distributions import TopTokens
from rlt.models.frozen import FrozenModel, load_whole
from rlt.models.logprobs import Request
from rlt.records import Problem
from rlt.rewards.formula import RewardSpec, WeightedReductions
from rlt.rewards.likelihood import LikelihoodReward, WeightedStudent
from rlt.rewards.scorer import StudentScorer
from rlt.trainers.opd_teacher import FrozenTeacher, ServerTeacher

CPU = torch.device("cpu")
START_TIMEOUT = 1000.0
BATCH_LIMIT = 64
"""Tokens that the engine computes at a time; the prompts here are longer."""


@dataclass(frozen=True)
class Started:
    """A student server, and the process that a user would have in front."""

    address: str
    student: Path
    directory: Path
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def started(
    tiny_student: Path, tiny_tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Started]:
    """A server of a float32 student with tied embeddings, at temperature 0.7, that demands a key."""
    pytest.importorskip("vllm")
    folder = tmp_path_factory.mktemp("student_server")
    student = random_model(tiny_student, folder / "student", seed=4, tie_word_embeddings=True)
    tiny_tokenizer.save_pretrained(student)
    command = [sys.executable, "-m", "rlt.launch.student_server", str(student), "--temperature", "0.7"]
    command += ["--port", "0", "--dtype", "float32", "--dir", str(folder / "served")]
    command += ["--", "--max-num-batched-tokens", str(BATCH_LIMIT), "--max-num-seqs", "8"]
    said = folder / "said"
    with pytest.MonkeyPatch.context() as patch, said.open("wb") as stream:
        patch.setenv(VARIABLE, "the-key-of-a-test")
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
        try:
            address = wait_for_address(process, said)
            yield Started(address, student, folder / "served", process)
        finally:
            process.terminate()
            process.wait(1000)


def random_model(like: Path, folder: Path, seed: int, **changes) -> Path:
    """Return the folder of new random weights of the same size."""
    torch.manual_seed(seed)
    Qwen2ForCausalLM(Qwen2Config.from_pretrained(like, **changes)).save_pretrained(folder)
    return folder


def wait_for_address(process: subprocess.Popen[bytes], said: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        assert process.poll() is None, said.read_text()
        ready = re.search(
            r"reward\.placement=server reward\.servers=\[(.*)\] .*=0\.7$", said.read_text(), re.M
        )
        if ready:
            return ready[1]
        time.sleep(0.2)
    raise AssertionError(f"not ready:\n{said.read_text()}")


@pytest.fixture(scope="module")
def server(started: Started) -> ServerLogprobs:
    return ServerLogprobs([started.address], timeout=1000)


@pytest.fixture(scope="module")
def local(started: Started) -> FrozenModel:
    return local_model(started.student)


def local_model(folder: Path) -> FrozenModel:
    module = load_whole(str(folder), dtype="float32", device=CPU)
    return FrozenModel(module, CPU, rests_on_cpu=False, collective=False)


def some_requests(num: int, longest: int) -> list[Request]:
    lengths = [longest - 13 * i for i in range(num)]
    ids = [[(7 * i + 3 * j + i * j) % 250 for j in range(length)] for i, length in enumerate(lengths)]
    return [Request(row, [1, len(row) // 2, *range(len(row) - 5, len(row))]) for row in ids]


def ask(model, requests: list[Request], temperature: float = 0.7, tokens: int = 600) -> list[torch.Tensor]:
    return model.logprobs(requests, temperature=temperature, tokens_per_batch=tokens)


def assert_equal(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["student", "org/student", "/models/a student@2"])
def test_the_served_name_tells_the_temperature(name: str) -> None:
    assert served_temperature(served_name(name, 0.7)) == 0.7
    assert served_temperature(served_name(name, 1 / 3)) == 1 / 3
    assert served_temperature(name) == 1.0


@pytest.mark.vllm
@pytest.mark.slow
def test_values_are_those_of_the_student_at_its_temperature(server: ServerLogprobs, local: FrozenModel):
    requests = some_requests(24, 400)
    ours = ask(server, requests)
    assert [len(values) for values in ours] == [7] * 24
    assert ours[0].dtype == torch.float32
    assert_equal(ours, ask(local, requests))
    assert (torch.cat(ours) - torch.cat(ask(local, requests, 1.0))).abs().max() > 0.1
    assert ask(server, []) == []
    assert_equal(ask(server, requests[:3], tokens=1), ours[:3])


@pytest.mark.vllm
@pytest.mark.slow
def test_the_likeliest_tokens_are_those_of_the_model(server: ServerLogprobs, local: FrozenModel):
    """As a teacher of student_opd is asked for them, served and in this process."""
    requests = some_requests(5, 60)
    extra = TopTokens(5, 0.7, 10**6)
    served = ServerTeacher(server, temperature=0.7, tokens_per_batch=4096)
    here = FrozenTeacher(local, temperature=0.7, tokens_per_batch=4096, agree=lambda count: count)
    for ours, theirs in zip(served.read(requests, extra, [5]), here.read(requests, extra, [5]), strict=True):
        assert [column.shape for column in ours] == [(7,), (7, 5), (7, 5)]
        assert [column.shape for column in theirs] == [(7,), (7, 5), (7, 5)]
        assert torch.equal(ours[2], theirs[2])
        assert (ours[0] - theirs[0]).abs().max() < 1e-4
        assert (ours[1] - theirs[1]).abs().max() < 1e-4
    (alone,) = served.read(requests[:1], None, [1])
    assert torch.equal(alone[0], served.read(requests[:1], extra, [1])[0][0])


@pytest.mark.vllm
@pytest.mark.slow
def test_prompts_far_beyond_the_batch_limit_up_to_the_context(server: ServerLogprobs, local: FrozenModel):
    assert server.check(0.7) == 1024
    requests = some_requests(6, 1023)
    assert min(len(request.ids) for request in requests) > 10 * BATCH_LIMIT
    assert_equal(ask(server, requests), ask(local, requests))
    with pytest.raises(GenerationError, match=r"HTTP 400 .*1024"):
        ask(server, some_requests(1, 1024 + 8))


@pytest.mark.vllm
@pytest.mark.slow
def test_another_temperature_is_refused(server: ServerLogprobs, started: Started):
    fresh = ServerLogprobs([started.address], timeout=1000)
    for call in (lambda: fresh.check(1.0), lambda: ask(fresh, some_requests(1, 20), temperature=1.0)):
        with pytest.raises(GenerationError) as error:
            call()
        assert re.fullmatch(
            r"the vLLM server at http://127.0.0.1:\d+ serves '.*/student@temperature=0.7', so at temperature "
            r"0.7 where 1 is asked for; start it with `python -m rlt.launch.student_server MODEL "
            r"--temperature 1`",
            str(error.value),
        )


@pytest.mark.vllm
@pytest.mark.slow
def test_a_server_of_another_model_is_refused(
    server: ServerLogprobs, local: FrozenModel, started: Started, tmp_path: Path
):
    requests = some_requests(3, 60)
    server.compare(requests, ask(local, requests), "student", "float32", 0.7)
    slightly_off = [values + 2e-3 for values in ask(local, requests)]
    server.compare(requests, slightly_off, "student", "bfloat16", 0.7)
    another = local_model(random_model(started.student, tmp_path / "another", seed=5))
    wrong = {"float32": (slightly_off, "0.001"), "bfloat16": (ask(another, requests), "0.05")}
    for dtype, (values, limit) in wrong.items():
        with pytest.raises(
            GenerationError, match=rf"differ from those of 'student' .* {dtype} allows {limit};"
        ):
            server.compare(requests, values, "student", dtype, 0.7)


@pytest.mark.vllm
@pytest.mark.slow
def test_a_server_of_other_positions_is_refused_at_the_end(server: ServerLogprobs, started: Started):
    (request,) = some_requests(1, 1000)
    end = Request(request.ids, range(936, 1000))
    module = load_whole(str(started.student), dtype="float32", device=CPU)
    student = FrozenModel(module, CPU, rests_on_cpu=False, collective=False)
    assert server.compare_end(end, ask(student, [end])[0], "student", "float32").mean < 1e-4
    rotary = module.model.rotary_emb
    rotary.inv_freq = rotary.inv_freq.bfloat16().float()
    with pytest.raises(GenerationError, match=r"agrees with 'student' on short texts, and differs .* 936 "):
        server.compare_end(end, ask(student, [end])[0], "student", "float32")


@pytest.mark.vllm
@pytest.mark.slow
def test_rewards_are_those_of_a_replicated_student(
    server: ServerLogprobs, local: FrozenModel, tiny_tokenizer, toy_problems: Path
):
    tags = TAG_STYLES["bespoke"]
    student = StudentLayout(tiny_tokenizer, tags, "Think.")
    teacher = TeacherLayout(tiny_tokenizer, tags, "Teach.")
    table = [json.loads(line) for line in toy_problems.read_text().splitlines()]
    problems = [Problem(str(i), row["question"], row["solution"]) for i, row in enumerate(table)]
    explanations = [teacher.split(teacher.completion_ids(row["reasoning_trace"])) for row in table]
    teacher_logprobs = [torch.linspace(-2, -0.1, len(e.token_ids)) for e in explanations]
    spec = RewardSpec(
        WeightedReductions((("mean", 1.0), ("min", 0.01))), WeightedReductions((("mean", 3.0), ("max", 0.03)))
    )

    def scores(model) -> list[float]:
        scorer = StudentScorer(model, student, temperature=0.7, tokens_per_batch=512)
        reward = LikelihoodReward([WeightedStudent("student", scorer)], spec)
        return [score.reward for score in reward.score(problems, explanations, teacher_logprobs)]

    assert scores(server) == pytest.approx(scores(local), abs=1e-3)


@pytest.mark.vllm
@pytest.mark.slow
def test_no_answer_in_time_is_told_with_the_log(started: Started):
    hasty = ServerLogprobs([started.address], timeout=0.005)
    with pytest.raises(GenerationError) as error:
        ask(hasty, some_requests(24, 900), tokens=30_000)
    sentence, _, log = str(error.value).partition("\n")
    assert re.search(r"did not answer for 0.005 s \(generation.request_timeout\) with \d requests", sentence)
    assert log.startswith("last lines of ")


@pytest.mark.vllm
@pytest.mark.slow
def test_a_folder_of_another_temperature_is_not_served(started: Started):
    command = [
        sys.executable,
        "-m",
        "rlt.launch.student_server",
        str(started.student),
        "--temperature",
        "1.5",
    ]
    done = subprocess.run(
        [*command, "--port", "0", "--dir", str(started.directory)],
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert re.match(
        r"error: .*/served/model is a copy of .* at temperature 0.7, not of .* at 1.5: delete", last
    )


@pytest.mark.vllm
@pytest.mark.slow
def test_ctrl_c_ends_the_server_and_a_dead_server_is_one_sentence(started: Started):
    """The last test of this server."""
    fresh = ServerLogprobs([started.address], timeout=1000)
    fresh.check(0.7)
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(1000) == 130
    left = subprocess.run(
        ["pgrep", "-f", str(started.directory)], capture_output=True, text=True, check=False
    )
    assert left.stdout == ""
    with pytest.raises(GenerationError) as error:
        ask(fresh, some_requests(8, 100))
    sentence, _, log = str(error.value).partition("\n")
    assert re.search(
        r"^the vLLM server at \S+ broke off POST /v1/completions .*Connection refused$", sentence
    )
    assert log.startswith("last lines of ")
