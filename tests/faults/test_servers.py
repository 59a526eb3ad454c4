"""Real vLLM servers that die or hang under a run, and what a launcher leaves behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from helpers.fault_runs import AHEAD, ENDLESS, LONG, NUM_STEPS, SPLIT, environment, num_requests, the_server
from helpers.launchers import PATIENCE, SECRETS, Launcher
from helpers.moments import Moment
from helpers.stage_runs import count_differences, rows

from rlt.config.server_key import VARIABLE
from rlt.launch.ports import is_free
from rlt.status.look import look

pytestmark = [pytest.mark.slow, pytest.mark.vllm]
GONE = "nothing is left"
SAME = "it is started again, and metrics and weights are those of an undisturbed run"


@pytest.mark.long
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        pytest.param(
            *(moment, number),
            id=f"{number.name}-{moment}",
            marks=pytest.mark.fault(f"the server {what} while the trainer is {moment}", SAME),
        )
        for what, number in (("is killed", signal.SIGKILL), ("hangs", signal.SIGSTOP))
        for moment in ("generating", "syncing weights", "updating")
        if (what, moment) != ("hangs", "updating")
    ],
)
def test_a_server_comes_back(moment, number, rl_words, start_launcher, calm, lost, tmp_path):
    held = Moment(str(tmp_path / "run" / "now.json"), text=f'(?s)"phase": "{moment}".*"step": [2-9]')
    words = [*rl_words, *LONG, "generation.silence_timeout=60"]
    launcher = start_launcher(SPLIT, "1", "1", *words, **held.environment())
    training, server = launcher.wait_until_held(), the_server(launcher)
    memory = shared_memory(launcher)
    assert memory
    if moment == "generating":  # the moment before the requests: it is to happen while they are answered
        training.resume()
        launcher.wait_for("requests", lambda: num_requests(launcher.run, server) > 0, every=0.002)
    for process in [*server.children(recursive=True), server] if number == signal.SIGSTOP else [server]:
        process.send_signal(number)
    training.resume()
    assert launcher.wait() == 0, launcher.console()
    assert "starting it again" in launcher.console()
    assert not any(path.exists() for path in memory)
    lost(count_differences(launcher.run, calm))


@pytest.mark.long
@pytest.mark.fault("the server is killed while it writes a step ahead", SAME)
def test_a_server_comes_back_that_has_written_ahead(rl_words, start_launcher, calm_ahead, lost, tmp_path):
    """It has just begun with the next step when its trainer begins to score what it has of this one."""
    held = Moment(str(tmp_path / "run" / "now.json"), text='(?s)"phase": "scoring".*"step": [2-9]')
    launcher = start_launcher(SPLIT, "1", "1", *rl_words, *LONG, *AHEAD, **held.environment())
    training, server = launcher.wait_until_held(), the_server(launcher)
    server.kill()
    training.resume()
    assert launcher.wait() == 0, launcher.console()
    assert "starting it again" in launcher.console()
    lost(count_differences(launcher.run, calm_ahead))


@pytest.mark.fault("a server dies for good under two processes", "its reason; every whole step is kept")
def test_a_server_that_is_lost_for_good(rl_words, start_launcher):
    words = [*rl_words, *ENDLESS, "generation.max_restarts=0"]
    launcher = start_launcher(SPLIT, "1", "2", *words)  # ZeRO-3: torchrun's workers leave the process group
    launcher.wait_for("the first step", launcher.has_stepped)
    server = the_server(launcher)
    its_key = environment(server.pid)[VARIABLE]
    assert len(its_key) == 64
    see_that_nothing_tells(launcher, [*SECRETS.values(), its_key])
    see_that_only_we_write(launcher.run)
    launcher.wait_for(
        "an answer of the server", lambda: is_healthy(launcher.run)
    )  # status waits 0.4 s for one
    see_what_status_tells(launcher.run)
    memory = shared_memory(launcher)
    assert memory
    server.kill()
    assert launcher.wait() == 5
    assert "ended with exit code 137 (killed); host memory ran out, or somebody" in launcher.console()
    assert (launcher.run / "logs" / "train.log").stat().st_size > 0
    assert not any(path.exists() for path in memory)
    last = rows(launcher.run)[-1]["step"]
    assert f"step {last} of {NUM_STEPS} is kept in" in launcher.console()
    assert (launcher.run / f"checkpoint-{last}" / "trainer_state.json").is_file()


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "undisturbed"),
    [
        pytest.param(
            *(words, undisturbed),
            id=undisturbed,
            marks=pytest.mark.fault(
                f"a server dies for good{how}, and the same command is given again",
                "it continues from the last whole step: metrics and weights are those of an undisturbed run",
            ),
        )
        for words, undisturbed, how in (([], "calm", ""), (AHEAD, "calm_ahead", " one step ahead"))
    ],
)
def test_what_is_kept_when_a_server_is_lost_goes_on(
    words, undisturbed, rl_words, start_launcher, lost, tmp_path, request
):
    command = [SPLIT, "1", "1", *rl_words, *LONG, *words, "trainer.save_steps=0", "resume_from=auto"]
    held = Moment(str(tmp_path / "run" / "metrics.jsonl"), lines=2)
    launcher = start_launcher(*command, "generation.max_restarts=0", **held.environment())
    training = launcher.wait_until_held()
    the_server(launcher).kill()
    training.resume()
    assert launcher.wait() == 5
    again = start_launcher(*command)
    assert again.wait() == 0, again.console()
    lost(count_differences(again.run, request.getfixturevalue(undisturbed)))


@pytest.mark.parametrize(
    ("number", "what"),
    [
        pytest.param(number, what, marks=[*marks, pytest.mark.fault(f"{what} while servers load", GONE)])
        for number, what, marks in (
            (signal.SIGINT, "Ctrl-C", [pytest.mark.long]),  # the same handler
            (signal.SIGTERM, "SIGTERM", []),
        )
    ],
)
def test_a_signal_while_servers_load(start_launcher, rl_words, number, what):
    launcher = start_launcher(SPLIT, "2", "1", *rl_words)
    logs = launcher.run / "logs"
    launcher.wait_for("both servers' start", lambda: len(list(logs.glob("vllm-*.log"))) == 2)
    launcher.wait_for("their processes", lambda: len(launcher.descendants()) >= 2)
    launcher.popen.send_signal(number)
    assert launcher.wait() == 128 + number
    assert "ending servers and training" in launcher.console()


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        pytest.param(
            *("loading", signal.SIGKILL),
            marks=pytest.mark.fault("SIGKILL to the launcher while servers load", GONE),
        ),
        pytest.param(
            *("training", signal.SIGKILL),
            marks=[pytest.mark.long, pytest.mark.fault("SIGKILL to the launcher beside a server", GONE)],
        ),
        pytest.param(
            *("training", signal.SIGTERM),
            marks=[pytest.mark.long, pytest.mark.fault("SIGTERM to the launcher beside a server", GONE)],
        ),
    ],
)
def test_the_launcher_is_ended(start_launcher, rl_words, moment, number):
    launcher = start_launcher(SPLIT, "1", "2", *rl_words, *ENDLESS)
    if moment == "loading":
        launcher.wait_for("the server's engine", lambda: len(launcher.descendants()) >= 2)
    else:
        launcher.wait_for("the first step", launcher.has_stepped)
        assert list(launcher.run.glob("weight_sync/weights-*"))
    memory = shared_memory(launcher)
    launcher.popen.send_signal(number)
    launcher.wait_for_nothing()
    assert not any(path.exists() for path in memory)
    assert not (launcher.run / "weight_sync").exists()


@pytest.mark.fault("the data does not fit, and servers load for minutes", "one sentence at once; servers end")
def test_what_the_training_sees_ends_the_servers(start_launcher, rl_words):
    launcher = start_launcher(SPLIT, "1", "1", *rl_words, "train_batch_size=64")
    assert launcher.wait() == 3, launcher.console()
    assert "add problems, or lower train_batch_size" in launcher.console()
    assert "ready at" not in launcher.console()
    assert "Traceback" not in launcher.console()


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.fault("50 starts and stops at any moment", "no process, port or shared memory is left")
def test_fifty_starts_and_stops(start_launcher, rl_words, tmp_path):
    for number in range(50):
        launcher = start_launcher(SPLIT, "1", "1", *rl_words, under=tmp_path / str(number))
        with suppress(subprocess.TimeoutExpired):
            launcher.popen.wait(timeout=0.6 * number)  # up to half a minute: loading, or the first steps
        memory = shared_memory(launcher)
        launcher.popen.send_signal(signal.SIGINT if number % 2 else signal.SIGTERM)
        launcher.popen.wait(PATIENCE)
        assert launcher.descendants() == [], f"start {number}"
        ports = [int(log.stem.removeprefix("vllm-")) for log in launcher.run.glob("logs/vllm-*.log")]
        assert all(is_free(port, "127.0.0.1") for port in ports), f"start {number}"
        assert not any(path.exists() for path in memory), f"start {number}"


def shared_memory(launcher: Launcher) -> set[Path]:
    """Return the shared memory that the processes below a launcher have mapped."""
    found = set()
    for process in launcher.descendants():
        with suppress(OSError):  # just ended
            found |= set(re.findall(r"/dev/shm/[^\s/]+", Path(f"/proc/{process.pid}/maps").read_text()))
    return {Path(name) for name in found}


def see_that_nothing_tells(launcher: Launcher, secrets: list[str]) -> None:
    """Neither a file of the run nor the list of processes tells a secret."""
    told: dict[str, bytes] = {}
    for path in paths_below(launcher.run):
        with suppress(FileNotFoundError, IsADirectoryError):  # a weight sync comes and goes
            told[path.name] = path.read_bytes()
    assert {"config.yaml", "run.json", "processes.json", "train.log"} <= told.keys()
    for process in [psutil.Process(launcher.popen.pid), *launcher.descendants()]:
        with suppress(OSError):  # just ended
            told[f"process {process.pid}"] = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    told["the console"] = launcher.console().encode()
    for secret in secrets:
        assert [place for place, text in told.items() if secret.encode() in text] == []


def see_that_only_we_write(run: Path) -> None:
    """What the umask keeps from others (022 usually) no file of the run gives them."""
    mask = os.umask(0o022)
    os.umask(mask)
    for path in [run, *paths_below(run)]:
        with suppress(FileNotFoundError):
            assert path.stat().st_mode & mask == 0, path


def paths_below(folder: Path) -> Iterator[Path]:
    """Yield files and folders below a folder whose contents come and go, which `Path.rglob` fails on."""
    for place, folders, files in os.walk(folder):  # a folder that has just gone is skipped
        yield from (Path(place, name) for name in [*folders, *files])


def is_healthy(run: Path) -> bool:
    return [server["health"] for server in look(run)["servers"]] == ["healthy"]


def see_what_status_tells(run: Path) -> None:
    """`python -m rlt.status` names every process and the phase."""
    told = look(run)
    assert (told["stage"], told["state"], told["of"]) == ("teacher_rl", "running", NUM_STEPS)
    assert told["step"] >= 1
    assert told["doing"]["phase"] in {"syncing weights", "generating", "scoring", "updating"}
    assert [(p["name"], p["alive"]) for p in told["processes"]] == [
        ("launcher", True),
        ("vLLM server 0", True),
        ("training", True),
    ]
    ranks = {child["name"] for child in told["processes"][2]["children"]}
    assert {"rlt:train 0", "rlt:train 1"} <= ranks
    assert all(p["last_line"] for p in told["processes"] if p["log"])
