"""What is read of a model before its weights, and the ids its tokenizer makes."""

import json
import shutil

import pytest
from transformers import AddedToken, MllamaConfig

from rlt.errors import ModelError
from rlt.formats.encode import Piece, encode
from rlt.models.load import load_context, load_eos_ids, load_tokenizer


def test_context_of_a_plain_and_of_a_nested_configuration(tiny_student, tmp_path):
    assert load_context(str(tiny_student)) == 1024
    nested = {"model_type": "gemma3", "text_config": {"max_position_embeddings": 2048}}
    (tmp_path / "config.json").write_text(json.dumps(nested))
    assert load_context(str(tmp_path)) == 2048


def test_a_configuration_that_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match="there is no model folder"):
        load_context(str(tmp_path / "nothing"))
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(ModelError, match="cannot load the configuration of") as error:
        load_context(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("of_generation", "of_config", "expected"),
    [([5, 6], 7, [5, 6]), (5, 7, [5]), (None, 7, [7]), (None, None, [])],
)
def test_stop_ids_are_those_of_the_generation_config_or_else_of_the_config(
    tmp_path, of_generation, of_config, expected
):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", "eos_token_id": of_config}))
    if of_generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": of_generation}))
    assert load_eos_ids(str(tmp_path)) == expected


def enlarged(folder, change) -> int:
    """Let a model's tokenizer make one more token, which the model has no vector for; return its rows."""
    tokenizer = load_tokenizer(str(folder))
    change(tokenizer)
    tokenizer.save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())["vocab_size"]


WRITES = "{{ '<new>' }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
BEYOND = {
    "a word": lambda t: t.add_tokens([AddedToken("<new>", normalized=False)]),
    "a pad token": lambda t: t.add_special_tokens({"pad_token": "<new>"}),
    "an end of turn": lambda t: t.add_special_tokens({"eos_token": "<new>"}),
    "a token that the template writes": lambda t: (
        t.add_special_tokens({"extra_special_tokens": ["<new>"]}),
        setattr(t, "chat_template", WRITES),
    ),
}


@pytest.fixture
def folder(tiny_student, tmp_path):
    return shutil.copytree(tiny_student, tmp_path / "model")


@pytest.mark.parametrize("change", BEYOND.values(), ids=BEYOND)
def test_a_token_beyond_the_embedding_table_is_refused_before_weights_load(change, folder):
    """It went through to the first text with that token; padding with it ended in an IndexError."""
    size = enlarged(folder, change)
    match = (
        rf"makes '<new>'.* token {size}, but the model has only {size} embeddings: resize .* own tokenizer"
    )
    with pytest.raises(ModelError, match=match):
        load_tokenizer(str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": size + 1}))
    assert load_tokenizer(str(folder)).num_embeddings == size + 1
    (folder / "config.json").unlink()  # the tokenizer alone, as plan_traces takes it
    assert encode(load_tokenizer(str(folder)), [Piece("<new>", trusted=True)]).ids == [size]


def test_a_marker_that_no_text_makes_may_lie_beyond_the_table(folder):
    """Gemma 3's text models have 262,144 embeddings; 262,144 is the id of `<image_soft_token>`."""
    size = enlarged(folder, lambda t: t.add_special_tokens({"extra_special_tokens": ["<image>"]}))
    tokenizer = load_tokenizer(str(folder))
    assert size not in encode(tokenizer, [Piece("an <image>")]).ids
    with pytest.raises(ModelError, match=rf"makes '<image>' token {size}, but the model has only {size} emb"):
        encode(tokenizer, [Piece("<image>", trusted=True)])


def test_a_table_may_be_longer_than_vocab_size(folder):
    """Mllama's has 8 rows more, for its images."""
    size = enlarged(folder, BEYOND["a word"])
    text = {"vocab_size": size, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"cross_attention_layers": [], "pad_token_id": 0, "num_key_value_heads": 2}
    MllamaConfig(text_config=text).save_pretrained(folder)
    assert load_tokenizer(str(folder)).num_embeddings == size + 8


def test_a_tokenizer_of_another_model_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 20}))
    with pytest.raises(ModelError, match=r"token 20 \(and \d+ others .*\), but the model has only 20"):
        load_tokenizer(str(folder))
