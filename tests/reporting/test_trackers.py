import logging
import os
import subprocess
import sys
from importlib import metadata

import pytest

from rlt.errors import ConfigError
from rlt.reporting.trackers import has_wandb_login, resolve_report_to

VARIABLES = (
    "WANDB_API_KEY",
    "WANDB_IDENTITY_TOKEN_FILE",
    "WANDB_MODE",
    "WANDB_DIR",
    "WANDB_PROJECT",
    "WANDB_BASE_URL",
    "TENSORBOARD_LOGGING_DIR",
    "TRACKIO_DIR",
)


@pytest.fixture(autouse=True)
def no_login(tmp_path, monkeypatch):
    """A home without netrc; the environment is as before afterwards."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "x")  # so that monkeypatch restores what the code under test sets
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_no_tracker_by_default(tmp_path, caplog):
    assert resolve_report_to(None, "rlt", tmp_path) == []
    assert not caplog.records


def test_wandb_without_login_falls_back_with_one_line(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        assert resolve_report_to("wandb", "rlt", tmp_path) == []
        assert resolve_report_to("wandb", "rlt", tmp_path, is_main=False) == []
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert "\n" not in caplog.records[0].message
    assert "WANDB_PROJECT" not in os.environ


@pytest.mark.parametrize("mode", ["offline", "dryrun"])
def test_wandb_offline_needs_no_login(tmp_path, monkeypatch, caplog, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    assert resolve_report_to("wandb", "mine", tmp_path / "run") == ["wandb"]
    assert os.environ["WANDB_PROJECT"] == "mine"
    assert os.environ["WANDB_DIR"] == str(tmp_path / "run")
    assert not caplog.records


def test_wandb_disabled_is_silent(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert resolve_report_to("wandb", "rlt", tmp_path) == []
    assert not caplog.records


def test_a_login_is_found_in_the_environment_or_in_netrc(tmp_path, monkeypatch):
    assert not has_wandb_login()
    (tmp_path / "netrc").write_text("machine api.example.org login user password k\n")
    assert not has_wandb_login()
    monkeypatch.setenv("WANDB_BASE_URL", "https://api.example.org")
    assert has_wandb_login()
    monkeypatch.delenv("WANDB_BASE_URL")
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password k\n")
    assert has_wandb_login()
    for broken in ("machine api.wandb.ai login user\n", "mach api.wandb.ai\n"):  # no password; not a netrc
        (tmp_path / "netrc").write_text(broken)
        assert not has_wandb_login()
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert has_wandb_login()


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_a_missing_tracker_is_a_sentence_with_the_remedy(tmp_path, name):
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        with pytest.raises(ConfigError, match=f"pip install {name}"):
            resolve_report_to(name, "rlt", tmp_path)
    else:
        assert resolve_report_to(name, "rlt", tmp_path) == [name]


def test_an_unknown_tracker_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="wandb, tensorboard, trackio"):
        resolve_report_to("mlflow", "rlt", tmp_path)


@pytest.mark.slow
def test_a_wandb_offline_run_really_writes_a_folder(tmp_path):
    """Through transformers' own callback, in a process of its own, without network or login."""
    code = (
        "import sys, torch\nfrom transformers import Trainer, TrainingArguments\n"
        "from rlt.reporting.trackers import resolve_report_to\n"
        "class Line(torch.nn.Linear):\n"
        "    def forward(self, x, labels): return {'loss': ((super().forward(x) - labels) ** 2).mean()}\n"
        "report_to = resolve_report_to('wandb', 'rlt', sys.argv[1])\n"
        "rows = [{'x': torch.ones(1), 'labels': torch.ones(1)}] * 4\n"
        "args = TrainingArguments(output_dir=sys.argv[1], max_steps=2, logging_steps=1, use_cpu=True,\n"
        "    report_to=report_to, save_strategy='no', disable_tqdm=True)\n"
        "Trainer(model=Line(1, 1), args=args, train_dataset=rows).train()\n"
    )
    out = tmp_path / "run"
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1000,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    runs = list((out / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(runs) == 1
    assert runs[0].stat().st_size > 500
