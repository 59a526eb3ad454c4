"""The help pages, generated from the schema: what can be typed, and what it means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from inspect import cleandoc

from rlt.config.old_words import new_name
from rlt.config.overrides import CONFIG_DIR, groups, unknown_run_file
from rlt.config.stages import STAGES
from rlt.config.tree import Row, rows
from rlt.config.unknown import unknown_key
from rlt.config.yaml_files import stage_of_run_file
from rlt.errors import ConfigError

USAGE = """\
usage: python train.py run_cfg=NAME [KEY=VALUE ...] [options]

  run_cfg=NAME|PATH      the run file: {run_files}
  recipe=released|modern which preset of numbers the run file loads
  GROUP=NAME             another file of a group: {groups}
  --config-dir DIR       a folder of your own with run_cfg/NAME.yaml, searched before cfgs/
  --dry-run              print the configuration; check it, tokenizers and rows; write nothing
  --cfg [--package KEY]  print the composed configuration, or one part of it
  --explain SECTION      the settings of a section: {sections}
  --explain STAGE        the settings that a stage, or run_cfg=NAME, reads: {stages}
  --help                 this page
"""


def help_page() -> str:
    """Return the answer to `--help`: usage and the root settings."""
    table = rows()
    known = groups([CONFIG_DIR])
    run_files = ", ".join(known.pop("run_cfg", []))
    sections = ", ".join(name for name, row in table.items() if row.section)
    usage = USAGE.format(
        run_files=run_files, groups=", ".join(known), sections=sections, stages=", ".join(STAGES)
    )
    settings = (row for name, row in table.items() if "." not in name and not row.section)
    return f"{usage}\nsettings:\n{_table(settings)}"


def explain(name: str) -> str:
    """Return the settings of a section, of a stage or its run file, or one setting: default, bounds, meaning.

    Where a section has the name of a stage (evaluate, infer, pipeline), the section comes first.
    """
    table, name = rows(), new_name(name)
    run_file = name.removeprefix("run_cfg=")
    if run_file != name or name.endswith(".yaml"):
        stage = stage_of_run_file(run_file, [CONFIG_DIR])
        if stage not in STAGES:
            raise unknown_run_file(run_file, [CONFIG_DIR])
        return _explain_stage(stage)
    if name in STAGES and name not in table:
        return _explain_stage(name)
    if name not in table:
        raise unknown_key(name, "after --explain", sections=True)
    row = table[name]
    below = [r for n, r in table.items() if n.startswith(f"{name}.") and not r.section]
    if row.section is None:
        return _table([row])
    if not below:
        raise ConfigError(f"`{name}` has no settings.")
    page = f"{cleandoc(row.section.__doc__ or '')}\n\n{_table(below)}"
    return f"{page}\n{_explain_stage(name, without=name)}" if name in STAGES else page


def _explain_stage(stage: str, without: str | None = None) -> str:
    """Return what a stage does, and the settings that it reads, but for a section that is shown already."""
    record = STAGES[stage]
    read = [row for name, row in rows().items() if not row.section and record.reads(name)]
    shown = (row for row in read if without is None or not row.name.startswith(f"{without}."))
    return f"The stage {stage} {record.about}. It reads:\n\n{_table(shown)}"


def _table(settings: Iterable[Row]) -> str:
    return "\n".join(_entry(row) for row in settings) + "\n"


def _entry(row: Row) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    rules = [f"{signs[name]} {bound:.12g}" for name, bound in row.bounds.items()]
    if row.choices:
        rules = [f"one of {', '.join(row.choices)}"]
    default = "null" if row.default is None else row.default
    about = "; ".join([row.doc, *rules]) + ("" if row.default == "???" else f" (default {default})")
    return textwrap.fill(about, 100, initial_indent=f"  {row.name:<30} ", subsequent_indent=" " * 33)
