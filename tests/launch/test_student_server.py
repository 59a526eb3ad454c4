"""The copy that a student server serves, and its command; tests/generation starts one."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from rlt.errors import ConfigError, ModelError
from rlt.launch.server import server_command
from rlt.launch.student_server import main, parse, running_student_server, scaled_copy, server_config

SHORT = ["MODEL", "--temperature", "0.7", "--port", "8100"]


def test_a_copy_is_written_once(tiny_model: Path, tmp_path: Path):
    target = tmp_path / "served" / "model"
    left_over = tmp_path / "served" / "model.unfinished"  # of a start that was killed
    left_over.mkdir(parents=True)
    (left_over / "model-00001-of-00002.safetensors").touch()
    assert scaled_copy(str(tiny_model), 0.7, target) == target
    assert not left_over.exists()
    marker = json.loads((target / "scaled_head.json").read_text())
    assert (marker["temperature"], marker["source"]) == (0.7, str(tiny_model))
    before = {file.name: file.stat().st_mtime_ns for file in target.iterdir()}
    scaled_copy(str(tiny_model), 0.7, target)
    assert {file.name: file.stat().st_mtime_ns for file in target.iterdir()} == before


def test_a_copy_of_something_else_is_left_alone(tiny_model: Path, tmp_path: Path):
    target = tmp_path / "model"
    scaled_copy(str(tiny_model), 0.7, target)
    with pytest.raises(ConfigError, match=r"at temperature 0.7, not of .* at 1: delete it, or give another"):
        scaled_copy(str(tiny_model), 1.0, target)
    marker = target / "scaled_head.json"
    marker.write_text(marker.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(ConfigError, match=r"is a copy of .* \(sha256 0\w{11}\) at temperature 0.7, not of "):
        scaled_copy(str(tiny_model), 0.7, target)


def test_a_copy_that_cannot_be_written(tiny_model: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"cannot write .*/file/model: Not a directory; give another --dir"):
        scaled_copy(str(tiny_model), 0.7, tmp_path / "file" / "model")


def test_the_command_of_the_server(tiny_model: Path):
    words = ["org/student", *SHORT[1:], "--dtype", "float32", "--", "--max-num-batched-tokens", "64"]
    command = server_command(server_config(parse(words), tiny_model), 8100, on_cpu=True)
    text = " ".join(command)
    assert "--served-model-name org/student@temperature=0.7" in text
    assert "--host 127.0.0.1 --port 8100 --dtype float32" in text
    assert "--max-model-len 4096" in text  # the model's context
    assert text.index("--no-enable-chunked-prefill") < text.index("--enable-chunked-prefill --max-num")
    assert text.endswith("--max-num-batched-tokens 64")  # vLLM takes the last one
    assert server_config(parse([*words[:5], "--max-model-len", "99"]), tiny_model).max_prompt_length == 99


@pytest.mark.parametrize("temperature", ["0", "-1", "nan", "inf", "warm"])
def test_temperatures_that_are_none(temperature, capsys):
    assert main(["MODEL", "--temperature", temperature, "--port", "1"]) == 2
    assert "--temperature" in capsys.readouterr().err


def test_a_port_that_is_taken(tiny_model: Path, tmp_path: Path):
    pytest.importorskip("vllm")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        words = [str(tiny_model), *SHORT[1:3], "--port", str(port), "--dir", str(tmp_path / "served")]
        taken = pytest.raises(ConfigError, match=rf"--port {port} is taken")
        with taken, running_student_server(parse(words)):
            pass
    assert not (tmp_path / "served").exists()
