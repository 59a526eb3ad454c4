"""Parts of SakanaAI/RLT as they are in a checkout, for tests that compare with them; nothing is copied.

Its packages import vLLM, Ray and more, so single modules are loaded, and of the trainer one class.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Sized
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch.utils.data import Sampler

STRATOS = "bespokelabs/Bespoke-Stratos-17k"


def load_module(original: Path, package: str, name: str) -> ModuleType:
    """Return one module of a package, without running the package's own file."""
    prefix = f"sakana_rlt_{package}"
    if prefix not in sys.modules:
        sys.modules[prefix] = ModuleType(prefix)
        sys.modules[prefix].__path__ = [str(original / package)]
    full = f"{prefix}.{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, original / package / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[full]


def line_processor(original: Path) -> Any:
    """Return its function from (row of Bespoke-Stratos, tokenizer) to a row of training."""
    return load_module(original, "custom_data", "teacher_data").get_process_line_fn(STRATOS)


def student_chats(original: Path, tokenizer: Any, rows: list[dict[str, Any]], completions: list[str]) -> Any:
    """Return what its reward makes of processed rows: chats, match rewards, completions, and three spans."""
    reward_class = load_module(original, "trainers", "teacher_rewards").TeacherKLBasedReward
    reward = SimpleNamespace(tokenizer=tokenizer, not_matched_penalty=-1.0)
    names = (
        *("student_system_prompts", "questions", "solutions", "start_think_teacher_tags"),
        *("end_think_teacher_tags", "start_think_student_tags", "end_think_student_tags"),
        *("start_solution_tags", "end_solution_tags", "think_prefixes", "think_solution_delimiters"),
    )
    columns = {name: [row[name] for row in rows] for name in names}
    return reward_class.get_student_chats_and_relevant_num_tokens(reward, completions=completions, **columns)


def repeat_sampler(original: Path) -> Any:
    """Return the class of its trainer's sampler."""
    path = original / "trainers" / "grpo.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (found,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "RepeatRandomSampler")
    names = {"Sampler": Sampler, "Sized": Sized, "Optional": __import__("typing").Optional, "torch": torch}
    exec(compile(ast.Module([found], []), str(path), "exec"), names)
    return names["RepeatRandomSampler"]
