"""Text appears as its tokens come, tags become headings, and nothing of a tag is ever shown."""

import io

import pytest

from rlt.reporting.stream import TextStream

HEADINGS = {"<think>": "Thought", "</think>": "", "<solution>": "Answer", "</solution>": ""}


def streamed(pieces: list[bytes], headings=HEADINGS, out=None) -> tuple[str, list[str]]:
    """Return what was written in the end, and after each piece."""
    out = out or io.StringIO()
    stream = TextStream(out, lambda i: pieces[i], headings)
    seen = []
    for i in range(len(pieces)):
        stream.write(i)
        seen.append(out.getvalue())
    stream.close()
    return out.getvalue(), seen


WHOLE = "<think>\n\nSix <b> sevens.\n\nSo é 😀.\n\n</think>\n\n<solution>\n\n42\n\n</solution>"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
def test_any_cut_into_tokens_gives_the_same_text(size):
    data = WHOLE.encode()
    text, _ = streamed([data[i : i + size] for i in range(0, len(data), size)])
    assert text == "Thought\n\nSix <b> sevens.\n\nSo é 😀.\n\nAnswer\n\n42\n"


def test_each_token_is_written_as_it_comes():
    _, seen = streamed([b"<think>", b"\n\n", b"Six", b" sevens", b".", b"\n", b"So", b" <", b"t"])
    start = "Thought\n\n"
    assert seen[0] == seen[1] == start
    assert seen[2:5] == [start + "Six", start + "Six sevens", start + "Six sevens."]
    assert seen[5:7] == [start + "Six sevens.", start + "Six sevens.\nSo"]
    assert seen[7:] == [start + "Six sevens.\nSo"] * 2  # `<t` may become a tag


def test_text_without_tags_and_what_only_looked_like_one():
    assert streamed([b"  7 ", b"<", b" 8 <thi"])[0] == "7 < 8 <thi\n"
    assert streamed([b"\xf0\x9f", b"x"])[0] == "\ufffdx\n"


def test_a_terminal_is_not_repainted_but_a_file_gets_the_bytes():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert streamed([b"a\x1b[2Jb"], out=Terminal())[0] == "a\\x1b[2Jb\n"
    assert streamed([b"a\x1b[2Jb"])[0] == "a\x1b[2Jb\n"


def test_a_heading_of_our_own():
    out = io.StringIO()
    stream = TextStream(out, lambda i: [b"\n\nSix.", b"\n\n", b"</think>"][i], HEADINGS)
    stream.head("Explanation")
    for i in range(3):
        stream.write(i)
    stream.close()
    assert out.getvalue() == "Explanation\n\nSix.\n"
