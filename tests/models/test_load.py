"""What is read of a model before its weights."""

import json

import pytest

from rlt.errors import ModelError
from rlt.models.load import load_context, load_eos_ids


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
