"""The remedies that users meet most: each is typed as its sentence gives it, and then the error is gone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.fake_models import fake_model

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.validate import validate
from rlt.errors import ConfigError, RLTError
from rlt.launch.preflight import check_local_data

MODEL, ROWS = "model_name_or_path=model", "dataset_id_or_path=rows.jsonl"
SFT = ("run_cfg=teacher_sft", MODEL, ROWS)
STUDENT = ("run_cfg=student_sft", MODEL, "dataset_id_or_path=traces.jsonl", "layout.student_prompt=default")
RL = ("run_cfg=teacher_rl", MODEL, ROWS, "student_model=student", "generation.backend=transformers")
SERVED = "generation.backend=vllm generation.servers=[http://127.0.0.1:8000]"
CORRECTION = "vllm_importance_sampling_correction"
COLLECT = ("run_cfg=collect_traces", MODEL, ROWS, "generation.backend=transformers")
EVALUATE = ("run_cfg=evaluate", MODEL, "generation.backend=transformers")
SELECT = ("run_cfg=select_traces", "dataset_id_or_path=traces.jsonl")
SCORE = ("run_cfg=score_traces", "student_model=student", "dataset_id_or_path=traces.jsonl")
SHOW = ("run_cfg=show_traces", "student_model=student", "dataset_id_or_path=traces.jsonl")


@dataclass(frozen=True)
class Remedy:
    """A command line that is refused, and the ways out of it that the sentence names."""

    base: tuple[str, ...]
    typed: str
    said: str
    """What the sentence says, of the fault and of every remedy."""
    ways: tuple[str, ...]
    """Words for each remedy; `-NAME` takes a word away. What stands for a placeholder is of our own."""


REMEDIES = [
    # What is typed
    Remedy((MODEL, ROWS), "", "type run_cfg=NAME with one of", ("run_cfg=teacher_sft",)),
    Remedy((ROWS, "run_cfg=teacher_rll"), "", "did you mean teacher_rl", (" ".join(RL),)),
    Remedy(("run_cfg=score_traces", "student_model=student"), "", "type dataset_id_or_path=VALUE",
           ("dataset_id_or_path=traces.jsonl",)),
    Remedy(SFT, "lerning_rate=1e-5", "did you mean `learning_rate`", ("-lerning_rate learning_rate=1e-5",)),
    Remedy(SFT, "trainer.learning_rate=1e-5", "`learning_rate`",
           ("-trainer.learning_rate learning_rate=1e-5",)),
    Remedy(SFT, "max_seq_length=4096", "data.max_length", ("-max_seq_length data.max_length=4096",)),
    Remedy(SFT, "trainer_args.learning_rate=1", "use learning_rate",
           ("-trainer_args.learning_rate learning_rate=1",)),
    Remedy(RL, "trainer_args.epsilon_hgh=0.3", "did you mean `trainer_args.epsilon_high`",
           ("-trainer_args.epsilon_hgh trainer_args.epsilon_high=0.3",)),
    Remedy(STUDENT, "trainer.beta=0.1", "has no effect in student_sft: remove it", ("-trainer.beta",)),
    Remedy(SFT, "resume_from=", "give null for none", ("resume_from=null",)),
    Remedy(SFT, "report_to=mlflow", "must be one of wandb", ("report_to=wandb",)),
    Remedy(SFT, "train_batch_size=many", "must be a whole number", ("train_batch_size=16",)),
    Remedy(SFT, "learning_rate=0", "must be greater than 0", ("learning_rate=1e-5",)),
    # Batches, lengths, steps
    Remedy(RL, "train_batch_size=1000", "take 960 or 1024", ("train_batch_size=960",
           "train_batch_size=1024")),
    Remedy(RL, "per_device_train_batch_size=3", "take 960 or 1152",
           ("train_batch_size=960", "train_batch_size=1152")),
    Remedy(RL, "max_prompt_length=20000", "lower it by 3616",
           ("max_prompt_length=16384", "max_completion_length=12768")),
    Remedy(SFT, "data.max_length=40000", "lower it by 7232", ("data.max_length=32768",)),
    Remedy(RL, "student_model=small", "take much less than 16384", ("max_completion_length=8192",)),
    Remedy(EVALUATE, "model_name_or_path=small max_prompt_length=16384", "lower it by 1",
           ("max_prompt_length=16383",)),
    Remedy(RL, "evaluation.steps=5", "give evaluation.path=PATH, or evaluation.steps=0",
           ("evaluation.path=other.jsonl", "evaluation.steps=0")),
    Remedy(RL, "trainer.max_steps=0", "at least 1, or -1", ("trainer.max_steps=1", "trainer.max_steps=-1")),
    Remedy(RL, "trainer_args.ddp_timeout=719",
           "must be at least 720.* Leave it out, or lower generation.sync_t",
           ("trainer_args.ddp_timeout=720", "-trainer_args.ddp_timeout")),
    Remedy(RL, "temperature=0", "must be greater than 0 in teacher_rl", ("temperature=0.7",)),
    Remedy(COLLECT, "temperature=0 collect.num_samples=4", "must be 1 with temperature=0",
           ("collect.num_samples=1",)),
    # Files and models
    Remedy(SFT, "dataset_id_or_path=./rowz.jsonl", "does not exist: give",
           ("dataset_id_or_path=rows.jsonl",)),
    Remedy(SFT, "output_dir=model", "give another folder", ("output_dir=model_2",)),
    Remedy(SFT, "resume_from=latest", "finds no whole checkpoint-N.*: remove it", ("-resume_from",)),
    Remedy(RL, "layout.teacher_prompt=prompt.txt", "write file:prompt.txt",
           ("layout.teacher_prompt=file:prompt.txt",)),
    Remedy(RL, "layout.student_prompt=defualt", "write default .* give file:PATH",
           ("layout.student_prompt=default", "layout.student_prompt=file:prompt.txt")),
    Remedy(RL, "student_model=bespokelabs/Bespoke-Stratos-7B layout.student_prompt=default",
           "must be from_dataset or file:PATH",
           ("layout.student_prompt=from_dataset", "layout.student_prompt=file:prompt.txt")),
    Remedy(SFT, "model.dtype=float32 model.attn_implementation=flash_attention_2",
           "take model.attn_implementation=sdpa", ("model.attn_implementation=sdpa",)),
    # Rows
    Remedy(SFT, "dataset_id_or_path=plain.jsonl", "data.missing_trace=solution",
           ("data.missing_trace=solution",)),
    Remedy(SFT, "dataset_id_or_path=bad.jsonl", "data.on_bad_row=skip", ("data.on_bad_row=skip",)),
    Remedy(SFT, "dataset_id_or_path=folder data.split=dev", "set data.split to one of them",
           ("data.split=train",)),
    Remedy(SFT, "evaluation.path=folder", "set evaluation.split to one of them", ("evaluation.split=train",)),
    Remedy(SFT, "dataset_id_or_path=named.jsonl", "data.columns",
           ("data.columns={question: problem, solution: answer, reasoning_trace: thought}",)),
    Remedy(SFT, "data.columns.qestion=q", "did you mean `question`",
           ("-data.columns.qestion data.columns.question=question",)),
    Remedy(RL, "data.on_long_row=truncate", "take drop or error", ("data.on_long_row=drop",
           "data.on_long_row=error")),
    Remedy(SFT, "data.decontaminate=[math50]", "did you mean math500", ("data.decontaminate=[math500]",)),
    # Rewards and engines
    Remedy(RL, "answer_log_prob_coeff=[1]",
           "one number for each of reward.answer_reductions=.mean,min.: change one",
           ("answer_log_prob_coeff=[1,0.01]", "reward.answer_reductions=[mean]")),
    Remedy(RL, "reward.placement=server", "give reward.servers=",
           ("reward.servers=[http://127.0.0.1:8100]",)),
    Remedy(RL, "reward.placement=zero3 reward.dtype=float32",
           "set reward.dtype=bfloat16, or take replicated or cpu_offload",
           ("reward.dtype=bfloat16", "reward.placement=replicated", "reward.placement=cpu_offload")),
    Remedy(RL, "reward.length.weight=1", "give reward.length.min_tokens, reward.length.max_tokens, or both",
           ("reward.length.min_tokens=9", "reward.length.max_tokens=9")),
    Remedy(RL, "reward.teacher_logprobs=engine generation.top_p=0.9",
           "`generation.top_p=0.9` must be 1.0.*: change it, or take reward.teacher_logprobs=policy",
           ("generation.top_p=1.0", "reward.teacher_logprobs=policy")),
    Remedy(RL, "generation.max_staleness=1",
           "has no effect with generation.backend=transformers: remove it, or take generation.backend=vllm",
           (f"{SERVED} trainer_args.{CORRECTION}=true", "-generation.max_staleness")),
    Remedy(RL, f"{SERVED} generation.max_staleness=1",
           f"needs trainer_args.{CORRECTION}=true: .* Switch it on, or take generation.max_staleness=0",
           (f"trainer_args.{CORRECTION}=true", "generation.max_staleness=0")),
    Remedy(RL, f"{SERVED} generation.max_staleness=1 trainer_args.{CORRECTION}=true "
           "reward.teacher_logprobs=engine",
           "needs reward.teacher_logprobs=policy: .* or generation.max_staleness=0",
           ("reward.teacher_logprobs=policy", "generation.max_staleness=0")),
    Remedy(RL, f"{SERVED} generation.max_staleness=1 trainer_args.{CORRECTION}=true "
           "trainer_args.ignore_data_skip=true", "Leave it out, or take generation.max_staleness=0",
           ("-trainer_args.ignore_data_skip", "generation.max_staleness=0")),
    Remedy(RL, f"{SERVED} generation.max_staleness=2", "`generation.max_staleness` must be at most 1, got 2",
           ("generation.max_staleness=0",)),
    Remedy(RL, "model.lora.rank=4 model.lora.dropout=0.1", "take model.lora.dropout=0",
           ("model.lora.dropout=0",)),
    Remedy(RL, "generation.backend=vllm",
           "generation.servers=.http://HOST:PORT., or take generation.backend=transf",
           ("generation.servers=[http://127.0.0.1:8000]", "generation.backend=transformers")),
    Remedy(RL, "generation.backend=vllm generation.servers=[localhost:8000]",
           "addresses like http://127.0.0.1:8000",
           ("generation.servers=[http://localhost:8000]",)),
    Remedy(RL, "generation.backend=vllm generation.servers=[http://h:1]",
           "generation.api_key_file|VLLM_API_KEY|allow_open_servers",
           ("generation.allow_open_servers=true", "generation.api_key_file=key")),
    # Other stages
    Remedy(EVALUATE, "evaluate.tasks=[aime]", "did you mean aime24", ("evaluate.tasks=[aime24]",)),
    Remedy(EVALUATE, "evaluate.tasks=[problems]", "give a file or a Hub name there", (ROWS,)),
    Remedy(EVALUATE, ROWS, "add it, or give the files of benchmarks in evaluate.paths",
           ("evaluate.tasks=[problems]", "dataset_id_or_path=none evaluate.paths={aime24: rows.jsonl}")),
    Remedy(EVALUATE, "evaluate.num_samples=4", "must be 1 with temperature=0", ("evaluate.num_samples=1",)),
    Remedy(EVALUATE, "data.on_long_row=drop", "keep `error`", ("data.on_long_row=error",)),
    Remedy(EVALUATE, "evaluate.tasks=[countdown]",
           "give evaluate.paths=.countdown: data/countdown/test.jsonl.",
           ("evaluate.paths={countdown: data/countdown/test.jsonl}",)),
    Remedy(SELECT, "select.rule=shortest", "give select.max_length",
           ("select.max_length=100 student_model=student",)),
    Remedy(SELECT, "select.rule=rank", "must be .first,last.", ("select.rank_bucket=[1,1]",)),
    Remedy(SELECT, "output_dir=.", "give another folder", ("output_dir=chosen",)),
    Remedy(SHOW, "show.best=0 show.worst=0", "give show.rows=.1., show.best=3 or show.worst=3",
           ("-show.best -show.worst show.rows=[1]", "show.best=3", "show.worst=3")),
    Remedy(("run_cfg=infer", MODEL), "", 'give infer.question="What is 6',
           ('infer.question="What is 6*7?"',)),
    Remedy(SCORE, "data.on_long_row=drop", "has no effect in score_traces: remove it",
           ("-data.on_long_row",)),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay out every file that a command line here names."""
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    for name, context in (("student", 32768), ("small", 16384)):
        fake_model(place / name, f'{{"max_position_embeddings": {context}}}')
    whole = '{"question": "1+1?", "solution": "2", "reasoning_trace": "one and one", "system": "Think."}\n'
    files = {
        "rows.jsonl": whole,
        "other.jsonl": whole.replace("1+1", "2+2"),
        "traces.jsonl": '{"question": "1+1?", "solution": "2", "explanation": "one and one", "score": 1}\n',
        "plain.jsonl": '{"question": "1+1?", "solution": "2", "system": "Think."}\n',
        "bad.jsonl": whole + '{"question": "", "solution": "2", "reasoning_trace": "x"}\n',
        "named.jsonl": '{"problem": "1+1?", "answer": "2", "thought": "one and one"}\n',
        "folder/train.jsonl": whole.replace("1+1", "3+3"),
        "prompt.txt": "Think.",
        "data/countdown/test.jsonl": whole,
    }
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    (place / "key").write_text("0123456789abcdef0123456789abcdef")
    (place / "key").chmod(0o600)


def refusal(words: list[str]) -> str:
    """Return what a command line is refused with before anything heavy is loaded; nothing where it is not."""
    try:
        config = resolve(compose(words))
        validate(config)
        check_local_data(config)
    except RLTError as error:
        return str(error)
    return ""


def after(words: list[str], way: str) -> list[str]:
    """Return a command line with the words of a remedy in place of those of the same name."""
    latest = {word.partition("=")[0]: word for word in words}
    for word in split(way):
        latest.pop(word.removeprefix("-").partition("=")[0], None)
        latest |= {} if word.startswith("-") else {word.partition("=")[0]: word}
    return list(latest.values())


def split(words: str) -> list[str]:
    return re.split(r" (?=[a-z_][\w.]*=|-[a-z_])", words) if words else []


@pytest.mark.parametrize("case", REMEDIES, ids=lambda case: case.typed or " ".join(case.base[:1]))
def test_each_remedy_works(case):
    words = after(list(case.base), case.typed)
    told = refusal(words)
    assert re.search(case.said, told), told
    assert "\n" not in told
    for way in case.ways:
        assert refusal(after(words, way)) == "", way


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["run_cfg=quickstart_teacher_sft"], "run `./scripts/quickstart.sh` first, which makes it"),
        (["run_cfg=quickstart_teacher_rl"], "so run `./scripts/quickstart.sh` first"),
        (["run_cfg=claims_student_sft"], "run `python -m rlt claims` first, which makes it"),
        (
            ["run_cfg=teacher_rl"],
            "so run `./launch.sh cfgs/run_cfg/teacher_sft.yaml results_dir=results` first",
        ),
    ],
)
def test_what_is_not_made_yet_comes_with_the_command_that_makes_it(words, remedy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        validate(resolve(compose(words)))
    assert remedy in str(caught.value)
