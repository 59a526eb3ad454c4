"""Sources as people really have them: folders, compressed files, doubled names, wrong bytes, other JSON."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from rlt.config.files import check_files
from rlt.config.schema import Config, DataSettings
from rlt.data.files import read_csv, read_json, read_jsonl, read_parquet
from rlt.data.load import load_problems
from rlt.data.sources import read_rows
from rlt.data.traces import load_traces
from rlt.errors import DataError
from rlt.formats.tags import TAG_STYLES

BESPOKE = TAG_STYLES["bespoke"]
TEXTS = ["000", "2024-01-01", "1e5", "12:30", "true", "1_000"]
"""Texts that a reader which guesses types turns into something else."""


def values(source, **options) -> list[dict]:
    return [row.values for row in read_rows(str(source), **options).rows]


def faults(rows) -> dict[int, str]:
    return {row.number: row.fault for row in rows if row.fault is not None}


def table(suffix: str, answers: list[str]) -> bytes:
    """Return a file with a question and an answer a row."""
    rows = [{"question": f"Which is number {i}?", "solution": text} for i, text in enumerate(answers)]
    if suffix == ".csv":
        lines = ["question,solution", *(f"{row['question']},{row['solution']}" for row in rows)]
        return "\n".join(lines).encode()
    if suffix == ".json":
        return json.dumps(rows).encode()
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


# A folder


@pytest.mark.parametrize("texts", [TEXTS, ["000", "007"], ["2024-01-01", "2024-01-02"], ["1.50", "2.50"]])
@pytest.mark.parametrize("name", ["train.csv", "train.jsonl", "train.json", "problems.ndjson"])
def test_a_folder_gives_the_rows_of_its_file(tmp_path, name, texts):
    path = tmp_path / name
    path.write_bytes(table(path.suffix, texts))
    assert values(tmp_path) == values(path)
    read = load_problems(DataSettings(), str(tmp_path), BESPOKE, need_trace=False)
    assert [problem.solution for problem in read.values] == texts


@pytest.mark.parametrize("name", ["train.jsonl.gz", "train.csv.gz", "train.json.bz2", "train.jsonl.xz"])
def test_compressed_files_alone_and_in_a_folder(tmp_path, name):
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[Path(name).suffix]
    path = tmp_path / name
    path.write_bytes(pack(table(Path(path.stem).suffix, TEXTS)))
    output = str(tmp_path / "run")
    check_files(
        Config(
            stage="select_traces", model_name_or_path=None, dataset_id_or_path=str(path), output_dir=output
        )
    )
    assert [row["solution"] for row in values(path)] == TEXTS
    assert values(tmp_path) == values(path)


def test_a_damaged_compressed_file_is_one_sentence(tmp_path):
    whole = gzip.compress(table(".jsonl", TEXTS * 50))
    for name, content in (
        ("cut", whole[:-20]),
        ("plain", table(".jsonl", TEXTS)),
        ("changed", whole[:30] + b"x" * 60),
    ):
        path = tmp_path / f"{name}.jsonl.gz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}\.jsonl\.gz cannot be (read|unpacked)"):
            read_rows(str(path))


def test_a_bad_row_of_a_folder_is_named_by_its_own_file_and_line(tmp_path):
    (tmp_path / "train-00000-of-00002.jsonl").write_bytes(table(".jsonl", ["1", "2", "3"]))
    second = tmp_path / "train-00001-of-00002.jsonl"
    second.write_bytes(table(".jsonl", ["4"]) + b'\n{"question": "q", "solution": ""}\n{"question": \n')
    with pytest.raises(DataError) as error:
        load_problems(DataSettings(), str(tmp_path), BESPOKE, need_trace=False)
    assert f"{second}, line 3: `solution` is empty" in str(error.value)
    kept = load_problems(DataSettings(on_bad_row="skip"), str(tmp_path), BESPOKE, need_trace=False)
    assert [problem.solution for problem in kept.values] == ["1", "2", "3", "4"]
    assert [(bad.source, bad.row) for bad in kept.skipped] == [(str(second), 3), (str(second), 4)]


def test_files_of_a_folder_that_are_not_read_are_named(tmp_path, caplog):
    (tmp_path / "train.jsonl").write_bytes(table(".jsonl", ["1"]))
    (tmp_path / "train.csv").write_bytes(table(".csv", ["2"]))
    (tmp_path / "test.jsonl").write_bytes(table(".jsonl", ["3"]))
    assert len(values(tmp_path)) == 1
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "not read" in warning
    assert ("train.csv" in warning) != ("train.jsonl" in warning)
    assert "test.jsonl" not in warning


def test_a_readme_may_say_which_files_are_a_split(tmp_path):
    easy, hard = (
        f"- config_name: {name}\n  data_files: {file}\n"
        for name, file in (("easy", "a.jsonl"), ("hard", "b.jsonl"))
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{easy}{hard}---\n")
    (tmp_path / "a.jsonl").write_bytes(table(".jsonl", ["007"]))
    (tmp_path / "b.jsonl").write_bytes(table(".jsonl", ["008"]))
    assert [row["solution"] for row in values(tmp_path, config_name="hard")] == ["008"]


@pytest.mark.parametrize("table_name", ["traces.jsonl", "scores.jsonl"])
def test_a_run_folder_names_its_table(tmp_path, table_name):
    for name, text in (
        ("run.json", '{"stage": "x"}'),
        ("metrics.jsonl", '{"step": 1}'),
        ("config.yaml", "a: 1"),
    ):
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=r"is the folder of a run, .* holds no table of problems or traces"):
        read_rows(str(tmp_path))
    (tmp_path / table_name).write_bytes(table(".jsonl", ["1"]))
    with pytest.raises(DataError, match=rf"is the folder of a run: give its file {tmp_path}/{table_name}"):
        read_rows(str(tmp_path))
    assert values(tmp_path / table_name)


def test_the_folder_of_made_problems_is_read_by_its_splits(tmp_path):
    """make_countdown writes train.jsonl and test.jsonl beside its run.json."""
    (tmp_path / "run.json").write_text("{}")
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_bytes(table(".jsonl", [name]))
    assert [row["solution"] for row in values(tmp_path, split="test")] == ["test"]


# Doubled names


def test_a_doubled_parquet_column_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    columns = [pa.array(["q"]), pa.array(["right"]), pa.array(["WRONG"])]
    parquet.write_table(pa.Table.from_arrays(columns, names=["question", "solution", "solution"]), path)
    with pytest.raises(DataError, match=r"a\.parquet has the column 'solution' twice"):
        read_parquet(path)


def test_a_doubled_key_is_a_fault_of_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"question": "q", "solution": "1"}\n{"question": "q", "solution": "1", "solution": "2"}\n'
        '{"messages": [{"role": "user", "content": "a", "content": "b"}]}\n'
    )
    assert faults(read_jsonl(tmp_path / "a.jsonl")) == {
        2: "has the key 'solution' twice, must be once",
        3: "has the key 'content' twice, must be once",
    }
    kept = load_problems(
        DataSettings(on_bad_row="skip"), str(tmp_path / "a.jsonl"), BESPOKE, need_trace=False
    )
    assert len(kept.items) == 1


def test_a_doubled_key_in_a_json_list_is_a_fault_of_its_row(tmp_path):
    (tmp_path / "a.json").write_text('[{"q": 1}, {"q": 1, "q": 2}, {"t": [{"a": {"b": 1, "b": 1}}]}]')
    rows = read_json(tmp_path / "a.json")
    assert faults(rows) == {
        2: "has the key 'q' twice, must be once",
        3: "has the key 'b' twice, must be once",
    }
    (tmp_path / "b.json").write_text('{"q": ["a"], "q": ["b"]}')
    with pytest.raises(DataError, match=r"b\.json has the key 'q' twice"):
        read_json(tmp_path / "b.json")


# Bytes that are not UTF-8


CP1252 = "café".encode("cp1252")


def test_a_bad_byte_of_a_csv_is_a_fault_of_its_row(tmp_path):
    path = tmp_path / "a.csv"
    lines = [b"question,solution", b"1+1?,2", b'"two', b"lines " + CP1252 + b'",3', b"2+2?,4", CP1252 + b",5"]
    path.write_bytes(b"\n".join(lines) + b"\n")
    rows = read_csv(path)
    assert {number: fault.split(":")[0] for number, fault in faults(rows).items()} == {
        3: "not UTF-8 text (byte 0xe9 of `question`, line 4)",
        6: "not UTF-8 text (byte 0xe9 of `question`)",
    }
    assert [row.values["solution"] for row in rows if row.fault is None] == ["2", "4"]
    with pytest.raises(DataError, match=r"a\.csv, line 3: not UTF-8 text .*; 1 more row is bad \(line 6\)"):
        load_problems(DataSettings(), str(path), BESPOKE, need_trace=False)
    kept = load_problems(DataSettings(on_bad_row="skip"), str(path), BESPOKE, need_trace=False)
    assert [problem.solution for problem in kept.values] == ["2", "4"]


def test_a_bad_byte_of_a_csv_header_names_line_1(tmp_path):
    (tmp_path / "a.csv").write_bytes(CP1252 + b",solution\nq,1\n")
    with pytest.raises(DataError, match=r"a\.csv is not UTF-8 text \(byte 0xe9 in its header line\)"):
        read_csv(tmp_path / "a.csv")


def test_a_bad_byte_of_a_json_list_is_a_fault_of_its_row(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"q": "a"},\n {"q": "' + CP1252 + b'"},\n {"q": "b"}]')
    rows = read_json(path)
    assert [row.values for row in rows if row.fault is None] == [{"q": "a"}, {"q": "b"}]
    assert faults(rows)[2].startswith("not UTF-8 text (byte 0xe9, line 2)")


def test_a_bad_byte_of_a_parquet_text_is_a_fault_of_its_row(tmp_path):
    raw = pa.array([b"fine", CP1252, b"too"]).cast(pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    parquet.write_table(pa.table({"q": text}), tmp_path / "a.parquet")
    rows = read_parquet(tmp_path / "a.parquet")
    assert [row.values for row in rows if row.fault is None] == [{"q": "fine"}, {"q": "too"}]
    assert list(faults(rows)) == [2]
    assert faults(rows)[2].startswith("not UTF-8 text")


# Other shapes of JSON

ROWS = [{"question": "1+1?", "solution": "2"}, {"question": "2+2?", "solution": "4"}]
TURNS = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "<think>t</think>2"}]


@pytest.mark.parametrize(
    "content",
    [
        {"question": ["1+1?", "2+2?"], "solution": ["2", "4"]},
        {"question": {"0": "1+1?", "1": "2+2?"}, "solution": {"0": "2", "1": "4"}},
        {"columns": ["question", "solution"], "index": [0, 1], "data": [["1+1?", "2"], ["2+2?", "4"]]},
        {"0": ROWS[0], "1": ROWS[1]},
        {"data": ROWS},
        {"version": "1.0", "rows": ROWS},
        {"schema": {"fields": []}, "data": ROWS},
    ],
    ids=["list", "columns", "split", "index", "wrapped", "wrapped-with-more", "table"],
)
def test_json_that_pandas_or_a_wrapper_wrote(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content, indent=1))
    assert [row.values for row in read_json(tmp_path / "a.json")] == ROWS


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_document_under_the_name_of_json_lines_is_named(tmp_path, indent):
    (tmp_path / "a.jsonl").write_text(json.dumps(ROWS, indent=indent))
    with pytest.raises(DataError, match=r"a\.jsonl holds one JSON document .*: let its name end in \.json$"):
        read_jsonl(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").rename(tmp_path / "a.json")
    assert values(tmp_path / "a.json") == ROWS


def test_columns_of_conversations_and_one_conversation(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"messages": TURNS}))
    assert [row.values for row in read_json(path)] == [{"messages": TURNS}]
    path.write_text(json.dumps({"messages": [TURNS, TURNS]}))
    assert [row.values for row in read_json(path)] == [{"messages": TURNS}] * 2
    path.write_text(json.dumps({"question": "q", "solution": "s", "tags": ["a", "b"]}))
    assert len(read_json(path)) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"question": ["a", "b"], "solution": ["1"]}, "columns of different lengths: question 2, solution 1"),
        (
            {"train": ROWS, "test": ROWS},
            "several lists of rows (train, test): write each to a file of its own",
        ),
    ],
)
def test_json_of_a_shape_that_is_not_clear_is_named(tmp_path, content, reason):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        read_json(tmp_path / "a.json")
    assert reason in str(error.value)


def test_traces_are_read_from_a_folder_too(tmp_path):
    rows = [{"question": "q", "solution": "007", "explanation": "2024-01-01"}]
    (tmp_path / "train.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (row,) = load_traces(DataSettings(), str(tmp_path), BESPOKE).values
    assert (row.problem.solution, row.texts) == ("007", ("2024-01-01",))
