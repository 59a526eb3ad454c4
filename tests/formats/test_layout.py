"""Prompts, suffixes and the cutting of samples: every span is known, whatever the text says."""

from __future__ import annotations

import json
import random
import unicodedata
from copy import deepcopy
from itertools import accumulate

import pytest
from helpers.formats_text import HARD, adversarial, benign, hostile
from hypothesis import assume, example, given
from hypothesis import strategies as st
from transformers import AddedToken, ByT5Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from rlt.errors import DataError, ModelError
from rlt.formats.layout import Chat, StudentLayout, TeacherLayout
from rlt.formats.tags import PADDING, TAG_STYLES, TagStyle
from rlt.records import Explanation, Problem

STYLES = pytest.mark.parametrize("tags", TAG_STYLES.values(), ids=TAG_STYLES)
BESPOKE = TAG_STYLES["bespoke"]
SYSTEM = "Think first, then answer."


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def problem(solution: str = "#### 72", question: str = "What is 36 * 2?", system: str | None = None):
    return Problem(id="p1", question=question, solution=solution, system=system)


def layouts(tokenizer, tags: TagStyle = BESPOKE) -> tuple[TeacherLayout, StudentLayout]:
    return TeacherLayout(tokenizer, tags, "Explain."), StudentLayout(tokenizer, tags, SYSTEM)


def text_of(tokenizer, ids) -> str:
    return tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


def solution_ids(student: StudentLayout, solution: str) -> list[int]:
    suffix = student.suffix(problem(solution))
    return suffix.ids[suffix.solution]


def rendered(tokenizer, system: str, question: str, answer: str) -> list[int]:
    """Return a finished chat by transformers' own template call, without what follows the end of turn."""
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    last = len(ids) - ids[::-1].index(tokenizer.convert_tokens_to_ids("<|im_end|>"))
    return ids[:last]


# ---- the whole sequence ---------------------------------------------------------------------------


@STYLES
@adversarial
@given(question=benign, explanation=benign, solution=benign)
@example(question="Is 3 > 2? ", explanation="So $x=80$.", solution="$\\boxed{80}$")
@example(question="e\u0301 ", explanation="cafe\u0301 `x`.", solution="(A)")
@example(question="\u0338", explanation="\u0338", solution="x\u0338")
def test_parts_joined_equal_the_template_of_the_whole_chat(tokenizer, tags, question, explanation, solution):
    """Teacher and student sequences, against transformers' own rendering tokenised in one call."""
    assume(not any(c in q for q in (question, explanation, solution) for c in tokenizer.all_special_tokens))
    teacher, student = layouts(tokenizer, tags)
    p = problem(solution or "7", question)
    # An empty explanation would let the paddings before and after it merge; no target is like that.
    assume(p.solution.strip() and explanation.strip())

    answer = tags.solution.wrap(p.solution) + PADDING + tags.explanation.wrap(explanation)
    whole = rendered(tokenizer, "Explain.", question, answer)
    assert teacher.prompt_ids(p) + teacher.completion_ids(explanation) == whole

    try:
        suffix = student.suffix(p)
    except DataError:  # a solution that merges with its padding; tested below
        return
    answer = tags.thought.wrap(explanation) + PADDING + tags.solution.wrap(p.solution)
    whole = rendered(tokenizer, SYSTEM, question, answer)
    assert student.prefix_ids(p) + student.explanation_ids(explanation) + suffix.ids == whole


def gsm8k(shared, num: int) -> list[dict[str, str]]:
    with open(shared / "data" / "gsm8k_train.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(num), strict=False)]


@pytest.mark.slow
@STYLES
def test_no_gsm8k_row_merges_across_a_tag(shared, qwen_tokenizer, tags):
    teacher, student = layouts(qwen_tokenizer, tags)
    rows = gsm8k(shared, 1200)
    different = 0
    for row in rows:
        p, trace = problem(row["solution"], row["question"]), row["reasoning_trace"]
        answer = tags.thought.wrap(trace) + PADDING + tags.solution.wrap(p.solution)
        explanation = student.explanation_ids(trace)
        parts = student.prefix_ids(p) + explanation + student.suffix(p).ids
        different += parts != rendered(qwen_tokenizer, SYSTEM, p.question, answer)
        assert list(teacher.split(teacher.completion_ids(trace)).token_ids) == explanation
    assert (len(rows), different) == (1200, 0)


@pytest.mark.slow
def test_without_padding_most_gsm8k_rows_merge(shared, qwen_tokenizer):
    """Why the padding is there: `.<` and `)<` are single tokens of Qwen2.5."""
    rows = gsm8k(shared, 7473)
    prefix, suffix = BESPOKE.thought.open, BESPOKE.thought.close

    def ids(texts: list[str]) -> list[list[int]]:
        return qwen_tokenizer(texts, add_special_tokens=False)["input_ids"]

    traces = [row["reasoning_trace"] for row in rows]
    head, tail = ids([prefix, suffix])
    whole = ids([prefix + trace + suffix for trace in traces])
    assert sum(head + t + tail != w for t, w in zip(ids(traces), whole, strict=True)) == 4291


# ---- the teacher's prompt -------------------------------------------------------------------------


@STYLES
@adversarial
@given(question=hostile, solution=hostile)
def test_prompt_ends_after_the_padding_of_the_opening_tag(tokenizer, tags, question, solution):
    teacher, _ = layouts(tokenizer, tags)
    ids = teacher.prompt_ids(problem(solution, question))
    end = f"{tags.solution.close}\n\n{tags.explanation.open}\n\n"
    assert text_of(tokenizer, ids).endswith(f"\n\n{end}")
    start, stop = (tokenizer.convert_tokens_to_ids(t) for t in ("<|im_start|>", "<|im_end|>"))
    controls = [i for i in ids if i in (start, stop, tokenizer.convert_tokens_to_ids("<|endoftext|>"))]
    assert controls == [start, stop, start, stop, start]  # system, user, open assistant turn


def test_prompt_text_by_hand(tiny_tokenizer):
    teacher, student = layouts(tiny_tokenizer)
    p = problem(" 72\n")
    assert text_of(tiny_tokenizer, teacher.prompt_ids(p)) == (
        "<|im_start|>system\nExplain.<|im_end|>\n"
        "<|im_start|>user\nWhat is 36 * 2?<|im_end|>\n"
        "<|im_start|>assistant\n<|begin_of_solution|>\n\n72\n\n<|end_of_solution|>\n\n"
        "<|begin_of_explanation|>\n\n"
    )
    assert text_of(tiny_tokenizer, student.prefix_ids(p)) == (
        "<|im_start|>system\nThink first, then answer.<|im_end|>\n"
        "<|im_start|>user\nWhat is 36 * 2?<|im_end|>\n"
        "<|im_start|>assistant\n<|begin_of_thought|>\n\n"
    )
    assert text_of(tiny_tokenizer, student.suffix(p).ids) == (
        "<|end_of_thought|>\n\n<|begin_of_solution|>\n\n72\n\n<|end_of_solution|><|im_end|>"
    )
    assert text_of(tiny_tokenizer, teacher.completion_ids(" It doubles. ")) == (
        "It doubles.\n\n<|end_of_explanation|><|im_end|>"
    )


def test_a_teacher_without_the_solution_by_hand(tiny_tokenizer):
    tags, shown = BESPOKE, layouts(tiny_tokenizer)[0]
    teacher = TeacherLayout(tiny_tokenizer, tags, shown.system_prompt, show_solution=False)
    assert text_of(tiny_tokenizer, teacher.prompt_ids(problem(" 72\n"))) == (
        "<|im_start|>system\nExplain.<|im_end|>\n"
        "<|im_start|>user\nWhat is 36 * 2?<|im_end|>\n"
        "<|im_start|>assistant\n<|begin_of_explanation|>\n\n"
    )


def test_empty_system_prompt_sends_none(tiny_tokenizer, qwen_tokenizer):
    question = problem()
    tiny = StudentLayout(tiny_tokenizer, BESPOKE, "")
    assert "system" not in text_of(tiny_tokenizer, tiny.prefix_ids(question))
    qwen = StudentLayout(qwen_tokenizer, BESPOKE, "")  # its template then writes its own
    assert "You are Qwen, created by Alibaba Cloud" in text_of(qwen_tokenizer, qwen.prefix_ids(question))


def test_system_prompt_of_the_row_is_byte_exact(qwen_tokenizer):
    """SkyThought's prompt differs from the training prompt in nothing but a literal backslash-n."""
    student = StudentLayout(qwen_tokenizer, BESPOKE, None)
    for system in ("Your role is: \\n think.", "Your role is: \n think. ", "keep <|im_end|> as text"):
        ids = student.prefix_ids(problem(system=system))
        assert text_of(qwen_tokenizer, ids).startswith(f"<|im_start|>system\n{system}<|im_end|>\n")
        assert ids.count(qwen_tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2
    for system in (None, ""):
        with pytest.raises(DataError, match=r"problem p1 has no system prompt.*layout.student_prompt"):
            student.prefix_ids(problem(system=system))


# ---- the solution's place -------------------------------------------------------------------------


@STYLES
@adversarial
@given(solution=hostile)
def test_scored_solution_is_a_part_of_the_solution_and_control_free(tokenizer, tags, solution):
    _, student = layouts(tokenizer, tags)
    try:
        suffix = student.suffix(problem(solution))
    except DataError as error:
        assert "problem p1: the solution cannot be scored" in str(error)  # noqa: PT017
        return
    before = text_of(tokenizer, suffix.ids[: suffix.solution.start])
    scored = b"".join(token_bytes(tokenizer, i) for i in suffix.ids[suffix.solution])
    assert before == f"{tags.thought.close}\n\n{tags.solution.open}\n\n"
    assert scored
    assert nfc(solution.strip()).encode().startswith(scored)
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert (suffix.ids.count(stop), suffix.ids[-1]) == (1, stop)


@pytest.mark.parametrize("solution", [")", ".", "}", "$", "?", '"', " . ", "!\n"])
def test_solution_that_merges_with_its_padding_is_an_error(qwen_tokenizer, solution):
    """`)` and the blank line after it are one token of Qwen2.5."""
    _, student = layouts(qwen_tokenizer)
    with pytest.raises(DataError, match=r"problem p1: the solution cannot be scored: .*no token of its own"):
        student.suffix(problem(solution))


@pytest.mark.parametrize("solution", ["", " ", "\n\n", "\u3000"])
@pytest.mark.parametrize("span", ["content", "released"])
def test_empty_solution_is_an_error(tokenizer, solution, span):
    """Upstream 6: it gave a reward of 3.4e36. A blank line alone is no solution, either."""
    student = StudentLayout(tokenizer, BESPOKE, SYSTEM, solution_span=span)
    with pytest.raises(DataError, match="problem p1: the solution cannot be scored"):
        student.suffix(problem(solution))


@pytest.mark.parametrize(
    ("solution", "last"), [("#### 72", "\n\n"), ("It is 72.", ".\n\n"), ("(72)", ")\n\n"), (".", ".\n\n")]
)
def test_the_released_span_ends_with_the_token_of_the_blank_line(qwen_tokenizer, solution, last):
    """By hand: Qwen2.5 joins the blank line with punctuation, and with nothing else."""
    student = StudentLayout(qwen_tokenizer, BESPOKE, SYSTEM, solution_span="released")
    suffix = student.suffix(problem(solution))
    scored = suffix.ids[suffix.solution]
    assert text_of(qwen_tokenizer, scored) == solution + "\n\n"
    assert text_of(qwen_tokenizer, scored[-1:]) == last


@STYLES
@adversarial
@given(solution=hostile)
def test_the_released_span_is_the_content_and_its_blank_line(tokenizer, tags, solution):
    """Whatever the solution says: it begins where the content's does, and its tokens spell both."""
    assume(solution.strip())
    released = StudentLayout(tokenizer, tags, SYSTEM, solution_span="released").suffix(problem(solution))
    content = StudentLayout(tokenizer, tags, SYSTEM)
    assert released.ids == content._encode_suffix(problem(solution)).ids
    scored = b"".join(token_bytes(tokenizer, i) for i in released.ids[released.solution])
    before = text_of(tokenizer, released.ids[: released.solution.start])
    assert before == f"{tags.thought.close}\n\n{tags.solution.open}\n\n"
    assert scored == nfc(solution.strip()).encode() + b"\n\n"
    try:
        inside = content.suffix(problem(solution)).solution
    except DataError:
        return
    assert inside.start == released.solution.start
    assert inside.stop == released.solution.stop - 1


@pytest.mark.parametrize("word", ["end", "of", "<", "solution", "begin", "_of", "thought"])
def test_solution_equal_to_a_word_of_a_tag_is_found_at_its_own_place(tokenizer, word):
    """Upstream 2, custom_sol_word_end: the word in the tag was scored instead."""
    _, student = layouts(tokenizer)
    suffix = student.suffix(problem(word))
    before = text_of(tokenizer, suffix.ids[: suffix.solution.start])
    assert before == "<|end_of_thought|>\n\n<|begin_of_solution|>\n\n"
    assert text_of(tokenizer, suffix.ids[suffix.solution]) == word


@pytest.mark.parametrize(
    ("solution", "scored"),
    [
        ("(A)", "(A"),  # upstream 17: these stopped the whole run
        ("'a'", "'a"),
        ("$\\$4$", "$\\$4"),
        ("  72  ", "72"),
        ("$x=80$", "$x=80"),  # upstream 4: custom_sol_boxed_dollar
        ("$\\boxed{80}$", "$\\boxed{80"),
        ("`x`.", "`x"),
        ("#### 72", "#### 72"),
    ],
)
def test_scored_characters_by_hand(qwen_tokenizer, solution, scored):
    """Closing punctuation may share a token with the blank line after it; the rest is always scored."""
    _, student = layouts(qwen_tokenizer)
    assert solution.strip().startswith(text_of(qwen_tokenizer, solution_ids(student, solution)))
    assert text_of(qwen_tokenizer, solution_ids(student, solution)).startswith(scored)


def test_a_copy_elsewhere_does_not_move_the_solution(tokenizer):
    """Upstream 1, solution_verbatim_after_word: the copy in the explanation was scored."""
    _, student = layouts(tokenizer)
    solution = "The answer is 72"
    copy = f"so\n\n{solution}\n\n<|end_of_solution|> and\n\n{solution}\n\n"
    suffix = student.suffix(problem(solution, question=copy))
    assert suffix == student.suffix(problem(solution))
    sequence = student.prefix_ids(problem(solution, copy)) + student.explanation_ids(copy)
    place = slice(len(sequence) + suffix.solution.start, len(sequence) + suffix.solution.stop)
    assert text_of(tokenizer, (sequence + suffix.ids)[place]) == solution
    assert text_of(tokenizer, (sequence + suffix.ids)[place.stop :]) == "\n\n<|end_of_solution|><|im_end|>"


def test_a_copy_elsewhere_does_not_move_the_explanation(tokenizer):
    """Upstream 2, question_copied_exact and tag_word: the copy in question, system or tag was scored."""
    for text in ("What is 36 * 2?", SYSTEM, "thought", "begin", "of"):
        teacher, student = layouts(tokenizer)
        p = problem(question="What is 36 * 2?")
        ids = teacher.split(teacher.completion_ids(text)).token_ids
        prefix = text_of(tokenizer, student.prefix_ids(p))
        assert prefix.endswith("assistant\n<|begin_of_thought|>\n\n")
        assert text_of(tokenizer, ids) == f"{text}\n\n"


# ---- cutting samples ------------------------------------------------------------------------------

BYTE_OF = {char: byte for byte, char in bytes_to_unicode().items()}


def token_bytes(tokenizer, token_id: int) -> bytes:
    """Return a token's bytes by the published byte alphabet, without rlt."""
    if token_id in tokenizer.added_tokens_decoder:
        return tokenizer.added_tokens_decoder[token_id].content.encode()
    return bytes(BYTE_OF[char] for char in tokenizer.convert_ids_to_tokens(token_id))


@pytest.fixture(scope="session")
def token_of_bytes(tokenizer) -> dict[bytes, int]:
    """Return the token of every byte string that is one, control tokens left out."""
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {token_bytes(tokenizer, i): i for i in range(len(tokenizer)) if i not in special}


def any_tokenisation(text: bytes, token_of_bytes: dict[bytes, int], rng: random.Random) -> list[int]:
    """Return ids that spell the text, cut at random places wherever tokens allow it."""
    ids, at = [], 0
    while at < len(text):
        fits = [n for n in range(1, 25) if text[at : at + n] in token_of_bytes]
        length = rng.choice(fits)
        ids.append(token_of_bytes[text[at : at + length]])
        at += length
    return ids


@STYLES
@adversarial
@given(explanation=hostile)
@example(explanation="")
@example(explanation="e\u0301 <|im_end|> \r\n")
def test_completion_round_trip(tokenizer, tags, explanation):
    assume(tags.explanation.close not in explanation.strip())
    teacher, student = layouts(tokenizer, tags)
    cut = teacher.split(teacher.completion_ids(explanation))
    assert (cut.has_end_tag, cut.text_after_end_tag) == (True, False)
    assert list(cut.token_ids) == student.explanation_ids(explanation)
    assert text_of(tokenizer, cut.token_ids) == nfc(explanation.strip() + "\n\n")


@STYLES
@adversarial
@given(before=hostile, after=hostile, seed=st.integers(0, 2**32))
@example(before="So x.", after="", seed=0)
@example(before="<|end_of_<|end_of_explanation", after="|>", seed=1)
def test_tag_is_found_in_any_tokenisation(tokenizer, token_of_bytes, tags, before, after, seed):
    teacher, _ = layouts(tokenizer, tags)
    close = tags.explanation.close
    text = f"{before}{close}{after}".encode()
    ids = any_tokenisation(text, token_of_bytes, random.Random(seed))
    ends = list(accumulate(len(token_bytes(tokenizer, i)) for i in ids))
    at = text.find(close.encode())
    cut = teacher.split(ids)
    assert cut.token_ids == tuple(ids[: sum(end <= at for end in ends)])
    assert cut.has_end_tag
    rest = text[at + len(close.encode()) :].decode()
    assert cut.text_after_end_tag == bool(rest.strip())


@adversarial
@given(ids=st.data())
def test_any_ids_are_cut_without_an_error(tokenizer, ids):
    """A prefix of the sample comes back, all of it text, whatever was sampled."""
    teacher, _ = layouts(tokenizer)
    sample = ids.draw(st.lists(st.integers(0, len(tokenizer) + 300), max_size=30))
    cut = teacher.split(sample)
    assert list(cut.token_ids) == sample[: len(cut.token_ids)]
    assert all(i < len(tokenizer) for i in cut.token_ids)
    assert not {"<|im_end|>", "<|endoftext|>"} & set(tokenizer.convert_ids_to_tokens(cut.token_ids))


def ids_of(tokenizer, *parts: str) -> list[int]:
    """Return the ids of parts that are tokenised one by one."""
    return [i for part in parts for i in tokenizer(part, add_special_tokens=False)["input_ids"]]


def test_token_that_touches_the_tag_is_left_out(qwen_tokenizer):
    teacher, _ = layouts(qwen_tokenizer)
    ids = ids_of(qwen_tokenizer, "It is 4.<|end_of_explanation|>")
    assert ".<" in [qwen_tokenizer.decode(i) for i in ids]
    cut = teacher.split(ids)
    assert text_of(qwen_tokenizer, cut.token_ids) == "It is 4"
    assert cut.has_end_tag


CLOSE = BESPOKE.explanation.close


@pytest.mark.parametrize(
    ("parts", "explanation", "has_tag", "after"),
    [
        (["Four.\n\n", CLOSE, "<|im_end|>"], "Four.\n\n", True, False),
        (["Four.\n\n", CLOSE], "Four.\n\n", True, False),  # stopped at the tag
        (["Four.\n\n", CLOSE, "\n \n", "<|im_end|>"], "Four.\n\n", True, False),
        (["Four.\n\n", CLOSE, "\u3000\u00a0", "<|im_end|>"], "Four.\n\n", True, False),
        (["Four.\n\n", CLOSE, " Also", "<|im_end|>"], "Four.\n\n", True, True),
        (["Four.\n\n", CLOSE, "\n\n", CLOSE], "Four.\n\n", True, True),  # a second tag is text
        (["Four.", "<|im_end|>"], "Four.", False, False),  # missing tag: no end of turn in the explanation
        (["Four.", "<|endoftext|>"], "Four.", False, False),
        (["Four"], "Four", False, False),  # cut by length
        (["Four <|end_of_expl"], "Four <|end_of_expl", False, False),  # cut inside the tag
        (["Fo", "<|im_end|>", "ur", CLOSE], "Fo", False, False),  # the tag is outside the turn
        (["Fo", "<|im_start|>", "ur", CLOSE, "<|im_end|>"], "Fo", False, False),
        ([CLOSE, "<|im_end|>"], "", True, False),
        (["<|im_end|>"], "", False, False),
        (["\n\n", CLOSE], "\n\n", True, False),
        (["<|end_of_thought|> ", CLOSE], "<|end_of_thought|> ", True, False),  # another part's tag is text
        ([CLOSE, "<|im_end|>", "x"], "", True, False),  # padding after the end of turn
        ([], "", False, False),
    ],
)
def test_split_by_hand(tokenizer, parts, explanation, has_tag, after):
    teacher, _ = layouts(tokenizer)
    cut = teacher.split(ids_of(tokenizer, *parts))
    assert text_of(tokenizer, cut.token_ids) == explanation
    assert (cut.has_end_tag, cut.text_after_end_tag) == (has_tag, after)


def test_id_outside_the_vocabulary_ends_the_explanation(tokenizer):
    """Embedding matrices are padded; a model can sample a row that no string stands for."""
    teacher, _ = layouts(tokenizer)
    stray = len(tokenizer) + 5
    tag, word = ids_of(tokenizer, CLOSE), ids_of(tokenizer, "Four")
    assert teacher.split([*word, stray, *tag]) == Explanation(tuple(word), False, False)
    assert teacher.split([*word, *tag, stray]) == Explanation(tuple(word), True, False)


def test_invalid_utf8_before_the_tag(tokenizer, token_of_bytes):
    teacher, _ = layouts(tokenizer)
    half = token_of_bytes[b"\xe2"]  # the first byte of three
    cut = teacher.split([half, *ids_of(tokenizer, CLOSE)])
    assert cut == Explanation((half,), True, False)
    assert teacher.split([*ids_of(tokenizer, CLOSE), half]).text_after_end_tag


def test_r1_tags_are_cut_too(tokenizer):
    teacher, _ = layouts(tokenizer, TAG_STYLES["r1"])
    cut = teacher.split(ids_of(tokenizer, "<explanation> 4 </think>\n\n", "</explanation>"))
    assert text_of(tokenizer, cut.token_ids) == "<explanation> 4 </think>\n\n"
    assert cut.has_end_tag


def test_stop_ids(qwen_tokenizer):
    assert layouts(qwen_tokenizer)[0].stop_token_ids == [151645]
    qwen_tokenizer = type(qwen_tokenizer).from_pretrained(qwen_tokenizer.name_or_path)
    qwen_tokenizer.eos_token = "<|endoftext|>"  # as in base models; the template still ends with <|im_end|>
    assert layouts(qwen_tokenizer)[0].stop_token_ids == [151643, 151645]


# ---- chat templates -------------------------------------------------------------------------------

LLAMA = (
    "{{ '<|im_start|>' }}"  # as a beginning-of-sequence token
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def with_template(tokenizer, template: str | None):
    other = deepcopy(tokenizer)
    other.chat_template = template
    return other


def test_template_with_beginning_of_sequence(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, LLAMA)
    ids = StudentLayout(tokenizer, BESPOKE, SYSTEM).prefix_ids(problem(question="2+2? <|im_start|>"))
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert (ids[0], ids.count(start)) == (start, 1)


@adversarial
@given(question=benign)
def test_template_that_trims_its_content(tiny_tokenizer, question):
    """Llama 3 trims every content; the layout gives what the template gives."""
    tokenizer = with_template(tiny_tokenizer, LLAMA)
    assume(not any(control in question for control in tokenizer.all_special_tokens))
    student = StudentLayout(tokenizer, BESPOKE, f" {SYSTEM}\n")
    p = problem(question=f"{question} \n")
    answer = BESPOKE.thought.wrap("x") + PADDING + BESPOKE.solution.wrap(p.solution)
    whole = rendered(tokenizer, f" {SYSTEM}\n", p.question, answer)
    assert student.prefix_ids(p) + student.explanation_ids("x") + student.suffix(p).ids == whole


def test_template_that_puts_the_system_prompt_into_the_question(tiny_tokenizer):
    template = (
        "{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] + '\n\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{{ s if loop.first }}{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    student = StudentLayout(with_template(tiny_tokenizer, template), BESPOKE, SYSTEM)
    assert text_of(tiny_tokenizer, student.prefix_ids(problem())) == (
        f"<|im_start|>user\n{SYSTEM}\n\nWhat is 36 * 2?<|im_end|>\n"
        "<|im_start|>assistant\n<|begin_of_thought|>\n\n"
    )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        ("{% for m in messages %}{% if m['role'] != 'user' %}{{ m['content'] }}{% endif %}{% endfor %}",
         "drops the question"),
        ("{% for m in messages %}{% if m['role'] != 'system' %}{{ m['content'] }}{% endif %}{% endfor %}",
         "drops the system prompt"),
        ("{% for m in messages %}{% if m['role'] == 'system' %}"
         "{{ raise_exception('System role not supported') }}"
         "{% endif %}{{ m['content'] }}{% endfor %}", "System role not supported"),
    ],
)  # fmt: skip
def test_template_that_does_not_fit_is_refused(tiny_tokenizer, template, message):
    with pytest.raises(ModelError, match=message):
        StudentLayout(with_template(tiny_tokenizer, template), BESPOKE, SYSTEM).prefix_ids(problem())


def test_end_of_turn_falls_back_to_end_of_sequence(tiny_tokenizer):
    plain = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert Chat(with_template(tiny_tokenizer, plain)).end_of_turn == "<|im_end|>"
    endless = with_template(tiny_tokenizer, plain)
    endless.eos_token = None
    with pytest.raises(ModelError, match="neither an end-of-turn token"):
        Chat(endless)


TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
HEADER = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no such role') }}{% endif %}"
DROPS = TURNS.replace("messages %}", "messages if m['role'] != 'system' %}")


@pytest.mark.parametrize("template", [NO_SYSTEM + TURNS + HEADER, DROPS + HEADER])
def test_a_template_without_system_turns_takes_an_empty_prompt(tiny_tokenizer, template):
    """As the sentence about it promises: Gemma's refuses them, others drop them."""
    tokenizer = with_template(tiny_tokenizer, template)
    for layout, setting in ((TeacherLayout, "teacher_prompt"), (StudentLayout, "student_prompt")):
        with pytest.raises(ModelError, match=rf"an empty layout\.{setting}$"):
            layout(tokenizer, BESPOKE, SYSTEM).prompt_ids(problem())
        ids = layout(tokenizer, BESPOKE, "").prompt_ids(problem())
        assert text_of(tokenizer, ids).startswith(
            "<|im_start|>user\nWhat is 36 * 2?<|im_end|>\n<|im_start|>assis"
        )


@pytest.mark.parametrize("layout", [TeacherLayout, StudentLayout])
def test_a_template_without_the_start_of_an_answer_is_refused(tiny_tokenizer, layout):
    with pytest.raises(ModelError, match=r"ignores add_generation_prompt, so '<.im_start.>assistant', with"):
        layout(with_template(tiny_tokenizer, TURNS), BESPOKE, SYSTEM)
    inside = TURNS.replace("{{ m['role'] }}", "{{ 'user' if m['role'] == 'user' else 'model' }}")
    with pytest.raises(ModelError, match=r"so '<.im_start.>model', with which"):
        layout(with_template(tiny_tokenizer, inside), BESPOKE, SYSTEM)


def test_answers_that_follow_the_question_without_a_header_need_none(tiny_tokenizer):
    """Mistral's: `[INST] q [/INST] a`."""
    template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}<|im_end|>"
        "{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
    )
    ids = StudentLayout(with_template(tiny_tokenizer, template), BESPOKE, "").prompt_ids(problem())
    assert text_of(tiny_tokenizer, ids) == "[INST] What is 36 * 2? [/INST]"


def test_a_template_that_writes_the_date_is_told_of_once(tiny_tokenizer, caplog):
    caplog.set_level("INFO")
    dated = with_template(tiny_tokenizer, "{{ strftime_now('%d %b %Y') }}\n" + TURNS + HEADER)
    dated.name_or_path = "a dated model"
    for _ in range(2):
        StudentLayout(dated, BESPOKE, SYSTEM)
    said = [r.getMessage() for r in caplog.records if "a dated model" in r.getMessage()]
    assert said == [
        "the chat template of 'a dated model' writes the date into prompts: layout.date=2025-01-01"
    ]
    caplog.clear()
    unused = "{% if tools %}{{ strftime_now('%Y') }}{% endif %}" + TURNS + HEADER
    other = with_template(tiny_tokenizer, unused)
    other.name_or_path = "another model"
    StudentLayout(other, BESPOKE, SYSTEM)
    assert not caplog.records


def test_slow_tokenizer_is_refused():
    slow = ByT5Tokenizer()
    slow.chat_template = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"
    with pytest.raises(ModelError, match="not a fast tokenizer"):
        Chat(slow)


def test_hard_text_is_hard(qwen_tokenizer):
    """Without the padding these strings do merge with a tag, so the properties above are not empty."""
    merging = 0
    for text in HARD:
        joined = ids_of(qwen_tokenizer, f"{text}<|end_of_thought|>")
        merging += joined != ids_of(qwen_tokenizer, text, "<|end_of_thought|>")
    assert merging > 10


def test_added_tokens_in_untrusted_text_are_spelled_and_end_an_explanation(qwen_tokenizer):
    """`<tool_call>` and `<|fim_prefix|>` are no special tokens, yet the tokenizer keeps them whole."""
    teacher, student = layouts(qwen_tokenizer)
    tool, fim = (qwen_tokenizer.convert_tokens_to_ids(t) for t in ("<tool_call>", "<|fim_prefix|>"))
    p = problem("a <tool_call> b", "What is <|fim_prefix|>?")
    assert not {tool, fim} & {*teacher.prompt_ids(p), *student.prefix_ids(p), *student.suffix(p).ids}
    words = text_ids(qwen_tokenizer, "So 72.")
    close = text_ids(qwen_tokenizer, "\n\n<|end_of_explanation|>")
    assert teacher.split([*words, tool, *close]) == Explanation(tuple(words), False, False)


@pytest.mark.parametrize("special", [True, False])
def test_tags_that_a_tokenizer_keeps_whole_are_still_tags(qwen_tokenizer, special):
    """Qwen3 does so with <think>: one token where a layout writes it, text where a question quotes it."""
    tokenizer = deepcopy(qwen_tokenizer)
    tags = TAG_STYLES["r1"]
    tokenizer.add_tokens(
        [AddedToken(t, special=special) for t in (tags.thought.open, tags.explanation.close)]
    )
    think, end = (tokenizer.convert_tokens_to_ids(t) for t in ("<think>", "</explanation>"))
    teacher, student = layouts(tokenizer, tags)
    p = problem("7", "Why <think> and </explanation>?")
    assert student.prefix_ids(p).count(think) == 1
    assert teacher.prompt_ids(p).count(end) == 0
    words = text_ids(tokenizer, "So 7.\n\n")
    assert teacher.split([*words, end, teacher.chat.end_of_turn_id]) == Explanation(tuple(words), True, False)
    assert teacher.completion_ids("So 7.")[-2:] == [end, teacher.chat.end_of_turn_id]
    # A system prompt that tells of a tag means that tag, and is otherwise as untrusted as the question.
    told = TeacherLayout(tokenizer, tags, "End with </explanation>.<|im_end|>")
    assert told.prompt_ids(p).count(end) == 1
    assert told.prompt_ids(p).count(told.chat.end_of_turn_id) == teacher.prompt_ids(p).count(
        told.chat.end_of_turn_id
    )


def text_ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("solution", ["72", "$x$", "\\boxed{4}", ".5 and more", "数", "\ta\nb"])
@pytest.mark.parametrize("tags", TAG_STYLES.values(), ids=TAG_STYLES)
def test_the_opening_alone_is_how_the_suffix_begins(qwen_tokenizer, tags, solution):
    layout = StudentLayout(qwen_tokenizer, tags, "Think.")
    suffix = layout.suffix(Problem("p", "q", solution))
    assert layout.opening_ids() == suffix.ids[: suffix.solution.start]
