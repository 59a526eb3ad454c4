"""Student RL on Countdown, from a student that was fine-tuned on guesses: rewards, and that they rise."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
import torch
from helpers.stage_runs import (
    eval_rows,
    interrupted_copy,
    largest_difference,
    later_win,
    rows,
    run_here,
    student_words,
    train_rows,
    weights,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlt.config.schema import DataSettings
from rlt.data.traces import load_traces, number_traces
from rlt.errors import DataError
from rlt.formats.tags import TAG_STYLES
from rlt.rundir.samples import read_samples, sample_files
from rlt.traces.columns import is_well_formed, score_of

pytestmark = pytest.mark.slow
NAMES = "abcdefghijklmnopqrstuvwxyz"
TURN = re.compile(
    r"<\|begin_of_thought\|>.*<\|end_of_thought\|>\s*<\|begin_of_solution\|>(.+)<\|end_of_solution\|>\s*"
    r"(?:<\|endoftext\|>|<\|im_end\|>)?",
    re.DOTALL,
)
STEPS = 10


def problem(name: str) -> dict:
    """Return the same problem under a name: a student of one layer learns which operation it takes."""
    return {"question": f"{name}: 2,3 make 5", "solution": "2 + 3", "numbers": [2, 3], "target": 5}


@pytest.fixture(scope="module")
def countdown(tmp_path_factory) -> tuple[Path, Path]:
    """Return files of problems to train on, and of others that are held out."""
    folder = tmp_path_factory.mktemp("countdown")
    lines = [json.dumps(problem(name)) + "\n" for name in NAMES]
    for name, part in (("train", lines[4:]), ("held_out", lines[:4])):
        (folder / f"{name}.jsonl").write_text("".join(part))
    return folder / "train.jsonl", folder / "held_out.jsonl"


@pytest.fixture(scope="module")
def guesser(tiny_tokenizer, save_tiny, tmp_path_factory) -> Path:
    """Return a student that answers with the right operation, a wrong one, or none, whatever it is asked."""
    folder = tmp_path_factory.mktemp("guesser")
    rng = random.Random(0)
    traces = [
        {
            **problem(name),
            "solution": rng.choice(["2 + 3", "2 - 3", "no"]),
            "explanation": "We do every step.",
        }
        for _ in range(16)
        for name in NAMES
    ]
    (folder / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in traces))
    model = save_tiny(tiny_tokenizer, folder / "model", layers=1, initializer_range=0.02)
    changes = ["layout.student_prompt=Think.", "distill.turn_end=end_of_text", "learning_rate=5e-3"]
    changes += ["train_batch_size=16", "per_device_train_batch_size=16"]
    changes += ["trainer.gradient_checkpointing=false", "trainer.num_train_epochs=2"]
    return run_here(
        student_words(model, folder / "traces.jsonl", folder / "student", *changes), "student_sft"
    )


@pytest.fixture(scope="module")
def words(guesser, countdown):
    """Return a function that gives the command-line words of a student_rl run into a folder."""

    def build(output: Path, *changes: str) -> list[str]:
        train, held_out = countdown
        return later_win(
            "run_cfg=student_rl",
            f"model_name_or_path={guesser}",
            f"dataset_id_or_path={train}",
            f"evaluation.path={held_out}",
            f"output_dir={output}",
            "layout.student_prompt=Think.",
            "model.dtype=float32",
            "generation.backend=transformers",
            "max_prompt_length=64",
            "max_completion_length=40",
            "num_generations=8",
            "train_batch_size=32",
            "per_device_train_batch_size=32",
            "learning_rate=1e-3",
            "trainer.gradient_checkpointing=false",
            f"trainer.max_steps={STEPS}",
            f"evaluation.steps={STEPS}",
            "trainer.save_steps=8",
            "trainer.ref_sync_steps=4",
            "evaluation.num_generations=4",
            "report_to=null",
            *changes,
        )

    return build


@pytest.fixture(scope="module")
def run(words, tmp_path_factory) -> Path:
    """Return the directory of a run."""
    return run_here(words(tmp_path_factory.mktemp("student_rl") / "run"), "student_rl")


def earned(row: dict) -> tuple[float, bool]:
    """Return a sample's reward and whether it is right, from its text alone, without our code."""
    turn = TURN.fullmatch(row["completion"])
    if not turn or row["completion"].count("<|") > 5 or row["finish_reason"] != "stop":
        return 0.0, False
    answer = turn[1].strip()
    if not re.fullmatch(r"[-+*/() 0-9]+", answer) or "**" in answer or "//" in answer:
        return 0.0, False
    try:
        value = eval(answer)  # digits and signs alone, as the pattern above sees to
    except SyntaxError:
        return 0.0, False
    is_right = value == 5 and sorted(re.findall(r"\d+", answer)) == ["2", "3"]
    return (1.0 if is_right else 0.1), is_right


def test_rewards_are_those_of_the_texts(run: Path):
    seen = set()
    for kind, metrics in (("", train_rows(run)), ("eval_", eval_rows(run))):
        files = sample_files(run / "samples", kind)
        assert list(files) == ([0, STEPS] if kind else list(range(1, STEPS + 1)))
        for step, file in files.items():
            table = read_samples(file)
            assert len(table) == (4 * 4 if kind else 32)
            found = [earned(row) for row in table]
            assert [(row["reward"], row["correct"]) for row in table] == found
            accuracy = sum(is_right for _, is_right in found) / len(found)
            assert metrics[step][f"{kind}correct"] == pytest.approx(accuracy, rel=1e-6)
            mean = sum(reward for reward, _ in found) / len(found)
            assert metrics[step][f"{kind}reward"] == pytest.approx(mean, rel=1e-6)
            seen |= {reward for reward, _ in found}
    assert seen == {0.0, 0.1, 1.0}


def test_the_student_learns_to_answer_problems_that_it_has_not_seen(run: Path):
    before, after = (eval_rows(run)[step]["eval_correct"] for step in (0, STEPS))
    assert before < 0.7
    assert after > before + 0.25
    assert all(step["drift/max"] < 1e-3 for step in train_rows(run).values())
    assert train_rows(run)[STEPS]["kl"] > 0


def test_the_run_directory(run: Path, tiny_tokenizer):
    assert re.search(r"the student stops at .*<\|im_end\|> \(\d+\)", (run / "log.txt").read_text())
    record = json.loads((run / "run.json").read_text())
    assert (record["stage"], record["status"]) == ("student_rl", "finished")
    assert (record["problems"], record["held_out"], record["undecided_answers"]) == (len(NAMES) - 4, 4, 0)
    card = (run / "README.md").read_text()
    assert "paid it for right answers" in card
    assert "`correctness.grader` | `countdown`" in card
    assert "answer_log_prob_coeff" not in card
    assert "right answers" in (run / "report.html").read_text()
    steps = train_rows(run)
    assert {"monitor/malformed", "monitor/zero_variance", "monitor/length_ratio"} <= steps[1].keys()
    assert not {"monitor/kl_share", "monitor/missing_tag", "monitor/solution_first"} & steps[1].keys()
    # It continues to end its turn with the token that it was fine-tuned to end it with.
    saved = json.loads((run / "generation_config.json").read_text())
    assert saved["eos_token_id"][0] == tiny_tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert (run / "checkpoint-8" / "reference").is_dir()


def test_samples_are_traces_to_train_a_student_on(run: Path):
    file = sample_files(run / "samples")[1]
    table = read_samples(file)
    traces = number_traces(load_traces(DataSettings(), str(file), TAG_STYLES["bespoke"]).values)
    assert [trace.explanation for trace in traces] == [row["explanation"] for row in table]
    assert [score_of(trace) for trace in traces] == [row["reward"] for row in table]
    assert [is_well_formed(trace) for trace in traces] == [row["reward"] > 0 for row in table]


def test_a_resumed_run_equals_the_uninterrupted_one(run: Path, words, tmp_path: Path):
    copy = interrupted_copy(run, tmp_path / "copy", step=8)
    resumed = run_here(words(copy, "resume_from=latest"), "student_rl")
    ours, theirs = ([row for row in rows(folder) if "train_loss" not in row] for folder in (resumed, run))
    assert ours == theirs
    assert largest_difference(weights(resumed), weights(run)) == 0


def test_references_that_the_grader_cannot_judge_are_refused(words, tmp_path: Path):
    row = {**problem("a"), "solution": "five"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"line 1: the reference 'five' must be an expression"):
        run_here(words(tmp_path / "a", f"dataset_id_or_path={tmp_path / 'rows.jsonl'}"), "student_rl")
    with pytest.raises(DataError, match=r"is a Countdown problem.* take correctness\.grader=countdown"):
        run_here(words(tmp_path / "b", "correctness.grader=math"), "student_rl")


def test_benchmarks_while_training_do_not_move_it(words, countdown, tmp_path: Path):
    changes = ["trainer.max_steps=2", "evaluation.steps=0", "evaluation.path=null", "trainer.save_steps=0"]

    def unwatched(output: Path) -> list[str]:
        """Without what counts in an evaluation of held-out problems alone."""
        return [w for w in words(output, *changes) if not w.startswith("evaluation.num_generations=")]

    plain = run_here(unwatched(tmp_path / "plain"), "student_rl")
    changes += [
        "evaluation.benchmarks.steps=1",
        "evaluation.benchmarks.temperature=1.0",
        "evaluation.benchmarks.num_samples=4",
        "evaluation.benchmarks.tasks=[countdown]",
        f"evaluate.paths={{countdown: {countdown[1]}}}",
    ]
    watched = run_here(unwatched(tmp_path / "watched"), "student_rl")
    assert largest_difference(weights(watched), weights(plain)) == 0
    assert train_rows(watched) == train_rows(plain)
    name = "eval_countdown_accuracy"
    logged = {row["step"]: row[name] for row in rows(watched) if name in row}
    assert logged.keys() == {0, 1, 2}
    seen = []
    for step, accuracy in logged.items():
        lines = (watched / "evaluations" / f"step_{step:06d}" / "samples.jsonl").read_text().splitlines()
        answers = [json.loads(line) for line in lines]
        assert len(answers) == 4 * 4
        for row in answers:
            reward, is_right = earned({**row, "completion": row["text"]})
            if reward:  # well formed: the reward's rule and the benchmark's are one
                assert row["correct"] == is_right
                seen.append(is_right)
            elif row["correct"]:  # the benchmark also takes an answer with a tag too few or too many
                assert re.search(r"2\s*\+\s*3|3\s*\+\s*2", row["text"])
        assert accuracy == sum(row["correct"] for row in answers) / len(answers)
    assert len(seen) >= 16
    assert set(seen) == {True, False}
    assert set(logged.values()) - {0, 1}


def exact_r_ss(model, tokenizer, row: dict) -> float:
    """Return mean + 0.01 min of log p(solution | thought) at T 0.7, in float64, from a sample's text alone.

    Each part of the turn ends at a tag, an entry of its own in the tiny tokenizer, so text gives the ids back
    unless the student has sampled a text in other tokens than a tokenizer would.
    """
    system, user = "<|im_start|>system\nThink.<|im_end|>\n", f"<|im_start|>user\n{row['question']}"
    before = f"{system}{user}<|im_end|>\n<|im_start|>assistant\n"
    thought = row["completion"].partition("<|end_of_thought|>")[0]
    opening = "<|end_of_thought|>\n\n<|begin_of_solution|>\n\n"
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, thought, opening)]
    solution = tokenizer(row["solution"], add_special_tokens=False)["input_ids"]
    whole = torch.tensor([[*ids[0], *ids[1], *ids[2], *solution]])
    with torch.no_grad():
        logits = model(whole).logits[0, -len(solution) - 1 : -1] / 0.7
    values = logits.log_softmax(-1)[range(len(solution)), solution]
    return (values.mean() + 0.01 * values.min()).item()


def test_the_likelihood_pays_a_students_own_thoughts(guesser, words, tmp_path: Path):
    """Two steps: the first is paid by the policy as it was loaded; `missing_tag_penalty` is 1."""
    changes = ["correctness.grader=likelihood", "student_model=policy", "trainer.max_steps=2"]
    changes += ["reward.solution_span=content", "evaluation.steps=2"]
    run = run_here(words(tmp_path / "run", *changes), "student_rl")
    model = AutoModelForCausalLM.from_pretrained(guesser, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(guesser)
    first, second = (read_samples(sample_files(run / "samples")[step]) for step in (1, 2))
    whole = [row for row in first if row["finish_reason"] == "stop" and row["well_formed"]]
    assert len(whole) > 8
    for row in whole:
        expected = exact_r_ss(model, tokenizer, row)
        assert row["reward"] == row["r_ss"] == pytest.approx(expected, abs=1e-4)
    for row in first:
        assert row["reward"] == pytest.approx(row["r_ss"] - (not row["well_formed"]))
        assert not {"correct", "r_kl", "missing_tag"} & row.keys()
    moved = [abs(row["r_ss"] - exact_r_ss(model, tokenizer, row)) for row in second if row["well_formed"]]
    assert max(moved) > 5e-4  # the policy that pays is no longer the one that was loaded
    card = (run / "README.md").read_text()
    assert "which moved with every step" in card
    assert "`correctness.grader` | `likelihood`" in card
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], "undecided_answers" in record) == ("finished", False)
    assert "student" not in record["inputs"]


def test_a_frozen_copy_beside_a_grader(guesser, words, tmp_path: Path):
    changes = ["correctness.likelihood_weight=0.5", f"student_model={guesser}", "trainer.max_steps=2"]
    changes += ["reward.dtype=float32", "reward.placement=cpu_offload", "evaluation.steps=2"]
    changes += ["reward.solution_span=content"]
    run = run_here(words(tmp_path / "run", *changes), "student_rl")
    model = AutoModelForCausalLM.from_pretrained(guesser, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(guesser)
    table = read_samples(sample_files(run / "samples")[2])
    for row in table:
        # `well_formed` asks for an expression, too; the penalty for a thought with any answer.
        turn = TURN.fullmatch(row["completion"])
        is_whole = turn and turn[1].strip() and row["completion"].count("<|") <= 5
        penalty = float(not is_whole or row["finish_reason"] != "stop")
        assert row["reward"] == pytest.approx(earned(row)[0] + 0.5 * (row["r_ss"] - penalty))
    whole = [row for row in table if row["finish_reason"] == "stop" and row["well_formed"]]
    for row in whole:
        assert row["r_ss"] == pytest.approx(exact_r_ss(model, tokenizer, row), abs=1e-4)  # it has not moved
    assert json.loads((run / "run.json").read_text())["inputs"]["student"]["folder"] == str(guesser)
