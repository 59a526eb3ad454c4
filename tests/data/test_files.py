"""Rows come out exactly as written, with the line they are on."""

import pytest

from rlt.data.files import read_csv, read_json, read_jsonl, read_parquet
from rlt.errors import DataError


def faults(rows):
    return {row.number: row.fault for row in rows if row.fault is not None}


def test_jsonl_keeps_types_and_line_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    # A text that looks like a date stays a text; the line separator U+2028 does not end a line.
    path.write_bytes(b'\xef\xbb\xbf{"answer": "2024-01-01", "level": 3}\n\n  {"q": "a\xe2\x80\xa8b"}')
    rows = read_jsonl(path)
    assert [(row.number, row.values) for row in rows] == [
        (1, {"answer": "2024-01-01", "level": 3}),
        (3, {"q": "a\u2028b"}),
    ]


def test_broken_jsonl_lines_carry_their_reason(tmp_path):
    path = tmp_path / "a.jsonl"
    digits = b"1" * 5000
    path.write_bytes(b'{"q": 1}\n{"q": \n[1]\n{"q": "\xff"}\n{"q": ' + digits + b'}\n{"q": 2}\n')
    rows = read_jsonl(path)
    assert [row.values for row in rows if row.fault is None] == [{"q": 1}, {"q": 2}]
    found = faults(rows)
    assert list(found) == [2, 3, 4, 5]
    assert found[2] == "not valid JSON: Expecting value at column 1"
    assert found[3] == "must be a JSON object, got list"
    assert found[4] == "not UTF-8 text: invalid start byte at byte 8"
    assert found[5].startswith("not readable JSON: Exceeds the limit")


def test_json_objects_over_many_lines_are_not_jsonl(tmp_path):
    # before: "not valid JSON: Expecting property name enclosed in double quotes at column 1"
    path = tmp_path / "a.jsonl"
    path.write_text('{\n "q": 1\n}\n{\n "q": 2\n}\n')
    assert faults(read_jsonl(path))[1] == "not valid JSON: '{' alone, must be an object in one line"
    path.write_text('{"q": "two\nlines"}\n')  # before: "Invalid control character at at column 11"
    assert faults(read_jsonl(path))[1] == "not valid JSON: Invalid control character at column 11"


def test_json_list_single_object_and_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"q": "a"}, 7,\n {"q": "b"}]')
    rows = read_json(path)
    assert [(row.number, row.values) for row in rows] == [(1, {"q": "a"}), (2, {}), (3, {"q": "b"})]
    assert faults(rows) == {2: "must be a JSON object, got int"}
    path.write_text('{"q": "a"}')
    assert [row.values for row in read_json(path)] == [{"q": "a"}]
    path.write_text('{"q": "a"}\n{"q": \n{"q": "c"}\n')
    rows = read_json(path)
    assert [row.number for row in rows if row.fault is None] == [1, 3]
    assert list(faults(rows)) == [2]


@pytest.mark.parametrize("text", ['[\n{"q": "a"},\n{"q": "b"}\n', "plain words", "", '{"q": '])
def test_json_that_is_neither_list_nor_lines(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.json holds neither a JSON list nor JSON lines"):
        read_json(path)


def test_json_that_is_nested_too_deep_is_a_fault_of_its_line_or_file(tmp_path):
    deep = '{"q": ' + "[" * 100_000 + "]" * 100_000 + "}"
    (tmp_path / "a.jsonl").write_text(f'{{"q": 1}}\n{deep}\n')
    assert faults(read_jsonl(tmp_path / "a.jsonl")) == {2: "not readable JSON: nested too deep"}
    (tmp_path / "a.json").write_text(f"[{deep}]")
    with pytest.raises(DataError, match=r"a\.json is nested too deep to read"):
        read_json(tmp_path / "a.json")


def test_parquet_values_are_plain_python(tmp_path):
    import pyarrow
    from pyarrow import parquet

    rows = [{"q": "007", "turns": [{"a": 1, "b": None}], "level": None}, {"q": "b", "turns": [], "level": 2}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [(row.number, row.values) for row in read_parquet(tmp_path / "a.parquet")] == [
        (1, rows[0]),
        (2, rows[1]),
    ]


def test_json_of_another_type(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("3")
    with pytest.raises(DataError, match="must hold a JSON list of rows, got int"):
        read_json(path)


def test_csv_is_text_with_the_first_line_of_each_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('question,solution\n"two\nlines",007\n\n"a ""b""",NA\n', encoding="utf-8-sig")
    assert [(row.number, row.values) for row in read_csv(path)] == [
        (2, {"question": "two\nlines", "solution": "007"}),
        (5, {"question": 'a "b"', "solution": "NA"}),
    ]


def test_csv_with_a_long_cell(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("q\n" + "x" * 200_000 + "\n")
    assert len(read_csv(path)[0].values["q"]) == 200_000


def test_csv_row_with_the_wrong_number_of_cells(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("q,s\na,b\na,b,c\na\n")
    assert faults(read_csv(path)) == {
        3: "has 3 cells where the header has 2",
        4: "has 1 cells where the header has 2",
    }


@pytest.mark.parametrize("sign", [";", "\t", "|"])
def test_csv_with_another_separator_says_so(tmp_path, sign):
    path = tmp_path / "a.csv"
    for row in (f"1{sign}2", f"1,5{sign}2"):  # before: a column of the name `q;s`, or too many cells
        path.write_text(f"q{sign}s\n{row}\n")
        with pytest.raises(DataError, match=r"separates the names .* by commas"):
            read_csv(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"q,q\n1,2\n", "the column 'q' twice"),
        (b'q\nfine\n"never closed\nmore\n', "not valid CSV in the row at line 3"),
        (b"\xff\xfe\n1\n", "not UTF-8 text"),
    ],
)
def test_csv_that_cannot_be_read(tmp_path, content, reason):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_csv(path)
