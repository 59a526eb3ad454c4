"""Lengths of training rows: whole sequences of the layout, each problem encoded once."""

from rlt.formats.layout import StudentLayout
from rlt.formats.tags import TAG_STYLES
from rlt.records import Problem, Trace
from rlt.traces.trace_lengths import Length, TraceLengths

PROBLEM = Problem("p", "What is 1+1?", "2")


def test_a_length_is_that_of_the_whole_chat(qwen_tokenizer):
    layout = StudentLayout(qwen_tokenizer, TAG_STYLES["bespoke"], "Think.")
    length = TraceLengths(layout)(Trace(PROBLEM, 0, "One and one are two."))
    chat = qwen_tokenizer.apply_chat_template(
        layout.messages(PROBLEM, "One and one are two."), tokenize=False
    ).rstrip("\n")
    assert length.total == len(qwen_tokenizer(chat, add_special_tokens=False)["input_ids"])
    words = qwen_tokenizer("One and one are two.\n\n", add_special_tokens=False)["input_ids"]
    assert length == Length(length.total - len(words), len(words))


def test_a_solution_that_no_reward_could_score_has_a_length_all_the_same(qwen_tokenizer):
    lengths = TraceLengths(StudentLayout(qwen_tokenizer, TAG_STYLES["bespoke"], ""))
    assert lengths.around(Problem("p", "1+1?", ".")) == lengths.around(Problem("p", "1+1?", "2"))


def test_a_place_without_an_explanation_has_no_length(tiny_tokenizer):
    lengths = TraceLengths(StudentLayout(tiny_tokenizer, TAG_STYLES["bespoke"], ""))
    assert lengths(Trace(PROBLEM, 0, None)).total is None
    assert lengths(Trace(PROBLEM, 0, None)).around == lengths.around(PROBLEM)


def test_two_system_prompts_of_one_problem_are_told_apart(tiny_tokenizer):
    lengths = TraceLengths(StudentLayout(tiny_tokenizer, TAG_STYLES["bespoke"], None))
    short, long = (Problem("p", "1+1?", "2", system=system) for system in ("1", "1 2 3 4"))
    assert lengths.around(short) < lengths.around(long)
