"""Distillation: what the loss counts, by independent computations, and that students stop by themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from helpers.stage_runs import largest_difference, rows, run_here, student_words, weights

from rlt.config.compose import compose
from rlt.config.schema import DataSettings
from rlt.data.prompts import student_prompt
from rlt.data.traces import load_traces, number_traces
from rlt.errors import CheckpointError, DataError, ModelError
from rlt.formats.layout import StudentLayout
from rlt.formats.prompts import default_student_prompt
from rlt.formats.tags import TAG_STYLES
from rlt.formats.turn_end import turn_end_token
from rlt.stages.student_sft import sft_rows
from rlt.stages.turn_ends import check_stop
from rlt.traces.trace_lengths import TraceLengths
from rlt.traces.training import load_training_traces
from rlt.trainers.sft import IGNORED

TAGS = TAG_STYLES["bespoke"]
ENDS = {"end_of_turn": "<|im_end|>", "end_of_text": "<|endoftext|>"}


@pytest.fixture(scope="module")
def sky_t1(shared, tmp_path_factory) -> Path:
    """Return the first 200 of the shared Sky-T1 traces."""
    path = tmp_path_factory.mktemp("sky") / "sky_t1.jsonl"
    lines = (shared / "data" / "traces_sky_t1_amc23.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:200]))
    return path


def written(row: dict) -> tuple[str, str]:
    """Return a ShareGPT row's chat before and inside the assistant's turn, as text: without our code."""
    user, assistant = (turn["value"] for turn in row["conversations"])
    parts = re.fullmatch(
        r"\s*<\|begin_of_thought\|>(.*)<\|end_of_thought\|>\s*"
        r"<\|begin_of_solution\|>(.*)<\|end_of_solution\|>\s*",
        assistant,
        re.DOTALL,
    )
    assert parts, "each of the four tags is there once"
    return (
        f"<|im_start|>system\n{row['system']}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
        "<|im_start|>assistant\n",
        f"<|begin_of_thought|>\n\n{parts[1].strip()}\n\n<|end_of_thought|>\n\n"
        f"<|begin_of_solution|>\n\n{parts[2].strip()}\n\n<|end_of_solution|>",
    )


def laid_out(source: Path, tokenizer, *changes: str):
    config = compose(["run_cfg=student_sft", f"dataset_id_or_path={source}", *changes])
    turn_end = turn_end_token(tokenizer, config.distill.turn_end)
    layout = StudentLayout(tokenizer, TAGS, student_prompt(config.layout.student_prompt, TAGS), turn_end)
    traces = load_training_traces(config.data, config.dataset_id_or_path, TAGS, config.distill.malformed)
    return sft_rows(traces.rows, layout, config)


@pytest.mark.parametrize("turn_end", ENDS)
def test_the_loss_of_sky_t1_rows_counts_the_assistants_turn(sky_t1, qwen_tokenizer, turn_end, tmp_path):
    (tmp_path / "five.jsonl").write_text("".join(sky_t1.read_text().splitlines(keepends=True)[:5]))
    sources = [json.loads(line) for line in (tmp_path / "five.jsonl").read_text().splitlines()]
    table = laid_out(tmp_path / "five.jsonl", qwen_tokenizer, f"distill.turn_end={turn_end}")
    lengths = TraceLengths(StudentLayout(qwen_tokenizer, TAGS, None))
    loaded = load_traces(DataSettings(), str(tmp_path / "five.jsonl"), TAGS)
    planned = [lengths(trace).total for trace in number_traces(loaded.values)]
    for number, source in enumerate(sources, start=1):
        row, (before, turn) = table.items[number], written(source)
        counted = [i for i in row["labels"] if i != IGNORED]
        assert qwen_tokenizer.decode(counted) == turn + ENDS[turn_end]
        assert qwen_tokenizer.decode(row["input_ids"][: -len(counted)]) == before
        assert row["labels"] == [IGNORED] * (len(row["input_ids"]) - len(counted)) + counted
        # One call of the tokenizer over the whole text gives the same ids, so the counts agree as well.
        whole = qwen_tokenizer(before + turn + ENDS[turn_end], add_special_tokens=False)["input_ids"]
        assert row["input_ids"] == whole
        assert planned[number - 1] == len(whole)  # what plan_traces counts
        assert len(counted) == len(
            qwen_tokenizer(turn + ENDS[turn_end], add_special_tokens=False)["input_ids"]
        )


def test_a_truncated_row_is_its_first_tokens(tiny_tokenizer, toy_problems):
    words = ["layout.student_prompt=default", "data.on_long_row=truncate"]
    whole = laid_out(toy_problems, tiny_tokenizer, words[0]).values[0]
    limit = len(whole["input_ids"]) - 1
    cut = laid_out(toy_problems, tiny_tokenizer, *words, f"data.max_length={limit}").values[0]
    assert cut["input_ids"] == whole["input_ids"][:limit]
    assert cut["labels"] == whole["labels"][:limit]


def test_a_control_token_in_a_trace_is_text_and_a_bare_solution_is_no_error(qwen_tokenizer, tmp_path):
    source = tmp_path / "t.jsonl"
    row = {"question": "q", "solution": ".", "explanation": "It ends <|endoftext|> here."}
    source.write_text(json.dumps(row))
    (made,) = laid_out(source, qwen_tokenizer, "layout.student_prompt=default").values
    end = qwen_tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert made["labels"].count(end) == 1
    assert made["labels"][-1] == end
    assert "ends <|endoftext|> here" in qwen_tokenizer.decode(made["input_ids"])


def test_a_tokenizer_without_an_end_of_text(tiny_tokenizer):
    class Bare:
        name_or_path, added_tokens_decoder = "bare", {}

    with pytest.raises(ModelError, match=r"tokenizer 'bare' has none .* take distill.turn_end=end_of_turn"):
        turn_end_token(Bare(), "end_of_text")  # pyright: ignore[reportArgumentType]
    assert turn_end_token(tiny_tokenizer, "end_of_turn") == "<|im_end|>"


def mean_loss(model: Path, source: Path, tokenizer, end: str) -> float:
    """Return the mean negative log-probability of all tokens of the turns: row by row, in float64."""
    from transformers import AutoModelForCausalLM

    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64).eval()
    values = []
    for line in source.read_text().splitlines():
        row = json.loads(line)
        prompt = tokenizer(
            f"<|im_start|>system\n{default_student_prompt(TAGS)}<|im_end|>\n"
            f"<|im_start|>user\n{row['question']}<|im_end|>\n<|im_start|>assistant\n"
        )["input_ids"]
        target = tokenizer(
            f"<|begin_of_thought|>\n\n{row['reasoning_trace']}\n\n<|end_of_thought|>\n\n"
            f"<|begin_of_solution|>\n\n{row['solution']}\n\n<|end_of_solution|>{end}"
        )["input_ids"]
        with torch.no_grad():
            logits = policy(input_ids=torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        values += torch.log_softmax(logits, -1)[range(len(target)), target].neg().tolist()
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def small_run(tiny_student: Path, toy_problems: Path, tmp_path_factory) -> Path:
    """Return the directory of three steps on twelve traces of a named teacher, held out: the same without."""
    folder = tmp_path_factory.mktemp("sft")
    lines = [json.loads(line) | {"teacher": "a/teacher"} for line in toy_problems.read_text().splitlines()]
    lines += [lines[0] | {"selected": False}]
    (folder / "traces.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    changes = ["distill.turn_end=end_of_text", f"evaluation.path={toy_problems}", "evaluation.steps=3"]
    words = student_words(tiny_student, folder / "traces.jsonl", folder / "run", *changes)
    return run_here(words, "student_sft")


def test_loss_of_the_start_and_of_the_end(small_run, tiny_student, toy_problems, tiny_tokenizer):
    """Padding is the very token that ends the turn here: it counts once a row, and nowhere else."""
    assert tiny_tokenizer.pad_token == ENDS["end_of_text"]
    losses = {row["step"]: row["eval_loss"] for row in rows(small_run) if "eval_loss" in row}
    for step, model in ((0, tiny_student), (3, small_run)):
        expected = mean_loss(model, toy_problems, tiny_tokenizer, ENDS["end_of_text"])
        assert losses[step] == pytest.approx(expected, rel=1e-5)
    assert losses[3] < losses[0]


def test_what_a_run_says_and_where_the_student_stops(small_run, tiny_tokenizer):
    end = tiny_tokenizer.convert_tokens_to_ids("<|endoftext|>")
    record = json.loads((small_run / "run.json").read_text())
    told = record["trained_on"]
    assert (record["rows"], record["skipped"], told["not_selected"], told["with_an_end"]) == (12, 0, 1, 12)
    assert told["teachers"] == {"a/teacher": 12}
    card = (small_run / "README.md").read_text()
    assert "| traces | 12 from `traces.jsonl` (local" in card
    assert "| written by | a/teacher (12) |" in card
    assert "| its turn ends with | `<\\|endoftext\\|>`, in 12 of the traces |" in card
    log = (small_run / "log.txt").read_text()
    assert f"the student was taught to stop with <|endoftext|> ({end}), and generation_config.json, " in log
    end_of_turn = tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")
    generation = json.loads((small_run / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [end, end_of_turn]
    saved = json.loads((small_run / "tokenizer_config.json").read_text())
    assert saved["eos_token"] == "<|endoftext|>"
    assert saved["pad_token"] != "<|endoftext|>"  # a tool that masks all padding would unteach the end


def test_a_model_that_would_stop_elsewhere_is_refused(small_run, tiny_tokenizer, tmp_path):
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((small_run / name).read_bytes())
    config = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": 0}))
    layout = StudentLayout(tiny_tokenizer, TAGS, "", "<|endoftext|>")
    check_stop(small_run, layout)
    with pytest.raises(CheckpointError, match=r"but generation_config\.json would stop it at another token"):
        check_stop(tmp_path, layout)


def test_rows_of_which_none_ends_are_refused_before_training(tiny_student, toy_problems, tmp_path):
    changes = ["data.max_length=125", "data.on_long_row=truncate"]
    with pytest.raises(DataError, match="all 12 rows are truncated, so the student would never learn to st"):
        run_here(student_words(tiny_student, toy_problems, tmp_path / "run", *changes), "student_sft")


def test_adapters_are_merged_and_the_student_still_stops_at_its_token(tiny_student, toy_problems, tmp_path):
    pytest.importorskip("peft")
    words = student_words(tiny_student, toy_problems, tmp_path / "run", "model.lora.rank=4")
    run = run_here(words, "student_sft")
    assert weights(run).keys() == weights(tiny_student).keys()
    assert largest_difference(weights(run), weights(tiny_student)) > 1e-4
    assert "the student was taught to stop with <|im_end|>" in (run / "log.txt").read_text()


@pytest.mark.long
@pytest.mark.slow
def test_two_hundred_sky_t1_rows_with_the_real_tokenizer(sky_t1, qwen_tokenizer, save_tiny, tmp_path):
    size = {"layers": 1, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 1}
    size |= {"num_key_value_heads": 1, "max_position_embeddings": 32768}
    model = save_tiny(qwen_tokenizer, tmp_path / "model", **size)
    changes = ["layout.student_prompt=from_dataset", "data.max_length=32768", "distill.turn_end=end_of_text"]
    changes += [
        "train_batch_size=1",
        "per_device_train_batch_size=1",
        "trainer.max_steps=1",
        "trainer.warmup_steps=0",
    ]
    changes += ["trainer_args.loss_type=chunked_nll"]  # a row's logits would take 6 GB
    run = run_here(student_words(model, sky_t1, tmp_path / "run", *changes), "student_sft")
    told = json.loads((run / "run.json").read_text())["trained_on"]
    texts = [written(json.loads(line)) for line in sky_t1.read_text().splitlines()]
    lengths = [len(qwen_tokenizer(before + turn + "<|endoftext|>")["input_ids"]) for before, turn in texts]
    assert (told["traces"], told["with_an_end"], told["tokens"]) == (200, 200, sum(lengths))
    assert [row["step"] for row in rows(run) if "loss" in row] == [1]
    assert largest_difference(weights(run), weights(model)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("turn_end", ENDS)
def test_a_student_stops_by_itself(taught_student, turn_end, tiny_tokenizer):
    """On 200 questions that it has not seen: with `generate` as it is, and at the token it was taught."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    folder, questions = taught_student(turn_end)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    prompts = [
        f"<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        for question in questions
    ]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    set_seed(0)
    with torch.no_grad():
        written_ids = model.generate(**batch, max_new_tokens=64)[:, batch["input_ids"].shape[1] :].tolist()
    end = tiny_tokenizer.convert_tokens_to_ids(ENDS[turn_end])
    stopped = 0
    for ids in written_ids:
        turn = [i for i in ids if i != tokenizer.pad_token_id]
        text = tokenizer.decode(turn)
        stopped += turn[-1] == end and text.endswith(f"<|end_of_solution|>{ENDS[turn_end]}")
    assert len(written_ids) == 200
    assert stopped >= 198
