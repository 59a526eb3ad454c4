"""Fixtures of all areas: tiny models made on the spot; real data where it lies beside the project."""

from __future__ import annotations

import json
import logging
import os
from functools import partial
from pathlib import Path

import pytest
from helpers import quick

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED = Path(__file__).parents[1] / ".." / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --quick."""
    parser.addoption(
        "--quick", action="store_true", help="only what needs seconds and no torch (tests/helpers/quick.py)"
    )
    parser.addoption("--cases", type=int, help="of the cases of each test no more than so many")
    parser.addoption(
        "--changed",
        action="store_true",
        help="all cases of the quick tests that import what is not committed",
    )


def _of_the_change(config: pytest.Config) -> frozenset[Path]:
    """Return the test files that a change reaches; none without --changed, or where it reaches none."""
    return quick.reaching(quick.changed()) if config.option.changed else frozenset()


def pytest_configure(config: pytest.Config) -> None:
    """Keep heavy libraries out of the processes of a quick run that run tests, workers if there are any."""
    is_worker, has_workers = hasattr(config, "workerinput"), bool(config.getoption("numprocesses", None))
    if config.option.quick and (is_worker or not has_workers):
        quick.forbid()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files that import a heavy library out of a quick run."""
    if config.option.quick and collection_path.name.startswith("test_"):
        chosen = _of_the_change(config)
        return not (collection_path in chosen if chosen else quick.is_light(collection_path)) or None
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what `scripts/test.sh quick` has chosen."""
    if chosen := _of_the_change(config):
        terminalreporter.write_line(
            f"all cases of the {len(chosen)} test files that reach what is not committed"
        )
    elif config.option.changed:
        terminalreporter.write_line("one case of each test: no quick test imports what you changed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what fetches something unless -m names it, and start the files that take minutes first.

    Several processes then end at about the same time.
    """
    if "network" not in (config.option.markexpr or ""):
        for item in items:
            if item.get_closest_marker("network"):
                item.add_marker(pytest.mark.skip(reason="it fetches something: ask for it with -m network"))
    if config.option.quick:
        items[:] = [item for item in items if not quick.SLOW & {mark.name for mark in item.iter_markers()}]
    if (most := config.option.cases) and not _of_the_change(config):
        items[:] = quick.sample(items, most)
    weight = {item.path: 0 for item in items}
    for item in items:
        weight[item.path] += bool(item.get_closest_marker("slow")) + bool(item.get_closest_marker("vllm"))
    items.sort(key=lambda item: -weight[item.path])


@pytest.fixture(autouse=True)
def logging_as_it_was():
    """Take back what a test's `setup_logging` did: its handlers would write into the next test's output."""
    root, ours = logging.getLogger(), logging.getLogger("rlt")
    levels = root.level, ours.level
    yield
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler:  # pytest's own are of a subclass
            root.removeHandler(handler)
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.fixture(autouse=True)
def environment_as_it_was():
    """Take back what a program that a test calls has set for everything below it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real data and tokenizers, or skip."""
    if not SHARED.is_dir():
        pytest.skip("the folder `shared` with real data does not lie beside the project")
    return SHARED.resolve()


@pytest.fixture(scope="session")
def original() -> Path:
    """Return the checkout of SakanaAI/RLT in the folder RLT_ORIGINAL; skip where there is none."""
    folder = os.environ.get("RLT_ORIGINAL")
    if not folder or not (Path(folder) / "RLT" / "cfgs").is_dir():
        pytest.skip("RLT_ORIGINAL names no folder with RLT/, a checkout of SakanaAI/RLT at 86a3f5c")
    return Path(folder) / "RLT"


@pytest.fixture(scope="session")
def qwen_tokenizer(shared):
    """Return the real Qwen2.5 tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shared / "tokenizers" / "qwen2.5")


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """Return the quickstart's tokenizer: a small byte-level BPE with the tags as single entries."""
    from rlt.quickstart.tokenizer import build_tokenizer
    from rlt.quickstart.world import vocabulary

    return build_tokenizer(vocabulary())


def save_tiny_model(tokenizer, directory: Path, *, seed: int, layers: int = 2, **overrides) -> Path:
    """Write a random Qwen2 with its tokenizer; head size 32, which vLLM serves on a CPU."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    size = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }
    model = Qwen2ForCausalLM(Qwen2Config(**{**size, **overrides}))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def save_tiny():
    """Return `save_tiny_model` for tests that need a model of their own."""
    return partial(save_tiny_model, seed=4)


@pytest.fixture(scope="session")
def tiny_teacher(tiny_tokenizer, tmp_path_factory) -> Path:
    """Return the folder of a random teacher."""
    return save_tiny_model(tiny_tokenizer, tmp_path_factory.mktemp("models") / "teacher", seed=1)


@pytest.fixture(scope="session")
def tiny_student(tiny_tokenizer, tmp_path_factory) -> Path:
    """Return the folder of another random model with the same tokenizer."""
    return save_tiny_model(tiny_tokenizer, tmp_path_factory.mktemp("models") / "student", seed=2)


@pytest.fixture(scope="session")
def qwen_student(qwen_tokenizer, tmp_path_factory) -> Path:
    """Return the folder of a random model with the real Qwen2.5 tokenizer."""
    return save_tiny_model(qwen_tokenizer, tmp_path_factory.mktemp("models") / "qwen", seed=3)


@pytest.fixture(scope="session")
def toy_problems(tmp_path_factory) -> Path:
    """Return a jsonl file of twelve problems with traces."""
    path = tmp_path_factory.mktemp("data") / "problems.jsonl"
    rows = [
        {
            "question": f"{a}+{b}*2",
            "solution": str((a + b) * 2 % 10),
            "reasoning_trace": f"{a}+{b}={(a + b) % 10}\n{(a + b) % 10}*2={(a + b) * 2 % 10}",
        }
        for a in range(3)
        for b in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
