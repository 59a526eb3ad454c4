"""Tiny random models and real vLLM servers on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.generation_server import Server, running_server
from helpers.generation_tiny import save_tiny


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model with seed 0."""
    return save_tiny(tmp_path_factory.mktemp("model"), seed=0)


@pytest.fixture(scope="session")
def server(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A vLLM server that starts with the weights of `tiny_dir`; sync tests leave others behind."""
    with running_server(tiny_dir, tmp_path_factory.mktemp("server") / "vllm.log") as started:
        yield started


@pytest.fixture(scope="session")
def second_server(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another one, which the last test that uses it ends."""
    with running_server(tiny_dir, tmp_path_factory.mktemp("server2") / "vllm.log") as started:
        yield started
