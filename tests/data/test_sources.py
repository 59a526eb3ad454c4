"""Files, folders and names: what is read, and the sentence where nothing can be."""

import http.server
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import datasets
import pytest

from rlt.config.schema import DATA_SUFFIXES
from rlt.data.sources import READERS, read_rows
from rlt.errors import DataError

ROWS = [{"question": f"{i}+1?", "solution": str(i + 1), "level": i, "tags": ["a", "b"]} for i in range(3)]


def values(source, **options):
    return [row.values for row in read_rows(str(source), **options).rows]


def test_jsonl_columns_are_the_union_of_all_rows(tmp_path, write_jsonl):
    table = read_rows(write_jsonl(tmp_path / "a.jsonl", [{"a": 1}, {"b": 2, "a": None}]))
    assert (table.columns, table.unit) == (("a", "b"), "line")


def test_parquet_round_trip(tmp_path):
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_list(ROWS).to_parquet(str(path))
    table = read_rows(str(path))
    assert [row.values for row in table.rows] == ROWS
    assert [row.number for row in table.rows] == [1, 2, 3]
    assert table.unit == "row"


def test_csv_round_trip_is_text(tmp_path):
    path = tmp_path / "a.csv"
    datasets.Dataset.from_list([{"question": "a,\n“b”", "solution": "007"}]).to_csv(str(path))
    assert values(path) == [{"question": "a,\n“b”", "solution": "007"}]


def test_saved_dataset_and_dataset_dict(tmp_path):
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.with_format("numpy").save_to_disk(str(tmp_path / "one"))
    assert values(tmp_path / "one") == ROWS
    both = datasets.DatasetDict(train=dataset.select([0, 1]), test=dataset.select([2]))
    both.save_to_disk(str(tmp_path / "two"))
    assert values(tmp_path / "two", split="test") == ROWS[2:]
    with pytest.raises(DataError, match=r"no split 'dev', only train, test; set data.split"):
        read_rows(str(tmp_path / "two"), split="dev")


def test_folder_of_data_files(tmp_path, write_jsonl):
    write_jsonl(tmp_path / "train.jsonl", ROWS[:2])
    write_jsonl(tmp_path / "test.jsonl", ROWS[2:])
    assert values(tmp_path) == ROWS[:2]
    assert values(tmp_path, split="test") == ROWS[2:]
    with pytest.raises(DataError, match=r"BuilderConfig 'algebra' not found. Available: \['default'\]"):
        read_rows(str(tmp_path), config_name="algebra")


def test_a_wrong_split_never_becomes_the_only_one_there_is(tmp_path, write_jsonl):
    folder = tmp_path / "only"
    folder.mkdir()
    write_jsonl(folder / "problems.jsonl", ROWS)
    with pytest.raises(DataError, match=r"only has no split 'test', only train; set data.split to one"):
        read_rows(str(folder), split="test")
    assert values(folder, split="train") == ROWS


def test_a_file_and_one_saved_dataset_have_no_splits(tmp_path, write_jsonl):
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    for source in (tmp_path / "saved", write_jsonl(tmp_path / "a.jsonl", ROWS)):
        assert values(source, split="test") == ROWS


def write_damaged(folder: Path) -> dict[Path, str]:
    """Write sources that cannot be read; return what the sentence about each says."""
    dataset = datasets.Dataset.from_list([{"question": str(i) * 50, "solution": "s"} for i in range(500)])
    dataset.to_parquet(str(folder / "whole.parquet"))
    content = (folder / "whole.parquet").read_bytes()
    reasons = {}
    for name, data in (
        ("text.parquet", b"not parquet"),
        ("empty.parquet", b""),
        ("cut.parquet", content[: len(content) // 2]),
        ("overwritten.parquet", content[:300] + bytes(200) + content[500:]),
    ):
        (folder / name).write_bytes(data)
        reasons[folder / name] = "cannot be read as parquet: "
    for name, file, text, reason in (
        ("no_state", "state.json", "{}", "cannot be read: "),
        ("cut", "a.parquet", "PAR1", "a.parquet cannot be read as parquet: "),
        ("empty", "a.jsonl", "", "holds no file with rows that ends in one of .json, .jsonl, "),
        ("other", "a.txt", "x", "holds no file with rows that ends in one of .json, .jsonl, "),
    ):
        (folder / name).mkdir()
        (folder / name / file).write_text(text)
        reasons[folder / name] = reason
    for name, change in (("lost", b""), ("changed", b"\xff" * 2000)):
        dataset.save_to_disk(str(folder / name))
        (arrow,) = (folder / name).glob("*.arrow")
        half = arrow.read_bytes()[: arrow.stat().st_size // 2]
        arrow.write_bytes(half + change)
        reasons[folder / name] = "cannot be read: "
    return reasons


def test_damaged_sources_give_one_sentence(tmp_path):
    for source, reason in write_damaged(tmp_path).items():
        with pytest.raises(DataError) as error:
            read_rows(str(source))
        assert reason in str(error.value)
        assert str(source) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", "\n"), ("a.json", "[]"), ("a.csv", "q,s\n")])
def test_a_source_without_rows(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="holds no rows"):
        read_rows(str(tmp_path / name))


def test_parquet_and_saved_datasets_without_rows(tmp_path):
    none = datasets.Dataset.from_list(ROWS).select([])
    none.to_parquet(str(tmp_path / "a.parquet"))
    none.save_to_disk(str(tmp_path / "saved"))
    for name in ("a.parquet", "saved"):
        with pytest.raises(DataError, match=f"{name} holds no rows"):
            read_rows(str(tmp_path / name))


def test_unknown_suffix(tmp_path):
    assert READERS.keys() == set(DATA_SUFFIXES)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"must end in one of .json, .*, .parquet, got '.txt'"):
        read_rows(str(tmp_path / "a.txt"))


def test_wrong_path_names_near_files(tmp_path):
    (tmp_path / "gsm8k_train.jsonl").write_text("{}\n")
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(DataError, match=r"did you mean .*gsm8k_train\.jsonl\?"):
        read_rows(str(tmp_path / "gsm8k_trian.jsonl"))
    with pytest.raises(DataError, match=r"does not exist; .* holds gsm8k_train\.jsonl"):
        read_rows(str(tmp_path / "zzz.parquet"))
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        read_rows(str(tmp_path / "nowhere" / "a.jsonl"))


def read_in_new_process(source: str, cwd: Path, **env: str) -> str:
    """Hub settings are read at import, so each needs a process of its own."""
    code = (
        "import sys\nfrom rlt.data.sources import read_rows\nfrom rlt.errors import DataError\n"
        "try:\n    read_rows(sys.argv[1], revision='v2')\n"
        "except DataError as error:\n    sys.stdout.write(str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, source],
        env={**os.environ, "HF_HOME": str(cwd / "hf"), **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=1000,
        check=True,
    )
    return done.stdout


UNREACHABLE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}


def test_unreachable_hub_is_one_sentence(tmp_path):
    said = read_in_new_process("bespokelabs/Bespoke-Stratos-17k", tmp_path, **UNREACHABLE)
    assert said.startswith("bespokelabs/Bespoke-Stratos-17k is no local path, and the Hub cannot be reached")
    assert "\n" not in said


def test_a_hub_that_hangs_up_is_not_asked_again_and_again(tmp_path):
    """The libraries would ask for half a minute, with growing pauses."""
    calls: list[socket.socket] = []

    def hang_up() -> None:
        with suppress(OSError):  # the socket is closed at the end
            while True:
                calls.append(hub.accept()[0])
                calls[-1].close()

    with socket.create_server(("127.0.0.1", 0)) as hub:
        threading.Thread(target=hang_up, daemon=True).start()
        address = f"http://127.0.0.1:{hub.getsockname()[1]}"
        said = read_in_new_process("simplescaling/s1K-1.1", tmp_path, HF_ENDPOINT=address, HF_HUB_OFFLINE="0")
    assert said.startswith("simplescaling/s1K-1.1 is no local path, and the Hub cannot be reached")
    assert "\n" not in said
    assert 1 <= len(calls) <= 2


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (404, "RepoNotFound", "some/data is neither a local path nor a dataset on the Hub that you may read"),
        (403, "GatedRepo", "some/data is neither a local path nor a dataset on the Hub that you may read"),
        (404, "RevisionNotFound", "the Hub dataset some/data has no revision 'v2' (data.revision)"),
        (500, "", "the Hub answered 500 for the dataset some/data"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(tmp_path, status, code, sentence):
    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            """Keep the test's output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{hub.server_port}"
        said = read_in_new_process("some/data", tmp_path, HF_ENDPOINT=address, HF_HUB_OFFLINE="0")
        hub.shutdown()
    assert said.startswith(sentence)
    assert "\n" not in said


def test_offline_mode_is_one_sentence(tmp_path):
    said = read_in_new_process("some/data", tmp_path, HF_HUB_OFFLINE="1")
    assert said.startswith("some/data cannot be read: Couldn't reach 'some/data' on the Hub")
    assert "\n" not in said


@pytest.mark.parametrize(
    "source", ["data.jsonl", "./data", "/nowhere/data", "~/no-such", "a/b/c", "org/data.json"]
)
def test_what_looks_like_a_path_is_never_looked_up_on_the_hub(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_rows(source)


def test_what_the_settings_check_calls_local_is_local_here_too(tmp_path, monkeypatch):
    """`toy/name` means a path where there is a folder `toy`, and the Hub's where there is none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rlt.data.sources._check_hub", lambda *_: pytest.fail("asked the Hub"))
    (tmp_path / "toy").mkdir()
    with pytest.raises(DataError, match=r"toy/name does not exist; toy holds no data file"):
        read_rows("toy/name")
    for name in ("toys/name", "data.txt", "org/s1K-1.1"):
        with pytest.raises(pytest.fail.Exception, match="asked the Hub"):
            read_rows(name)


def test_impossible_hub_name():
    with pytest.raises(DataError, match="'my data' is neither a local path nor a possible Hub name"):
        read_rows("my data")
