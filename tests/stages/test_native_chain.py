"""From a teacher's warm-up to the evaluation of a distilled student, in the students' own form (native).

Three families: Qwen3.5, which thinks unless its prompt says no; R1-Distill, whose prompt opens a thought that
its template drops from finished turns; Gemma, which has no system role and writes no thoughts by itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.collect_runs import collect_words, lines_of
from helpers.families import FAMILIES, TEMPLATES, build
from helpers.stage_runs import later_win, rl_words, run_here, sft_words, student_words

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.data.model_layout import read_layout
from rlt.data.own_layout import adopt_layouts
from rlt.launch.server import running_servers
from rlt.stages import student_sft
from rlt.trainers.sft import IGNORED

pytestmark = pytest.mark.slow
THINK = "<think>\n{thought}\n</think>\n\n{answer}"


class Chain:
    """Runs of one family, in the order of the method, two steps each."""

    def __init__(self, name: str, folder: Path, save_tiny, problems: Path, prompts: tuple[str, str]) -> None:
        self.name, self.folder, self.problems = name, folder, problems
        # as a tiny Qwen2 is loaded with it: cut as Qwen cuts text, whatever the family
        template = TEMPLATES[name].read_text(encoding="utf-8")
        self.tokenizer = build("qwen", template, FAMILIES[name].end)
        self.model = save_tiny(self.tokenizer, folder / "model")
        self.layout = (
            "layout.tags=native",
            f"layout.teacher_prompt={prompts[0]}",
            f"layout.student_prompt={prompts[1]}",
            "max_prompt_length=700",
        )

    def train_teacher(self) -> None:
        steps = ("trainer.max_steps=2", *self.layout[:2])
        warm = sft_words("teacher_sft", self.model, self.problems, self.folder / "sft", *steps)
        run_here(warm, "teacher_sft")
        files = (self.folder / "sft", self.model, self.problems, self.folder / "rl")
        changes = ("trainer.max_steps=2", f"layout.student_prompt={self.layout[2].partition('=')[2]}")
        run_here(rl_words(*files, *changes, "max_prompt_length=700"), "teacher_rl")

    def collect(self, servers: bool) -> None:
        words = collect_words(self.folder / "rl", self.problems, self.folder / "traces", self.layout[3])
        words = later_win(*words, self.layout[2], "max_completion_length=24", "collect.num_samples=1")
        self._with_servers(words, "collect_traces", servers)

    def train_student(self) -> list[str]:
        return student_words(
            *(self.model, self.folder / "traces" / "traces.jsonl", self.folder / "student"),
            *("trainer.max_steps=2", self.layout[0], self.layout[2], "distill.malformed=keep"),
        )

    def evaluate(self, servers: bool) -> list[dict[str, Any]]:
        words = [
            *("run_cfg=evaluate", "eval_cfg=robust", f"model_name_or_path={self.folder / 'student'}"),
            *(f"output_dir={self.folder / 'evaluation'}", "model.dtype=float32", "evaluate.tasks=[problems]"),
            *(f"dataset_id_or_path={self.problems}", "evaluate.num_samples=1", "max_prompt_length=700"),
            *("max_completion_length=16", "generation.dtype=float32"),
        ]
        self._with_servers(words, "evaluate", servers)
        text = (self.folder / "evaluation" / "samples.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def _with_servers(self, words: list[str], stage: str, servers: bool) -> None:
        if not servers:
            words = [word for word in words if not word.startswith("generation.dtype=")]
            run_here([*words, "generation.backend=transformers"], stage)
            return
        with running_servers(compose(words)) as running:
            run_here([*words, f"generation.servers=[{running[0].address}]"], stage)


CHAINS = [
    pytest.param("qwen3_5_nothink", ("Explain.", "Think."), THINK, False, id="qwen3_5"),
    pytest.param("deepseek_r1_distill", ("Explain.", "Think."), THINK, False, id="r1_distill"),
    pytest.param("gemma", ("", ""), THINK, False, id="gemma"),
    pytest.param(
        *("qwen3_5_think", ("Explain.", "Think."), THINK, True),
        marks=[pytest.mark.vllm, pytest.mark.long],
        id="qwen3_5-servers",
    ),
]


@pytest.mark.parametrize(("name", "prompts", "form", "servers"), CHAINS)
def test_the_whole_chain_in_a_students_own_form(
    name, prompts, form, servers, save_tiny, toy_problems, tmp_path
):
    if servers:
        pytest.importorskip("vllm")
    chain = Chain(name, tmp_path, save_tiny, toy_problems, prompts)
    chain.train_teacher()
    chain.collect(servers)
    words = chain.train_student()
    run_here(words, "student_sft")
    record = read_layout(tmp_path / "student")
    assert record is not None
    assert record.tags == "native"
    assert record.student_prompt == prompts[1]
    switched = {"enable_thinking": True} if name == "qwen3_5_nothink" else {}
    assert record.chat_template_kwargs == switched

    traces = lines_of(tmp_path / "traces")
    written = [form.format(thought=t["explanation"].strip(), answer=t["solution"]) for t in traces]
    assert [t["messages"][-1]["content"] for t in traces] == written
    rows = student_sft.read_text(adopt_layouts(resolve(compose(words)), {}, tell=False)).rows.values
    texts = [chain.tokenizer.decode(row["input_ids"]) for row in rows]
    system = [{"role": "system", "content": prompts[1]}] if prompts[1] else []
    for trace, text in zip(traces, texts, strict=True):
        question = [*system, {"role": "user", "content": trace["question"]}]
        asked = chain.tokenizer.apply_chat_template(
            question, tokenize=False, add_generation_prompt=True, **switched
        )
        turn = form.format(thought=trace["explanation"].strip(), answer=trace["solution"])
        opened = asked.removesuffix("<think>\n")
        assert text == opened + turn + str(chain.tokenizer.eos_token)
    for row, trace in zip(rows, traces, strict=True):
        learned = chain.tokenizer.decode([i for i in row["labels"] if i != IGNORED])
        turn = form.format(thought=trace["explanation"].strip(), answer=trace["solution"])
        opened = "" if name == "gemma" else "<think>\n"  # by the prompt
        assert learned == turn.removeprefix(opened) + str(chain.tokenizer.eos_token)

    samples = chain.evaluate(servers)
    assert len(samples) == len(traces)
    cut = [s for s in samples if s["finish_reason"] == "length" and "</think>" not in s["text"]]
    assert name == "gemma" or cut
    assert all(s["correct"] is False and s["rule"] == "unfinished thought" for s in cut if name != "gemma")
