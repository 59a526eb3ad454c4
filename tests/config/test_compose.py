"""Command lines become typed configurations; everything wrong becomes one sentence."""

import time

import pytest
from helpers.fake_models import fake_model

from rlt.config.compose import compose
from rlt.config.overrides import CONFIG_DIR, groups
from rlt.config.schema import Config
from rlt.config.stages import STAGES
from rlt.config.validate import validate
from rlt.config.yaml_files import stage_of_run_file
from rlt.errors import ConfigError

SHIPPED = [f"{group.parent.name}/{group.stem}" for group in sorted(CONFIG_DIR.glob("*_cfg/*.yaml"))]
NEEDS = {
    "data_cfg/columns": ["dataset_id_or_path=rows.jsonl"],
    "model_cfg/pre_rl_model": ["output_dir=run"],  # that of teacher_sft is this model's folder
    "run_cfg/infer": ["model_name_or_path=model", "infer.question=1+1?"],
}
STAGE_OF = {"data_cfg": "teacher_sft", "model_cfg": "teacher_sft"}


def sentence(*words: str) -> str:
    """Return the one sentence with which a command line is refused."""
    with pytest.raises(ConfigError) as caught:
        compose(words)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("recipe", ["released", "modern"])
def test_every_shipped_yaml_composes_and_validates(name, recipe, place):
    group, file = name.split("/")
    stage = file if group == "run_cfg" else file.rsplit("_", 1)[0] if group == "trainer_cfg" else None
    if name in ("eval_cfg/skythought", "eval_cfg/robust"):
        stage = "evaluate"
    run_file = stage or STAGE_OF.get(group, "teacher_rl")
    record = STAGES[stage_name(run_file)]
    words = [f"run_cfg={run_file}", *([f"recipe={recipe}"] if record.reads("recipe") else [])]
    if group not in ("run_cfg", "trainer_cfg"):
        words.append(f"{group}={file}")
    words += NEEDS.get(name, [])
    if name == "reward_cfg/nover" and recipe == "modern":
        words.append("trainer.beta=0.04")  # its student is the reference model
    if group == "run_cfg" and file.endswith("_traces"):
        words += ["dataset_id_or_path=rows.jsonl"]
        words += (
            ["student_model=student"] if record.reads("student_model") and file != "select_traces" else []
        )
    config = compose(words)
    for model in filter(None, (config.model_name_or_path, config.student_model, config.teacher_model)):
        if model.startswith(config.results_dir) and not (place / model).exists():
            fake_model(place / model)
    for rows in filter(None, (config.dataset_id_or_path, config.evaluation.path)):
        if rows.startswith(config.results_dir):
            (place / rows).parent.mkdir(parents=True, exist_ok=True)
            (place / rows).touch()
    validate(config, servers_follow=True)
    assert config.recipe == recipe or not record.reads("recipe")


def stage_name(run_file: str) -> str:
    """Return the stage of a shipped run file."""
    stage = stage_of_run_file(run_file, [CONFIG_DIR])
    assert stage is not None
    return stage


def test_every_run_file_starts_with_its_command():
    for path in sorted((CONFIG_DIR / "run_cfg").glob("*.yaml")):
        first = path.read_text().splitlines()[0]
        by_launcher = first.startswith("# ./launch") and f"cfgs/run_cfg/{path.name}" in first
        assert by_launcher or first.startswith(f"# python train.py run_cfg={path.stem} "), path


def test_result_is_typed_and_fast():
    start = time.process_time()
    config = compose(["run_cfg=teacher_rl"])
    assert time.process_time() - start < 2
    assert isinstance(config, Config)
    assert config.model_name_or_path == "results/pre_rl_model"
    assert config.output_dir == "results/teacher_rl"
    assert config.layout.student_prompt == "from_dataset"


@pytest.mark.parametrize(
    "word",
    [
        "run_cfg=teacher_rl",
        "run_cfg@_global_=teacher_rl",
        "run_cfg=cfgs/run_cfg/teacher_rl.yaml",
        "cfgs/run_cfg/teacher_rl.yaml",
        "run_cfg@_global_=cfgs/run_cfg/teacher_rl.yaml",
        f"run_cfg={CONFIG_DIR}/run_cfg/teacher_rl.yaml",
        "run_cfg=teacher_rlt",
        "cfgs/run_cfg/teacher_rlt.yaml",
    ],
)
def test_spellings_of_a_run_file(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # not the project's folder
    assert compose([word]) == compose(["run_cfg=teacher_rl"])


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("model_name_or_path=my/custom/model", "my/custom/model"),
        ("dataset_id_or_path=my/data/path", "my/data/path"),
        ("student_model=Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("learning_rate=0.0001", 0.0001),
        ("learning_rate=2e-5", 2e-5),
        ("train_batch_size=128", 128),
        ("per_device_train_batch_size=2", 2),
        ("num_generations=8", 8),
        ("temperature=1", 1.0),
        ("max_prompt_length=4096", 4096),
        ("max_completion_length=2048", 2048),
        ("answer_log_prob_coeff=[1,0.01]", [1.0, 0.01]),
        ("kl_penalty_reward_coeff=[3,0.03]", [3.0, 0.03]),
        ("kl_penalty_reward_coeff=[0, 0]", [0.0, 0.0]),
        ("results_dir=path/to/save/rlt_model", "path/to/save/rlt_model"),
        ("output_dir=path/to/save/pre_rl_model", "path/to/save/pre_rl_model"),
        ("resume_from=results/teacher_rl/checkpoint-25", "results/teacher_rl/checkpoint-25"),
        ("seed=7", 7),
        ("report_to=null", None),
        ("wandb_project=mine", "mine"),
    ],
)
@pytest.mark.parametrize("run_file", ["teacher_sft", "teacher_rl", "teacher_rlt"])
def test_overrides_of_the_original_work_word_for_word(run_file, word, value):
    name, words = word.split("=")[0], [f"run_cfg@_global_={run_file}", word]
    if STAGES[stage_name(run_file)].reads(name):
        assert getattr(compose(words), name) == value
    else:
        assert f"`{name}` on the command line has no effect in {run_file}" in sentence(*words)


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("[--enforce-eager]", ["--enforce-eager"]),
        ("[--max-num-seqs=8, --enforce-eager]", ["--max-num-seqs=8", "--enforce-eager"]),
        ("[]", []),
    ],
)
def test_server_arguments_are_taken_as_they_are(typed, values):
    assert compose(["run_cfg=teacher_rl", f"generation.server_args={typed}"]).generation.server_args == values


def test_server_addresses():
    two = "generation.servers=[http://127.0.0.1:8000,http://127.0.0.1:8001]"
    assert compose(["run_cfg=teacher_rl", two]).generation.servers == [
        "http://127.0.0.1:8000",
        "http://127.0.0.1:8001",
    ]


def test_results_dir_moves_the_runs_and_the_model_between_them():
    assert compose(["run_cfg=teacher_sft", "results_dir=/r"]).output_dir == "/r/pre_rl_model"
    rl = compose(["run_cfg=teacher_rl", "results_dir=/r"])
    assert (rl.model_name_or_path, rl.output_dir) == ("/r/pre_rl_model", "/r/teacher_rl")


def test_open_dicts_take_new_keys_from_the_command_line():
    config = compose(
        ["run_cfg=teacher_rl", "trainer_args.epsilon_high=0.28", "data.columns.question=problem"]
    )
    assert config.trainer_args["epsilon_high"] == 0.28
    assert config.trainer_args["epsilon"] == 0.2  # the recipe's
    assert config.data.columns == {"question": "problem"}
    whole = compose(["run_cfg=teacher_rl", "data.columns={question: problem, solution: answer}"])
    assert whole.data.columns == {"question": "problem", "solution": "answer"}


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Explain, then stop.",
            "it's 50% (fine) [x] = {y}",
            'say "hi"',
            "a\\b",
            "a\\b 'c'",
            "C:\\'q'\\",
            "end\\",
        ),
        *("${x}", "echo ${HOME}, \\${x}", "${results_dir}", "'${", "\\\\${x}'s"),
        *("[think]", "007", "1e3", "true", "two\nlines, two", "{a: b}", "héllo — wörld", "x" * 2000),
    ],
)
def test_prompts_and_paths_are_taken_as_they_are(text):
    assert compose(["run_cfg=teacher_rl", f"layout.teacher_prompt={text}"]).layout.teacher_prompt == text


def test_recipe_switches_the_preset_also_from_a_file(tmp_path):
    assert compose(["run_cfg=teacher_rl"]).trainer.loss_type == "grpo"
    assert compose(["run_cfg=teacher_rl", "recipe=modern"]).trainer.loss_type == "dapo"
    (tmp_path / "run_cfg").mkdir()
    mine = tmp_path / "run_cfg" / "mine.yaml"
    mine.write_text("defaults: [teacher_rl, _self_]\nrecipe: modern\nnum_generations: 32\n")
    config = compose([f"run_cfg={mine}"])
    assert (config.recipe, config.trainer.loss_type, config.num_generations) == ("modern", "dapo", 32)


def test_own_folder_comes_first_and_sees_ours(tmp_path):
    (tmp_path / "run_cfg").mkdir()
    (tmp_path / "run_cfg" / "teacher_rl.yaml").write_text(
        "defaults:\n  - override /trainer_cfg@_global_: teacher_rl_${recipe}\n"
        "  - override /model_cfg@_global_: mine\n  - _self_\n"
        "stage: teacher_rl\ndataset_id_or_path: x/y\noutput_dir: out\n"
    )
    (tmp_path / "model_cfg").mkdir()
    (tmp_path / "model_cfg" / "mine.yaml").write_text("model_name_or_path: a/b\n")
    for words in (
        ["--config-dir", str(tmp_path), "run_cfg=teacher_rl"],
        [f"--config-dir={tmp_path}", "run_cfg=teacher_rl"],
        [f"{tmp_path}/run_cfg/teacher_rl.yaml"],
    ):
        config = compose(words)
        assert (config.model_name_or_path, config.output_dir, config.trainer.beta) == ("a/b", "out", 0.04)
    assert compose(["run_cfg=teacher_rl"]).output_dir == "results/teacher_rl"


def test_a_key_in_a_yaml_file_is_named_with_its_file(tmp_path):
    (tmp_path / "run_cfg").mkdir()
    bad = tmp_path / "run_cfg" / "bad.yaml"
    bad.write_text("defaults: [teacher_rl, _self_]\ntrainer: {bta: 0.5}\n")
    assert sentence(f"run_cfg={bad}").startswith(
        f"`trainer.bta` in {bad} is not a setting: did you mean `trainer.beta`"
    )
    bad.write_text("defaults: [teacher_rl, _self_]\nmax_seq_length: 4\n")
    assert f"`max_seq_length` in {bad}" in (message := sentence(f"run_cfg={bad}"))
    assert "`data.max_length`" in message
    bad.write_text("defaults: [teacher_rl, _self_]\ntrainer: {beta: high}\n")
    assert sentence(f"run_cfg={bad}").startswith(f"`trainer.beta` in {bad} must be a number, got high")
    bad.write_text("trainer: {beta: 0.5\nx: 3\n")
    assert str(bad) in (message := sentence(f"run_cfg={bad}"))
    assert "not valid YAML" in message
    bad.write_text("defaults:\n  - override /trainer_cfg: teacher_rl_released\n")
    assert f"in {bad} names no group: write /trainer_cfg@_global_" in sentence(f"run_cfg={bad}")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("trainer_args=3", "`trainer_args` on the command line must be a mapping"),
        (
            "answer_log_prob_coeff=[1,x]",
            "`answer_log_prob_coeff` on the command line must be a list of numbers",
        ),
        ("evaluation.benchmark.steps=1", "did you mean `evaluation.benchmarks.steps`?"),
        ("trainer.steps=1", "did you mean `trainer.max_steps`?"),
        ("learning_rat=1", "did you mean `learning_rate`?"),
        ("+learning_rat=1", "did you mean `learning_rate`?"),
        ("++learning_rat=1", "did you mean `learning_rate`?"),
        ("~learning_rat", "did you mean `learning_rate`?"),
        ("trainer.bta=1", "did you mean `trainer.beta`?"),
        ("ref_sync_step=3", "did you mean `trainer.ref_sync_steps`?"),
        ("student_temperature=1", "did you mean `reward.student_temperature`?"),
        ("model.lora.ranks=1", "did you mean `model.lora.rank`?"),
        ("reward.beta=1", "did you mean `"),
        ("lr=1", "did you mean `learning_rate`?"),
        ("xyzzyqq=1", "`python train.py --help` lists the settings"),
        ("epsilon_high=0.28", "write `trainer_args.epsilon_high`"),
        ("learning_rate=abc", "`learning_rate` on the command line must be a number, got abc"),
        ("num_generations=2.5", "must be a whole number, got 2.5"),
        ("trainer=3", "`trainer` on the command line is a section: set one of its settings, `trainer.NAME`"),
        ("stage=null", "must be a text"),
        ("learning_rate=1,2", "cannot be read as one value: it must be a number"),
        ("answer_log_prob_coeff=1,0.01", "write a list as answer_log_prob_coeff=[1,0.01]"),
        ("~trainer.beta", "cannot be removed"),
        ("recipe=old", "recipe=old does not exist; there are: released, modern"),
        (
            "reward_cfg=nope",
            "there are: bespoke_stratos_7b, jepo, nover, qwen2_5_7b_instruct, rlpr, verifree, vr_cli",
        ),
        (
            "results_dir=${nope}",
            "`results_dir` on the command line refers to `${nope}`, which is not a setting",
        ),
        ("output_dir=${output_dir}", "`output_dir` on the command line refers to itself."),
        ("output_dir=${results_dir", "holds a `${` without a whole `${NAME}` (write `\\${` where"),
        ("output_dir=${oc.env:NO_SUCH}", "reads the environment variable NO_SUCH, which is not set."),
        ("output_dir=${no:x}", "uses `${no:…}`, which does not exist: write `${NAME}`"),
        ("learning_rate=${results_dir}", "must be a number, got results from `${results_dir}`."),
        ("learning_rate=", "`learning_rate` on the command line must be a number, got nothing (peak"),
        ("answer_log_prob_coeff=3", "must be a list of numbers (weights of"),
        ("model.trust_remote_code=maybe", "must be true or false, got maybe (run model code"),
        ("data.columns.question=null", "`data.columns.question` on the command line must be a text"),
        ("temp=1", "did you mean `temperature`?"),
        ("generation.temperature=1", "did you mean `temperature`?"),
        ("model_path=x", "did you mean `model_name_or_path`?"),
        ("data_path=x", "did you mean `dataset_id_or_path`?"),
        ("trainer.beta1=0.9", "did you mean `trainer.adam_beta1`?"),
        ("data.n=3", "did you mean `data.subset.n`?"),
        ("prompt=x", "did you mean `layout.teacher_prompt` or `layout.student_prompt`?"),
        ("kl_coef=1", "did you mean `kl_penalty_reward_coeff` or `trainer.beta`?"),
        ("Learning_Rate=1", "did you mean `learning_rate`?"),
        ("trainer_arg.epsilon=1", "did you mean `trainer_args.epsilon`?"),
        ("trainer_arg.weight_decay=1", "did you mean `trainer.weight_decay`?"),
        ("hub_token=x", "is not a setting: use the environment variable HF_TOKEN"),
        ("max_length=9", "is not a setting: use data.max_length."),
        ("num_iterations=2", "is not a setting: one generation serves exactly one update."),
        ("--seed=3", "settings are typed KEY=VALUE, without dashes"),
        ("--api_key", "settings are typed KEY=VALUE, without dashes"),
        ("--dry_run", "`--dry_run` on the command line is no option: did you mean --dry-run?"),
        ("dry-run", "is not KEY=VALUE, a run file, or a known word: did you mean --dry-run?"),
        ("--rehearsal", "did you mean --rehearse?"),
        ("cfgs/run_cfg/teacher_sft.yam", "a known word: did you mean teacher_sft?"),
        ("data/my.jsonl", "is not a run file: type dataset_id_or_path=data/my.jsonl."),
        ("=3", "`=` on the command line is not KEY=VALUE"),
        ("trainer_args.=3", "`trainer_args.=` on the command line is not KEY=VALUE"),
        *(
            (f"model_cfg={name}", f"model_cfg={name} does not exist; there are: pre_rl_model")
            for name in ("null", "", "[a,b]", "{a: b}", "a,b", "x/y")
        ),
        *(
            (f"run_cfg={name}", f"run_cfg={name} does not exist; there are: ")
            for name in ("null", "/", "", "[a]")
        ),
        ("recipe=null", "recipe=null does not exist; there are: released, modern"),
        ("offload", "word of the launcher: run `./launch.sh cfgs/run_cfg/NAME.yaml … offload`"),
        ("zero1", "word of the launcher: run `./launch.sh cfgs/run_cfg/NAME.yaml … zero1`"),
        ("gibberish", "is not KEY=VALUE"),
        ("--config-dir=/nowhere", "--config-dir must be a folder"),
    ],
)
def test_wrong_words_get_one_sentence(word, expected):
    assert expected in sentence("run_cfg=teacher_rl", word)


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("run_cfg=evalute", "evaluate"),
        ("run_cfg=cfgs/run_cfg/teacher_sf.yaml", "teacher_sft"),
        ("model_cfg=qwen_7b_instruct", "qwen2_5_7b_instruct"),
        ("recipe=modrn", "modern"),
        ("eval_cfg=skythougt", "skythought"),
    ],
)
def test_a_misspelt_file_is_answered_with_the_nearest_one(word, near):
    words = [word] if word.startswith("run_cfg=") else ["run_cfg=evaluate", word]
    assert f"{word} does not exist: did you mean {near}?" in sentence(*words)


def test_unknown_run_files_list_one_for_each_stage():
    known = "teacher_sft, teacher_rl, "
    assert "does not exist; there are: " in (message := sentence("run_cfg=/nowhere/x.yaml"))
    assert known in message
    assert "no run file is given: type run_cfg=NAME with one of " in (message := sentence())
    assert known in message
    assert "quickstart" not in message


def test_unknown_run_files_list_all_of_the_users_own(tmp_path):
    (tmp_path / "run_cfg").mkdir()
    (tmp_path / "run_cfg" / "mine.yaml").write_text("stage: teacher_rl\n")
    assert ", mine, or another" in sentence(f"--config-dir={tmp_path}")


def test_two_run_files_are_refused_and_one_typed_twice_is_not():
    words = ["run_cfg=teacher_sft", "cfgs/run_cfg/student_sft.yaml"]
    assert sentence(*words) == (
        "teacher_sft and student_sft on the command line are two run files: type one of them, and "
        "settings of the other as KEY=VALUE."
    )
    assert compose(["run_cfg=teacher_sft", "teacher_sft"]).stage == "teacher_sft"


def test_run_file_outside_a_run_cfg_folder_says_where_to_put_it(tmp_path):
    (tmp_path / "x.yaml").write_text("stage: teacher_rl\n")
    assert f"move it to {tmp_path}/run_cfg/x.yaml" in sentence(f"run_cfg={tmp_path}/x.yaml")


def test_missing_value_says_what_to_type(tmp_path):
    (tmp_path / "run_cfg").mkdir()
    (tmp_path / "run_cfg" / "x.yaml").write_text(
        "stage: teacher_rl\noutput_dir: o\nmodel_name_or_path: a/b\n"
    )
    message = sentence(f"run_cfg={tmp_path}/run_cfg/x.yaml")
    assert message.startswith(
        "`dataset_id_or_path` has no value: type dataset_id_or_path=VALUE (the problems"
    )


def test_groups_are_those_of_train_yaml():
    text = (CONFIG_DIR / "train.yaml").read_text()
    assert all(f"- {group}@_global_: null" in text for group in groups([CONFIG_DIR]))
    assert "accelerate" not in groups([CONFIG_DIR])
