"""Doors that stay shut in the code itself: no pickle, no code of a checkpoint unasked, no shell, loopback."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlt.config.schema import Config
from rlt.errors import ModelError
from rlt.models.load import load_context, load_model, load_tokenizer
from rlt.models.scaled_head import write_scaled_copy

ROOT = Path(__file__).parents[1]
SOURCES = [*sorted((ROOT / "rlt").rglob("*.py")), ROOT / "train.py", *(ROOT / "scripts").glob("*.py")]
FORMATS_THAT_RUN_CODE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def faults(call: ast.Call) -> Iterator[str]:
    """Yield what a call must not do."""
    name = ast.unparse(call.func)
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    owner, _, method = name.rpartition(".")
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True runs code of the file"
    if name == "torch.save":
        yield "torch.save writes a pickle"
    if owner in ("np", "numpy") and given.get("allow_pickle") == "True":
        yield "numpy with allow_pickle runs code of the file"
    is_loading = owner.startswith("Auto") and method in ("from_pretrained", "from_config")
    if is_loading and "trust_remote_code" not in given:
        yield f"{name} without trust_remote_code asks at the terminal, and waits"
    if given.get("trust_remote_code") == "True":
        yield "trust_remote_code=True is the user's to say"
    if name in ("yaml.load", "yaml.load_all") and given.get("Loader") != "_LOADER":
        yield "yaml.load without a safe loader makes any object"
    if name.startswith("yaml.") and ("unsafe" in name or "full" in name):
        yield f"{name} makes any object"
    if name in ("eval", "exec", "os.system", "os.popen") or given.get("shell") == "True":
        yield f"{name} runs whatever text it gets"
    if name in ("os.chmod", "os.umask") or method == "chmod":
        yield "files keep the user's umask"


def test_the_rules_see_what_they_forbid():
    seen = [
        fault
        for line in (
            "torch.load(f)",
            "torch.load(f, weights_only=False)",
            "AutoModel.from_pretrained(n)",
            "yaml.load(t, Loader=yaml.Loader)",
            "subprocess.run(c, shell=True)",
            "path.chmod(0o777)",
        )
        for node in ast.walk(ast.parse(line))
        if isinstance(node, ast.Call)
        for fault in faults(node)
    ]
    assert len(seen) == 6


def test_no_code_of_others_is_run():
    found = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [f"{path} imports {name}" for name in FORMATS_THAT_RUN_CODE.intersection(imported(tree))]
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
        found += [f"{path}:{call.lineno}: {fault}" for call in calls for fault in faults(call)]
    assert found == []


def test_defaults_are_shut():
    config = Config()
    assert not config.model.trust_remote_code
    assert config.generation.host == "127.0.0.1"
    assert not config.generation.allow_open_servers


def test_a_model_with_code_of_its_own_is_refused_and_the_setting_named(tmp_path):
    """The code would write a file beside itself."""
    code = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nclass A: ...\n"
    (tmp_path / "mine.py").write_text(code)
    names = {"AutoConfig": "mine.A", "AutoModelForCausalLM": "mine.A", "AutoTokenizer": ["mine.A", None]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": names}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": names}))
    for load in (
        load_context,
        load_tokenizer,
        lambda name: load_model(name, dtype="float32"),
        lambda name: write_scaled_copy(Path(name), tmp_path / "copy", 0.7),
    ):
        with pytest.raises(ModelError, match=r"set model\.trust_remote_code=true if you trust it$") as error:
            load(str(tmp_path))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()
