"""How traces are read: ids of the teacher's tokenizer, lengths, and what is too long."""

import pytest

from rlt.config.schema import StudentSettings
from rlt.formats.encode import TokenBytes
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import PADDING, TAG_STYLES
from rlt.records import Problem, Trace
from rlt.rewards.student import StudentText
from rlt.traces.score import Size, TraceReader, why_not

TAGS = TAG_STYLES["bespoke"]
PROBLEM = Problem("p", "1+1", "2")
ANY = StudentSettings()


@pytest.fixture(scope="module")
def reader(tiny_tokenizer):
    student = StudentText(ANY, StudentLayout(tiny_tokenizer, TAGS, "Think."), None, context=None)
    return TraceReader([student], TeacherLayout(tiny_tokenizer, TAGS, "Explain."))


def test_a_text_is_read_as_the_teacher_would_have_written_it(reader):
    read = reader.explanation(" 1+1=2 ")
    assert reader.teacher.tokenizer.decode(read.token_ids) == "1+1=2" + PADDING
    assert reader.teacher.completion_ids("1+1=2")[: len(read.token_ids)] == list(read.token_ids)
    assert (read.has_end_tag, read.text_after_end_tag) == (True, False)


def test_a_raw_sample_ends_at_its_tag(reader):
    raw = "1+1=2" + PADDING + TAGS.explanation.close
    assert reader.explanation(raw).token_ids == reader.explanation("1+1=2").token_ids
    assert reader.explanation(raw + " 2").text_after_end_tag


def test_blank_text_has_no_token(reader):
    assert reader.explanation(" \n").token_ids == ()
    blank = reader.size(Trace(PROBLEM, 0, ""))
    assert blank.explanation == 0
    assert (list(blank.students), blank.teacher) == reader.around(PROBLEM)


def test_sizes_are_those_of_the_whole_sequences(reader):
    size = reader.size(Trace(PROBLEM, 0, "1+1=2"))
    (around_student,), around_teacher = reader.around(PROBLEM)
    assert size == Size(
        size.explanation, (around_student + size.explanation,), around_teacher + size.explanation
    )
    assert size.total == size.students[0] + size.teacher
    assert reader.size(Trace(PROBLEM, 0, None)).total == 0


def test_every_student_has_its_own_length(tiny_tokenizer, qwen_tokenizer):
    first = StudentText(ANY, StudentLayout(tiny_tokenizer, TAGS, ""), None, context=9)
    bytes_of = TokenBytes(tiny_tokenizer)
    other = StudentText(ANY, StudentLayout(qwen_tokenizer, TAGS, ""), bytes_of, context=99)
    reader = TraceReader([first, other], None)
    size, blank = (reader.size(Trace(PROBLEM, 0, text)) for text in ("1+1=2", ""))
    spelled = qwen_tokenizer("1+1=2" + PADDING, add_special_tokens=False)["input_ids"]
    assert size.students[1] - blank.students[1] == len(spelled)
    assert size.students[0] - blank.students[0] == size.explanation
    assert why_not(Trace(PROBLEM, 0, "x"), Size(1, (9, 100), 0), (9, 99), None) == (
        "too long: 100 tokens where the student's context has 99"
    )


def test_why_a_trace_has_no_score():
    trace = Trace(PROBLEM, 0, "x")
    assert why_not(trace, Size(1, (100,), 90), [100], 90) is None
    assert why_not(trace, Size(1, (100,), 90), [None], None) is None
    assert why_not(trace, Size(1, (101,), 90), [100], 90) == (
        "too long: 101 tokens where the student's context has 100"
    )
    assert why_not(trace, Size(1, (100,), 91), [100], 90) == (
        "too long: 91 tokens where the teacher's context has 90"
    )
    assert why_not(Trace(PROBLEM, 0, None), Size(0, (0,), 0), [1], 1) == "there is no explanation"
