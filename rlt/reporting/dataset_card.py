"""README.md of a run directory that holds traces: a dataset card. What holds for card.py holds here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rlt.data.kept import REPEATED
from rlt.io import write_text
from rlt.reporting.card import (
    NAME,
    SavedConfig,
    command_section,
    facts_section,
    hub_name,
    in_words,
    markdown_table,
    prompts_section,
    versions_section,
)
from rlt.rundir.run_json import RunJson
from rlt.rundir.run_record import read_run
from rlt.text import redact, without_private_paths

OVERLAP_FILE = "overlap.jsonl"
"""In a run directory: the rows that share text with a benchmark, or repeat another."""


def write_traces_card(run_dir: str | Path) -> Path:
    """Return the path of README.md for a run that collected traces, with their origin."""
    run_dir = Path(run_dir)
    run, config = read_run(run_dir), _config(run_dir)
    results, generation, collect = run["results"], config["generation"], config["collect"]
    introduction = (
        f"{results['explanations']} explanations of {results['problems']} problems, written by a teacher "
        "that had read each problem **and its solution**. They are the raw samples: none is skipped, and "
        "`well_formed` and `why` mark those that are cut, empty or without their closing tag. `messages` "
        "holds each as a chat to train a student on."
    )
    counts = [("well formed", results["well_formed"]), *results["malformed"].items()]
    counts += [(name, results[name]) for name in ("truncated", "tokens", "mean_tokens")]
    counts.append(("rows skipped (too long or bad)", run["skipped"]))
    sampling = {
        **{key: config[key] for key in ("temperature", "max_prompt_length", "max_completion_length", "seed")},
        **{key: collect[key] for key in ("num_samples", "first_sample_index")},
        **{key: generation[key] for key in ("backend", "top_p", "top_k", "min_p", "repetition_penalty")},
        "stop_at_tag": generation["stop_at_tag"],
    }
    settings = [(f"`{key}`", f"`{value}`") for key, value in sampling.items()]
    sections = (
        "## Counts\n\n" + markdown_table(("what", "number"), [(name, str(n)) for name, n in counts]),
        _overlap_section(run_dir, config["data"]),
        facts_section({}, run, title="Sources"),
        prompts_section(run),
        _teacher_run(run),
        "## Sampling\n\n" + markdown_table(("setting", "value"), settings),
    )
    return _write(run_dir, run, "traces.parquet", introduction, sections, "their source and of the teacher")


def write_scores_card(run_dir: str | Path) -> Path:
    """Return the path of README.md for a run that scored traces, with the table by rank."""
    run_dir = Path(run_dir)
    run, config = read_run(run_dir), _config(run_dir)
    results = run["results"]
    facts = {key: config[key] for key in ("answer_log_prob_coeff", "kl_penalty_reward_coeff", "temperature")}
    introduction = (
        f"{results['traces']} explanations of {results['problems']} problems, {results['scored']} of them "
        "with a score: how likely a frozen student finds the solution after the explanation, minus how "
        "unnatural it finds the explanation. `rank` orders those of one problem, `selected` marks the best."
    )
    table = (run_dir / "ranks.md").read_text(encoding="utf-8").strip()
    sections = (f"## By rank\n\n{table}", facts_section(facts, run), prompts_section(run))
    return _write(run_dir, run, "scores.parquet", introduction, sections)


def write_selection_card(run_dir: str | Path) -> Path:
    """Return the path of README.md for a run that selected traces, with selection.md."""
    run_dir = Path(run_dir)
    run, config = read_run(run_dir), _config(run_dir)
    introduction = (
        "Explanations of problems with known solutions. Train on the rows whose `selected` is true: "
        "`messages` holds them as a student's own thought before the solution. The others are kept, and "
        "`dropped.jsonl` says why each was skipped."
    )
    report = (run_dir / "selection.md").read_text(encoding="utf-8").strip()
    facts = [(role, in_words(described)) for role, described in run["inputs"].items()]
    facts += [(f"`select.{key}`", f"`{value}`") for key, value in config["select"].items() if value]
    facts.append(("`seed`", f"`{config['seed']}`"))
    sections = (
        f"#{report}",  # one heading below the card's own
        "## Provenance\n\n" + markdown_table(("what", "value"), facts),
        prompts_section(run),
    )
    return _write(run_dir, run, "traces.parquet", introduction, sections)


def _write(
    run_dir: Path,
    run: RunJson,
    data_file: str,
    introduction: str,
    sections: tuple[str, ...],
    terms: str = "their source",
) -> Path:
    """Return the path of README.md: what the data is, its own sections, and what every card ends with."""
    fields: dict[str, Any] = {
        "tags": ["rlt", "reasoning-traces"],
        "configs": [{"config_name": "default", "data_files": data_file}],
    }
    if data := hub_name(run["inputs"]["dataset"]):
        fields["source_datasets"] = [data]
    header = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    parts = (
        f"# {run_dir.resolve().name}\n\n{introduction}\n\nMade with the Python package `rlt`.",
        *sections,
        command_section(run),
        versions_section(run),
        f"## Licence\n\nThe texts fall under the terms of {terms}; this card does not waive any.",
    )
    body = "\n\n".join(part for part in parts if part)
    return write_text(run_dir / NAME, f"---\n{header}---\n\n{without_private_paths(redact(body))}\n")


def _overlap_section(run_dir: Path, data: SavedConfig) -> str:
    """Return what was compared with what, and how many rows share text; empty where nothing was."""
    path = run_dir / OVERLAP_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return overlap_text([json.loads(line)["set"] for line in lines], data)


def overlap_text(found: Sequence[str], data: Mapping[str, Any], title: str = "## Overlap") -> str:
    """Return a section on rows that share text: `found` has the set of each, `data` are the settings."""
    fates = {"drop": "skipped", "report": "kept"}
    sets = [(name, data["on_contaminated"]) for name in data["decontaminate"]]
    if data["deduplicate"] != "off":
        sets.append((REPEATED, data["deduplicate"]))
    if not sets:
        return ""
    rows = [(Path(name).name, str(found.count(name)), fates[mode]) for name, mode in sets]
    return (
        f"{title}\n\nRows whose question or solution shares 13 words in sequence with a question of these "
        "sets, or whose question is one of theirs; repeated rows say the same as an earlier one.\n\n"
        + markdown_table(("compared with", "rows", "they were"), rows)
    )


def _config(run_dir: Path) -> SavedConfig:
    return yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))


def _teacher_run(run: RunJson) -> str:
    """Return where the teacher comes from, if a run of this project has written it."""
    folder = run["inputs"]["teacher"].get("folder")
    if not folder or not (Path(folder) / "run.json").is_file():
        return ""
    made = read_run(folder)
    facts = [("stage", f"`{made.get('stage')}`"), ("ended", str(made.get("ended")))]
    facts += [("commit", str(made["code"]["commit"]))] if made.get("code", {}).get("commit") else []
    facts += [(role.replace("_", " "), in_words(of)) for role, of in made.get("inputs", {}).items()]
    return "## The teacher's own run\n\n" + markdown_table(("what", "value"), facts)
