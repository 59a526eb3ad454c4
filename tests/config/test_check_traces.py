"""What select_traces and plan_traces ask of a configuration."""

import shutil

import pytest

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.validate import validate
from rlt.errors import ConfigError


@pytest.fixture
def select(place) -> list[str]:
    return ["run_cfg=select_traces", "dataset_id_or_path=rows.jsonl"]


@pytest.fixture
def plan(place) -> list[str]:
    return ["run_cfg=plan_traces", "dataset_id_or_path=rows.jsonl", "student_model=student"]


def test_traces_are_enough_to_select_and_a_tokenizer_to_plan(place, select, plan):
    validate(resolve(compose(select)), num_processes=3)
    (place / "tokenizer").mkdir()
    (place / "tokenizer" / "tokenizer.json").write_text("{}")
    shutil.copy(place / "rows.jsonl", place / "again.jsonl")
    words = ["student_model=tokenizer", "traces.more=[again.jsonl]", "plan.cutoffs=[]"]
    validate(resolve(compose([*plan, *words])))
    validate(resolve(compose([*select, "+data.columns.explanations=completions"])))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("model_name_or_path=model", "has no effect in select_traces: remove it"),
        ("resume_from=latest", "`resume_from` on the command line has no effect in select_traces"),
        ("+trainer_args.optim=adamw_torch", "`trainer_args.optim` on the command line has no effect"),
        ("data.on_long_row=truncate", "traces that are too long are marked, and kept"),
        ("select.rule=longest", "`select.rule` must be one of none, first, best, shortest, random, rank"),
        ("select.rule=shortest", "give select.max_length"),
        ("select.max_length=100", "counts the student's tokens: give student_model"),
        ("select.max_length=0", "`select.max_length` must be greater than 0"),
        (
            "select.rank_bucket=[1,2]",
            "has no effect with select.rule=none: remove it, or",
        ),
        ("select.rule=rank", "must be [first,last] for select.rule=rank, ranks counted from 1, got []"),
        ("traces.more=[nowhere.jsonl]", "`traces.more=nowhere.jsonl` does not exist"),
        ("traces.more=[rows.jsonl]", "`traces.more` names rows.jsonl again"),
        ("traces.more=[' ']", "`traces.more` must name files, got ' '"),
        (
            "select.rank_bucket=[a]",
            "`select.rank_bucket` on the command line must be a list of whole numbers",
        ),
        ("output_dir=.", "`output_dir=.` is the folder of dataset_id_or_path=rows.jsonl"),
    ],
)
def test_rules_of_a_selection(select, word, expected):
    refused([*select, word], expected)


@pytest.mark.parametrize("bucket", ["[0,1]", "[2,1]", "[1]", "[1,2,3]"])
def test_rules_of_a_rank_bucket(select, bucket):
    refused([*select, "select.rule=rank", f"select.rank_bucket={bucket}"], "must be [first,last]")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("student_model=null", "`student_model` is empty, but plan_traces counts its tokens"),
        ("student_model=.", "is a folder without config.json or tokenizer.json"),
        ("plan.max_length=0", "`plan.max_length` must be greater than 0"),
        ("plan.cutoffs=[4096,0]", "`plan.cutoffs` must hold numbers of tokens from 1 on, got 0"),
    ],
)
def test_rules_of_a_plan(plan, word, expected):
    refused([*plan, word], expected)


def refused(words: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(resolve(compose(words)))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
