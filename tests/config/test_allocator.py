"""The allocator's setting: ours on GPUs, unless there is one; never a server's."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from rlt.config.allocator import VARIABLES, allocator_env
from rlt.config.compose import compose
from rlt.device_plan import Plan
from rlt.launch.command import training_env
from rlt.launch.server import server_env

EXPANDABLE = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}


def test_segments_are_expandable_unless_the_user_says_otherwise():
    assert allocator_env({}) == EXPANDABLE
    for name in VARIABLES:
        assert allocator_env({name: "max_split_size_mb:512"}) == {}
        assert allocator_env({name: ""}) == {}


def test_training_on_gpus_gets_it_and_nothing_else_does(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert training_env(Plan((), ("0",), 1, "zero3")).items() >= EXPANDABLE.items()
    assert not training_env(Plan((), (), 1, "single")).keys() & set(VARIABLES)
    config = compose(["run_cfg=teacher_rl"])
    assert not server_env(config, ("0",), 1).keys() & set(VARIABLES)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "backend:cudaMallocAsync")
    assert not training_env(Plan((), ("0",), 1, "zero3")).keys() & set(VARIABLES)


@pytest.mark.parametrize("name", VARIABLES)
def test_torch_reads_the_names(name):
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    libraries = Path(spec.origin).parent.glob("lib/libc10*.so")
    assert any(name.encode() in path.read_bytes() for path in libraries)
