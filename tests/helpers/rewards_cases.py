"""Problems and sampled completions on which a reward is easily wrong, and real ones.

A completion is a list of parts that are tokenised one by one, so its ids are what a teacher might sample,
not what a tokenizer would make of the whole text. `explanation` counts the parts before the end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

CLOSE = "<|end_of_explanation|>"
END, PAD = "<|im_end|>", "<|endoftext|>"
"""Alone in a part they are control tokens; inside a longer part they are text."""
TAIL = ("\n\n", CLOSE, END)


@dataclass(frozen=True)
class Case:
    """A completion of a problem with what it should be read as."""

    name: str
    parts: tuple[str, ...]
    explanation: int
    """How many of the parts are the explanation."""
    question: str = "What is 36 * 2?"
    solution: str = "#### 72"
    has_end_tag: bool = True
    text_after: bool = False


def closed(name: str, *text: str, **fields: str) -> Case:
    """Return a case whose explanation is padded and closed as it should be."""
    return Case(name, (*text, *TAIL), len(text) + 1, **fields)


def cut(name: str, *text: str, after: tuple[str, ...] = (), **fields: str) -> Case:
    """Return a case without closing tag."""
    return Case(name, (*text, *after), len(text), has_end_tag=False, **fields)


ANSWER = "The answer is 72"
ADVERSARIAL = [
    # 1: the solution with its padding in the explanation was scored instead of the answer
    closed("solution_verbatim_after_word", f"so\n\n{ANSWER}\n\n and that is it", solution=ANSWER),
    closed("solution_verbatim_twice", f"so\n\n{ANSWER}\n\n or\n\n{ANSWER}\n\nthen", solution=ANSWER),
    closed(
        "solution_block_copied",
        f"<|begin_of_solution|>\n\n{ANSWER}\n\n<|end_of_solution|>",
        solution=ANSWER,
    ),
    closed("solution_in_question", "Easy.", question=f"Why?\n\n{ANSWER}\n\n", solution=ANSWER),
    # 2: explanation matched in question, system prompt or tag; solution matched in the tag
    closed("question_copied_exact", "What is 36 * 2?"),
    closed("system_copied_exact", "Think first, then answer."),
    closed("tag_word", "thought"),
    closed("tag_word_begin", "begin"),
    closed("explanation_is_solution", "#### 72"),
    closed("custom_sol_word_end", "It ends.", solution="end"),
    closed("custom_sol_word_of", "It is of.", solution="of"),
    closed("custom_sol_less_than", "It is less.", solution="<"),
    # 3: edge tokens that change in context
    cut("end_latex_cut", "So $\\boxed{80}.\\"),
    cut("end_quote_cut", "so he said .!'"),
    cut("end_backtick_cut", "call `f(x`)'"),
    closed("end_quote", "so he said .!'"),
    # 4: edge tokens that were dropped
    closed("custom_sol_boxed_dollar", "So $x=80$", solution="$\\boxed{80}$"),
    closed("custom_sol_dollar", "So 80.", solution="$x=80$"),
    closed("custom_sol_code", "So `x`.", solution="`x`."),
    closed("end_two_spaces", "So 80.  "),
    cut("end_two_spaces_cut", "So 80.  "),
    closed("start_two_spaces", "  So 80."),
    # 5: explanations of nothing
    Case("empty", (CLOSE, END), 0),
    cut("empty_without_tag", after=(END,)),
    cut("empty_without_anything"),
    Case("newlines_only", ("\n\n", CLOSE, END), 1),
    Case("space_only", (" ", CLOSE, END), 1),
    Case("dot_only", (".", "\n\n", CLOSE, END), 2),
    # 10: sampled ids that no tokenizer would choose for their text
    closed("not_canonical", "Th", "e", " an", "sw", "er", " is", " 7", "2", "."),
    closed("starts_with_newline", "\n", "Then 72."),
    Case("tag_in_pieces", ("So 72.", "\n\n", "<", "|", "end", "_of_", "expl", "anation", "|>", END), 2),
    Case("no_padding_before_tag", ("So 72", CLOSE, END), 1),
    # 11: after the tag, and cut by length
    Case("text_after_end", ("So 72.", *TAIL[:2], " Also, more.", END), 2, text_after=True),
    Case("second_tag_after_end", ("So 72.", *TAIL[:2], CLOSE, END), 2, text_after=True),
    Case("white_space_after_end", ("So 72.", *TAIL[:2], "\n", END), 2),
    Case("stopped_at_tag", ("So 72.", *TAIL[:2]), 2),
    cut("cut_by_length", "First we double 36 and"),
    cut("cut_inside_tag", "So 72.", "\n\n", "<|end_of_ex"),
    cut("missing_tag", "So 72.", after=(END,)),
    cut("missing_tag_endoftext", "So 72.", after=(PAD,)),
    cut("tag_after_end_of_turn", "So 72.", after=(END, CLOSE)),
    # 17: solutions that stopped the whole run
    closed("custom_sol_choice", "So A.", solution="(A)"),
    closed("custom_sol_quoted", "So a.", solution="'a'"),
    closed("custom_sol_escaped_dollar", "So 4.", solution="$\\$4$"),
    closed("custom_sol_spaces", "So 72.", solution="  72  "),
    # text that is hard to tokenise
    closed("unicode", "数学 café 👩\u200d👧 ∑ \u200b é", question="¿36 · 2? 한글", solution="七十二 é"),
    closed("decomposed", "cafe\u0301 a\u0323\u0301", question="e\u0301", solution="cafe\u0301 \u0958 x"),
    closed("crlf", "a\r\nb\r\n", question="a\r\nb", solution="a\r\nb"),
    closed(
        "control_strings", "say <|im_end|> and <|endoftext|>", question="<|im_end|>\n<|im_start|>system\nx"
    ),
    closed("control_strings_in_solution", "say", solution="<|im_end|> or <|endoftext|> x"),
    closed("tags_in_question", "So 72.", question="<|end_of_thought|>\n\n<|begin_of_solution|>\n\n1"),
    closed("closing_thought_tag", "x\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n#### 72"),
    closed("long_solution", "So it is.", solution="We double 36.\n\nThat gives 72, so:\n\n#### 72 apples"),
    closed("long_explanation", "36 and 36 make 72, again and again. " * 12),
]


def gsm8k_cases(folder: Path, num: int) -> list[Case]:
    """Return real rows, closed, cut in the middle, and closed without padding, in turn."""
    cases = []
    with open(folder / "data" / "gsm8k_train.jsonl", encoding="utf-8") as lines:
        for index, line in zip(range(num), lines, strict=False):
            row = json.loads(line)
            fields = {"question": row["question"], "solution": row["solution"]}
            trace, name = row["reasoning_trace"], f"gsm8k_{index}"
            if index % 4 == 1:
                cases.append(cut(name, trace[: len(trace) // 2], **fields))
            elif index % 4 == 2:
                cases.append(Case(name, (trace, CLOSE, END), 1, **fields))
            else:
                cases.append(closed(name, trace, **fields))
    return cases
