"""Steps of a pipeline: settings become words, references become paths and an order, mistakes one sentence."""

import pytest

from rlt.config.compose import compose
from rlt.config.schema import PipelineSettings
from rlt.errors import ConfigError
from rlt.pipeline.steps import read_steps


def steps(described: dict, **settings):
    return read_steps(PipelineSettings(steps=described, **settings), "out")


def words(step) -> list[str]:
    return step.words(lambda name, rest: f"out/{name}{rest}")


def test_a_step_comes_after_what_it_reads_and_else_stays_in_its_place():
    found = steps(
        {
            "student_sft": {"dataset_id_or_path": "{chosen}/traces.jsonl"},
            "make_countdown": None,
            "chosen": {"run_cfg": "select_traces", "traces": {"more": ["{collect_traces}/traces.jsonl"]}},
            "collect_traces": {},
        }
    )
    assert [step.name for step in found] == ["make_countdown", "collect_traces", "chosen", "student_sft"]
    assert [step.references for step in found] == [[], [], ["collect_traces"], ["chosen"]]
    assert words(found[3]) == [
        "run_cfg=student_sft",
        "output_dir=out/student_sft",
        "dataset_id_or_path=out/chosen/traces.jsonl",
    ]


def test_values_of_every_kind_arrive_as_they_were_written():
    prompt = "Say {{x}}, then: it's [done] = {really}?"
    settings = {
        "model_name_or_path": "{first}",
        "layout": {"teacher_prompt": prompt.replace("{really}", "{{really}}"), "student_prompt": "default"},
        "reward": {"students": [{"name": "b", "model": "{first}/checkpoint-3", "weight": 0.5}]},
        "answer_log_prob_coeff": [1, 1e-7],
        "data.columns": {"question": "the problem"},
        "trainer_args": {"lr_scheduler_kwargs": {"min_lr": 1e-8}},
        "trainer": {"gradient_checkpointing": False},
        "report_to": None,
    }
    (_, step) = steps({"first": {"run_cfg": "teacher_sft"}, "teacher_rl": settings})
    config = compose(words(step))
    assert config.model_name_or_path == "out/first"
    assert config.layout.teacher_prompt == "Say {x}, then: it's [done] = {really}?"
    assert (config.reward.students[0].model, config.reward.students[0].weight) == (
        "out/first/checkpoint-3",
        0.5,
    )
    assert config.answer_log_prob_coeff == [1.0, 1e-7]
    assert config.data.columns == {"question": "the problem"}
    assert config.trainer_args["lr_scheduler_kwargs"] == {"min_lr": 1e-8}
    assert (config.trainer.gradient_checkpointing, config.report_to) == (False, None)


def test_a_step_wins_over_every_and_its_words_over_both():
    typed = ["pipeline.every.seed=1", "pipeline.every.temperature=1", "pipeline.steps.teacher_rl.seed=2"]
    config = compose(["run_cfg=pipeline", *typed])
    assert config.pipeline.steps["teacher_rl"] == {"model_name_or_path": "{teacher_sft}", "seed": 2}
    rl = next(s for s in read_steps(config.pipeline, "out") if s.name == "teacher_rl")
    assert (rl.settings["seed"], rl.settings["temperature"]) == (2, 1)


def test_what_the_launcher_gets():
    (step,) = steps({"teacher_rl": {"gpus": "4 4", "strategy": "offload", "seed": 3}})
    assert step.launch(words(step)) == [
        *("launch_with_server.sh", "4", "4"),
        *("run_cfg=teacher_rl", "output_dir=out/teacher_rl", "seed=3", "offload"),
    ]
    (step,) = steps({"teacher_sft": {}}, every={"gpus": 8}, prefix="quickstart_")
    assert step.launch(words(step))[:3] == ["launch.sh", "8", "run_cfg=quickstart_teacher_sft"]
    (step,) = steps({"select_traces": {}}, prefix="quickstart_")
    assert step.run_cfg == "select_traces"  # the toy world has no file of its own for it


@pytest.mark.parametrize(
    ("described", "sentence"),
    [
        ({}, "`pipeline.steps` is empty"),
        ({"a b": {}}, "`a b` in pipeline.steps cannot name a step"),
        ({"a": 3}, "step `a` must be a mapping of settings, got 3"),
        ({"a": {"trainer": {"bta": 1}}}, "`trainer.bta` in step `a` is not a setting: did you mean `trainer"),
        ({"a": {"gpus": "4 4 4"}}, "`gpus` of step `a` must be a number, or two of them"),
        ({"a": {"gpus": 0}}, "`gpus` of step `a` must be"),
        ({"a": {"strategy": 3}}, "`strategy` of step `a` must be a name, got 3"),
        ({"a": {"resume_from": "latest"}}, "`resume_from` in step `a` is not needed"),
        ({"a": {"model_name_or_path": "{b}"}}, "step `a` reads `{b}`, but there is no such step, only a"),
        ({"a": {"model_name_or_path": {"b": None}}, "b": {}}, "must be in quotes to name a step: '{b}'"),
        ({"a": {"student_model": "{a}"}}, "the steps a -> a read each other in a circle"),
        (
            {"a": {"student_model": "{b}"}, "b": {"student_model": "{c}"}, "c": {"student_model": "{b}"}},
            "the steps b -> c -> b read each other in a circle",
        ),
    ],
)
def test_a_wrong_step_is_one_sentence(described, sentence):
    with pytest.raises(ConfigError) as caught:
        steps(described)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_that_no_step_would_get_is_refused():
    said = (
        r"`learning_rate` on the command line has no effect in pipeline: write pipeline\.steps\.STEP\.learn"
    )
    with pytest.raises(ConfigError, match=said):
        compose(["run_cfg=pipeline", "learning_rate=1e-5"])


def test_what_is_for_every_step_reaches_those_that_read_it():
    described = {"teacher_rl": {}, "problems": {"run_cfg": "make_countdown"}, "student_sft": {}}
    every = {"trainer": {"beta": 0.1, "weight_decay": 0.2}, "countdown.seed": 3, "strategy": "ddp"}
    given = {step.name: step.settings for step in steps(described, every=every)}
    assert given["teacher_rl"] == {
        "output_dir": "out/teacher_rl",
        "trainer.beta": 0.1,
        "trainer.weight_decay": 0.2,
    }
    assert given["problems"] == {"output_dir": "out/problems", "countdown.seed": 3}
    assert given["student_sft"] == {"output_dir": "out/student_sft", "trainer.weight_decay": 0.2}
    inherited = {"recipe": "modern", "results_dir": "r", "seed": 5}
    countdown = read_steps(PipelineSettings(steps=described), "out", inherited)[1]
    assert countdown.settings == {"output_dir": "out/problems", "results_dir": "r"}


def test_what_no_step_reads_is_refused_though_it_is_for_every():
    with pytest.raises(ConfigError) as caught:
        steps({"teacher_sft": {}, "student_sft": {}}, every={"trainer": {"beta": 0.1}})
    assert str(caught.value) == "`trainer.beta` in `pipeline.every` has no effect in any step: remove it."
