"""Whole sources: bad rows, missing traces, subsets, held-out problems, and the real samples."""

import json
import subprocess
import sys

import datasets
import pytest

from rlt.config.schema import Config, DataSettings, EvaluationSettings, SubsetSettings
from rlt.data.kept import BadRow
from rlt.data.load import count_overlap, load_eval_problems, load_problems
from rlt.errors import DataError
from rlt.formats.tags import TAG_STYLES

BESPOKE = TAG_STYLES["bespoke"]


def rows(n: int) -> list[dict]:
    return [
        {"question": f"{i}+1?", "solution": str(i + 1), "reasoning_trace": f"{i} and 1."} for i in range(n)
    ]


def load(source, need_trace: bool = True, **settings):
    return load_problems(DataSettings(**settings), str(source), BESPOKE, need_trace=need_trace)


# The real samples


def test_all_sky_t1_rows_parse(shared_data):
    path = shared_data / "traces_sky_t1_amc23.jsonl"
    loaded = load(path)
    raw = [json.loads(line) for line in path.open()]
    assert (loaded.total, len(loaded.values), loaded.skipped) == (283, 283, ())
    for problem, row in zip(loaded.values, raw, strict=True):
        assert problem.system == row["system"]
        assert problem.question == row["conversations"][0]["value"]
        assert problem.answer == row["answer"]
        assert problem.extra == {k: row[k] for k in ("correct", "prediction", "model", "problem_id")}
        reply = row["conversations"][1]["value"]
        assert f"{problem.reasoning_trace}" in reply.split("<|end_of_thought|>")[0]
        assert problem.solution in reply.split("<|begin_of_solution|>")[1]
    # `problem_id` names 40 questions; our id tells the 283 question-solution pairs apart
    assert len({problem.id for problem in loaded.values}) == 283


@pytest.mark.parametrize(
    ("name", "count"), [("gsm8k_train", 7473), ("gsm8k_test", 1319), ("traces_marco_o1", 123)]
)
def test_sample_files_with_traces(shared_data, name, count):
    loaded = load(shared_data / f"{name}.jsonl")
    assert (len(loaded.values), loaded.skipped) == (count, ())


def test_first_gsm8k_row(shared_data):
    problem = load(shared_data / "gsm8k_train.jsonl", subset=SubsetSettings(n=7473)).values[0]
    assert problem.question.startswith("Natalia sold clips to 48 of her friends")
    assert (problem.solution, problem.answer) == ("#### 72", "72")
    assert problem.reasoning_trace.endswith("altogether in April and May.")


def test_s1k_sample_keeps_its_other_columns(shared_data):
    loaded = load(shared_data / "traces_s1k_sample.jsonl")
    assert [set(problem.extra) for problem in loaded.values] == [{"attempt", "cot_type", "source_type"}] * 5


def test_truncated_row_is_refused_naming_the_tag(shared_data, tmp_path, write_jsonl):
    raw = [json.loads(line) for line in (shared_data / "traces_sky_t1_amc23.jsonl").open()][:3]
    reply = raw[1]["conversations"][1]
    reply["value"] = reply["value"][: len(reply["value"]) // 2]
    source = write_jsonl(tmp_path / "cut.jsonl", raw)
    with pytest.raises(DataError) as error:
        load(source, need_trace=False)
    assert str(error.value).startswith(f"{source}, line 2: the assistant turn lacks <|end_of_thought|>")
    assert "data.on_bad_row=skip" in str(error.value)
    assert len(load(source, on_bad_row="skip").values) == 2


def test_every_problem_has_the_same_extra_columns(tmp_path, write_jsonl):
    mixed = [{**rows(1)[0], "level": 3}, {**rows(2)[1], "subject": "algebra"}]
    loaded = load(write_jsonl(tmp_path / "a.jsonl", mixed))
    assert [problem.extra for problem in loaded.values] == [
        {"level": 3, "subject": None},
        {"level": None, "subject": "algebra"},
    ]


# Bad rows


def damaged(tmp_path) -> str:
    path = tmp_path / "bad.jsonl"
    good = rows(3)
    lines = [
        json.dumps(good[0]),
        json.dumps({"question": "q", "solution": ""}),
        '{"question": "q", "solu',
        "",
        json.dumps(good[1]),
        json.dumps({"question": 5, "solution": "s"}),
        json.dumps({"solution": "s"}),
        json.dumps({"question": "q", "solution": "s"}),
        json.dumps(good[2]),
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_first_bad_row_with_number_reason_count_and_remedy(tmp_path):
    """No line number or id stood in any message of the original."""
    source = damaged(tmp_path)
    with pytest.raises(DataError) as error:
        load(source)
    assert str(error.value) == (
        f"{source}, line 2: `solution` is empty; 4 more rows are bad (line 3, 6, 7, 8); "
        "correct it, or skip such rows with data.on_bad_row=skip"
    )


def test_skipping_counts_and_lists(tmp_path, caplog):
    source = damaged(tmp_path)
    loaded = load(source, on_bad_row="skip")
    assert [problem.question for problem in loaded.values] == ["0+1?", "1+1?", "2+1?"]
    assert loaded.total == 8
    assert [bad.row for bad in loaded.skipped] == [2, 3, 6, 7, 8]
    assert loaded.skipped[2] == BadRow(source, 6, "`question` must be text, got int '5'")
    assert loaded.skipped[1].reason.startswith("not valid JSON")
    assert loaded.positions == [0, 3, 7]  # a blank line is no row
    assert "skipped 5 of 8 rows\n  line 2: `solution` is empty\n  line 3: not valid JSON" in caplog.text


def test_the_log_lists_five_and_the_result_all(tmp_path, caplog, write_jsonl):
    source = write_jsonl(tmp_path / "a.jsonl", [{"question": "q", "solution": ""}] * 9 + rows(1))
    assert len(load(source, on_bad_row="skip").skipped) == 9
    assert caplog.text.count("`solution` is empty") == 5
    assert "and 4 more" in caplog.text


def test_nothing_left_is_an_error_even_when_skipping(tmp_path, write_jsonl):
    source = write_jsonl(tmp_path / "a.jsonl", [{"question": "q", "solution": ""}] * 2)
    with pytest.raises(DataError, match=r"no row is left: .*line 1: `solution` is empty; 1 more row is bad"):
        load(source, on_bad_row="skip")
    (tmp_path / "b.jsonl").write_text("{\n{\n")
    with pytest.raises(DataError, match=r"no row is left: .*line 1: not valid JSON"):
        load(tmp_path / "b.jsonl", on_bad_row="skip")
    (tmp_path / "c.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"line 1: an empty object"):
        load(tmp_path / "c.jsonl")


def test_bad_rows_of_csv_and_parquet_have_their_numbers(tmp_path):
    (tmp_path / "a.csv").write_text('question,solution\n"1\n+1?",2\n1+2?,\n')
    with pytest.raises(DataError, match=r"a\.csv, line 4: `solution` is empty"):
        load(tmp_path / "a.csv", need_trace=False)
    table = datasets.Dataset.from_list(
        [{"question": "q", "solution": "s"}, {"question": "q", "solution": None}]
    )
    table.to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(DataError, match=r"a\.parquet, row 2: `solution` is missing"):
        load(tmp_path / "a.parquet", need_trace=False)


def test_csv_numbers_are_text(tmp_path):
    (tmp_path / "a.csv").write_text("question,solution,answer\n12,007,007\n")
    problem = load(tmp_path / "a.csv", need_trace=False).values[0]
    assert (problem.question, problem.solution, problem.answer) == ("12", "007", "007")


def test_sharegpt_survives_parquet_and_save_to_disk(tmp_path, sharegpt, write_jsonl):
    expected = load(write_jsonl(tmp_path / "a.jsonl", [sharegpt(system="S", level=2), sharegpt("3?")])).values
    table = datasets.Dataset.from_list(
        [sharegpt(system="S", level=2), sharegpt("3?", system=None, level=None)]
    )
    table.to_parquet(str(tmp_path / "a.parquet"))
    table.save_to_disk(str(tmp_path / "saved"))
    from_parquet = load(tmp_path / "a.parquet").values
    assert [p.id for p in from_parquet] == [p.id for p in expected]
    assert from_parquet[0] == expected[0]
    assert load(tmp_path / "saved").values == from_parquet


# Traces


@pytest.mark.parametrize("tags", TAG_STYLES.values(), ids=TAG_STYLES)
def test_a_trace_with_the_closing_explanation_tag_is_a_bad_row_of_the_warm_up(tmp_path, write_jsonl, tags):
    """The target would have continued after the tag, where every explanation is cut."""
    quoting = {**rows(1)[0], "reasoning_trace": f"I end with {tags.explanation.close}. Then more."}
    source = write_jsonl(tmp_path / "a.jsonl", [rows(2)[1], quoting])

    def read(need_trace: bool, **settings):
        return load_problems(DataSettings(**settings), source, tags, need_trace=need_trace)

    with pytest.raises(DataError) as error:
        read(True)
    assert str(error.value) == (
        f"{source}, line 2: the reasoning trace contains {tags.explanation.close}, where its explanation "
        f"would end (layout.tags={tags.name}); correct it, or skip such rows with data.on_bad_row=skip"
    )
    assert [bad.row for bad in read(True, on_bad_row="skip").skipped] == [2]
    assert len(read(False).items) == 2
    other = next(style for style in TAG_STYLES.values() if style is not tags)
    assert len(load_problems(DataSettings(), source, other, need_trace=True).items) == 2


def test_a_solution_that_stands_for_the_trace_must_not_hold_the_tag_either(tmp_path, write_jsonl):
    row = {"question": "Which tag ends it?", "solution": "<|end_of_explanation|>"}
    with pytest.raises(DataError, match="the reasoning trace contains"):
        load(write_jsonl(tmp_path / "a.jsonl", [row]), missing_trace="solution")


def test_rl_needs_no_trace_and_sft_says_what_may_stand_for_it(tmp_path, write_jsonl):
    source = write_jsonl(tmp_path / "a.jsonl", [{"question": "2+2?", "solution": "4"}])
    assert load(source, need_trace=False).values[0].reasoning_trace is None
    with pytest.raises(DataError, match=r"line 1: `reasoning_trace` is missing.*data.missing_trace=solution"):
        load(source)
    assert load(source, missing_trace="solution").values[0].reasoning_trace == "4"
    assert load(source, need_trace=False, missing_trace="solution").values[0].reasoning_trace is None


def test_a_conversation_with_an_empty_thought_has_no_trace(tmp_path, sharegpt, write_jsonl):
    source = write_jsonl(tmp_path / "a.jsonl", [sharegpt(thought=" ")])
    assert load(source, need_trace=False).values[0].solution == "4"
    with pytest.raises(DataError, match="`reasoning_trace` is missing"):
        load(source)


# Subset, held-out problems


def test_subset_is_reproducible_and_in_order(tmp_path, write_jsonl):
    source = write_jsonl(tmp_path / "a.jsonl", rows(50))

    def questions(n, seed):
        chosen = load(source, subset=SubsetSettings(n=n, seed=seed)).values
        return [int(problem.question.split("+")[0]) for problem in chosen]

    # Python promises the same sample for a seed; a change here changes what old configs train on.
    assert questions(5, 0) == questions(5, 0) == [2, 16, 24, 26, 48]
    assert questions(5, 1) != questions(5, 0)
    assert questions(50, 3) == list(range(50))
    with pytest.raises(DataError, match=r"a subset of n=51 is asked of .*, which has only 50 usable rows"):
        questions(51, 0)


def test_a_subset_keeps_the_row_numbers_of_the_source(tmp_path, write_jsonl):
    bad = {"question": "q", "solution": ""}
    source = write_jsonl(tmp_path / "a.jsonl", [bad, *rows(4), bad, *rows(3)])
    chosen = load(source, on_bad_row="skip", subset=SubsetSettings(n=3, seed=1))
    expected = {2: "0+1?", 3: "1+1?", 4: "2+1?", 5: "3+1?", 7: "0+1?", 8: "1+1?", 9: "2+1?"}
    assert len(chosen.items) == 3
    assert {number: problem.question for number, problem in chosen.items.items()}.items() <= expected.items()
    assert [row.row for row in chosen.skipped] == [1, 6]


def test_a_row_that_is_left_out_changes_no_other_row_of_a_subset(tmp_path, write_jsonl):
    """2, 16, 24, 26, 48 are the subset of fifty good rows; in the place of a bad one there is another."""
    bad = {"question": "q", "solution": ""}
    whole = rows(50)
    for left_out in ({16}, {3, 9}, {2, 26, 48}):
        source = write_jsonl(
            tmp_path / "a.jsonl", [bad if i in left_out else row for i, row in enumerate(whole)]
        )
        chosen = load(source, on_bad_row="skip", subset=SubsetSettings(n=5, seed=0))
        places = set(chosen.positions)
        assert {2, 16, 24, 26, 48} - left_out <= places
        assert len(places) == 5
        assert not places & left_out


def test_the_file_of_the_split_is_named(tmp_path, write_jsonl):
    write_jsonl(tmp_path / "train.jsonl", rows(2))
    write_jsonl(tmp_path / "test.jsonl", [{"question": "q", "solution": " "}])
    with pytest.raises(DataError, match=r"/test\.jsonl, line 1: `solution` is empty"):
        load(tmp_path, split="test")


def test_held_out_problems(tmp_path, caplog, write_jsonl):
    train = write_jsonl(tmp_path / "train.jsonl", rows(4))
    held_out = write_jsonl(tmp_path / "test.jsonl", rows(6)[3:])
    config = Config(
        dataset_id_or_path=train,
        data=DataSettings(revision="v1", config_name="x"),
        evaluation=EvaluationSettings(path=held_out, subset=SubsetSettings(n=3)),
    )
    loaded = load_eval_problems(config, BESPOKE, need_trace=True)
    assert loaded is not None
    assert [problem.question for problem in loaded.values] == ["3+1?", "4+1?", "5+1?"]
    assert count_overlap(load(train).values, loaded.values) == 1
    assert "1 of 3 held-out problems are in the training data too" in caplog.text
    caplog.clear()
    assert count_overlap(load(train).values[:3], loaded.values) == 0
    assert not caplog.text
    assert load_eval_problems(Config(dataset_id_or_path=train), BESPOKE, need_trace=True) is None


def test_held_out_split_of_the_training_folder(tmp_path, write_jsonl):
    write_jsonl(tmp_path / "train.jsonl", rows(3))
    write_jsonl(tmp_path / "test.jsonl", rows(5)[3:])
    config = Config(
        dataset_id_or_path=str(tmp_path),
        data=DataSettings(config_name="default"),
        evaluation=EvaluationSettings(path=str(tmp_path)),
    )
    loaded = load_eval_problems(config, BESPOKE, need_trace=False)
    assert loaded is not None
    assert [problem.question for problem in loaded.values] == ["3+1?", "4+1?"]


def test_reading_a_file_imports_neither_torch_nor_trainers(tmp_path, write_jsonl):
    """Data code of the original could not be imported without vllm, ray, deepspeed and wandb."""
    source = write_jsonl(tmp_path / "a.jsonl", rows(1))
    code = (
        "import sys\nfrom rlt.config.schema import DataSettings\nfrom rlt.data.load import load_problems\n"
        "from rlt.formats.tags import TAG_STYLES\nimport rlt.data.lengths\n"
        "load_problems(DataSettings(), sys.argv[1], TAG_STYLES['bespoke'], need_trace=True)\n"
        "heavy = {'torch', 'transformers', 'trl', 'vllm', 'deepspeed', 'wandb', 'datasets'}\n"
        "sys.stdout.write(','.join(sorted(heavy & set(sys.modules))))"
    )
    command = [sys.executable, "-c", code, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1000, check=True)
    assert (done.stdout, done.stderr) == ("", "")
