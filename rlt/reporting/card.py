"""README.md of a run directory: a model card with the facts of the run. Valid as a card on the Hub.

States only what the run recorded. Holds no secret and no home path: it is the file that gets published.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from rlt.config.files import LAYOUT_FILE
from rlt.config.schema import LIKELIHOOD, OWN_STUDENTS
from rlt.data.model_layout import read_layout
from rlt.data.own_layout import described
from rlt.data.owners import STUDENT
from rlt.io import NO_INPUT, Input, file_digest, write_text
from rlt.rundir.metrics import NAME as METRICS_NAME
from rlt.rundir.metrics import MetricsRow, read_metrics, series
from rlt.rundir.run_json import RunJson
from rlt.rundir.run_record import read_run
from rlt.text import markdown, redact, without_private_paths

NAME = "README.md"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WHAT = {
    "teacher_sft": "a teacher after its warm-up: it reads a question **and its solution** and writes an "
    "explanation that leads from one to the other. It is the starting point of the reinforcement learning.",
    "student_sft": "a student: a model that thinks first and answers then, fine-tuned on explanations as its "
    "own thoughts.",
    "student_rl": "a student: a model that thinks first and answers then. Reinforcement learning paid it for "
    "right answers, as a grader judges them.",
    "student_opd": "a student: a model that thinks first and answers then. It learned on completions of "
    "its own from a teacher that had read the solution and gave each of their tokens its probability.",
    "teacher_rl": "a Reinforcement-Learned Teacher: it reads a question **and its solution** and writes an "
    "explanation. It was rewarded for how likely a frozen student then finds the solution, minus how "
    "unnatural the student finds the explanation.",
}
_RECIPE_KEYS = (
    "recipe",
    "student_model",
    "teacher_model",
    "learning_rate",
    "train_batch_size",
    "num_generations",
    "temperature",
    "max_prompt_length",
    "max_completion_length",
    "answer_log_prob_coeff",
    "kl_penalty_reward_coeff",
    "seed",
)
_BY_LIKELIHOOD = (
    "a student: a model that thinks first and answers then. Reinforcement learning paid it for thoughts "
    "after which the known solution is likely (`correctness`)."
)
_OF_EXPLANATIONS = ("student_model", "answer_log_prob_coeff", "kl_penalty_reward_coeff")
"""Those of a reward that student_rl does not have."""
_OPD_KEYS = (
    *("teacher", "solution_in", "support", "divergence", "js_share", "top_k", "temperature", "ema_share"),
    *("ema_steps", "answer_coeff"),
)
_METRICS = (
    "reward",
    "correct",
    "well_formed",
    "reverse_kl",
    "divergence",
    "answer_loss",
    "r_ss",
    "r_kl",
    "missing_tag",
    "explanation_tokens",
    "kl",
    "drift/max",
    "loss",
    "mean_token_accuracy",
)
SavedConfig = dict[str, Any]
"""A part of config.yaml, as YAML gives it."""


def write_card(run_dir: str | Path, *, license_id: str | None = None) -> Path:
    """Return the path of README.md, written from config.yaml, run.json and metrics.jsonl.

    `license_id` is the Hub's identifier of the weights' licence; without it the card says where to look.
    """
    run_dir = Path(run_dir)
    run = read_run(run_dir)
    config_path = run_dir / "config.yaml"
    config = yaml.safe_load(config_path.read_text(encoding="utf-8")) if config_path.exists() else {}
    metrics_path = run_dir / METRICS_NAME
    rows = read_metrics(metrics_path) if metrics_path.exists() else []
    header = yaml.safe_dump(front_matter(run, license_id), sort_keys=False, allow_unicode=True)
    body = "\n\n".join(
        part
        for part in (
            _introduction(run_dir, run, config or {}),
            facts_section(config or {}, run),
            prompts_section(run, run_dir / LAYOUT_FILE),
            _trained_on(run),
            _results(rows, run),
            command_section(run),
            versions_section(run),
            _licence(run, license_id),
        )
        if part
    )
    return write_text(run_dir / NAME, f"---\n{header}---\n\n{without_private_paths(redact(body))}\n")


def front_matter(run: RunJson, license_id: str | None = None) -> dict[str, Any]:
    """Return the card's metadata. Base model and data are there only when they are on the Hub."""
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["rlt", "reinforcement-learned-teacher", str(run.get("stage", "")).replace("_", "-")],
    }
    inputs = run.get("inputs", {})
    if base := hub_base(inputs.get("model", NO_INPUT)):
        fields["base_model"] = base
    if data := hub_base(inputs.get("dataset", NO_INPUT), "dataset"):
        fields["datasets"] = [data]
    if license_id:
        fields["license"] = license_id
    return fields


def hub_name(described: Input) -> str | None:
    """Return the Hub name of an input as run.json describes it, or None for files and folders."""
    name = str(described.get("hub") or "")
    return name if _HUB_NAME.fullmatch(name) else None


def hub_base(described: Input, role: str = "model") -> str | None:
    """Return the Hub name behind an input: its own, or what our earlier run that wrote it began with."""
    for _ in range(8):
        file = described.get("file")
        folder = described.get("folder") or (file and Path(file).parent)
        if not folder or not (Path(folder) / "run.json").is_file():
            return hub_name(described)
        described = read_run(folder).get("inputs", {}).get(role, NO_INPUT)
    return None


def _introduction(run_dir: Path, run: RunJson, config: SavedConfig) -> str:
    stage = str(run.get("stage"))
    what = _WHAT.get(stage, f"the outcome of the stage `{stage}`.")
    if stage == "student_rl" and _pays_likelihood(config):
        what = _BY_LIKELIHOOD
    text = f"# {run_dir.resolve().name}\n\nThis is {what}\nTrained with the Python package `rlt`."
    if warning := moving_student(config):
        text += f"\n\n{warning}"
    if run.get("status") != "finished":
        text += f"\n\n**The run has not finished: its status is {run.get('status')}.**"
    return text


def moving_student(config: SavedConfig) -> str | None:
    """Return that the student of a run moved while it judged; None where it was frozen, or nobody judged."""
    student, every = config.get("student_model"), (config.get("trainer") or {}).get("ref_sync_steps")
    judges = config.get("stage") == "teacher_rl" or _pays_likelihood(config)
    if not judges or student not in OWN_STUDENTS or (student == "reference" and not every):
        return None
    which, when = "the trained model itself", "with every step"
    if student == "reference":
        which, when = "the reference model", "with every step" if every == 1 else f"every {every} steps"
    return (
        f"The student that paid was {which} (`student_model={student}`), which moved {when}: rewards of "
        "different steps, and of this run and others, are of different students and cannot be compared."
    )


def _pays_likelihood(config: SavedConfig) -> bool:
    """Whether a student_rl run has paid for the solution's likelihood."""
    correctness = config.get("correctness") or {}
    is_grader = correctness.get("grader") == LIKELIHOOD or bool(correctness.get("likelihood_weight"))
    return config.get("stage") == "student_rl" and is_grader


def facts_section(config: SavedConfig, run: RunJson, title: str = "Recipe") -> str:
    """Return the run's inputs and the settings among `config` that make a recipe."""
    inputs = run.get("inputs", {})
    facts = [(role.replace("_", " "), in_words(described)) for role, described in inputs.items()]
    stage = run.get("stage")
    pays_answers, is_judged = stage == "student_rl", stage == "student_opd"
    hidden = ("kl_penalty_reward_coeff",) if _pays_likelihood(config) else _OF_EXPLANATIONS
    keys = [key for key in _RECIPE_KEYS if not ((pays_answers or is_judged) and key in hidden)]
    facts += [(f"`{key}`", f"`{config[key]}`") for key in keys if config.get(key) is not None]
    if pays_answers:
        facts += [(f"`correctness.{k}`", f"`{v}`") for k, v in (config.get("correctness") or {}).items()]
    if is_judged:
        opd = config.get("opd") or {}
        facts += [(f"`opd.{key}`", f"`{opd[key]}`") for key in _OPD_KEYS if opd.get(key) is not None]
    trainer = config.get("trainer") or {}
    facts += [
        (f"`trainer.{key}`", f"`{trainer[key]}`")
        for key in ("beta", "max_steps", "num_train_epochs")
        if trainer.get(key) is not None
    ]
    return f"## {title}\n\n" + markdown_table(("setting", "value"), facts) if facts else ""


def prompts_section(run: RunJson, layout: Path | None = None) -> str:
    """Return which prompts a run has really used and whose they are, with hashes.

    `layout` is the file of the model that it has trained, which knows the one text that all rows had.
    """
    used = {setting: dict(prompt) for setting, prompt in run.get("prompts", {}).items()}
    stored = read_layout(layout.parent) if layout is not None else None
    if stored is not None and stored.student_prompt_from_dataset and STUDENT in used:
        text = stored.student_prompt
        used[STUDENT] |= {"is": stored.note} if text is None else {**described(text), "is": "of all rows"}
    rows = [
        (f"`{setting}`", prompt["begins"], f"`{prompt['sha256']}`" if prompt["sha256"] else "", prompt["is"])
        for setting, prompt in used.items()
    ]
    if stored is not None and layout is not None:
        rows.append((f"`{layout.name}`", "the whole file", f"`{file_digest(layout)}`", "of this model"))
    return "## Prompts\n\n" + markdown_table(("prompt", "begins", "sha256", "whose"), rows) if rows else ""


def _trained_on(run: RunJson) -> str:
    """Return the section about the traces of a student: whose, how many, how long, and where it stops."""
    counts = run.get("trained_on")
    if not counts:
        return ""
    data = run.get("inputs", {}).get("dataset", NO_INPUT)
    teachers = ", ".join(f"{name} ({count:,})" for name, count in counts["teachers"].items())
    facts = [
        ("traces", f"{counts['traces']:,} from {in_words(data)}"),
        ("written by", teachers or "not recorded in the data"),
        (
            "skipped",
            f"{run.get('skipped', 0):,} (see skipped_rows.jsonl), {counts['not_selected']:,} not selected",
        ),
        ("malformed", f"{counts['malformed']:,}"),
        ("tokens", f"{counts['tokens']:,} an epoch, {counts['tokens_in_the_loss']:,} of them in the loss"),
        ("its turn ends with", f"`{counts['turn_end']}`, in {counts['with_an_end']:,} of the traces"),
    ]
    return "## Trained on\n\n" + markdown_table(("", ""), facts)


def in_words(described: Input) -> str:
    """Return an input in words: a Hub name with its commit, or a local name with the start of its hash."""
    if name := described.get("hub"):
        commit = described.get("commit") or described.get("revision")
        return f"{name}" + (f" @ {commit[:12]}" if commit else "")
    place = Path(str(described.get("folder") or described.get("file")))
    return f"`{place.name}` (local, sha256 {str(described.get('sha256'))[:12]}…)"


def _results(rows: list[MetricsRow], run: RunJson) -> str:
    lines = []
    for key in _METRICS:
        for name, label in ((key, key), (f"eval_{key}", f"held out: {key}")):
            steps, values, _ = series(rows, name)
            if steps:
                lines.append((label, f"{values[0]:.4g}", f"{values[-1]:.4g}", str(steps[-1])))
    if not lines:
        return ""
    cost = f"\n\n{run['gpu_hours']:.2f} GPU hours." if run.get("gpu_hours") else ""
    return "## Metrics\n\n" + markdown_table(("metric", "first", "last", "at step"), lines) + cost


def command_section(run: RunJson) -> str:
    """Return what was typed, at which commit."""
    code = run.get("code", {})
    lines = [f"git checkout {code['commit']}"] if code.get("commit") else []
    text = "\n".join([*lines, str(run.get("command"))])
    note = f"Processes: {run.get('processes')}. Seed: {run.get('seed')}."
    return f"## To run it again\n\n```\n{text}\n```\n\n{note}"


def versions_section(run: RunJson) -> str:
    """Return the versions that the run has recorded."""
    names = ", ".join(f"{name} {version}" for name, version in run.get("versions", {}).items())
    return f"## Versions\n\nrlt {run.get('code', {}).get('package')}, {names}." if names else ""


def _licence(run: RunJson, license_id: str | None) -> str:
    if license_id:
        return f"## Licence\n\nThese weights: {license_id}."
    base = hub_base(run.get("inputs", {}).get("model", NO_INPUT))
    named = f" ({base})" if base else ""
    return (
        f"## Licence\n\nThe weights fall under the terms of the model they were trained from{named} and of "
        "the training data; this card does not add or waive any."
    )


def markdown_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a section's table, without a line break at its end."""
    return markdown([head, *rows], padded=False).rstrip()
