"""SkyThought's own program as it is in its package, for tests that compare with it; nothing is copied.

Run as a script, with the package in PYTHONPATH: reads one [task, row, turn] a line, writes [user's turn,
verdict] of the task's own handler, made from its own file. Two things that it imports for code benchmarks are
gone from this Python.
"""

from __future__ import annotations

import inspect
import json
import sys
from importlib import import_module
from types import ModuleType

PACKAGE = "skythought.evals.tasks"

if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    inspect.getargspec = inspect.getfullargspec  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules["pyext"] = ModuleType("pyext")
    sys.modules["pyext"].RuntimeModule = None  # pyright: ignore[reportAttributeAccessIssue]
    out, sys.stdout = sys.stdout, sys.stderr
    tasks = import_module(PACKAGE)
    from sympy.core.random import seed

    made = {}
    for line in sys.stdin:
        name, row, turn = json.loads(line)
        if name not in made:
            config = tasks.TaskConfig.from_yaml(tasks.TASK_NAMES_TO_YAML[name])
            made[name] = tasks.TASK_HANDLER_MAP[config.handler](config)
        seed(0)
        verdict = bool(made[name].check_correctness(row, turn))  # before GPQA's prompt shuffles the letters
        out.write(json.dumps([made[name].generate_prompt(row), verdict]) + "\n")
        out.flush()
