"""What chat templates may be given: a day, and switches of their own."""

import pytest

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.validate import validate
from rlt.errors import ConfigError

WORDS = ["run_cfg=infer", "model_name_or_path=owner/name", "infer.question=1+1"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "layout.date=yesterday",
            r"`layout.date` must be a day as YYYY-MM-DD, got yesterday: write 2025-01-01",
        ),
        ("layout.date=20250101", r"`layout.date` must be a day as YYYY-MM-DD"),
        ("layout.chat_template_kwargs={tools: []}", "has tools, but rows have none: remove it"),
        ("layout.chat_template_kwargs={strftime_now: 1}", r"has strftime_now, but the date is layout\.date"),
        ("layout.chat_template_kwargs={add_generation_prompt: false}", "is no switch of a template but an"),
        ("layout.chat_template_kwargs={enable-thinking: false}", "'enable-thinking', which is no name"),
    ],
)
def test_what_no_template_can_be_given_is_one_sentence(word, said):
    with pytest.raises(ConfigError, match=said):
        validate(resolve(compose([*WORDS, word])), num_processes=1)


def test_switches_may_be_given_together_or_one_by_one():
    together = compose(
        [*WORDS, "layout.chat_template_kwargs={enable_thinking: false, reasoning_effort: low}"]
    )
    assert together.layout.chat_template_kwargs == {"enable_thinking": False, "reasoning_effort": "low"}
    validate(resolve(together), num_processes=1)
