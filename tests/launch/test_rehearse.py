"""`--rehearse`: what is made small, what stays, and a whole rehearsal by the real launcher."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import rlt.launch.run as run_module
from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.schema import Config
from rlt.config.validate import validate
from rlt.device_plan import Plan
from rlt.errors import ConfigError, DataError, GenerationError
from rlt.io import write_json
from rlt.launch.main import Launch, main
from rlt.launch.rehearse import (
    FLAG,
    Rehearsal,
    device_words,
    model_words,
    models_of,
    plan_here,
    rehearsal,
    results,
    size_words,
    small_batch,
)
from rlt.rundir.run_record import only_run_in

PROJECT = Path(__file__).parents[2]
MODEL = "model_name_or_path=Qwen/Qwen2.5-7B-Instruct"
FOUR_AND_FOUR = Plan((("0",), ("1",), ("2",), ("3",)), ("4", "5", "6", "7"), 4, "zero3")
ONE_PROCESS = Plan((), (), 1, "single")


def config_of(*words: str) -> Config:
    return resolve(compose(list(words), launched=True))


def small_of(config: Config, words: list[str], plan: Plan, real: Plan, folder: Path) -> Config:
    """Return the configuration of a rehearsal, which passes every check."""
    for name in models_of(config):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_text('{"max_position_embeddings": 32768}')
        save_file({"weight": torch.zeros(1)}, folder / name / "model.safetensors")
    settings = {
        **model_words(config, folder),
        **size_words(config, plan, real),
        **device_words(config, plan),
        "output_dir": str(folder.parent / "run"),
    }
    small = config_of(*words, *(f"{key}={value}" for key, value in settings.items()))
    validate(small, num_processes=plan.num_processes, servers_follow=bool(plan.servers))
    return small


@pytest.mark.parametrize(
    ("real", "present", "serves", "expected"),
    [
        (FOUR_AND_FOUR, tuple("01234567"), True, FOUR_AND_FOUR),
        (FOUR_AND_FOUR, ("0",), True, Plan((("0",),), ("0",), 1, "zero3")),
        (FOUR_AND_FOUR, (), True, Plan(((),), (), 2, "zero3")),
        (Plan((), ("0", "1"), 2, "offload"), ("0", "1"), True, Plan((("1",),), ("0", "1"), 2, "offload")),
        (Plan((), ("0", "1"), 2, "ddp"), ("1",), False, Plan((), ("1",), 1, "single")),
        (Plan((("0",), ("1",)), (), 1, "single"), (), True, Plan(((),), (), 1, "single")),
        (Plan((("0",), ("1",)), (), 1, "single"), ("0",), True, Plan((("0",),), (), 1, "single")),
        (ONE_PROCESS, ("0",), True, Plan((("0",),), (), 1, "single")),  # it asks somebody else's servers
        (Plan((), (), 8, "ddp"), (), False, Plan((), (), 2, "ddp")),
        (ONE_PROCESS, (), False, ONE_PROCESS),
    ],
)
def test_who_gets_what_in_a_rehearsal(real, present, serves, expected):
    assert plan_here(real, present, serves=serves) == expected


@pytest.mark.parametrize(
    ("words", "processes", "expected"),
    [
        (["run_cfg=teacher_rl"], 2, (8, 1, 4)),  # two problems of four, each process four passes
        (["run_cfg=teacher_rl"], 3, (12, 1, 4)),
        (["run_cfg=quickstart_teacher_rl"], 1, (8, 4, 4)),
        (["run_cfg=quickstart_teacher_rl"], 2, (8, 4, 4)),
        (["run_cfg=teacher_rl", "num_generations=2", "train_batch_size=2"], 1, (2, 1, 2)),
        (["run_cfg=teacher_sft"], 2, (4, 1, 1)),
        (["run_cfg=teacher_sft", "train_batch_size=2"], 2, (2, 1, 1)),
        (["run_cfg=quickstart_teacher_sft"], 1, (2, 2, 1)),
    ],
)
def test_small_batches_go_together(words, processes, expected):
    batch, per_device, group = small_batch(config_of(*words, MODEL), processes, processes)
    assert (batch, per_device, group) == expected
    assert batch % (per_device * processes) == batch % group == 0


RL = ["run_cfg=teacher_rl", MODEL, "evaluation.path=openai/gsm8k", "evaluation.steps=25"]


def test_what_teacher_rl_becomes_and_what_stays(tmp_path):
    plan = plan_here(FOUR_AND_FOUR, (), serves=True)
    words = [
        *RL,
        "recipe=modern",
        "model.lora.rank=8",
        "reward.length.weight=1",
        "reward.length.max_tokens=9",
    ]
    words += ["generation.servers=[http://127.0.0.1:9]", "trainer.max_hours=0.1"]
    config = config_of(*words)
    small = small_of(config, words, plan, FOUR_AND_FOUR, tmp_path / "models")
    assert small.model_name_or_path == str(tmp_path / "models" / "model")
    assert small.student_model == str(tmp_path / "models" / "student")
    assert (small.train_batch_size, small.num_generations, small.max_completion_length) == (8, 4, 32)
    assert (small.trainer.max_steps, small.trainer.save_steps, small.evaluation.steps) == (2, 1, 1)
    assert small.trainer.ref_sync_steps == 0  # off, as in the recipe
    assert (small.generation.servers, small.trainer.max_hours) == ([], None)
    # What a rehearsal is there to try stays.
    for section in ("layout", "monitors", "correctness", "trainer_args"):
        assert getattr(small, section) == getattr(config, section)
    assert small.reward.length == config.reward.length
    assert small.model == config.model
    assert small.max_prompt_length == config.max_prompt_length
    assert small.trainer.loss_type == "dapo"


def test_students_and_servers_of_others_are_not_asked(tmp_path):
    prompt = r"{name: small, model: a/b, weight: 0.5, temperature: 0.6, prompt: 'It\'s \${x}, [y]'}"
    words = [*RL, f"reward.students=[{prompt}]", "reward.answers.servers=[http://127.0.0.1:9]"]
    words += ["reward.answers.weight=1", "reward.placement=zero3"]
    small = small_of(
        config_of(*words), words, plan_here(FOUR_AND_FOUR, (), serves=True), FOUR_AND_FOUR, tmp_path
    )
    (student,) = small.reward.students
    assert (student.model, student.prompt) == (str(tmp_path / "student-small"), "It's ${x}, [y]")
    assert (student.weight, student.temperature) == (0.5, 0.6)
    assert small.reward.answers.servers == []
    assert small.reward.answers.weight == 0  # sharded, no process holds a student that could answer
    placed = [*RL, "reward.placement=server", "reward.servers=[http://127.0.0.1:9]"]
    small = small_of(
        config_of(*placed), placed, plan_here(FOUR_AND_FOUR, (), serves=True), FOUR_AND_FOUR, tmp_path
    )
    assert (small.reward.placement, small.reward.servers) == ("replicated", [])


def test_one_gpu_is_shared_without_nccl(tmp_path):
    plan = plan_here(FOUR_AND_FOUR, ("0",), serves=True)
    small = small_of(config_of(*RL), RL, plan, FOUR_AND_FOUR, tmp_path)
    assert (small.generation.gpu_memory_utilization, small.generation.weight_sync) == (0.3, "checkpoint")


def test_what_needs_a_gpu_is_off_on_a_cpu(tmp_path):
    words = [*RL, "model.attn_implementation=flash_attention_2", "generation.weight_sync=nccl"]
    words += ["trainer_args.use_liger_kernel=true", "generation.tensor_parallel=2"]
    small = small_of(
        config_of(*words), words, plan_here(FOUR_AND_FOUR, (), serves=True), FOUR_AND_FOUR, tmp_path
    )
    assert (small.model.attn_implementation, small.generation.weight_sync) == ("auto", "auto")
    assert (small.trainer_args["use_liger_kernel"], small.generation.tensor_parallel) == (False, 1)


@pytest.mark.parametrize("value", ["flash_attention_2", "kernels-community/flash-attn2"])
def test_an_attention_that_is_not_installed_is_rehearsed_with_another_and_told(rl_words, value):
    config = config_of(*rl_words, f"model.attn_implementation={value}")
    for plan in (ONE_PROCESS, Plan((), ("0",), 1, "single")):
        assert device_words(config, plan)["model.attn_implementation"] == "auto"
    validate(config, rehearsed=True)
    with rehearsal(config, ONE_PROCESS, ()) as rehearsed:
        told = "\n".join(rehearsed.report)
    assert "in place of your own: " in told
    assert f"the run itself would not start: model.attn_implementation={value} needs the package" in told


WATCHED = ["evaluation.benchmarks.steps=100", "evaluation.benchmarks.tasks=[math500]"]


@pytest.mark.parametrize(
    "words",
    [
        ["run_cfg=teacher_sft", "dataset_id_or_path=some/rows"],
        ["run_cfg=student_sft", "dataset_id_or_path=some/rows", *WATCHED],
        ["run_cfg=student_rl", "dataset_id_or_path=some/rows", *WATCHED],
        ["run_cfg=student_opd", "dataset_id_or_path=some/rows", "teacher_model=a/b", *WATCHED],
        ["run_cfg=collect_traces", "collect.num_samples=4", "collect.push_to_hub=me/traces"],
        ["run_cfg=evaluate", "layout.student_prompt=default", "eval_cfg=robust"],
        ["run_cfg=score_traces", "dataset_id_or_path=some/rows", "student_model=a/b"],
    ],
)
def test_every_stage_has_a_small_configuration_that_passes_the_checks(tmp_path, words):
    words = [*words, MODEL]
    config = config_of(*words)
    serves = config.stage in ("student_rl", "student_opd", "collect_traces", "evaluate")
    real = FOUR_AND_FOUR if config.stage in ("student_rl", "student_opd") else ONE_PROCESS
    small = small_of(config, words, plan_here(real, (), serves=serves), real, tmp_path)
    assert small.data.shortest == 4
    assert small.collect.push_to_hub is None
    during = small.evaluation.benchmarks
    assert (during.steps, during.max_tokens) == ((1, 32) if WATCHED[0] in words else (0, 4096))


@pytest.fixture
def rl_words(tiny_teacher, tiny_student, toy_problems, tmp_path) -> list[str]:
    """Return the words of a teacher_rl that would take long."""
    settings = {
        "model_name_or_path": tiny_teacher,
        "student_model": tiny_student,
        "dataset_id_or_path": toy_problems,
        "evaluation.path": toy_problems,
        "output_dir": tmp_path / "run",
        "layout.student_prompt": "default",
        "max_prompt_length": 400,
        "max_completion_length": 500,
        "train_batch_size": 64,
        "num_generations": 16,
        "evaluation.steps": 10,
        "generation.backend": "transformers",
        "resume_from": "auto",
    }
    return ["run_cfg=teacher_rl", *(f"{key}={value}" for key, value in settings.items())]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--dry-run"], "--dry-run starts nothing and --rehearse runs every phase"),
        (["run_cfg=pipeline"], "`--rehearse` is for one stage, and a pipeline has several"),
        (["run_cfg=plan_traces", "dataset_id_or_path=a/b"], "plan_traces has nothing that would take long"),
        (["trainer.max_step=4"], "did you mean `trainer.max_steps`?"),
        (["dataset_id_or_path=/no/such.jsonl"], "`dataset_id_or_path=/no/such.jsonl` does not exist"),
        (
            ["train_batch_size=63"],
            "must be a multiple of num_generations",
        ),  # of the run, not of its rehearsal
        (["max_prompt_length=1000"], "must fit the context of"),
    ],
)
def test_what_is_wrong_with_the_run_is_told_before_anything_is_written(
    rl_words, capsys, tmp_path, words, sentence
):
    given = [] if words[0].startswith("run_cfg=") else rl_words  # another stage reads other settings
    assert main(["launch.sh", *given, *words, FLAG]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_second_rehearsal_replaces_the_first_and_two_at_once_are_refused(rl_words, tmp_path):
    config = config_of(*rl_words)
    folder = tmp_path / "run" / "rehearsal"
    for name in ("models/old", "run/checkpoint-1", "mine"):
        (folder / name).mkdir(parents=True)
    with rehearsal(config, ONE_PROCESS, ()) as rehearsed:
        assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ["mine", "models"]
        assert {p.name for p in (folder / "models").iterdir()} == {"model", "student"}
        assert "steps: 2 of 125" in rehearsed.report
        assert "completions: 32 of 500 tokens" in rehearsed.report
        assert "batch: 8 of 64 completions, 4 of 16 a problem" in rehearsed.report
        with pytest.raises(ConfigError, match="is in use by another run"), rehearsal(config, ONE_PROCESS, ()):
            pass
    with only_run_in(folder):
        pass  # it was let go


def test_problems_that_would_not_fill_a_step_of_the_run_are_told(tmp_path, rl_words):
    write_json(tmp_path / "run" / "run.json", {"status": "finished", "problems": 3, "seconds": 1.0})
    rehearsed = Rehearsal(tmp_path, (), ONE_PROCESS, ())
    with pytest.raises(DataError, match=r"leaves 3 problems to train on, but one step needs .* = 4"):
        results(rehearsed, config_of(*rl_words), 2.0, "./launch.sh x --rehearse")
    told = results(
        rehearsed, config_of(*rl_words, "train_batch_size=48"), 2.0, "./launch.sh x 'a b' --rehearse"
    )
    assert told.endswith("the run itself: ./launch.sh x 'a b'")


@pytest.mark.parametrize("end", [3, GenerationError("vLLM server 0 ended with exit code 5\nits log")])
def test_a_rehearsal_that_fails_ends_as_the_run_would_and_says_what_it_was(
    rl_words, monkeypatch, caplog, capsys, end
):
    def run_that_fails(launch: Launch) -> int:
        assert launch.config.trainer.max_steps == 2
        if isinstance(end, Exception):
            raise end
        return end

    monkeypatch.setattr(run_module, "run", run_that_fails)
    code = main(["launch.sh", *rl_words, FLAG])
    if isinstance(end, Exception):
        assert code == end.exit_code
        assert capsys.readouterr().err.splitlines()[-2:] == [
            f"error: in the rehearsal: {end}".splitlines()[0],
            "its log",
        ]
    else:
        assert code == end
        assert "that was the rehearsal; the run itself was not started" in caplog.text


@pytest.mark.slow
def test_a_rehearsal_by_the_launcher(rl_words, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text('{"status": "paused"}')
    done = launch(*rl_words)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith(f"the run itself: {shlex.join(['./launch.sh', '1', *rl_words])}")
    table = {line.split("|")[1].strip() for line in done.stderr.splitlines() if line.startswith("| ")}
    assert {
        "loading",
        "syncing weights",
        "generating",
        "scoring",
        "updating",
        "evaluating",
        "saving",
    } <= table
    assert sorted(path.name for path in run.iterdir()) == ["rehearsal", "run.json"]
    assert (run / "run.json").read_text() == '{"status": "paused"}'
    rehearsed = run / "rehearsal" / "run"
    files = {path.name for path in rehearsed.iterdir()}
    assert {
        "checkpoint-1",
        "checkpoint-2",
        "report.html",
        "README.md",
        "config.yaml",
        "tokenizer.json",
    } <= files
    rows = [json.loads(line) for line in (rehearsed / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]
    assert [row["step"] for row in rows if "eval_reward" in row] == [0, 1, 2]


def launch(*words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(PROJECT / "launch.sh"), "1", *words, FLAG],
        env=env,
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )
