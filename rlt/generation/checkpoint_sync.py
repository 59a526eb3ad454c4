"""Weights over files: safetensors in a folder that trainer and servers both see."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlt.errors import GenerationError
from rlt.generation.parallel import TimeLimit
from rlt.generation.sync_folder import remove_versions
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.vllm_worker import EXTENSION, RELOAD
from rlt.generation.weight_sync import check_names

MAX_SHARD_BYTES = 2 * 2**30
INDEX = "model.safetensors.index.json"


class CheckpointSync:
    """A `WeightSync` over files: safetensors in a folder that trainer and servers both see.

    Versions are named `weights-N-…`; older ones in the folder, those of a crashed run too, are deleted, so
    two runs must not share it.
    Tensors go to host memory one by one; `max_shard_bytes` bounds what is held at a time.
    """

    def __init__(
        self, pool: VLLMPool, directory: Path, *, timeout: float, max_shard_bytes: int = MAX_SHARD_BYTES
    ) -> None:
        self._pool = pool
        self._directory = directory.resolve()
        self._timeout = timeout
        self._max_shard_bytes = max_shard_bytes
        self._number = 0
        self.version: Path | None = None
        """The folder of the weights that the servers hold."""
        self._names: set[str] | None = None

    def push(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        """Write a new version, let every server load it, and delete the version before."""
        limit = TimeLimit("a weight sync", self._timeout, "generation.sync_timeout")
        self._number += 1
        folder = self._directory / f"weights-{self._number:06d}-{uuid.uuid4().hex[:8]}"
        try:
            names = write_checkpoint(weights, folder, self._max_shard_bytes)
        except (OSError, SafetensorError) as error:
            raise GenerationError(
                f"the weights for the vLLM servers cannot be written to {folder} ({error}); "
                "make room there or set generation.sync_dir to another folder"
            ) from error
        self._names = check_names(names, self._names)
        # Any vLLM server reloads an untied model without experts rightly; others need our worker extension.
        has_head = any(name.endswith("lm_head.weight") for name in names)  # maybe below a prefix
        has_experts = any(".experts." in name for name in names)
        method = "reload_weights" if has_head and not has_experts else RELOAD
        body = {"method": method, "kwargs": {"weights_path": str(folder)}}
        what = f"{method} from {folder}"
        if method == RELOAD:
            what += f" (needs a server started with --worker-extension-cls {EXTENSION}, as launch.sh does)"
        timeout = limit.left()
        self._pool.on_all(
            "reload of the weights",
            lambda server: server.post("/collective_rpc", body, timeout=timeout, what=what),
        )
        self._pool.reset_prefix_cache()
        self.version = folder
        remove_versions(self._directory, keep=folder)

    def reconnect(self) -> None:
        """Nothing to do: each push looks for the servers again."""

    def close(self) -> None:
        """Delete the last version, which the servers have read, and the folder if nothing else is in it."""
        self.version = None
        remove_versions(self._directory)
        with suppress(OSError):
            self._directory.rmdir()


def write_checkpoint(weights: Iterator[tuple[str, Tensor]], folder: Path, max_shard_bytes: int) -> set[str]:
    """Write the tensors as safetensors shards with an index, and return their names.

    The folder appears under its name only when it is complete.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shards: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    num_bytes = total_bytes = 0

    def flush() -> None:
        nonlocal num_bytes
        shards.append(list(shard))
        save_file(shard, partial / f"{len(shards)}.safetensors", metadata={"format": "pt"})
        shard.clear()
        num_bytes = 0

    for name, tensor in weights:
        if shard and num_bytes + tensor.nbytes > max_shard_bytes:
            flush()
        # A copy even on CPU: a gathered tensor is taken apart again when the next one comes.
        shard[name] = tensor.detach().to("cpu", copy=True).contiguous()
        num_bytes += tensor.nbytes
        total_bytes += tensor.nbytes
    if shard:
        flush()
    weight_map = {}
    for number, shard_names in enumerate(shards, start=1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        (partial / f"{number}.safetensors").rename(partial / file_name)
        weight_map |= dict.fromkeys(shard_names, file_name)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    (partial / INDEX).write_text(json.dumps(index, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return set(weight_map)


def read_checkpoint(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that `write_checkpoint` has written, in their order."""
    shard_of = json.loads((folder / INDEX).read_text())["weight_map"]
    for name, shard in shard_of.items():
        with safe_open(folder / shard, framework="pt") as tensors:
            yield name, tensors.get_tensor(name)
