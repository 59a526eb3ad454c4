"""Every rule has a sentence that names the setting, the value, the rule and the remedy."""

import json
import logging
import os
import re
import sys

import pytest
from helpers.fake_models import fake_model

from rlt.config.compose import compose
from rlt.config.files import looks_local
from rlt.config.resolve import resolve
from rlt.config.tree import rows
from rlt.config.validate import validate
from rlt.errors import ConfigError

RL = [
    ("train_batch_size=1000", "`train_batch_size=1000` counts completions and must be a multiple of "
     "num_generations=64, so that every group is whole: take 960 or 1024."),
    ("per_device_train_batch_size=3", "`train_batch_size=1024` must be a multiple of "
     "per_device_train_batch_size x training processes = 3 x 1, so that accumulation makes up the rest: "
     "take 960 or 1152."),
    ("answer_log_prob_coeff=[1]", "`answer_log_prob_coeff=[1]` must have one number for each of "
     "reward.answer_reductions=[mean,min]"),
    ("kl_penalty_reward_coeff=[1,2,3]", "`kl_penalty_reward_coeff=[1,2,3]` must have one number for each"),
    ("reward.kl_reductions=[mean,maximum]", "`reward.kl_reductions` may hold mean, sum, min, max, median, "
     "first_quartile, last_quartile, got 'maximum'."),
    ("reward.answer_clip=[1]", "`reward.answer_clip` must be [] for none, or [low,high]"),
    ("reward.kl_clip=[2,1]", "got [2,1]."),
    ("student_model=null", "`student_model` is empty, but teacher_rl is paid by a student"),
    ("reward.student_temperature=0.0", "`reward.student_temperature` must be greater than 0, got 0.0"),
    ("num_generations=1", "`num_generations` must be at least 2, got 1"),
    ("temperature=nan", "`temperature` must be finite, got nan"),
    ("learning_rate=inf", "`learning_rate` must be finite, got inf"),
    ("answer_log_prob_coeff=[1,nan]", "`answer_log_prob_coeff` must be finite"),
    ("generation.top_p=1.5", "`generation.top_p` must be at most 1, got 1.5"),
    ("model.lora.rank=4 model.lora.dropout=1.0", "`model.lora.dropout` must be less than 1, got 1.0"),
    ("reward.kl_estimator=k2", "`reward.kl_estimator` must be one of k1, k3, student_nll, got 'k2'"),
    ("report_to=mlflow", "`report_to` must be one of wandb, tensorboard, trackio, got 'mlflow'"),
    ("trainer.max_steps=0", "`trainer.max_steps` must be at least 1, or -1"),
    ("trainer.lr_scheduler_type=linear trainer.warmup_steps=2.5",
     "`trainer.warmup_steps` must be a whole number of steps or a fraction"),
    ("trainer.loss_type=ppo", "`trainer.loss_type` must be one of grpo, dapo"),
    ("trainer.lr_scheduler_type=flat", "`trainer.lr_scheduler_type` must be one of linear, cosine"),
    ("evaluation.steps=5", "`evaluation.steps=5` needs held-out problems: give evaluation.path=PATH"),
    ("generation.backend=vllm", "`generation.backend=vllm` needs running servers: start through ./launch.sh"),
    ("generation.backend=vllm generation.servers=[localhost:8000]",
     "addresses like http://127.0.0.1:8000, got 'localhost:8000'"),
    ("generation.backend=vllm generation.server_args=[--api-key=x]",
     "set the environment variable VLLM_API_KEY"),
    ("max_prompt_length=20000", "`max_prompt_length + max_completion_length = 20000 + 16384` must fit the "
     "context of model, whose max_position_embeddings is 32768: lower it by 3616."),
    ("dataset_id_or_path=./rows.json", "`dataset_id_or_path=./rows.json` does not exist"),
    ("model_name_or_path=./nope", "`model_name_or_path=./nope` does not exist"),
    ("student_model=a/b/c", "`student_model=a/b/c` does not exist"),
    ("output_dir=rows.jsonl/run", "cannot be a folder"),
    ("resume_from=checkpoint-9", "`resume_from=checkpoint-9` is not a folder"),
    ("resume_from=latest", "finds no whole checkpoint-N in results/teacher_rl"),
    ("layout.teacher_prompt=file:nope.txt", "names a file that does not exist"),
    ("layout.student_prompt=file:nope.txt", "names a file that does not exist"),
    ("layout.teacher_prompt=from_dataset", "`layout.teacher_prompt=from_dataset` is not possible"),
    ("data.on_long_row=truncate", "RL rows do not have: take drop or error"),
    ("trainer_args.learning_rate=1", "is decided elsewhere: use learning_rate."),
    ("trainer_args.temperature=1", "is decided elsewhere: use temperature."),
    ("trainer_args.hub_token=x", "use the environment variable HF_TOKEN"),
    ("trainer_args.epsilon_hgh=1", "is not an argument of TRL's GRPOConfig: did you mean "
     "`trainer_args.epsilon_high`?"),
    ("trainer_args.num_iterations=2", "decided elsewhere: one generation serves exactly one update."),
    ("trainer_args.num_iteration=2", "if you meant `num_iterations`, one generation serves"),
    ("trainer_args.max_prompt_length=9", "use `max_prompt_length`, a setting of this project"),
    ("trainer_args.num_generation=9", "if you meant `num_generations`, use num_generations."),
    ("trainer_args.epsilon=abc", "`trainer_args.epsilon` must be a number, got 'abc'."),
    ("trainer_args.epsilon=null", "`trainer_args.epsilon` must be a number, got None."),
    ("trainer_args.delta=[1]", "`trainer_args.delta` must be a number or null, got [1]."),
    ("trainer_args.tf32=yes", "`trainer_args.tf32` must be true or false or null, got 'yes'."),
    ("trainer_args.ddp_timeout=719", "`trainer_args.ddp_timeout=719` must be at least 720, 120 s more than "
     "generation.sync_timeout=600: the processes that wait for a weight sync would be ended before it"),
    ("trainer_args.ddp_timeout=true", "`trainer_args.ddp_timeout` must be a whole number, got True."),
    ("trainer_args.label_names=[a,1]", "`trainer_args.label_names` must be a list of texts or null"),
    ("trainer_args.lr_scheduler_kwargs=3", "must be a mapping or a text or null, got 3."),
    ("trainer_args.optim=adamw", "adamw_torch, ademamix, …, got 'adamw'."),
    ("trainer_args.importance_sampling_level=word", "must be one of token, sequence, got 'word'."),
    ("trainer_args.ddp_backend=tcp", "`trainer_args.ddp_backend` must be one of nccl, gloo"),
    ("trainer_args.parallelism_config=null", "use an accelerate configuration."),
    ("seed=4294967296", "`seed` must be less than 4294967296, got 4294967296"),
    ("data.columns.qestion=q", "`data.columns.qestion` is not a field of rows with data.format=auto: did you "
     "mean `question`?"),
    ("data.columns.x=q", "take one of question, solution, reasoning_trace, answer, system, conversations, "
     "messages."),
    ("data.columns.question=", "`data.columns.question` must be the name of a column, got ''."),
    ("data.columns={question: q, solution: q}", "`data.columns` reads both question and solution from the "
     "column 'q'"),
    ("data.columns={question: solution}", "reads both question and solution from the column 'solution'"),
    ("model_name_or_path=", "`model_name_or_path` is empty: give a value (the model to train"),
    ("dataset_id_or_path=", "`dataset_id_or_path` is empty"),
        ("output_dir=", "`output_dir` is empty"),
    ("resume_from=", "`resume_from` is empty: give null for none (checkpoint folder"),
    ("evaluation.path=", "`evaluation.path` is empty"),
    ("evaluation.path=nope.jsonl", "`evaluation.path=nope.jsonl` does not exist: give a json, jsonl"),
    ("output_dir=model", "`output_dir=model` is the folder of model_name_or_path=model, which the run would "
     "overwrite: give another folder."),
    ("output_dir=./model/", "is the folder of model_name_or_path=model"),
    ("output_dir=student", "is the folder of student_model=student"),
    ("output_dir=student/run", "`output_dir=student/run` lies in the folder of student_model=student"),
    ("output_dir=.", "`output_dir=.` contains the folder of model_name_or_path=model"),
    ("student_model=Qwen/Q output_dir=Qwen/Q", "`output_dir=Qwen/Q` is the folder of student_model=Qwen/Q"),
    ("layout.student_prompt=defualt", "`layout.student_prompt=defualt` would be the prompt's text: write "
     "default if you mean that, or put the text into a file and give file:PATH."),
    ("layout.teacher_prompt=Default", "write default if you mean that"),
    ("layout.student_prompt=from-dataset", "write from_dataset if you mean that"),
    ("layout.student_prompt=rows.jsonl", "would be the prompt's text: write file:rows.jsonl to read"),
    ("layout.student_prompt=File:x.txt", "write file:x.txt to read the file."),
    ("max_completion_length=16384 max_prompt_length=9 student_model=small", "`max_completion_length=16384` "
     "must leave room for question and solution in the context of the student small, whose "
     "max_position_embeddings is 16384"),
    ("resume_from=model", "`resume_from=model` is no whole checkpoint, because trainer_state.json is"),
    ("model_name_or_path=rows.jsonl", "`model_name_or_path=rows.jsonl` is a file: give a model's folder"),
    ("student_model=listed", "listed/config.json must hold a JSON object, a model's configuration"),
    ("dataset_id_or_path=notes.txt", "`dataset_id_or_path=notes.txt` must end in one of .json, .jsonl, "
     ".ndjson, .csv, .parquet, got .txt"),
    *((f"{key}={name}", f"`{key}={name}` does not exist, and no Hub name looks like this")
      for key in ("model_name_or_path", "student_model", "dataset_id_or_path", "evaluation.path")
      for name in ("Qwen/Qwen?7B", "-x-", "a..b/c", "a--b", "a.git", "ü")),
    *((f"generation.backend=vllm generation.servers=[{address}]",
       f"addresses like http://127.0.0.1:8000, got '{address}'.")
      for address in ("http://127.0.0.1:99999", "http://h:port", "http://h:0", "ftp://h:1", "http://", "3")),
    ("generation.backend=vllm generation.servers=[http://h:1,http://h:1]",
     "`generation.servers` names http://h:1 twice"),
    ("generation.backend=vllm generation.servers=[http://me:pw@h:1]",
     "`generation.servers` must hold no name and password"),
    ("reward.placement=server", "rlt.launch.student_server student --temperature 0.7 --port PORT`"),
    ("reward.placement=zero3 reward.dtype=float32", "model.dtype=bfloat16, but reward.dtype is float32: set"),
    ("reward.servers=[http://h:1]", "`reward.servers` on the command line has no effect with "
     "reward.placement=replicated: remove it, or take reward.placement=server."),
    ("reward.placement=server reward.servers=[h:1]", "`reward.servers` must hold addresses like http://"),
    ("reward.placement=server reward.servers=[http://h:1,http://h:1]",
     "`reward.servers` names http://h:1 twice"),
    ("generation.backend=vllm generation.server_args=[--api_key=x]",
     "set the environment variable VLLM_API_KEY"),
]  # fmt: skip


@pytest.fixture
def oddities(place):
    """Lay out files and folders that are not what a setting needs."""
    for name, config in (("small", '{"max_position_embeddings": 16384}'), ("listed", "[]")):
        fake_model(place / name, config)
    (place / "notes.txt").write_text("no rows")


@pytest.mark.parametrize(("word", "expected"), RL)
@pytest.mark.usefixtures("oddities")
def test_rules_of_teacher_rl(teacher_rl, word, expected):
    words = re.split(r" (?=[a-z_.]+=)", word)
    with pytest.raises(ConfigError) as caught:
        validate(compose([*teacher_rl, *words]))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["trainer_args.delta=3", "trainer_args.tf32=null", "trainer_args.lr_scheduler_kwargs={a: 1}"],
        ["data.columns={question: problem, solution: answer}"],
        ["data.format=messages", "data.columns.system=s"],
        ["layout.student_prompt=", "layout.teacher_prompt=Explain by default."],
        ["max_prompt_length=9", "max_completion_length=16383", "student_model=small"],
        [
            "generation.backend=vllm",
            "generation.servers=[https://h/behind/a/proxy,http://[::1]:80]",
            "generation.allow_open_servers=true",
        ],
        ["reward.placement=server", "reward.servers=[http://127.0.0.1:8100]"],
        ["student_model=ArliAI/QwQ-32B_v1.0", "evaluation.path=gsm8k"],
        ["output_dir=model-2", "output_dir=results"],
        ["seed=4294967295"],
    ],
)
@pytest.mark.usefixtures("oddities")
def test_what_the_rules_allow(teacher_rl, words):
    validate(compose([*teacher_rl, *words]))


def test_sharded_student_without_deepspeed_says_what_to_install(teacher_rl, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"`reward.placement=zero3` needs DeepSpeed.*'rlt\[deepspeed\]'"):
        validate(compose([*teacher_rl, "reward.placement=zero3"]))


def test_whole_checkpoints_are_resumed(teacher_rl, place):
    checkpoint = place / "results" / "teacher_rl" / "checkpoint-25"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").touch()
    for word in ("latest", checkpoint):
        validate(compose([*teacher_rl, f"resume_from={word}"]))
    with pytest.raises(ConfigError, match="lies outside of output_dir=other, and a checkpoint's optim"):
        validate(compose([*teacher_rl, f"resume_from={checkpoint}", "output_dir=other"]))


def test_home_is_spelled_out_once(teacher_rl, place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    words = ["model_name_or_path=~/model", "results_dir=~/r", "layout.teacher_prompt=file:~/rows.jsonl"]
    config = resolve(compose([*teacher_rl, *words, "evaluation.path=~/rows.jsonl"]))
    validate(config)
    assert config.model_name_or_path == f"{place}/model"
    assert config.output_dir == f"{place}/r/teacher_rl"
    assert config.layout.teacher_prompt == f"file:{place}/rows.jsonl"
    assert config.evaluation.path == f"{place}/rows.jsonl"
    assert config.student_model == "student"


@pytest.mark.parametrize("none", ["none", "None"])
def test_report_to_none_is_null(teacher_rl, none):
    assert resolve(compose([*teacher_rl, f"report_to={none}"])).report_to is None


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("data.max_length=40000", "`data.max_length = 40000` must fit the context of model"),
        (
            "train_batch_size=6",
            "must be a multiple of per_device_train_batch_size x training processes = 1 x 4",
        ),
        ("trainer_args.max_length=5", "use data.max_length."),
        (
            "trainer_args.loss_type=grpo",
            "`trainer_args.loss_type` must be one of nll, dft, chunked_nll, got 'grpo'.",
        ),
        ("output_dir=model", "`output_dir=model` is the folder of model_name_or_path=model"),
        ("evaluation.path=nope.jsonl", "`evaluation.path=nope.jsonl` does not exist"),
        ("data.format=columns data.columns.messages=m", "is not a field of rows with data.format=columns"),
        ("trainer_args.epsilon=5", "is not an argument of TRL's SFTConfig"),
        (
            "model.dtype=float32 model.attn_implementation=flash_attention_2",
            "take model.attn_implementation=sdpa",
        ),
    ],
)
def test_rules_of_teacher_sft(teacher_sft, word, expected):
    validate(compose(teacher_sft), num_processes=4)
    with pytest.raises(ConfigError) as caught:
        validate(compose([*teacher_sft, *word.split()]), num_processes=4)
    assert expected in str(caught.value)


def test_accumulation_is_the_quotient_for_any_number_of_processes(teacher_rl):
    config = compose(teacher_rl)
    for good in (1, 2, 4, 8):
        validate(config, num_processes=good)
    with pytest.raises(ConfigError, match=r"= 1 x 3.*take 960 or 1152"):
        validate(config, num_processes=3)


def test_launcher_validates_before_servers_exist(teacher_rl):
    config = compose([*teacher_rl, "generation.backend=vllm"])
    validate(config, servers_follow=True)
    validate(compose([*teacher_rl, "generation.backend=vllm", "generation.servers=[http://127.0.0.1:8000]"]))


@pytest.mark.parametrize("student", ["bespokelabs/Bespoke-Stratos-7B", "SakanaAI/RLT-32B"])
def test_published_students_need_the_prompt_they_were_trained_with(teacher_rl, student, place):
    for prompt in ("default", "You are a helpful assistant."):
        with pytest.raises(ConfigError, match="must be from_dataset or file:PATH"):
            validate(compose([*teacher_rl, f"student_model={student}", f"layout.student_prompt={prompt}"]))
    (place / "prompt.txt").write_text("as it was trained")
    for prompt in ("from_dataset", "file:prompt.txt"):
        validate(compose([*teacher_rl, f"student_model={student}", f"layout.student_prompt={prompt}"]))


def test_local_copy_of_a_published_student_is_recognised(teacher_rl, place):
    fake_model(place / "Bespoke-Stratos-7B")
    with pytest.raises(ConfigError, match="must be from_dataset or file:PATH"):
        validate(compose([*teacher_rl, "student_model=Bespoke-Stratos-7B", "layout.student_prompt=default"]))


@pytest.mark.parametrize("word", ["top_p=0.9", "top_k=20", "min_p=0.1", "repetition_penalty=1.05"])
def test_engine_logprobs_need_plain_sampling(teacher_rl, word):
    engine = [*teacher_rl, "reward.teacher_logprobs=engine"]
    validate(compose(engine))
    with pytest.raises(ConfigError, match=f"`generation.{word}` must be"):
        validate(compose([*engine, f"generation.{word}"]))
    validate(compose([*engine, f"generation.{word}", "reward.kl_estimator=student_nll"]))


def test_teacher_rl_alone_names_the_warm_up_command(place):
    with pytest.raises(ConfigError) as caught:
        validate(compose(["run_cfg=teacher_rl", "results_dir=here"]))
    assert "run `./launch.sh cfgs/run_cfg/teacher_sft.yaml results_dir=here` first" in str(caught.value)


def test_model_folder_without_config_json(teacher_sft, place):
    (place / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"is a folder without config\.json"):
        validate(compose([*teacher_sft, "model_name_or_path=empty"]))
    (place / "model" / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        validate(compose(teacher_sft))


def test_context_length_of_a_nested_configuration(teacher_sft, place):
    nested = {"text_config": {"max_position_embeddings": 1024}}
    (place / "model" / "config.json").write_text(json.dumps(nested))
    with pytest.raises(ConfigError, match="max_position_embeddings is 1024"):
        validate(compose(teacher_sft))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_output_dir_without_permission(teacher_sft, place):
    (place / "locked").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="no permission"):
        validate(compose([*teacher_sft, "output_dir=locked/run"]))


def test_lora_without_peft_says_what_to_install(teacher_sft, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'rlt\[lora\]'"):
        validate(compose([*teacher_sft, "model.lora.rank=8"]))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trainer.beta=0"], "trainer.ref_sync_steps=32 is switched off: trainer.beta=0"),
        (["model.lora.rank=8"], "trainer.ref_sync_steps=32 is switched off: with model.lora.rank > 0"),
        (["model.lora.rank=8", "trainer.beta=0"], "trainer.ref_sync_steps=32 is switched off"),
        (
            ["reward.kl_estimator=student_nll", "reward.teacher_logprobs=engine"],
            "reward.teacher_logprobs=engine is",
        ),
    ],
)
def test_settings_without_effect_are_switched_off_with_one_warning(teacher_rl, words, expected, caplog):
    config = compose([*teacher_rl, *words])
    with caplog.at_level(logging.WARNING):
        resolved = resolve(config)
    assert [r.getMessage() for r in caplog.records if expected in r.getMessage()]
    assert len(caplog.records) == 1
    assert resolved.trainer.ref_sync_steps == 0 or resolved.reward.teacher_logprobs == "policy"
    assert config.trainer.ref_sync_steps == 32  # the argument is not changed


def test_nothing_is_switched_off_in_the_released_recipe(teacher_rl, caplog):
    config = compose(teacher_rl)
    assert resolve(config) == config
    assert not caplog.records


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-7B-Instruct", "gpt2", "bespokelabs/Bespoke-Stratos-17k"])
def test_hub_names_are_left_alone(name):
    assert not looks_local(name)


def test_every_bound_admits_its_default():
    for row in rows().values():
        if row.section or row.default in (None, "???"):
            continue
        word = str(row.default).lower() if isinstance(row.default, bool) else row.default
        assert not row.choices or word in row.choices, row.name
        assert all(isinstance(row.default, int | float) for _ in row.bounds), row.name
