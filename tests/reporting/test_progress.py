import io
import logging
import os
import re
import subprocess
import sys
import time

import pytest
from transformers import TrainerState

from rlt.reporting.progress import (
    BarProgress,
    ConsoleProgress,
    SampleProgress,
    TokenProgress,
    duration,
    install_progress,
    setup_logging,
)


def state(step: int) -> TrainerState:
    return TrainerState(global_step=step, max_steps=10, is_world_process_zero=True)


def test_a_training_off_terminal_is_one_line_a_step_and_nothing_else(make_trainer, capsys, caplog):
    trainer = make_trainer(save_strategy="no")
    install_progress(trainer)
    capsys.readouterr()
    with caplog.at_level(logging.INFO, logger="rlt"):
        trainer.train()
    assert capsys.readouterr() == ("", "")
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("rlt.")]
    assert len(lines) == 3
    for number, line in enumerate(lines, start=1):
        pattern = (
            rf"step {number}/3  loss [\d.e+-]+  grad [\d.e+-]+  lr [\d.e+-]+  [\d.e+-]+ s/step  \d+s left"
        )
        assert re.fullmatch(pattern, line)


def test_a_line_shows_reward_and_parts_then_pace(monkeypatch):
    console = ConsoleProgress()
    clock = iter([100.0, 130.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    console.on_train_begin(None, state(2), None)
    logs = {"loss": 0.0012345, "reward": -0.53126, "r_ss": -0.41, "r_kl": 0.12, "drift/max": 1e-6, "kl": None}
    line = console.line(state(5), logs)
    # 30 s for the three steps since the resume at 2; five are left
    metrics = "reward -0.5313  r_ss -0.41  r_kl 0.12  kl None  drift 1e-06  loss 0.001234"
    assert line == f"step 5/10  {metrics}  10 s/step  50s left"


def test_a_line_tells_where_the_time_goes():
    perf = {"perf/tokens_per_second": 51234.5, "perf/mfu": 0.3141, "perf/padding": 1.0234}
    times = {"time/step": 34.2, "time/read": 0.004, "time/generate": 12.06, "time/wait": 0.5}
    assert ConsoleProgress().line(state(5), {"loss": 1.5, **perf, **times}) == (
        "step 5/10  loss 1.5  tokens/s 51,234  mfu 0.3141  padding 1.023  generate 12.1s  wait 0.50s"
    )


def test_evaluation_has_its_own_line_and_a_summary_none():
    console = ConsoleProgress()
    assert (
        console.line(state(4), {"eval_reward": 0.25, "eval_runtime": 3.0})
        == "step 4/10  evaluation  reward 0.25"
    )
    assert console.line(state(10), {"train_runtime": 3.0, "epoch": 1.0}) == ""


def test_other_ranks_say_nothing(caplog):
    other = TrainerState(global_step=1, max_steps=10, is_world_process_zero=False)
    with caplog.at_level(logging.INFO):
        ConsoleProgress().on_log(None, other, None, logs={"loss": 1.0})
    assert not caplog.records


@pytest.mark.parametrize(
    ("seconds", "text"), [(45.4, "45s"), (59.6, "1m 00s"), (725, "12m 05s"), (12000, "3h 20m")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_on_a_terminal_the_bar_stays_and_the_dict_becomes_our_line(make_trainer, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    trainer = make_trainer()
    install_progress(trainer)
    assert any(isinstance(c, BarProgress) for c in trainer.callback_handler.callbacks)
    trainer.train()
    lines = [line for line in out.getvalue().split("\n") if line.strip()]
    assert [line[:8] for line in lines] == ["step 1/3", "step 2/3", "step 3/3"]
    assert "3/3" in err.getvalue()
    assert "'loss'" not in out.getvalue() + err.getvalue()


@pytest.fixture
def fresh_logging():
    """Logging as it is in a new process; put back afterwards."""
    names = ("", "rlt")
    root = logging.getLogger()
    handlers, levels = root.handlers[:], [logging.getLogger(name).level for name in names]
    environment = dict(os.environ)
    yield
    root.handlers[:] = handlers
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)
    os.environ.clear()
    os.environ.update(environment)


@pytest.mark.parametrize(
    ("rank", "expected"),
    [(0, ["I rlt.x: hello", "W rlt.x: careful"]), (3, ["W [rank 3] rlt.x: careful"])],
)
def test_logging_has_one_format_and_only_rank_0_informs(fresh_logging, capsys, rank, expected):
    setup_logging(rank)
    setup_logging(rank)  # twice: still one handler
    logging.getLogger("rlt.x").info("hello")
    logging.getLogger("rlt.x").warning("careful")
    logging.getLogger("httpx").info("noise")
    out, err = capsys.readouterr()
    assert out == ""
    assert [line[9:] for line in err.splitlines()] == expected


@pytest.mark.slow
def test_libraries_draw_no_bars_off_terminal(tmp_path):
    code = (
        "import sys\nfrom rlt.reporting.progress import setup_logging\nsetup_logging()\n"
        "import datasets\nfrom transformers import Qwen2Config, Qwen2ForCausalLM\n"
        "datasets.Dataset.from_dict({'a': [1, 2]}).map(lambda r: {'b': 1})\n"
        "sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,\n"
        "    num_key_value_heads=1, vocab_size=8)\n"
        "Qwen2ForCausalLM(Qwen2Config(**sizes)).save_pretrained(sys.argv[1])\n"
        "Qwen2ForCausalLM.from_pretrained(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
    assert "%|" not in done.stdout + done.stderr


def test_time_left_goes_by_the_tokens_and_not_by_the_rows():
    clock = TokenProgress(1000, "scoring", every=3600)
    assert "time left not known yet" in clock.line(5)
    clock.add(250)
    assert clock.line(10) == "scoring  25%  250 of 1,000 tokens  25 tokens/s  30s left"


def test_the_last_tokens_are_told_at_once(caplog):
    caplog.set_level("INFO", logger="rlt")
    clock = TokenProgress(100, "scoring", every=3600)
    clock.add(60)
    assert not caplog.records
    clock.add(40)
    assert "100%" in caplog.text


def test_a_collection_tells_its_pace_and_what_is_malformed(caplog):
    caplog.set_level("INFO", logger="rlt")
    good = {"why": None, "finish_reason": "stop", "num_tokens": 50}
    cut = {"why": "cut", "finish_reason": "length", "num_tokens": 80}
    clock = SampleProgress([good, cut], 10, 3, every=3600)  # two of an earlier run
    clock.add([good, good], 100)
    assert clock.line(4) == (
        "collecting  40%  4 of 10 explanations  25 tokens/s  ? left  1 malformed, 1 cut by their length"
    )
    clock.add([{"why": "empty", "finish_reason": "stop", "num_tokens": 20}], 20)
    # 120 tokens in 6 s; five to go, each of 50 tokens like the five that are done: 250 tokens
    assert "50%  5 of 10 explanations  20 tokens/s  12s left  2 malformed, 1 cut" in clock.line(6)
    assert not caplog.records
    clock.add([good] * 5, 1)
    assert "100%" in caplog.text


def test_the_time_left_knows_that_tasks_differ_in_length():
    def done(task: str, num_tokens: int) -> dict:
        return {"task": task, "why": None, "finish_reason": "stop", "num_tokens": num_tokens}

    clock = SampleProgress([], {"short": 8, "long": 4}, 2, every=3600)
    clock.add([done("short", 10)] * 4, 40)
    assert "? left" in clock.line(1)  # nothing is known of the long ones
    clock.add([done("long", 960)], 960)
    # 1,000 tokens in 10 s; 4 of 10 and 3 of 960 to go, 2,920 tokens. By rows alone it would be 14 s.
    assert "100 tokens/s  29s left" in clock.line(10)
