"""The warm-up: what its labels cover, its loss by an independent computation, and what the run leaves."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.stage_runs import interrupted_copy, largest_difference, rows, run_here, sft_words, weights

from rlt.config.compose import compose
from rlt.data.kept import KeptRows
from rlt.data.prompts import teacher_prompt
from rlt.errors import CheckpointError, DataError
from rlt.formats.layout import TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.records import Problem
from rlt.stages.sft import Target, cut
from rlt.stages.teacher_sft import sft_rows
from rlt.stages.turn_ends import check_ends
from rlt.trainers.sft import IGNORED

TRACES = ["First 2 + 2.\nThat makes 4.", "Nothing to do: the answer is there.", "é 😀 <|im_end|> 7*3=21"]


words = partial(sft_words, "teacher_sft")


def layout_of(tokenizer) -> TeacherLayout:
    tags = TAG_STYLES["bespoke"]
    return TeacherLayout(tokenizer, tags, teacher_prompt("default", tags))


def problems() -> list[Problem]:
    return [Problem(str(i), f"What is {i} + 2?", str(i + 2), trace) for i, trace in enumerate(TRACES)]


def table() -> KeptRows[Problem]:
    return KeptRows("toy.jsonl", "line", dict(enumerate(problems(), start=1)), len(TRACES))


@pytest.mark.parametrize("tokenizer_name", ["tiny_tokenizer", "qwen_tokenizer"])
def test_labels_are_explanation_end_tag_and_end_of_turn(tokenizer_name, request):
    tokenizer = request.getfixturevalue(tokenizer_name)
    layout = layout_of(tokenizer)
    config = compose(["run_cfg=teacher_sft"])
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for row, problem in zip(sft_rows(table(), layout, config).values, problems(), strict=True):
        counted = [i for i in row["labels"] if i != IGNORED]
        num_prompt = len(row["labels"]) - len(counted)
        assert row["labels"][:num_prompt] == [IGNORED] * num_prompt
        assert row["labels"][num_prompt:] == row["input_ids"][num_prompt:] == counted
        assert tokenizer.decode(counted) == f"{problem.reasoning_trace}\n\n<|end_of_explanation|><|im_end|>"
        assert counted[-1] == end_of_turn
        assert counted.count(end_of_turn) == 1  # the trace's own `<|im_end|>` is ordinary text
        assert row["input_ids"][:num_prompt] == layout.prompt_ids(problem)
        prompt = tokenizer.decode(row["input_ids"][:num_prompt])
        assert prompt.endswith(
            f"<|begin_of_solution|>\n\n{problem.solution}\n\n<|end_of_solution|>\n\n<|begin_of_explanation|>\n\n"
        )


def test_a_rehearsal_takes_the_end_of_a_row():
    row = {"input_ids": list(range(3000)), "labels": [IGNORED] * 2900 + list(range(2900, 3000))}
    assert cut(row) == {"input_ids": row["input_ids"][1976:], "labels": row["labels"][1976:]}
    assert cut({"input_ids": [1, 2], "labels": [IGNORED, 2]}) == {"input_ids": [1, 2], "labels": [IGNORED, 2]}


def test_a_truncated_row_is_its_first_tokens(tiny_tokenizer):
    """As the original cuts: to the limit and no further, wherever that is; nothing follows the cut."""
    layout = layout_of(tiny_tokenizer)
    whole = sft_rows(table(), layout, compose(["run_cfg=teacher_sft"])).values
    limit = max(len(row["input_ids"]) for row in whole) - 5
    words = ["run_cfg=teacher_sft", "data.on_long_row=truncate", f"data.max_length={limit}"]
    cut = sft_rows(table(), layout, compose(words)).values
    shortened = [(a, b) for a, b in zip(cut, whole, strict=True) if a != b]
    assert shortened
    for ours, before in shortened:
        assert ours["input_ids"] == before["input_ids"][:limit]
        assert ours["labels"] == before["labels"][:limit]
        assert "<|im_end|>" not in tiny_tokenizer.convert_ids_to_tokens(ours["input_ids"][-3:])


def test_a_row_of_which_only_the_prompt_fits_is_dropped():
    """The original would train on it without a single counted token, which is a loss of 0 / 0."""
    row = Target([1, 2], [3, 4])
    assert row.shorten(1) == Target([1, 2], [3])
    assert row.shorten(2) is None


@pytest.fixture(scope="module")
def sft_run(tiny_teacher: Path, toy_problems: Path, tmp_path_factory) -> Path:
    """Return the directory of two epochs over twelve problems, six steps, evaluated on four of them."""
    folder = tmp_path_factory.mktemp("sft")
    held_out = folder / "held_out.jsonl"
    held_out.write_text("".join(toy_problems.read_text().splitlines(keepends=True)[:4]))
    changes = [f"evaluation.path={held_out}", "evaluation.steps=3", "trainer.save_steps=4"]
    changes += ["learning_rate=1e-3", "trainer.warmup_steps=0", "trainer.num_train_epochs=2"]
    return run_here(words(tiny_teacher, toy_problems, folder / "run", *changes), "teacher_sft")


def mean_loss(model: Path, problems_file: Path, tokenizer) -> float:
    """Return the mean negative log-probability of all explanation tokens: row by row, in float64."""
    from transformers import AutoModelForCausalLM

    layout = layout_of(tokenizer)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64).eval()
    values = []
    for line in problems_file.read_text().splitlines():
        row = json.loads(line)
        prompt = layout.prompt_ids(Problem("x", row["question"], row["solution"]))
        target = tokenizer(row["reasoning_trace"] + "\n\n<|end_of_explanation|>")["input_ids"]
        target = [*target, tokenizer.convert_tokens_to_ids("<|im_end|>")]
        with torch.no_grad():
            logits = policy(input_ids=torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        values += torch.log_softmax(logits, -1)[range(len(target)), target].neg().tolist()
    return sum(values) / len(values)


def test_loss_of_the_start_and_of_the_end(sft_run: Path, tiny_teacher: Path, toy_problems, tiny_tokenizer):
    held_out = sft_run.parent / "held_out.jsonl"
    losses = {row["step"]: row["eval_loss"] for row in rows(sft_run) if "eval_loss" in row}
    assert losses[0] == pytest.approx(mean_loss(tiny_teacher, held_out, tiny_tokenizer), rel=1e-5)
    assert losses[6] == pytest.approx(mean_loss(sft_run, held_out, tiny_tokenizer), rel=1e-5)
    assert losses[6] < losses[3] < losses[0]


def test_loss_of_the_first_batch(tiny_teacher, toy_problems, tiny_tokenizer, tmp_path):
    """A batch of all twelve rows: the token mean over rows, micro-batches and padding."""
    changes = ["train_batch_size=12", "trainer.max_steps=1"]
    run = run_here(words(tiny_teacher, toy_problems, tmp_path / "run", *changes), "teacher_sft")
    first = next(row for row in rows(run) if "loss" in row)
    assert first["loss"] == pytest.approx(mean_loss(tiny_teacher, toy_problems, tiny_tokenizer), rel=1e-5)


def test_what_the_warm_up_leaves(sft_run: Path, tiny_teacher: Path):
    from transformers import AutoModelForCausalLM

    assert [row["step"] for row in rows(sft_run) if "loss" in row] == [1, 2, 3, 4, 5, 6]
    model = AutoModelForCausalLM.from_pretrained(sft_run)
    assert largest_difference(dict(model.state_dict()), weights(tiny_teacher)) > 1e-3
    assert (sft_run / "checkpoint-4" / "trainer_state.json").is_file()
    assert json.loads((sft_run / "run.json").read_text())["status"] == "finished"
    assert "the loss counts this text of row 1" in (sft_run / "log.txt").read_text()
    assert not (sft_run / "skipped_rows.jsonl").exists()


def test_a_teacher_that_would_not_stop_is_refused(sft_run: Path, tiny_tokenizer, tmp_path: Path):
    ends = layout_of(tiny_tokenizer).stop_token_ids
    assert check_ends(sft_run, ends, tiny_tokenizer, "teacher") in (sft_run / "log.txt").read_text()
    assert json.loads((sft_run / "run.json").read_text())["with_an_end"] == 12
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((sft_run / name).read_bytes())
    config = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": 0}))
    with pytest.raises(CheckpointError, match=r"end its turn with <\|im_end\|> \(\d+\), at which its gener"):
        check_ends(tmp_path, [i for i in ends if i], tiny_tokenizer, "teacher")


def test_rows_of_which_none_ends_are_refused_before_training(tiny_teacher, tmp_path):
    row = {"question": "1+1?", "solution": "2", "reasoning_trace": "one more, and another. " * 200}
    (tmp_path / "long.jsonl").write_text(f"{json.dumps(row)}\n" * 12)
    changes = ["data.max_length=400", "data.on_long_row=truncate"]
    with pytest.raises(DataError, match="all 12 rows are truncated, so the teacher would never learn to st"):
        run_here(words(tiny_teacher, tmp_path / "long.jsonl", tmp_path / "run", *changes), "teacher_sft")


def test_rows_that_were_left_out_are_listed(tiny_teacher, toy_problems, tmp_path):
    """A broken line, one with the closing tag, one too long; the held-out file has a bad one too."""
    row = {"question": "2+2", "solution": "4", "reasoning_trace": "2+2=4"}
    quoting = {**row, "reasoning_trace": "It ends in <|end_of_explanation|>."}
    long = {**row, "reasoning_trace": "2+2=4\n" * 400}
    lines = ["{", *toy_problems.read_text().splitlines(), *(json.dumps(r) for r in (quoting, long, row))]
    train, held_out = tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    train.write_text("\n".join(lines))
    held_out.write_text("\n".join(["[]", json.dumps(row)]))
    changes = ["data.on_bad_row=skip", f"evaluation.path={held_out}", "evaluation.steps=1"]
    changes += ["trainer.max_steps=1", "seed=1", "data.on_long_row=drop"]
    run = run_here(words(tiny_teacher, train, tmp_path / "run", *changes), "teacher_sft")
    listed = [json.loads(line) for line in (run / "skipped_rows.jsonl").read_text().splitlines()]
    assert [(bad["source"], bad["row"]) for bad in listed] == [
        (str(train), 1),
        (str(train), 14),
        (str(train), 15),
        (str(held_out), 1),
    ]
    reasons = [bad["reason"] for bad in listed]
    assert reasons[0].startswith("not valid JSON")
    assert reasons[1].startswith("the reasoning trace contains <|end_of_explanation|>")
    assert reasons[2].endswith("tokens where data.max_length allows 512")
    assert reasons[3] == "must be a JSON object, got list"
    record = json.loads((run / "run.json").read_text())
    assert (record["rows"], record["skipped"]) == (13, 4)


@pytest.mark.slow
def test_a_warm_up_resumed_in_its_second_epoch_equals_the_uninterrupted_one(
    sft_run: Path, tiny_teacher: Path, toy_problems: Path, tmp_path: Path
):
    copy = interrupted_copy(sft_run, tmp_path / "copy", step=4)
    changes = [f"evaluation.path={sft_run.parent / 'held_out.jsonl'}", "evaluation.steps=3"]
    changes += ["trainer.save_steps=4", "learning_rate=1e-3", "trainer.warmup_steps=0"]
    changes += ["trainer.num_train_epochs=2", "resume_from=latest"]
    resumed = run_here(words(tiny_teacher, toy_problems, copy, *changes), "teacher_sft")
    ours, theirs = (
        # TRL counts tokens anew after a resume.
        [
            {k: v for k, v in row.items() if "num_tokens" not in k}
            for row in rows(r)
            if "train_loss" not in row
        ]
        for r in (resumed, sft_run)
    )
    assert ours == theirs
    assert largest_difference(weights(resumed), weights(sft_run)) == 0
