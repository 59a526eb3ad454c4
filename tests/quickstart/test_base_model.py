"""The base model: learns from scratch, is decided by its seed, and is made only once."""

import math
from dataclasses import replace
from itertools import islice

import pytest
import torch

from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.models.load import load_model, load_tokenizer
from rlt.quickstart.base_model import BaseSettings, Corpus, make_base, next_token_loss, train_base
from rlt.quickstart.tokenizer import build_tokenizer
from rlt.quickstart.world import ToyRow, vocabulary

TAGS = TAG_STYLES["bespoke"]
TINY = BaseSettings(
    hidden_size=32,
    num_layers=1,
    num_heads=1,
    intermediate_size=32,
    steps=30,
    batch_size=8,
    learning_rate=1e-2,
)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([*vocabulary(), "Explain.", "Think."])


def corpus(tokenizer, seed: int = 0) -> Corpus:
    teacher, student = TeacherLayout(tokenizer, TAGS, "Explain."), StudentLayout(tokenizer, TAGS, "Think.")
    return Corpus(teacher, student, frozenset(), seed)


def test_samples_are_the_two_layouts(tokenizer):
    row = ToyRow("2+3*4", "0", "2+3=5\n5*4=0", "good")
    made = corpus(tokenizer)
    sample = made.in_teacher_layout(row)
    assert tokenizer.decode(sample.context) == (
        "<|im_start|>system\nExplain.<|im_end|>\n<|im_start|>user\n2+3*4<|im_end|>\n<|im_start|>assistant\n"
        "<|begin_of_solution|>\n\n0\n\n<|end_of_solution|>\n\n<|begin_of_explanation|>\n\n"
    )
    assert tokenizer.decode(sample.target) == "2+3=5\n5*4=0\n\n<|end_of_explanation|><|im_end|>"
    sample = made.in_student_layout(row)
    assert tokenizer.decode(sample.context).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(sample.target) == (
        "<|begin_of_thought|>\n\n2+3=5\n5*4=0\n\n<|end_of_thought|>\n\n"
        "<|begin_of_solution|>\n\n0\n\n<|end_of_solution|><|im_end|>"
    )


def test_the_loss_counts_targets_only(tokenizer):
    model = train_base(tokenizer, corpus(tokenizer), replace(TINY, steps=1), seed=0)
    samples = list(islice(corpus(tokenizer, seed=1).mixture(), 4))
    total, count = 0.0, 0
    for sample in samples:  # one row at a time, so without any padding
        ids = torch.tensor([sample.context + sample.target])
        with torch.no_grad():
            logprobs = model(input_ids=ids).logits.log_softmax(-1)
        for position in range(len(sample.context), ids.shape[1]):
            total -= float(logprobs[0, position - 1, ids[0, position]])
            count += 1
    assert next_token_loss(model, samples).item() == pytest.approx(total / count, rel=1e-4)


def test_a_seed_decides_the_weights_and_training_lowers_the_loss(tokenizer):
    first, again = (train_base(tokenizer, corpus(tokenizer), TINY, seed=0) for _ in range(2))
    other = train_base(tokenizer, corpus(tokenizer), TINY, seed=1)
    weights = [model.lm_head.weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    samples = list(islice(corpus(tokenizer, seed=1).mixture(), 32))
    assert next_token_loss(first, samples).item() < 0.7 * math.log(len(tokenizer))


def test_a_base_is_made_once_and_loads(tokenizer, tmp_path):
    base = tmp_path / "base"
    settings = replace(TINY, steps=2)
    assert make_base(base, tokenizer, corpus(tokenizer), settings, seed=0) is False
    assert make_base(base, tokenizer, corpus(tokenizer), settings, seed=0) is True
    assert load_tokenizer(str(base)).get_vocab() == tokenizer.get_vocab()
    assert load_model(str(base), dtype="float32").config.vocab_size == len(tokenizer)
    # another seed, another corpus, another size: made anew
    assert make_base(base, tokenizer, corpus(tokenizer), settings, seed=1) is False
    assert make_base(base, tokenizer, corpus(tokenizer, seed=5), settings, seed=1) is False
    assert make_base(base, tokenizer, corpus(tokenizer, seed=5), replace(settings, steps=3), seed=1) is False
