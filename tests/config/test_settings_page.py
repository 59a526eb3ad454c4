"""docs/settings.md is the schema, in Markdown."""

from pathlib import Path

from rlt.config.reference import reference
from rlt.config.tree import record_of, rows

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_current():
    remedy = "write it with: python -m rlt.config.reference > docs/settings.md"
    assert PAGE.read_text(encoding="utf-8") == reference(), remedy


def test_every_setting_has_one_row():
    named = [line.split("`")[1] for line in reference().splitlines() if line.startswith("| `")]
    of_entries = [name for row in rows().values() if (record := record_of(row.type)) for name in rows(record)]
    settings = [name for name, row in rows().items() if row.section is None]
    assert sorted(named) == sorted([*settings, *of_entries])
    assert {"path", "temperature", "num_problems"} <= set(of_entries)


def test_rows_by_hand():
    """Bounds, choices, the type, a default that is a list, and who reads a setting, read off the schema."""
    page = reference()
    assert (
        "| `seed` | a whole number | `42` | seed of everything random; >= 0; < 4294967296 | "
        "TS TR CT SS SR SO IN SE EV PI |" in page
    )
    assert "| `collect.push_to_hub` | a text or null | `null` |" in page
    assert "| `data.on_bad_row` | a text | `error` |" in page
    assert "one of `error`, `skip` |" in page
    assert "| `answer_log_prob_coeff` | a list of numbers | `[1.0,0.01]` |" in page
    assert "| `model_name_or_path` | a text or null | required |" in page
