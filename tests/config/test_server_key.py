"""Where the servers' key is found, and which servers need one."""

from __future__ import annotations

import pytest

from rlt.config.schema import Config
from rlt.config.server_key import VARIABLE, beyond_this_machine, check_server_key, find_key
from rlt.errors import ConfigError

KEY = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def write(path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_the_file_goes_before_the_environment(tmp_path, monkeypatch):
    assert find_key(None) is None
    monkeypatch.setenv(VARIABLE, f"{KEY}-environment")
    assert find_key(None) == f"{KEY}-environment"
    assert find_key(write(tmp_path / "key", f"{KEY}\n")) == KEY


@pytest.mark.parametrize(
    ("text", "mode", "sentence"),
    [
        (KEY, 0o640, r"can be read by others \(mode 640\): chmod 600 it"),
        (KEY, 0o604, r"can be read by others \(mode 604\)"),
        ("", 0o600, "a key of 0 characters, which can be guessed"),
        (f"{KEY}\n{KEY}", 0o600, "must hold one word of ASCII"),
        ("ключ" * 9, 0o600, "must hold one word of ASCII"),
    ],
)
def test_a_file_that_holds_no_secret_key(tmp_path, text, mode, sentence):
    with pytest.raises(ConfigError, match=sentence):
        find_key(write(tmp_path / "key", text, mode))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file"):
        find_key(str(tmp_path / "key"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "localhost", "[::1]"])
def test_addresses_of_this_machine_alone(host):
    assert not beyond_this_machine(f"http://{host}:8000")


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.2", "node-2", "localhost.example.org", "[fe80::1]"])
def test_addresses_that_other_machines_reach(host):
    assert beyond_this_machine(f"http://{host}:8000")


@pytest.mark.parametrize("section", ["generation.servers", "reward.servers", "reward.answers.servers"])
def test_servers_beyond_this_machine_need_a_key_unless_told(section, monkeypatch):
    config = Config(stage="teacher_rl")
    where = {"generation": config.generation, "reward": config.reward, "answers": config.reward.answers}
    where[section.split(".")[-2]].servers = ["http://127.0.0.1:8000", "http://node-2:8000"]
    with pytest.raises(ConfigError, match=f"`{section}` names http://node-2:8000, which other mach"):
        check_server_key(config)
    config.generation.allow_open_servers = True
    check_server_key(config)
    config.generation.allow_open_servers = False
    monkeypatch.setenv(VARIABLE, KEY)
    check_server_key(config)


def test_other_peoples_servers_are_their_owners_affair(tmp_path, monkeypatch):
    """They may be open, and their keys as short as they like; what no header carries stays refused."""
    config = Config(stage="evaluate")
    config.generation.servers = ["http://10.0.0.2:8000"]
    with pytest.raises(ConfigError, match="there is no key"):
        check_server_key(config)
    config.generation.api = "openai"
    check_server_key(config)
    config.generation.api_key_file = write(tmp_path / "key", "EMPTY")
    check_server_key(config)
    assert find_key(config.generation.api_key_file, own=False) == "EMPTY"
    config.generation.api = "vllm"
    with pytest.raises(ConfigError, match="can be guessed"):
        check_server_key(config)
    monkeypatch.setenv(VARIABLE, "two words")
    with pytest.raises(ConfigError, match="must hold one word"):
        find_key(None, own=False)
