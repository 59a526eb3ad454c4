"""Folders that pass for a model in every check of a configuration: no tensors, and any config.json."""

from pathlib import Path

from rlt.config.weight_files import NO_TENSORS


def fake_model(folder: Path, config: str = "{}") -> Path:
    """Return the folder, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(NO_TENSORS)
    return folder
