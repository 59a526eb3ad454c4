"""What is read of a model before its weights."""

import json
import shutil

import pytest
from transformers import AddedToken

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


@pytest.mark.parametrize("token", ["<think>", "zzz"])
def test_a_token_beyond_the_embedding_table_is_refused_by_name(token, tiny_student, tmp_path):
    """Whether a tag or another word was added: the model, which was never resized, has no vector for it."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_student, folder)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_tokens([AddedToken(token, normalized=False)])
    tokenizer.save_pretrained(folder)
    loaded, text = load_tokenizer(str(folder)), [Piece(f"so {token}", trusted=True)]
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    if len(loaded) == size:
        pytest.skip("the vocabulary has it")
    with pytest.raises(ModelError, match=rf"makes '{token}' token {size}, but the model has only {size} emb"):
        encode(loaded, text)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": size + 1}))
    assert encode(load_tokenizer(str(folder)), text).ids[-1] == size
    (folder / "config.json").unlink()  # the tokenizer alone, as plan_traces takes it
    assert encode(load_tokenizer(str(folder)), text).ids[-1] == size


def test_a_tokenizer_of_another_model_is_refused_by_a_word(tiny_student, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_student, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 2}))
    with pytest.raises(ModelError, match=r"has only 2 embeddings: resize .* or the model's own tok"):
        encode(load_tokenizer(str(folder)), [Piece("so")])
