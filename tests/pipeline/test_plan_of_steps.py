"""A pipeline is checked as a whole before anything runs: every step by its own stage's rules."""

from pathlib import Path

import pytest
import yaml
from helpers.fake_models import fake_model

from rlt.config.compose import compose
from rlt.config.overrides import CONFIG_DIR
from rlt.config.resolve import resolve
from rlt.config.weight_files import NO_TENSORS
from rlt.data.model_layout import ModelLayout, write_layout
from rlt.data.own_layout import prompt_text
from rlt.errors import ConfigError, DataError
from rlt.pipeline.plan import make_plan

SHIPPED = [
    path.stem
    for path in sorted((CONFIG_DIR / "run_cfg").glob("*.yaml"))
    if "stage: pipeline" in path.read_text()
]
TOY = {path.stem.removeprefix("quickstart_") for path in (CONFIG_DIR / "run_cfg").glob("quickstart_*.yaml")}
FILE = "dataset_id_or_path"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with rows and the model folders that shipped pipelines start from, without GPUs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    folders = ("model", "training/student", "training/teacher_sft", "training/teacher_rl")
    of_real_model = [f"real_model/{folder}" for folder in folders]
    made = ("base", "solver", "large", "models/teacher_sft", "models/teacher_rl")
    made += ("models/unshown_rl", "rivals/student_solver", "rivals/student_rl")
    of_claims = [f"claims/seed_0/{name}" for name in made]
    for folder in ("base", "pre_rl_model", "teacher_rl", *of_real_model, *of_claims):
        fake_model(tmp_path / "results" / folder)
    (tmp_path / "results/world").mkdir()
    (tmp_path / "results/real_model/problems").mkdir()
    (tmp_path / "rows.jsonl").write_text(
        '{"question": "1+1?", "solution": "2", "explanation": "one and one"}\n'
    )
    for name in ("train", "held_out"):
        row = '{"question": "%d+1?", "solution": "2", "reasoning_trace": "1+1=2"}\n'
        (tmp_path / f"results/world/{name}.jsonl").write_text("".join(row % i for i in range(1000)))
    of_world = (
        "train",
        "held_out",
        "transfer",
        "transfer_held_out",
        "faulty",
        "solver_traces",
        "solver_held_out",
    )
    for file in (*(f"world/{name}" for name in of_world), "rivals/traces_rl/traces"):
        row = '{"question": "%d+1?", "solution": "2", "reasoning_trace": "1+1=2"}\n'
        path = tmp_path / "results/claims/seed_0" / f"{file}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(row % i for i in range(1000)))
    for name in ("student", "train", "held_out", "students", "kinds"):
        row = '{"question": "%d+1?", "solution": "2", "reasoning_trace": "1+1=2"}\n'
        (tmp_path / f"results/real_model/problems/{name}.jsonl").write_text(
            "".join(row % i for i in range(64))
        )
    return tmp_path


def plan(*words: str):
    config = resolve(compose(words))
    return make_plan(config, [CONFIG_DIR])


def plan_of(place: Path, steps: dict):
    (place / "run_cfg").mkdir(exist_ok=True)
    run_file = place / "run_cfg" / "mine.yaml"
    fields = {"stage": "pipeline", "model_name_or_path": None, FILE: "none", "output_dir": "out"}
    run_file.write_text(yaml.safe_dump({**fields, "pipeline": {"steps": steps}}, sort_keys=False))
    return plan(str(run_file))


@pytest.mark.parametrize(
    ("name", "toy"),
    [
        (name, toy)
        for name in SHIPPED
        for toy in (False, True)
        if (toy or "quickstart_" not in name) and not (toy and name.startswith(("real_model", "claims")))
    ],
)
def test_every_step_of_every_shipped_pipeline_can_run(name, toy, place):
    words = ["pipeline.prefix=quickstart_", "results_dir=results/."] if toy else []
    output = Path(compose([f"run_cfg={name}", *words]).output_dir)
    before = {*place.rglob("*")}
    found = plan(f"run_cfg={name}", *words)
    assert len(found) > 2
    assert {step.directory for step in found} == {output / step.name for step in found}
    assert {*place.rglob("*")} == before
    taken = {step.step.run_cfg.removeprefix("quickstart_") for step in found if "quickstart_" in step.command}
    assert taken == {step.config.stage for step in found if toy and step.config.stage in TOY}


def test_settings_of_the_pipeline_reach_its_steps_and_commands():
    found = plan(
        "run_cfg=pipeline", "seed=3", "results_dir=elsewhere", "pipeline.steps.teacher_rl.gpus='1 2'"
    )
    assert [step.config.seed for step in found] == [3, 3, 3, 3]
    assert found[1].command == (
        "./launch_with_server.sh 1 2 run_cfg=teacher_rl results_dir=elsewhere seed=3 "
        "output_dir=elsewhere/pipeline/teacher_rl model_name_or_path=elsewhere/pipeline/teacher_sft"
    )
    assert found[1].config.model_name_or_path == "elsewhere/pipeline/teacher_sft"
    assert [str(path) for path in found[2].needed] == ["elsewhere/pipeline/collect_traces/traces.jsonl"]


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        (
            {"b": {"run_cfg": "select_traces", FILE: "{a}/x.jsonl", "select.rule": "bst"}},
            "`select.rule` must be one",
        ),
        ({"b": {"run_cfg": "select_trace", FILE: "{a}/x.jsonl"}}, "run_cfg=select_trace does not exist"),
        ({"b": {"run_cfg": "select_traces", FILE: "{a}/x.txt"}}, "out/a/x.txt"),
        ({"b": {"run_cfg": "pipeline"}}, "it is a pipeline itself"),
        ({"b": {"run_cfg": "make_countdown", "output_dir": "out/a"}}, "the directory of step `a`"),
        ({"b": {"run_cfg": "make_countdown", "strategy": "zero9"}}, "zero9"),
        (
            {"b": {"run_cfg": "student_sft", FILE: "{a}/x.jsonl", "trainer": 3}},
            "`trainer` is a section",
        ),
    ],
)
def test_the_step_that_cannot_run_is_named_before_any_runs(steps, sentence, place):
    with pytest.raises(ConfigError) as caught:
        plan_of(place, {"a": {"run_cfg": "make_countdown"}, **steps})
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("step `b`")
    assert not (place / "out").exists()


def test_rows_that_are_there_already_are_read(place):
    (place / "rows.jsonl").write_text('{"question": "1+1?"}\n')
    with pytest.raises(DataError, match=r"^step `a`: .*rows\.jsonl"):
        plan_of(place, {"a": {"run_cfg": "select_traces", FILE: "rows.jsonl"}})


def test_what_holds_for_all_steps_is_left_out_of_those_in_which_it_is_void(place):
    """The one trains adapters, the other does not; a setting that counts in no step is refused."""
    step = {"model_name_or_path": "results/base", FILE: "rows.jsonl", "data.missing_trace": "solution"}
    word = "pipeline.every={model.lora.alpha: 64}"
    steps = {name: {"run_cfg": "teacher_sft", **step} for name in ("plain", "adapters")}
    steps["adapters"]["model.lora.rank"] = 8
    content = {"stage": "pipeline", "output_dir": "out", "pipeline": {"steps": steps}}
    run_file = place / "run_cfg" / "mine.yaml"
    run_file.parent.mkdir()
    run_file.write_text(yaml.safe_dump(content, sort_keys=False))
    commands = {one.step.name: one.command for one in plan(str(run_file), word)}
    assert "model.lora.alpha=64" in commands["adapters"]
    assert "alpha" not in commands["plain"]
    del steps["adapters"]["model.lora.rank"]
    run_file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError, match=r"lora.alpha` in `pipeline.every` has no effect in any step"):
        plan(str(run_file), word)


def warm_up_and_traces(place: Path, prompt: str, **of_traces: str) -> dict[str, str]:
    """Return the prompt that each step of a chain has, of which only the warm-up is given one."""
    rows = {FILE: "rows.jsonl", "data.missing_trace": "solution"}
    warm_up = {"run_cfg": "teacher_sft", "model_name_or_path": "results/base", **rows}
    traces = {"run_cfg": "collect_traces", "model_name_or_path": "{warm_up}", FILE: "rows.jsonl", **of_traces}
    steps = {"warm_up": {**warm_up, "layout.teacher_prompt": prompt}, "traces": traces}
    found = plan_of(place, steps)
    return {step.name: prompt_text(step.config, "layout.teacher_prompt") or "" for step in found}


def test_a_step_asks_a_teacher_as_an_earlier_step_will_have_trained_it(place):
    assert warm_up_and_traces(place, "Mine.") == {"warm_up": "Mine.", "traces": "Mine."}
    with pytest.raises(
        ConfigError, match=r"^step `traces`: `layout.teacher_prompt` is not the teacher's prompt"
    ):
        warm_up_and_traces(place, "Mine.", **{"layout.teacher_prompt": "Another."})


def test_a_step_that_runs_again_with_another_prompt_is_not_compared_with_what_it_made_before(place):
    made = place / "out" / "warm_up"
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(NO_TENSORS)
    write_layout(made, ModelLayout("teacher", "bespoke", "Of before.", None))
    assert warm_up_and_traces(place, "Of before.")["traces"] == "Of before."
    same = {"layout.teacher_prompt": "Mine."}
    assert warm_up_and_traces(place, "Mine.", **same) == {"warm_up": "Mine.", "traces": "Mine."}
