"""Whose prompts a run uses, by stage: the model's own, unless what is typed is it or overrides it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from rlt.config.compose import compose
from rlt.config.original.skythought import is_skythought, read_skythought_prompt
from rlt.config.overrides import read
from rlt.config.resolve import resolve
from rlt.config.typed import chosen_settings
from rlt.data.model_layout import ModelLayout, write_layout
from rlt.data.own_layout import adopt_layouts, prompt_of_rows, prompt_text, used_prompts
from rlt.errors import ConfigError
from rlt.formats.template import TemplateSettings
from rlt.stages.layouts import template_settings

TEACHER = ModelLayout("teacher", "bespoke", "Explain mine.", "Think as its judge.")
STUDENT = ModelLayout(
    "student", "bespoke", None, "Think mine.", turn_end="<|endoftext|>", turn_end_is="end_of_text"
)
NEEDED = {
    "teacher_sft": ["dataset_id_or_path=rows.jsonl", "output_dir=run"],
    "teacher_rl": ["dataset_id_or_path=rows.jsonl", "output_dir=run", "student_model=student"],
    "collect_traces": ["dataset_id_or_path=rows.jsonl", "output_dir=run"],
    "score_traces": ["dataset_id_or_path=rows.jsonl", "output_dir=run", "student_model=student"],
    "show_traces": ["dataset_id_or_path=rows.jsonl", "output_dir=run", "student_model=student"],
    "student_sft": ["dataset_id_or_path=rows.jsonl", "output_dir=run"],
    "student_rl": ["dataset_id_or_path=rows.jsonl", "output_dir=run"],
    "student_opd": ["dataset_id_or_path=rows.jsonl", "output_dir=run", "teacher_model=elsewhere"],
    "evaluate": ["evaluate.tasks=[gsm8k]", "evaluate.paths={gsm8k: rows.jsonl}", "output_dir=run"],
    "infer": ["infer.question=1+1"],
    "select_traces": [
        *("dataset_id_or_path=rows.jsonl", "output_dir=run", "student_model=student", "select.max_length=99"),
    ],
    "plan_traces": ["dataset_id_or_path=rows.jsonl", "output_dir=run", "student_model=student"],
}
OF_TEACHERS = ("teacher_sft", "teacher_rl", "collect_traces", "score_traces", "show_traces", "infer")
OF_STUDENTS = ("student_sft", "student_rl", "student_opd", "evaluate", "infer")
OF_JUDGES = ("teacher_rl", "score_traces", "show_traces", "select_traces", "plan_traces")


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the records of a teacher and of a student; no more of a model is read."""
    monkeypatch.chdir(tmp_path)
    write_layout(Path("teacher"), TEACHER)
    write_layout(Path("student"), STUDENT)
    write_layout(Path("of_r1"), ModelLayout("student", "r1", None, "Think mine."))
    Path("elsewhere").mkdir()
    Path("typed.txt").write_text("Another.")
    return tmp_path


def adopted(stage: str, model: str | None, *words: str):
    """Return the configuration of a stage with a model, its prompts adopted."""
    given = {word.partition("=")[0]: word for word in NEEDED[stage]}
    given |= {"model_name_or_path": f"model_name_or_path={model}"} if model else {}
    given |= {word.partition("=")[0]: word for word in words}
    if stage == "infer" and model == "teacher":
        given["infer.solution"] = "infer.solution=2"
    typed = [f"run_cfg={stage}", *given.values()]
    config = adopt_layouts(resolve(compose(typed)), chosen_settings(read(typed)))
    again = adopt_layouts(config, chosen_settings(read(typed)), tell=False)
    assert again == config
    return config


@pytest.mark.parametrize("stage", OF_TEACHERS)
def test_a_teacher_is_asked_under_its_own_prompt(stage, caplog):
    caplog.set_level(logging.INFO)
    assert prompt_text(adopted(stage, "teacher"), "layout.teacher_prompt") == "Explain mine."
    assert (
        "layout.teacher_prompt is model_name_or_path=teacher's own, from its rlt_layout.json" in caplog.text
    )


@pytest.mark.parametrize("stage", OF_STUDENTS)
def test_a_student_is_asked_under_its_own_prompt(stage):
    """student_sft says from_dataset in its shipped run file, which is a preset and no choice of the user."""
    assert prompt_text(adopted(stage, "student"), "layout.student_prompt") == "Think mine."


@pytest.mark.parametrize("stage", OF_JUDGES)
def test_a_frozen_student_judges_under_its_own_prompt(stage):
    config = adopted(stage, "teacher" if stage in OF_TEACHERS else None)
    assert prompt_text(config, "layout.student_prompt") == "Think mine."
    with pytest.raises(
        ConfigError, match=r"student_prompt` on the command line .* student_model=student was"
    ):
        adopted(stage, None, "layout.student_prompt=Another.")


@pytest.mark.parametrize(
    ("stage", "typed"),
    [
        ("teacher_sft", "default"),
        ("teacher_rl", "file:typed.txt"),
        ("collect_traces", ""),
        ("score_traces", "text:Another."),
        ("show_traces", "Another."),
        ("infer", "default"),
    ],
)
def test_another_teachers_prompt_is_refused_and_may_be_forced(stage, typed):
    word = f"layout.teacher_prompt={typed}"
    with pytest.raises(ConfigError) as error:
        adopted(stage, "teacher", word)
    sentence = str(error.value)
    assert sentence.startswith("`layout.teacher_prompt` on the command line is not the teacher's prompt that")
    assert "model_name_or_path=teacher was trained with ('Explain mine.', sha256 " in sentence
    assert "remove it, or take layout.override=true" in sentence
    config = adopted(stage, "teacher", word, "layout.override=true")
    assert config.layout.teacher_prompt == typed
    used = used_prompts(config)["layout.teacher_prompt"]["is"]
    assert used.startswith("not teacher's own (sha256 ")
    assert used.endswith("): layout.override=true")


@pytest.mark.parametrize("stage", OF_STUDENTS)
def test_another_students_prompt_is_refused(stage):
    with pytest.raises(ConfigError, match="is not the student's prompt that model_name_or_path=student was"):
        adopted(stage, "student", "layout.student_prompt=default")


def test_the_same_prompt_may_be_typed_in_any_form(models):
    Path("same.txt").write_text("Explain mine.")
    for typed in ("file:same.txt", "Explain mine.", "text:Explain mine."):
        config = adopted("collect_traces", "teacher", f"layout.teacher_prompt={typed}")
        assert config.layout.teacher_prompt == typed


def test_a_run_file_of_the_user_is_a_choice_and_a_shipped_one_a_preset(models):
    folder = models / "run_cfg"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        "defaults:\n  - collect_traces\n  - _self_\nlayout:\n  teacher_prompt: Another.\n"
    )
    typed = [str(folder / "mine.yaml"), "model_name_or_path=teacher", "dataset_id_or_path=rows.jsonl"]
    with pytest.raises(ConfigError, match=r"teacher_prompt` in .*mine\.yaml is not the teacher's prompt"):
        adopt_layouts(resolve(compose(typed)), chosen_settings(read(typed)))


def test_a_text_that_looks_like_a_word_stays_a_text(models):
    for text in ("default", "from_dataset", "file:typed.txt", "text:", "skythought:x"):
        write_layout(Path("teacher"), ModelLayout("teacher", "bespoke", text, None))
        assert prompt_text(adopted("collect_traces", "teacher"), "layout.teacher_prompt") == text


def test_tags_belong_to_the_model_too():
    assert adopted("evaluate", "of_r1").layout.tags == "r1"
    with pytest.raises(
        ConfigError, match=r"`layout.tags=bespoke` on the command line is not what .*of_r1 was"
    ):
        adopted("evaluate", "of_r1", "layout.tags=bespoke")
    with pytest.raises(ConfigError, match=r"`layout.tags=bespoke` of another model .* student_model=of_r1"):
        adopted("teacher_rl", "teacher", "student_model=of_r1")
    assert (
        adopted("evaluate", "of_r1", "layout.tags=bespoke", "layout.override=true").layout.tags == "bespoke"
    )


def test_switches_and_date_of_a_template_belong_to_the_model_too():
    mine = ModelLayout(
        "student", "native", None, "", chat_template_kwargs={"thinking": True}, date="2025-03-01"
    )
    write_layout(Path("thinks"), mine)
    layout = adopted("evaluate", "thinks").layout
    assert (layout.tags, layout.chat_template_kwargs, layout.date) == (
        "native",
        {"thinking": True},
        "2025-03-01",
    )
    for word in ("layout.chat_template_kwargs={thinking: false}", "layout.date=2025-01-01"):
        setting = word.partition("=")[0]
        with pytest.raises(
            ConfigError, match=rf"`{setting}=.*` on the command line is not what .*thinks was"
        ):
            adopted("evaluate", "thinks", word)
        adopted("evaluate", "thinks", word, "layout.override=true")
    typed = adopted("evaluate", "thinks", "layout.chat_template_kwargs={thinking: true}").layout
    assert typed.chat_template_kwargs == {"thinking": True}
    # one whose record is from before them, or that has none, is given what is typed
    for model in ("of_r1", "elsewhere"):
        typed = adopted("evaluate", model, "layout.chat_template_kwargs={thinking: false}").layout
        assert typed.chat_template_kwargs == {"thinking": False}
    # models of one run may differ: each is asked under its own
    write_layout(Path("plain"), ModelLayout("teacher", "native", "Explain.", None, chat_template_kwargs={}))
    config = adopted("teacher_rl", "plain", "student_model=thinks")
    assert config.layout.chat_template_kwargs == {}
    assert template_settings(config, "thinks", None) == TemplateSettings({"thinking": True}, "2025-03-01")
    assert template_settings(config, "plain", None).switches == {}


def test_further_students_judge_under_their_own_prompts():
    others = "reward.students=[{name: small, model: student}, {name: other, model: elsewhere}]"
    config = adopted("teacher_rl", "teacher", "student_model=elsewhere", others)
    assert [s.prompt for s in config.reward.students] == ["text:Think mine.", None]
    with pytest.raises(ConfigError, match=r"reward.students.small.prompt` on the command line is not"):
        adopted("teacher_rl", "teacher", "reward.students=[{name: small, model: student, prompt: Another.}]")


def test_a_collection_names_no_student_and_writes_for_the_one_that_judged(caplog):
    caplog.set_level(logging.INFO)
    assert prompt_text(adopted("collect_traces", "teacher"), "layout.student_prompt") == "Think as its judge."
    config = adopted("collect_traces", "teacher", "layout.student_prompt=Another.")
    assert config.layout.student_prompt == "Another."
    assert "the student that judged model_name_or_path=teacher had another one" in caplog.text


def test_a_student_that_is_taught_further_ends_its_turn_as_it_does():
    assert adopted("student_sft", "student").distill.turn_end == "end_of_text"
    with pytest.raises(ConfigError, match=r"`distill.turn_end=end_of_turn` .* end_of_text: <|endoftext|>"):
        adopted("student_sft", "student", "distill.turn_end=end_of_turn")


def test_rows_must_bring_the_students_own_prompt_where_from_dataset_is_typed():
    config = adopted("student_sft", "student", "layout.student_prompt=from_dataset")
    assert config.layout.student_prompt == "from_dataset"
    assert prompt_of_rows(config, "student", "from_dataset", None) == "Think mine."
    config.layout.override = True
    assert prompt_of_rows(config, "student", "from_dataset", None) is None


@pytest.mark.parametrize(("stage", "model"), [("collect_traces", "elsewhere"), ("evaluate", "teacher")])
def test_a_model_without_a_prompt_of_its_own_is_asked_as_before_and_told(stage, model, caplog):
    caplog.set_level(logging.INFO)
    who = "teacher" if stage == "collect_traces" else "student"
    config = adopted(stage, model, f"layout.{who}_prompt=Another.")
    assert prompt_text(config, f"layout.{who}_prompt") == "Another."
    why = {
        "elsewhere": "model_name_or_path=elsewhere has no rlt_layout.json, so this run prompts it with",
        "teacher": "the rlt_layout.json of model_name_or_path=teacher holds no student's prompt, so this run",
    }
    assert why[model] in caplog.text
    assert f"layout.{who}_prompt=Another., sha256 " in caplog.text
    assert used_prompts(config)[f"layout.{who}_prompt"]["is"].startswith(f"as set: {model} has no ")


def test_skythought_asks_under_its_own_prompt(models, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    text = "A prompt that stands for SkyThought's."
    import hashlib

    monkeypatch.setattr("rlt.config.original.skythought.SHA256", hashlib.sha256(text.encode()).hexdigest())
    place = models / "SkyThought" / "skythought" / "evals" / "models" / "model_configs.yaml"
    place.parent.mkdir(parents=True)
    place.write_text(f'system_prompts:\n  skythought: "{text}"\n')
    word = "layout.student_prompt=skythought:SkyThought"
    config = adopted("evaluate", "student", word)
    assert prompt_text(config, "layout.student_prompt") == text
    assert "is SkyThought's own, as its protocol asks; model_name_or_path=student was trained" in caplog.text
    assert used_prompts(config)["layout.student_prompt"]["is"].startswith(
        "SkyThought's own; not student's own"
    )
    with pytest.raises(ConfigError, match="is not the student's prompt"):
        adopted("evaluate", "student", word, "eval_cfg=robust")
    place.write_text("system_prompts: {skythought: another}\n")
    for wrong, said in (("SkyThought", "holds another prompt"), ("elsewhere", "holds no skythought/evals")):
        with pytest.raises(ConfigError, match=said):
            read_skythought_prompt(wrong)


def test_the_models_own_prompt_is_taken_under_skythoughts_protocol_and_told(caplog):
    caplog.set_level(logging.INFO)
    adopted("evaluate", "student")
    assert (
        "SkyThought asks under a system prompt of its own: layout.student_prompt=skythought:DIR"
        in caplog.text
    )
    assert not is_skythought("Think mine.")


@pytest.mark.original
@pytest.mark.skipif("RLT_ORIGINAL" not in os.environ, reason="RLT_ORIGINAL names no folder of checkouts")
def test_skythoughts_prompt_is_that_of_its_checkout():
    checkout = Path(os.environ["RLT_ORIGINAL"]) / "SkyThought"
    for place in (checkout, checkout / "skythought"):
        text = read_skythought_prompt(str(place))
        assert is_skythought(text)
        assert "separated with '\n\n'}" in text  # real newlines, where the training data has backslash-n


@pytest.mark.parametrize("stage", NEEDED)
def test_a_misspelt_value_is_a_sentence_before_any_model_is_looked_at(stage):
    """Before: a KeyError's traceback, because prompts need the tags before the settings are checked."""
    model = None if stage in ("select_traces", "plan_traces") else "elsewhere"
    with pytest.raises(ConfigError, match=r"`layout\.tags` must be one of bespoke, r1, native, got 'nativ'"):
        adopted(stage, model, "layout.tags=nativ")
