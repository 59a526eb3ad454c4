import os
import shutil
import threading
import time

from rlt import io
from rlt.io import describe_input, files_below, folder_files, hub_commit
from rlt.lineage.runs import Runs
from rlt.status.look import find_runs


def test_a_folder_hash_sees_names_and_contents_but_not_hidden_files(tmp_path):
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jsonl").write_text("one")
    (folder / "sub" / "b.jsonl").write_text("two")
    first = describe_input(str(folder))
    assert (first["files"], first["bytes"]) == (2, 6)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("hidden")
    assert describe_input(str(folder)) == first
    (folder / "a.jsonl").write_text("owe")
    changed = describe_input(str(folder))
    assert changed["sha256"] != first["sha256"]
    (folder / "a.jsonl").write_text("one")
    (folder / "a.jsonl").rename(folder / "c.jsonl")
    assert describe_input(str(folder))["sha256"] not in (first["sha256"], changed["sha256"])


def test_folders_that_come_and_go_end_no_search(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    finished = threading.Event()

    def send_weights():
        number = 0
        while not finished.is_set():
            number += 1
            folder = run / "weight_sync" / f"weights-{number}"
            folder.mkdir(parents=True)
            (folder / "model.safetensors").touch()
            shutil.rmtree(folder)

    thread = threading.Thread(target=send_weights)
    thread.start()
    try:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            assert find_runs(tmp_path) == [run]
            assert [found.directory for found in Runs([tmp_path]).all] == [run]
            assert run / "run.json" in folder_files(tmp_path)
    finally:
        finished.set()
        thread.join()


def test_files_so_many_folders_down(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    for place in (".", "a", "a/b"):
        (tmp_path / place / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a/b")
    assert {*files_below(tmp_path)} == {tmp_path / place for place in ("file", "a/file", "a/b/file")}
    assert {*files_below(tmp_path, depth=1)} == {
        tmp_path / place for place in ("file", "a/file", "link/file")
    }


def test_of_a_model_folder_only_the_model_counts(tmp_path):
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "run.json",
        "report.html",
        "metrics.jsonl",
    ):
        (tmp_path / name).write_text(name)
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "optimizer.pt").write_text("state")
    assert [f.name for f in folder_files(tmp_path)] == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_large_file_is_sampled_and_still_tells_weights_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "LARGE", 2**20)
    (tmp_path / "config.json").write_text("{}")
    weights = bytearray(os.urandom(2**20 + 12345))
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights)
    hashes = {describe_input(str(tmp_path))["sha256"]}
    for place in (0, len(weights) - 1):  # the first and the last byte
        changed = bytearray(weights)
        changed[place] ^= 1
        path.write_bytes(changed)
        hashes.add(describe_input(str(tmp_path))["sha256"])
    assert len(hashes) == 3


def test_a_hub_name_carries_its_revision_and_the_cached_commit(tmp_path, monkeypatch):
    described = describe_input(("someone/some-model-that-is-not-cached", "v2"))
    assert described == {"hub": "someone/some-model-that-is-not-cached", "revision": "v2", "commit": None}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refs = tmp_path / "models--someone--model" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("abc123")
    (tmp_path / "models--someone--model" / "snapshots" / "def456").mkdir(parents=True)
    assert hub_commit("someone/model", None) == "abc123"
    assert hub_commit("someone/model", "def456") == "def456"
    assert hub_commit("someone/model", "other") is None
