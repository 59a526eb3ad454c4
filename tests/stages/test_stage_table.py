"""The table of stages is true: over two-step runs of every stage, what it declares is read, and nothing else.

Every stage runs in this process with tiny models, after its launcher has planned it for two GPUs and servers.
Reads by the rules (validate.py, check_*.py) alone make no effect, so they prove nothing; but a rule must not
read what its stage does not.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from config_recorder import PROJECT, Recorder, recording
from helpers.collect_runs import collect_words
from helpers.stage_runs import later_win, rl_words, run_here, sft_words, student_words

from rlt.config.compose import compose
from rlt.config.overrides import CONFIG_DIR
from rlt.config.resolve import resolve
from rlt.config.stages import STAGES
from rlt.config.tree import rows
from rlt.launch.command_line import parse
from rlt.launch.main import describe, prepare
from rlt.pipeline.plan import make_plan

SETTINGS = [name for name, row in rows().items() if row.section is None]
AT_COMPOSITION = {"stage", "results_dir", "recipe"}
"""Read by run files, as `${NAME}`, and by `compose` itself (tests/config/test_compose.py)."""
BESIDE_SERVERS = {
    "generation.sync_timeout": "rlt/stages/rl.py",
    "generation.sync_dir": "rlt/stages/rl.py",
    "generation.max_restarts": "rlt/stages/rl.py",
    "generation.request_timeout": "rlt/stages/engine.py",
    "generation.allow_open_servers": "rlt/stages/engine.py",
    "generation.api_key_file": "rlt/stages/engine.py",
    "generation.startup_timeout": "rlt/stages/engine.py",
    "generation.silence_timeout": "rlt/launch/run.py",
    "generation.weight_sync": "rlt/stages/rl.py",
    "trainer.hang_timeout": "rlt/launch/run.py",
    "trainer.save_on_sigterm": "rlt/launch/run.py",
    "collect.requests_per_server": "rlt/stages/collect_traces.py",
    "evaluate.requests_per_server": "rlt/stages/evaluate.py",
    "generation.api": "rlt/stages/evaluate.py",
    "generation.api_model": "rlt/stages/evaluate.py",
    "generation.retry_seconds": "rlt/stages/evaluate.py",
    "evaluate.revisions": "rlt/evaluation/items.py",
    "reward.servers": "rlt/stages/student_placement.py",
    "reward.verify_server": "rlt/stages/score_traces.py",
    "opd.servers": "rlt/stages/opd_teacher.py",
}
"""Read only where servers, a launcher with its training, or a benchmark of the Hub are; tests marked `vllm`
have servers. Here the file that reads each is looked into."""
GSM8K = '{"question": "1+1*2", "answer": "#### 3"}\n'


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with benchmark questions, traces with scores, and a reward function of the user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "gsm8k.jsonl").write_text(GSM8K * 2)
    (tmp_path / "my_rewards.py").write_text(
        "def brevity(explanations, **columns):\n    return [0.0 for _ in explanations]\n"
    )
    traces = [
        {"question": f"{a}+1*2", "solution": str(a + 2), "explanation": f"1*2=2\n{a}+2={a + 2}", "score": -a}
        for a in range(8)
    ]
    (tmp_path / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in traces))
    return tmp_path


def watched(work: Path) -> list[str]:
    return [
        "evaluation.benchmarks.steps=2",
        "evaluation.benchmarks.num_problems=2",
        "evaluation.benchmarks.max_tokens=4",
        "evaluation.benchmarks.tasks=[gsm8k,problems]",
        f"evaluate.paths={{gsm8k: {work / 'gsm8k.jsonl'}}}",
    ]


@pytest.fixture
def words(work, tiny_teacher, tiny_student, toy_problems):
    """Return a function that gives the words of a small run of a stage, which uses what it can."""
    held_out = [f"evaluation.path={toy_problems}", "evaluation.steps=1", "data.subset.n=8"]
    held_out += ["evaluation.subset.n=2", "trainer.max_steps=2", "trainer.gradient_checkpointing=auto"]
    held_out += ["model.lora.rank=2", "model.lora.target_modules=[q_proj]"]
    solved = ["data.missing_trace=solution", "data.subset.n=13"]
    compared = ["data.decontaminate=[gsm8k]", "data.on_contaminated=report"]
    cleaned = [*compared, f"evaluate.paths={{gsm8k: {work / 'gsm8k.jsonl'}}}"]
    output, traces = work / "run", work / "traces.jsonl"
    without_trace = work / "without_trace.jsonl"
    without_trace.write_text(f'{toy_problems.read_text()}{{"question": "9*9", "solution": "1"}}\n')
    components = [
        "reward.length={weight: 1, max_tokens: 3}",
        "reward.copy={weight: 1, n: 1}",
        "reward.functions=[{path: my_rewards:brevity, weight: 1}]",
        "reward.answers={weight: 1, num_samples: 1, max_tokens: 2}",
    ]
    scoring = [f"student_model={tiny_student}", f"model_name_or_path={tiny_teacher}", f"output_dir={output}"]
    scoring += [f"dataset_id_or_path={traces}", "model.dtype=float32", "reward.dtype=float32"]
    scoring += ["data.subset.n=8"]
    rl = rl_words(tiny_teacher, tiny_student, toy_problems, output, *held_out, "trainer.ref_sync_steps=1")
    of_student = [w for w in rl if not w.startswith(("run_cfg", "student_model", "reward."))]
    of_traces = ["trainer.max_steps=2", f"evaluation.path={traces}", "evaluation.steps=1"]
    of_traces += ["evaluation.subset.n=2", "model.lora.rank=2", "data.subset.n=8"]
    of_traces += ["trainer.gradient_checkpointing=auto"]
    evaluate = ["generation.backend=transformers", "max_completion_length=4"]
    evaluate += ["evaluate.tasks=[problems,gsm8k]", f"evaluate.paths={{gsm8k: {work / 'gsm8k.jsonl'}}}"]
    evaluate += [f"model_name_or_path={tiny_student}", f"dataset_id_or_path={toy_problems}"]
    evaluate += [f"output_dir={output}", "model.dtype=float32", "data.subset.n=2", "max_prompt_length=200"]
    select = [f"dataset_id_or_path={traces}", f"output_dir={output}", f"student_model={tiny_student}"]
    select += ["data.subset.n=8"]
    choose = ["select.rule=rank", "select.rank_bucket=[1,1]", "select.max_length=900"]
    found = {
        "teacher_sft": sft_words(
            "teacher_sft", tiny_teacher, without_trace, output, *held_out, *solved, *cleaned
        ),
        "teacher_rl": later_win(*rl, *components, *cleaned),
        "student_sft": student_words(tiny_student, traces, output, *watched(work), *of_traces, *compared),
        "student_rl": [
            "run_cfg=student_rl",
            *of_student,
            *watched(work),
            *compared,
            *("correctness.grader=math", "correctness.likelihood_weight=0.5"),
            *(f"student_model={tiny_student}", "reward.dtype=float32"),
        ],
        "student_opd": [
            *("run_cfg=student_opd", *of_student, *watched(work), *compared, f"teacher_model={tiny_teacher}"),
            *(
                "opd.dtype=float32",
                "trainer.beta=0.04",
                "opd.open_thought=true",
                "opd.support=top_k",
                "opd.divergence=js",
            ),
        ],
        "collect_traces": collect_words(
            tiny_teacher, toy_problems, output, "generation.backend=transformers", "data.subset.n=2", *cleaned
        ),
        "evaluate": ["run_cfg=evaluate", "eval_cfg=robust", "evaluate.num_samples=1", *evaluate],
        "score_traces": ["run_cfg=score_traces", *scoring],
        "show_traces": ["run_cfg=show_traces", *scoring],
        "select_traces": [
            "run_cfg=select_traces",
            *select,
            *choose,
            *cleaned,
            "layout.student_prompt=Think.",
        ],
        "plan_traces": ["run_cfg=plan_traces", *select, "layout.student_prompt=Think."],
        "make_countdown": ["run_cfg=make_countdown", f"output_dir={output}", "countdown.num_train=4"],
        "infer": [
            *("run_cfg=infer", f"model_name_or_path={tiny_student}", "infer.question=1+1"),
            *("max_completion_length=2", "model.dtype=float32", "layout.student_prompt=Think."),
        ],
    }
    return found.__getitem__


def plan_it(words: Sequence[str], stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the launcher plan the run for two GPUs, as --dry-run does."""
    servers = ["generation.backend=vllm"] if STAGES[stage].reads("generation.backend") else []
    words = [word for word in words if not (servers and ".samples_per_chunk=" in word)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    describe(prepare("launch.sh", parse("launch.sh", [*later_win(*words, *servers), "--dry-run"])))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")


def typed_output(words: Sequence[str]) -> str:
    return next(word.partition("=")[2] for word in words if word.startswith("output_dir="))


def undeclared(recorder: Recorder, stage: str) -> dict[str, list[str]]:
    return {n: sorted(files) for n, files in recorder.found.items() if not STAGES[stage].reads(n)}


def not_read(recorder: Recorder, stage: str) -> list[str]:
    """Return what the table declares and nothing but rules has read."""
    effective = {
        name
        for name, files in recorder.found.items()
        if any(not re.search(r"rlt/config/(validate|check_\w+)\.py", file) for file in files)
    }
    declared = {name for name in SETTINGS if STAGES[stage].reads(name)} - AT_COMPOSITION
    return sorted(declared - effective - BESIDE_SERVERS.keys())


def hold(recorder: Recorder, stage: str) -> None:
    assert not undeclared(recorder, stage), f"add to `{stage}` in rlt/config/stages.py, or do not read"
    assert not not_read(recorder, stage), f"take out of `{stage}` in rlt/config/stages.py, or read"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("peft") is None or find_spec("vllm") is None, reason="needs peft and vllm")
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "pipeline"])
def test_a_stage_reads_what_the_table_says(stage, words, monkeypatch):
    typed = words(stage)
    with recording() as recorder:
        if stage != "infer":  # which has no launcher
            plan_it(typed, stage, monkeypatch)
        if stage == "infer":
            of_teacher = [word for word in typed if not word.startswith("layout.student_prompt=")]
            run_here([*of_teacher, "infer.solution=2"], stage)
        if stage == "student_opd":  # a teacher of its own weights, which adapters would not let move
            ours = ("teacher_model=", "opd.open_thought=", "model.lora.", "layout.teacher_prompt=")
            typed_for_average = [word for word in typed if not word.startswith(ours)]
            average = ["opd.teacher=ema", "opd.solution_in=question", f"output_dir={typed_output(typed)}_ema"]
            run_here(later_win(*typed_for_average, *average), stage)
        run_here(typed, stage)
    hold(recorder, stage)


def test_a_pipeline_reads_what_the_table_says(work, monkeypatch):
    from rlt.pipeline.run import run

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (work / "run_cfg").mkdir()
    steps = "{a: {run_cfg: make_countdown}}"
    path = work / "run_cfg" / "mine.yaml"
    path.write_text(f"stage: pipeline\noutput_dir: {work}/out\npipeline:\n  steps: {steps}\n")
    with recording() as recorder:
        config = resolve(compose([str(path)]))
        make_plan(config, [work, CONFIG_DIR])
        run(config, [str(path)], dry_run=True)
    found = {name for name in recorder.found if name.startswith("pipeline.")}
    assert found == {name for name in SETTINGS if name.startswith("pipeline.")}


@pytest.mark.parametrize(("name", "file"), BESIDE_SERVERS.items())
def test_what_servers_and_launchers_read_stands_in_their_code(name, file):
    leaf = name.rpartition(".")[2]
    assert re.search(rf"\b\w+\.{leaf}\b", (PROJECT / file).read_text(encoding="utf-8")), (name, file)


def test_the_recorder_sees_reads_and_not_walks(work):
    source = (
        "import dataclasses\n"
        "def read(config):\n"
        "    data = dataclasses.replace(config.data, split='x')\n"
        "    changed = dataclasses.replace(config, seed=1, data=data)\n"
        "    return changed.seed, changed.data.split, changed.data.format, changed.model.lora.rank\n"
    )
    with recording() as recorder:
        config = compose(["run_cfg=teacher_sft"])
        assert dataclass_walk(config)
        assert recorder.found == {}
        space: dict = {}
        exec(compile(source, os.fspath(PROJECT / "rlt" / "stages" / "of_a_test.py"), "exec"), space)
        space["read"](config)
    assert recorder.found.keys() == {"data.format", "model.lora.rank"}


def dataclass_walk(config) -> bool:
    import copy
    import dataclasses

    return copy.deepcopy(config) == config and bool(dataclasses.asdict(config))
