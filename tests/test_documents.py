"""README and docs/ against the code: links, named files, quoted errors, files, fields and packages."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from test_structure import LAYERS

from rlt import errors
from rlt.generation.log_remedies import remedy_of
from rlt.traces.table import COLUMNS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(DOCS.glob("*.md"))
SOURCES = sorted((ROOT / "rlt").rglob("*.py"))
README_LINES = 150

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def without_code(text: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Yield the relative links of a page that lead nowhere."""
    for target in re.findall(r"\]\(([^)\s]+)\)|src(?:set)?=\"([^\"]+)\"", without_code(text)):
        link = "".join(target)
        if re.match(r"https?://|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists():
            yield f"{link}: no such file"
        elif anchor and anchor not in anchors(path):
            yield f"{link}: no such heading"


@pages
def test_links_lead_somewhere(page):
    assert list(broken_links(page, page.read_text(encoding="utf-8"))) == []


def test_a_broken_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One thing: `x`\n\n# One thing: `x`\n")
    text = "[a](#one-thing-x-1) [b](#two) [c](none.md) [d](https://x.y) [e](page.md#one-thing-x)"
    assert list(broken_links(page, text)) == ["#two: no such heading", "none.md: no such file"]


_IN_THE_REPOSITORY = re.compile(r"`((?:rlt|tests|scripts|cfgs|docs)/[\w./-]*)`")


@pages
def test_named_files_exist(page):
    named = set(_IN_THE_REPOSITORY.findall(page.read_text(encoding="utf-8")))
    named = {name for name in named if "NAME" not in name}
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_every_page_can_be_reached_from_the_front_page():
    linked = {name for page in PAGES for name in re.findall(r"\]\((?:docs/)?([\w-]+\.md)", page.read_text())}
    assert {page.name for page in DOCS.glob("*.md")} - linked == set()


# ---- troubleshooting --------------------------------------------------------------------------------


def literal(node: ast.AST) -> str:
    """Return a string as it is written in the source, with … for every value in it; empty for other nodes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(value) if isinstance(value, ast.Constant) else "…" for value in node.values)
    return ""


@cache
def nodes_of() -> dict[Path, list[ast.AST]]:
    """Return the syntax of every file of the package, node by node."""
    return {path: list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))) for path in SOURCES}


@cache
def sentences() -> tuple[str, ...]:
    """Return every string of the package; %s and the like are values, too."""
    found = {literal(node) for nodes in nodes_of().values() for node in nodes}
    return tuple(re.sub(r"%(\.\d)?[sdfgr]", "…", text) for text in found if len(text) > 5)


def quoted(heading: str | None = None) -> list[str]:
    """Return the messages that the tables of troubleshooting.md quote, of one section or of all others."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    before, _, libraries = text.partition("## What libraries say")
    return re.findall(r"^\| `` (.+?) `` \|", libraries if heading == "libraries" else before, re.MULTILINE)


def is_said(message: str) -> bool:
    """Return whether some string of the package holds a quoted message, its fixed parts in their order."""
    first, *rest = [part for part in re.split(r"\s*…\s*", message) if part]
    for sentence in sentences():
        place = sentence.find(first)
        for part in rest:
            place = sentence.find(part, place) if place >= 0 else -1
        if place >= 0:
            return True
    return False


def test_quoted_errors_are_ours():
    messages = quoted()
    assert len(messages) >= 40
    assert [message for message in messages if not is_said(message)] == []


def test_a_message_that_nothing_says_is_seen():
    assert is_said("`temperature` must be greater than 0 in …")
    assert not is_said("`temperature` must be greater than 7 in …")


def test_quoted_messages_of_libraries_have_a_remedy():
    messages = quoted("libraries")
    assert len(messages) >= 10
    assert [message for message in messages if remedy_of(message) is None] == []


def test_exit_codes_are_those_of_the_errors():
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8").partition("## Settings")[0]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    used = {value.exit_code for value in vars(errors).values() if hasattr(value, "exit_code")}
    assert listed == used | {0}


# ---- lists that would go stale ----------------------------------------------------------------------

OF_MODELS = {
    *(
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "adapter_config.json",
    ),
    *("model.safetensors.index.json", "dataset_dict.json", "state.json", "dataset_info.json", "params.json"),
}
"""Files of libraries."""
OF_OTHERS = {
    *("all_results.json", "train_results.json"),  # of transformers' example scripts
    *("made_of.json", "scaled_head.json", "rlt_layout.json"),  # inside of a model's folder
    *("my.jsonl", "traces.json"),  # in sentences
}


def written_names() -> set[str]:
    """Return what looks like the name of a file of ours in the package's strings."""
    looks = re.compile(r"[a-z_]+\.(jsonl?|md|html|png|parquet)")
    return {
        node.value
        for nodes in nodes_of().values()
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and looks.fullmatch(node.value)
    }


def test_every_file_of_a_run_is_listed():
    page = (DOCS / "run_directory.md").read_text(encoding="utf-8")
    missing = {name for name in written_names() - OF_MODELS - OF_OTHERS if name not in page}
    assert missing == set()


def run_fields() -> set[str]:
    """Return the fields of run.json: those at its start, and what stages add by `record.update`."""
    found: set[str] = set()
    for path, nodes in nodes_of().items():
        for node in nodes:
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "record.update",
                "self.record.update",
            ):
                found |= {word.arg for word in node.keywords if word.arg}
            if path.name == "run_record.py" and isinstance(node, ast.Assign):
                is_start = ast.unparse(node.targets[0]) == "fields" and isinstance(node.value, ast.Dict)
                found |= {ast.literal_eval(key) for key in node.value.keys} if is_start else set()
    return found


def test_every_field_of_run_json_is_listed():
    fields = run_fields()
    assert {"stage", "first_check", "seconds_by_phase", "problems"} <= fields
    page = (DOCS / "run_directory.md").read_text(encoding="utf-8").partition("## run.json")[2]
    assert {field for field in fields if f"`{field}`" not in page} == set()


RECORDS = (
    *("rlt.data.kept:BadRow", "rlt.data.kept:Overlap", "rlt.data.model_layout:ModelLayout"),
    *("rlt.evaluation.verdicts:Verdict", "rlt.pipeline.run:Outcome"),
    *("rlt.real_model.sizes:Sizes", "rlt.real_model.calls:Call"),
    *("rlt.traces.budget:Plan", "rlt.traces.budget:Unserved", "rlt.traces.rank:Bucket"),
)
"""Records that are written to files field by field."""


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_of_a_written_record_is_listed(record):
    module, _, name = record.partition(":")
    fields = {field.name for field in dataclasses.fields(getattr(import_module(module), name))}
    page = (DOCS / "run_directory.md").read_text(encoding="utf-8")
    assert {field for field in fields if f"`{field}`" not in page} == set()


def test_every_column_of_traces_is_listed():
    page = (DOCS / "run_directory.md").read_text(encoding="utf-8").partition("## Traces")[2]
    assert {column for column in COLUMNS if f"`{column}`" not in page} == set()


def test_every_package_stands_in_the_table_of_layers():
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    packages = {name for layer in LAYERS for name in layer}
    assert {name for name in packages if f"`{name}`" not in page} == set()


def test_every_recipe_stands_on_the_front_page():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    run_files = {path.stem for path in (ROOT / "cfgs" / "run_cfg").glob("*.yaml")}
    of_the_toy_world = {name for name in run_files if name.startswith(("quickstart_", "claims_"))}
    other_names = {"teacher_rlt", "ablation_no_kl", "ablation_no_min_max"}
    other_names |= {"real_model", "real_model_measures", "real_model_three_ways"}  # docs/real_model.md
    assert {name for name in run_files - of_the_toy_world - other_names if f"`{name}`" not in page} == set()


def test_the_picture_is_drawn_by_its_script():
    drawn = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "draw_overview.py"), "/dev/stdout"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert drawn == (DOCS / "overview.svg").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in drawn
    assert not re.search(r"(?:href|src|url)\s*[=(]\s*[\"']?https?:", drawn)  # nothing is fetched


def test_types_are_packaged():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["rlt"]
    assert (ROOT / "rlt" / "py.typed").is_file()


def test_repository_files_are_well_formed():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert citation["version"] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands == ["./scripts/test.sh", "./scripts/test.sh fast"]
