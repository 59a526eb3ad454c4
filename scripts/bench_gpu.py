#!/usr/bin/env python3
"""What one GPU reaches, in under eight minutes: JSON lines, a table, and the forecast's constants beside it.

    PYTHONPATH=. python scripts/bench_gpu.py            # 7B shape, random weights, bfloat16
    PYTHONPATH=. python scripts/bench_gpu.py --tiny     # tries every part, on a CPU too

Needs torch and transformers only. Each part of gpu_parts.py is a process, so that one that crashes, or whose
time is over, takes no other part with it. What an early part leaves of --minutes, later parts may use.
Operations are counted as rlt/models/size.py counts them, so that a share that is found here can replace
COMPUTE_SHARE. It ends with 1 if a part measured nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rlt.forecast import hardware
from rlt.forecast.hardware import GIB
from rlt.surroundings.gpus import GPU, recognise

Line = dict[str, Any]
PARTS = {"device": 1, "scorer": 2, "head": 1, "update": 4, "attention": 2, "generate": 1}
"""The parts of gpu_parts.py, with their shares of the time."""
TOLERANCE = 0.15
"""A constant that is off by less, as a share of itself, is kept."""


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=7.5, help="for all parts together; held")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="a tiny model and short sequences; CPU or GPU")
    options = parser.parse_args()
    if options.minutes <= 0:
        parser.error(f"--minutes must be positive, got {options.minutes:g}")
    if not torch.cuda.is_available() and not options.tiny:
        parser.error("torch sees no GPU here, and a CPU would take hours; --tiny tries every part on it")
    gpu = this_gpu()
    print(json.dumps(surroundings(gpu, options)), flush=True)
    lines: list[Line] = []
    for line in run_parts(options):
        lines.append(with_share(line, gpu))
        print(json.dumps(lines[-1]), flush=True)
    print_table(lines)
    print_constants(constants(lines, gpu), gpu, tiny=options.tiny)
    measured = {line["part"] for line in lines if "seconds" in line}
    return int(measured != set(options.parts))


def this_gpu() -> GPU:
    """Return the kind of GPU that torch uses, without speeds where it is not known."""
    if not torch.cuda.is_available():
        return GPU("CPU", 0, None, 0, 0)
    found = torch.cuda.get_device_properties(0)
    return recognise(found.name, found.total_memory // 2**20)


def surroundings(gpu: GPU, options: argparse.Namespace) -> Line:
    """Return what the numbers depend on beside the program."""
    return {
        "benchmark": "gpu",
        "device": gpu.name,
        "memory_gib": round(gpu.memory / GIB, 1),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
        "allocator": os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
        "minutes": options.minutes,
        "tiny": options.tiny,
    }


def run_parts(options: argparse.Namespace) -> Iterator[Line]:
    """Yield the lines of all parts. Each gets its share of the time that is left."""
    end = time.monotonic() + 60 * options.minutes
    for number, part in enumerate(options.parts):
        shares = [PARTS[name] for name in options.parts[number:]]
        yield from run_part(part, (end - time.monotonic()) * shares[0] / sum(shares), tiny=options.tiny)


def run_part(part: str, limit: float, *, tiny: bool) -> Iterator[Line]:
    """Yield the lines of a part's process, and one more if it did not end well within `limit` seconds."""
    command = [sys.executable, str(Path(__file__).with_name("gpu_parts.py")), part, *["--tiny"] * tiny]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    timed_out = threading.Event()

    def stop() -> None:
        timed_out.set()
        process.kill()

    timer = threading.Timer(max(0.0, limit), stop)
    timer.start()
    assert process.stdout is not None, "it was asked for"
    try:
        for text in process.stdout:
            with contextlib.suppress(json.JSONDecodeError):  # what libraries print, a killed part's last line
                line = json.loads(text)
                if isinstance(line, dict):
                    yield line
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    if timed_out.is_set():
        yield {"part": part, "case": "rest", "failed": f"its {limit:.0f} s are over: more --minutes"}
    elif code:
        yield {"part": part, "case": "rest", "failed": f"its process ended with {code}, see above"}


def with_share(line: Line, gpu: GPU) -> Line:
    """Return a line with the share of the data sheet's operations that it reached, where that is known."""
    if gpu.flops is not None and "operations_per_second" in line:
        return line | {"share": round(line["operations_per_second"] / gpu.flops, 3)}
    return line


# ---- the constants --------------------------------------------------------------------------------------

NOT_HERE = {
    "LINK_SHARE": "takes two GPUs",
    "NETWORK": "takes two machines",
    "DISK": "is the disk's, not the GPU's",
    "SERVER_TICK": "takes a vLLM server",
}
"""Constants of hardware.py that are not measured here, and why."""


def constants(lines: list[Line], gpu: GPU) -> dict[str, list[float]]:
    """Return what was measured for each constant of hardware.py: one value for each case that measures it."""
    done = [line for line in lines if "seconds" in line]
    found: dict[str, list[float]] = {name: [] for name in ("COMPUTE_SHARE", "BANDWIDTH_SHARE", "EAGER_TICK")}
    if gpu.flops is not None:
        long = [x for x in done if x["part"] in ("scorer", "update") and not x.get("masked")]
        found["COMPUTE_SHARE"] = [x["share"] for x in long if "share" in x]
        read = [x["bytes_per_second"] for x in done if x["case"] == "weights read"]
        found["BANDWIDTH_SHARE"] = [rate / gpu.bandwidth for rate in read]
        share = statistics.mean(found["BANDWIDTH_SHARE"] or [hardware.BANDWIDTH_SHARE])
        found["EAGER_TICK"] = [
            max(0.0, x["seconds"] / x["steps"] - x["weights"] / (gpu.bandwidth * share))
            for x in done
            if x["part"] == "generate"
        ]
    rates = {x["case"]: x["bytes_per_second"] for x in done if "bytes_per_second" in x}
    found["HOST_LINK"] = [rates[c] for c in ("host to device", "device to host") if c in rates]
    found["HOST_BANDWIDTH"] = [rates[c] for c in ("host sum",) if c in rates]
    found["CONTEXT_BYTES"] = [x["context_gib"] * GIB for x in done if "context_gib" in x]
    found["USABLE_SHARE"] = [x["used_of_reserved"] for x in done if "used_of_reserved" in x]
    return found


def verdict(assumed: float, measured: list[float]) -> str:
    """Return whether a constant is kept, or what it would be corrected to: the median of what was found."""
    value = statistics.median(measured)
    if abs(value - assumed) <= TOLERANCE * assumed:
        return "keep"
    return f"correct to {value:.3g}"


def why_not(constant: str, gpu: GPU) -> str:
    """Return why nothing was measured for a constant."""
    if gpu.flops is None and constant in ("COMPUTE_SHARE", "BANDWIDTH_SHARE", "EAGER_TICK"):
        return f"the peaks of {gpu.name} are not in the table GPUS"
    return NOT_HERE.get(constant, "its part did not get there")


def print_constants(found: dict[str, list[float]], gpu: GPU, *, tiny: bool) -> None:
    """Print each constant, what was measured, and the verdict."""
    print(f"\nconstants of rlt/forecast/hardware.py on {gpu.name} (kept within {TOLERANCE:.0%})")
    rows = [("constant", "assumed", "measured", "verdict")]
    for name, measured in {**found, **{name: [] for name in NOT_HERE}}.items():
        assumed = float(getattr(hardware, name))
        span = f"{min(measured):.3g} to {max(measured):.3g}" if measured else "-"
        what = verdict(assumed, measured) if measured else f"not measured: {why_not(name, gpu)}"
        rows.append((name, f"{assumed:.3g}", span, "none: --tiny" if tiny and measured else what))
    print_columns(rows)


def print_table(lines: list[Line]) -> None:
    """Print a row for each case."""
    print()
    rows: list[tuple[str, ...]] = [
        ("part", "case", "seconds", "peak GiB", "above GiB", "TFLOP/s", "share", "GB/s", "")
    ]
    for x in lines:
        rate, speed = x.get("operations_per_second"), x.get("bytes_per_second")
        forecast = f"forecast of what is above: {x['forecast_gib']} GiB" if x.get("forecast_gib") else ""
        rows.append(
            (
                x["part"],
                x["case"],
                *(_number(x.get(name)) for name in ("seconds", "peak_gib", "above_gib")),
                _number(rate and rate / 1e12),
                _number(x.get("share")),
                _number(speed and speed / 1e9),
                x.get("failed") or forecast,
            )
        )
    print_columns(rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def print_columns(rows: Iterable[tuple[str, ...]]) -> None:
    """Print rows of words in columns."""
    kept = list(rows)
    widths = [max(map(len, column)) for column in zip(*kept, strict=True)]
    for row in kept:
        print("  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
