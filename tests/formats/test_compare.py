"""What is said about two tokenizers before a run depends on them."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from rlt.errors import ModelError
from rlt.formats.compare import compare_tokenizers
from rlt.formats.tags import TAG_STYLES

BESPOKE = TAG_STYLES["bespoke"]


def test_a_tokenizer_and_itself(qwen_tokenizer):
    found = compare_tokenizers(qwen_tokenizer, deepcopy(qwen_tokenizer), BESPOKE)
    assert found.same_ids
    assert found.findings == (
        "vocabulary: 151,665 tokens, the same",
        *(
            f"{who}: tags of 7 to 8 tokens read back exactly; a turn ends with <|im_end|> (151645); "
            "eos_token <|im_end|>, pad_token <|endoftext|>"
            for who in ("teacher", "student")
        ),
        "chat template: the same",
    )


def test_a_student_that_knows_more_tokens_reads_the_teachers_ids(tiny_tokenizer):
    student = deepcopy(tiny_tokenizer)
    student.add_tokens(["<more>"])
    student.chat_template += " "
    found = compare_tokenizers(tiny_tokenizer, student, BESPOKE)
    assert found.same_ids
    assert "teacher 393 tokens, student 394, the teacher's all under the same ids" in found.findings[0]
    assert found.findings[1].startswith("teacher: each tag is one token")
    assert found.findings[3] == "chat template: they differ, and each reads its own"
    assert not compare_tokenizers(student, tiny_tokenizer, BESPOKE).same_ids


def test_other_tokenizers_share_text_only(tiny_tokenizer, qwen_tokenizer):
    found = compare_tokenizers(tiny_tokenizer, qwen_tokenizer, BESPOKE)
    assert not found.same_ids
    assert "the divergence is taken over common text boundaries" in found.findings[0]


def test_a_tokenizer_that_spoils_the_tags_is_refused(qwen_tokenizer):
    backend = Tokenizer.from_str(json.dumps(json.loads(qwen_tokenizer.backend_tokenizer.to_str())))
    backend.normalizer = normalizers.Replace("_", "-")
    student = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    student.chat_template = qwen_tokenizer.chat_template
    with pytest.raises(
        ModelError, match=r"makes '<\|begin-of-thought\|>' of the tag '<\|begin_of_thought\|>'"
    ):
        compare_tokenizers(qwen_tokenizer, student, BESPOKE)
