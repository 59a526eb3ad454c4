"""The reference of all settings as Markdown: `python -m rlt.config.reference > docs/settings.md`.

Made from the schema and the stage table alone, like the help pages (explain.py), so it cannot differ from
what a run accepts. tests/config/test_settings_page.py compares the file with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from inspect import cleandoc

from rlt.config.stages import STAGES
from rlt.config.tree import Row, record_of, rows
from rlt.text import markdown

_HEAD = """\
# Settings

Every setting with its type, default, bounds and the stages that read it. This page is generated from
`rlt/config/schema/` by `python -m rlt.config.reference`; edit the schema, not the page.

- On the command line: `KEY=VALUE`, for example `trainer.save_steps=50` or `reward.answer_clip=[-20,0]`.
- In a run file: nested YAML (`trainer: {{save_steps: 50}}`); the sections below are the first level.
- `python train.py --explain NAME` prints one setting, one section, or all settings of one stage.
- A setting that the stage does not read is an error, and so are unknown names.
- Defaults are those of the schema. Run files and recipes override many of them:
  `python train.py run_cfg=teacher_rl --cfg` prints the values that a run would use.

Stages are abbreviated: {stages}.
"""
_SHORT = {
    "teacher_sft": "TS",
    "teacher_rl": "TR",
    "collect_traces": "CT",
    "student_sft": "SS",
    "student_rl": "SR",
    "student_opd": "SO",
    "infer": "IN",
    "score_traces": "SC",
    "show_traces": "SH",
    "select_traces": "SE",
    "plan_traces": "PT",
    "make_countdown": "MC",
    "evaluate": "EV",
    "pipeline": "PI",
}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def reference() -> str:
    """Return the whole page."""
    named = ", ".join(f"{_SHORT[name]} {name}" for name in STAGES if name in _SHORT)
    return "\n".join([_HEAD.format(stages=named), *_sections()]) + "\n"


def _sections() -> Iterator[str]:
    table = rows()
    yield "## At the root\n"
    yield _table(row for name, row in table.items() if "." not in name and not row.section)
    for name, row in table.items():
        if row.section is not None:
            yield _head(name, row.section)
            yield _table(r for n, r in table.items() if n.rpartition(".")[0] == name and not r.section)
    for name, row in table.items():
        if record := record_of(row.type):
            yield _head(name, record)
            yield f"Fields of each entry of the list `{name}`.\n"
            yield _table(rows(record).values(), read_as=name)


def _head(name: str, record: type) -> str:
    return f"\n## {name}\n\n{' '.join(cleandoc(record.__doc__ or '').split())}\n"


def _table(settings: Iterable[Row], read_as: str | None = None) -> str:
    head = ["setting", "type", "default", "meaning", "stages"]
    return markdown([head, *(_cells(row, read_as or row.name) for row in settings)], padded=False).rstrip()


def _cells(row: Row, read_as: str) -> list[str]:
    """Return the row of a table; `read_as` is the setting that stages read it by."""
    default = "required" if row.default == "???" else f"`{_value(row.default)}`"
    rules = [f"{_SIGNS[name]} {bound:.12g}" for name, bound in row.bounds.items()]
    if row.choices:
        rules = [f"one of `{'`, `'.join(row.choices)}`"]
    meaning = "; ".join([row.doc, *rules])
    return [f"`{row.name}`", row.type_name, default, meaning, _stages(read_as)]


def _value(value: object) -> str:
    """Return a default as it is typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if value == "":
        return '""'
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value)


def _stages(name: str) -> str:
    reading = [stage for stage, record in STAGES.items() if record.reads(name)]
    return "all" if len(reading) == len(STAGES) else " ".join(_SHORT.get(stage, stage) for stage in reading)


if __name__ == "__main__":
    sys.stdout.write(reference())
