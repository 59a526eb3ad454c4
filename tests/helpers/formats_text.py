"""Text that is hard to tokenise, for property tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from rlt.formats.tags import TAG_STYLES

adversarial = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Decorator of the property tests; a loaded machine fails none of them."""

CONTROL = ["<|im_end|>", "<|im_start|>", "<|endoftext|>"]
"""Control strings that the real and the tiny tokenizer share."""
TAGS = sorted({string for style in TAG_STYLES.values() for string in style.strings})
HARD = [
    *("$x=80$", "$\\boxed{80}$", "`x`.", "`)'", ".!'", "}.\\", ").", ".<", ")<", "(A)", "'a'", "$\\$4$"),
    *("<|", "|>", "<|im_", "end|>", "<", ">", "end", "of", "\\n", "####", "-0.5", "1,000", " 7", "x+y"),
    *(" ", "  ", "\n", "\n\n", "\r\n", "\r", "\t", "\u00a0", "\u3000", "\u2028"),
    *("e\u0301", "a\u0323\u0301", "q\u0307\u0323", "\u0301", "\u0338", "\u0958", "\u0344", "\U0001d15e"),
    *("\u1100\u1161\u11a8", "한글", "数学", "é", "ﬁ", "Å", "\u200b", "\u200d", "\ufeff", "\ufffd", "\x00"),
    *("👩\u200d👩\u200d👧", "🇫🇷", "אב", "∑", "word", " word", "The", " answer is"),
]

benign = st.lists(st.one_of(st.sampled_from(HARD), st.text(max_size=4)), max_size=8).map("".join)
"""Adversarial text that spells no control string and no tag."""
hostile = st.lists(
    st.one_of(st.sampled_from(HARD), st.sampled_from(CONTROL), st.sampled_from(TAGS), st.text(max_size=4)),
    max_size=8,
).map("".join)
"""The same, with control strings and tags in it."""
