"""A prompt belongs to a model: what a toy teacher was trained with is what every later stage asks it with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.collect_runs import collect_words
from helpers.stage_runs import rl_words, run_here, sft_words, student_words

from rlt.config.compose import compose
from rlt.config.overrides import CONFIG_DIR, read
from rlt.config.resolve import resolve
from rlt.config.schema import Config
from rlt.config.typed import chosen_settings
from rlt.data.model_layout import LAYOUT_FILE, digest, read_layout
from rlt.data.own_layout import adopt_layouts, prompt_text
from rlt.errors import CheckpointError, ConfigError, DataError
from rlt.pipeline.decide import decide
from rlt.pipeline.plan import make_plan
from rlt.rundir.origin import require_same_origin

pytestmark = pytest.mark.slow
PROMPT = "Explain it, with a literal \\n\\n and a space at the end. "
STEP = ("trainer.max_steps=1", "trainer.save_steps=1")
ONE_ROW = ("generation.backend=transformers", "data.subset.n=1", "collect.samples_per_chunk=2")


@pytest.fixture(scope="module")
def taught(tiny_teacher: Path, tiny_student: Path, toy_problems: Path, tmp_path_factory) -> dict[str, Path]:
    """Return what a pipeline leaves in which the warm-up alone is given a prompt.

    Each step runs as the pipeline would type it, in this process.
    """
    folder = tmp_path_factory.mktemp("taught")
    (folder / "prompt.txt").write_bytes(PROMPT.encode())
    prompt = f"layout.teacher_prompt=file:{folder / 'prompt.txt'}"
    words = {
        "pre_rl_model": sft_words("teacher_sft", tiny_teacher, toy_problems, Path("_"), prompt, *STEP),
        "teacher_rl": rl_words(Path("{pre_rl_model}"), tiny_student, toy_problems, Path("_"), *STEP),
        "traces": collect_words(Path("{teacher_rl}"), toy_problems, Path("_"), *ONE_ROW),
    }
    steps = {
        name: dict(word.split("=", 1) for word in of_step if not word.startswith("output_dir="))
        for name, of_step in words.items()
    }
    run_file = folder / "run_cfg" / "chain.yaml"
    run_file.parent.mkdir()
    fields = {"stage": "pipeline", "model_name_or_path": None, "dataset_id_or_path": "none"}
    fields |= {"output_dir": str(folder), "pipeline": {"steps": steps}}
    run_file.write_text(yaml.safe_dump(fields, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        for planned in make_plan(resolve(compose([str(run_file)])), [CONFIG_DIR]):
            run_here(planned.words[1:], planned.config.stage)
    return {"folder": folder, "pre": folder / "pre_rl_model", "rl": folder / "teacher_rl"}


def asked_under(traces: Path) -> str:
    """Return the teacher's prompt under which a collection was made."""
    return json.loads((traces / "samples" / "manifest.json").read_text())["teacher_prompt"]


def test_a_pipeline_carries_the_prompt_of_its_warm_up(taught, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert asked_under(taught["folder"] / "traces") == PROMPT
    run_file = taught["folder"] / "run_cfg" / "chain.yaml"
    plan = make_plan(resolve(compose([str(run_file)])), [CONFIG_DIR])
    assert [decide(planned, ignore_code=False).runs for planned in plan] == [False] * 3
    word = "pipeline.steps.traces.layout.teacher_prompt=Else."
    with pytest.raises(
        ConfigError, match=r"^step `traces`: `layout.teacher_prompt` is not the teacher's prompt"
    ):
        make_plan(resolve(compose([str(run_file), word])), [CONFIG_DIR])


def collect(teacher: Path, problems: Path, output: Path, *changes: str) -> str:
    """Return the teacher's prompt that one row of a collection was asked under."""
    run_here(collect_words(teacher, problems, output, *ONE_ROW, *changes), "collect_traces")
    return asked_under(output)


def test_no_word_is_needed_to_ask_a_teacher_as_it_was_trained(taught, toy_problems, tmp_path: Path):
    assert collect(taught["rl"] / "checkpoint-1", toy_problems, tmp_path / "traces") == PROMPT
    assert f"`{digest(PROMPT)}` | checkpoint-1's own |" in (tmp_path / "traces" / "README.md").read_text()
    log = (tmp_path / "traces" / "log.txt").read_text(encoding="utf-8")
    assert f"layout.teacher_prompt is model_name_or_path={taught['rl']}/checkpoint-1's own" in log


def test_every_model_and_checkpoint_holds_what_it_was_trained_with(taught):
    for run in (taught["pre"], taught["rl"]):
        layout = read_layout(run)
        assert layout is not None
        assert layout == read_layout(run / "checkpoint-1")
        assert (layout.role, layout.tags, layout.teacher_prompt) == ("teacher", "bespoke", PROMPT)
        assert (layout.turn_end, layout.turn_end_is) == ("<|im_end|>", "end_of_turn")
        card = (run / "README.md").read_text()
        assert digest(PROMPT) in card
        assert digest((run / LAYOUT_FILE).read_text()) in card
    judged = read_layout(taught["rl"])
    assert judged is not None
    assert judged.student_prompt == json.loads((taught["rl"] / LAYOUT_FILE).read_text())["student_prompt"]
    assert "careful problem solver" in str(judged.student_prompt)


def test_another_prompt_is_refused_or_said_in_the_card(taught, tiny_student, toy_problems, tmp_path: Path):
    for words in (
        rl_words(taught["pre"], tiny_student, toy_problems, tmp_path / "rl", "layout.teacher_prompt=Else."),
        collect_words(taught["rl"], toy_problems, tmp_path / "c", *ONE_ROW, "layout.teacher_prompt=Else."),
    ):
        with pytest.raises(ConfigError, match=r"or take layout.override=true to use it all the same"):
            run_here(words, words[0].removeprefix("run_cfg="))
    forced = ("layout.teacher_prompt=Else.", "layout.override=true")
    assert collect(taught["rl"], toy_problems, tmp_path / "forced", *forced) == "Else."
    card = (tmp_path / "forced" / "README.md").read_text()
    assert f"| `{digest('Else.')}` | not teacher_rl's own (sha256 {digest(PROMPT):.12s}): " in card


def as_before(run: Path, copy: Path) -> Path:
    """Return a copy of a run as the program left it before models had a record: origin.json had it all."""
    shutil.copytree(run, copy)
    (copy / LAYOUT_FILE).unlink()
    layout = json.loads((copy / "checkpoint-1" / LAYOUT_FILE).read_text())
    (copy / "checkpoint-1" / LAYOUT_FILE).unlink()
    path = copy / "checkpoint-1" / "origin.json"
    origin = json.loads(path.read_text())
    assert not {"tags", "teacher prompt"} & origin["traits"].keys()  # one source of truth
    origin["traits"] |= {"tags": layout["tags"]["style"], "teacher prompt": layout["teacher_prompt"]}
    path.write_text(json.dumps(origin))
    return copy


def test_a_model_and_a_run_from_before_are_told_and_go_on(taught, tiny_teacher, toy_problems, tmp_path: Path):
    run = as_before(taught["pre"], tmp_path / "pre_rl_model")
    assert collect(run, toy_problems, tmp_path / "traces", "layout.teacher_prompt=Else.") == "Else."
    log = (tmp_path / "traces" / "log.txt").read_text(encoding="utf-8")
    why = f"model_name_or_path={run} has no rlt_layout.json"
    assert f"{why}, so this run prompts it with layout.teacher_prompt=" in log

    on = ("trainer.max_steps=2", "resume_from=latest")
    words = sft_words("teacher_sft", tiny_teacher, toy_problems, run, *STEP, *on)
    with pytest.raises(CheckpointError, match=r"teacher prompt \(Explain it, .* now You are a teacher"):
        run_here(words, "teacher_sft")
    run_here([*words, f"layout.teacher_prompt=file:{taught['folder'] / 'prompt.txt'}"], "teacher_sft")
    log = (run / "log.txt").read_text(encoding="utf-8")
    assert (
        f"{run}/checkpoint-1 has no rlt_layout.json, so the run continues with layout.teacher_prompt=" in log
    )
    later = read_layout(run / "checkpoint-2")
    assert later is not None
    assert later.teacher_prompt == PROMPT


def goes_on(*words: str) -> Config:
    """Return the configuration with which a run continues, compared with what it was; nothing is trained."""
    config = adopt_layouts(resolve(compose(words)), chosen_settings(read(words)))
    require_same_origin(config)
    return config


def test_a_run_goes_on_under_its_own_prompt_without_a_word(taught, tiny_teacher, toy_problems):
    words = sft_words("teacher_sft", tiny_teacher, toy_problems, taught["pre"], *STEP, "resume_from=latest")
    assert prompt_text(goes_on(*words), "layout.teacher_prompt") == PROMPT
    with pytest.raises(CheckpointError, match=r"teacher prompt \(Explain it, .* now Else"):
        goes_on(*words, "layout.teacher_prompt=Else.", "layout.override=true")


def test_a_student_keeps_the_one_prompt_of_its_rows(tiny_student, tmp_path: Path):
    row = {"question": "2+3*4", "solution": "4", "explanation": "3*4=2\n2+2=4"}

    def traces(name: str, *systems: str) -> Path:
        path = tmp_path / f"{name}.jsonl"
        path.write_text(
            "".join(json.dumps({**row, "system": systems[i % len(systems)]}) + "\n" for i in range(4))
        )
        return path

    own = "layout.student_prompt=from_dataset"
    one = student_words(tiny_student, traces("one", "Think. "), tmp_path / "student", own, *STEP)
    student = run_here(one, "student_sft")
    layout = read_layout(student)
    assert layout is not None
    assert (layout.role, layout.student_prompt, layout.student_prompt_from_dataset) == (
        "student",
        "Think. ",
        True,
    )
    assert f"`{digest('Think. ')}` | of all rows |" in (student / "README.md").read_text()
    other = student_words(student, traces("other", "Else."), tmp_path / "refused", own, *STEP)
    with pytest.raises(DataError, match="has another system prompt than the student was trained with"):
        run_here(other, "student_sft")
    assert goes_on(*one, "resume_from=latest").layout.student_prompt == "from_dataset"
    untyped = [word for word in one if word != own]
    assert goes_on(*untyped, "resume_from=latest").layout.student_prompt == "from_dataset"

    two = student_words(tiny_student, traces("two", "Think. ", "Else."), tmp_path / "of_two", own, *STEP)
    several = run_here(two, "student_sft")
    layout = read_layout(several)
    assert layout is not None
    assert (layout.student_prompt, layout.note) == (
        None,
        "the rows that it was trained with have 2 different system prompts",
    )
    assert "no student's prompt is stored with the model, since the rows" in (several / "log.txt").read_text()
    assert "have 2 different system prompts" in (several / "README.md").read_text()
