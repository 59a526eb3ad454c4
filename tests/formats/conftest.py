"""The two tokenizers that text is tried with."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", params=["qwen_tokenizer", "tiny_tokenizer"])
def tokenizer(request):
    """Return the real tokenizer, then the tiny one."""
    return request.getfixturevalue(request.param)
