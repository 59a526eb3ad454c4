"""The forecast as a user sees it, and the remedies, each of which is tried."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.fake_models import fake_model
from helpers.forecast_runs import configured
from transformers import AutoConfig

from rlt.config.schema import GPU_KINDS
from rlt.device_plan import Plan
from rlt.forecast.forecast import Forecast, make_forecast
from rlt.forecast.hardware import gpu_kind
from rlt.forecast.page import page, summary
from rlt.forecast.remedies import remedies
from rlt.forecast.step_time import BOTH
from rlt.launch.main import main
from rlt.models.size import NoForecast
from rlt.surroundings.gpus import GPUS, recognise
from rlt.text import duration

HUB_MODEL = "model_name_or_path=Qwen/Qwen2.5-7B-Instruct"
RL = ["teacher_rl", HUB_MODEL, "hardware.gpu=h100-80g"]
SFT = ["teacher_sft", HUB_MODEL, "hardware.gpu=h100-80g"]


def split(generation: int, training: int, strategy: str = "zero3") -> Plan:
    servers = tuple((str(i),) for i in range(generation))
    return Plan(servers, tuple(str(generation + i) for i in range(training)), training, strategy)


def forecast(*words: str, plan: Plan) -> Forecast:
    return make_forecast(configured(*words), plan, num_rows=None)


def lines_of(*words: str, gpus: str, capsys, monkeypatch) -> str:
    """Return what the launcher prints, without the configuration and the commands."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    assert main(["launch.sh", *words, "--dry-run"]) == 0
    return "\n".join(line for line in capsys.readouterr().out.splitlines() if line.startswith("# "))


def test_the_released_recipe_on_eight_gpus_fits_and_costs_about_what_was_published(capsys, monkeypatch):
    words = ["cfgs/run_cfg/teacher_rl.yaml", HUB_MODEL, "hardware.gpu=h100-80g"]
    text = lines_of(*words, gpus="0,1,2,3,4,5,6,7", capsys=capsys, monkeypatch=monkeypatch)
    assert "4 generating and 4 training x H100 SXM 80 GB; 7.62 B parameters, student 7.62 B" in text
    assert re.search(r"most at once .*: fits$", text, re.MULTILINE)
    assert "56 KiB a token: 30 sequences of 32,768 tokens at once" in text
    hours = re.search(r"GPU-hours, 125 steps +([\d,]+)", text)
    assert hours
    assert 280 / 2 < int(hours[1].replace(",", "")) < 280 * 2  # the paper's runs took 280 H100-hours
    assert "it fits with" not in text  # no remedy where nothing is wrong


@pytest.mark.parametrize(
    ("model", "published"),
    [("Qwen/Qwen2.5-7B-Instruct", 7 * 8), ("Qwen/Qwen2.5-32B-Instruct", 27 * 8)],
)
def test_distillation_costs_about_what_was_published(model, published):
    # 7 and 27 hours on eight H100s for 3 epochs of 16,710 rows: between the assumed lengths and the limits
    words = ["dataset_id_or_path=bespokelabs/Bespoke-Stratos-17k", f"model_name_or_path={model}"]
    found = forecast("student_sft", *words, "hardware.gpu=h100-80g", plan=split(0, 8, "offload"))
    assumed, most = found.gpu_hours(found.assumed), found.gpu_hours(found.at_most)
    assert assumed is not None
    assert most is not None
    assert published / 2 < assumed < published < most < published * 2


def test_half_of_the_gpus_are_too_few_without_a_remedy():
    found = forecast(*RL, plan=split(2, 2))
    assert not found.needs.training_fits
    assert found.needs.server_fits
    words = [remedy.words for remedy in remedies(found)]
    assert ("offload",) in words
    assert ("model.lora.rank=32",) in words
    assert all(remedy.needs.fit for remedy in remedies(found))


def test_what_a_remedy_says_holds_when_it_is_typed(capsys, monkeypatch):
    words = ["cfgs/run_cfg/teacher_rl.yaml", HUB_MODEL, "hardware.gpu=rtx-4090-24g", "model.lora.rank=32"]
    words += ["generation.backend=transformers"]
    before = lines_of(*words, gpus="0", capsys=capsys, monkeypatch=monkeypatch)
    assert "DOES NOT FIT" in before
    remedy = re.search(r"it fits with (.*?) \(([\d.]+) of 24.0 GiB", before)
    assert remedy
    after = lines_of(*words, *remedy[1].split(), gpus="0", capsys=capsys, monkeypatch=monkeypatch)
    assert re.search(rf"most at once +{remedy[2]} .*: fits$", after, re.MULTILINE)
    assert len(remedy[1].split()) > 1


def test_no_word_of_a_combination_is_needless():
    found = forecast(
        *RL[:2], "hardware.gpu=rtx-4090-24g", "generation.backend=transformers", plan=split(0, 1)
    )
    (remedy,) = remedies(found)
    for word in remedy.words:
        rest = [w for w in remedy.words if w != word]
        strategy = "offload" if "offload" in rest else "zero3"
        settings = [w for w in rest if "=" in w]
        words = [*RL[:2], "hardware.gpu=rtx-4090-24g", "generation.backend=transformers", *settings]
        assert not forecast(*words, plan=split(0, 1, strategy)).needs.fit


def test_a_model_too_large_for_a_server_is_spread_over_several():
    words = [*RL, "model_name_or_path=Qwen/Qwen2.5-32B-Instruct", "student_model=SakanaAI/RLT-7B"]
    words += ["max_prompt_length=32768", "max_completion_length=32768"]
    found = forecast(*words, plan=split(4, 16))
    assert not found.needs.server_fits
    assert "DOES NOT FIT: vLLM does not start" in "\n".join(page(found))
    assert "generation.tensor_parallel=2" in remedies(found)[0].words


@pytest.mark.parametrize(
    ("words", "strategy", "remedy"),
    [
        (["trainer.gradient_checkpointing=false"], "zero3", "trainer.gradient_checkpointing=true"),
        (["per_device_train_batch_size=16"], "zero3", "per_device_train_batch_size=1"),
        ([], "ddp", "zero3"),
    ],
)
def test_the_remedy_that_costs_least_comes_first(words, strategy, remedy):
    found = forecast(*SFT, "train_batch_size=128", *words, plan=split(0, 8, strategy))
    assert remedies(found)[0].words == (remedy,)


def test_a_student_is_sharded_only_where_the_policy_is():
    found = forecast(*RL, plan=split(4, 4, "zero2"))
    words = [remedy.words for remedy in remedies(found)]
    assert ("zero3",) in words
    assert ("reward.placement=zero3", "zero3") in words


def test_nothing_helps_where_nothing_does():
    words = [*RL[:2], "model_name_or_path=SakanaAI/RLT-32B", "hardware.gpu=rtx-4090-24g"]
    words += ["generation.backend=transformers"]
    found = forecast(*words, plan=split(0, 1))
    assert remedies(found) == []
    assert "no setting makes it fit" in page(found)[-1]


def test_the_start_of_a_run_says_it_in_a_few_lines():
    fits, cramped = forecast(*RL, plan=split(4, 4)), forecast(*RL, plan=split(2, 2))
    assert len(summary(fits)) == 2
    assert "30 sequences of full length at once on each server: fits" in summary(fits)[0]
    assert "125 steps" in summary(fits)[1]
    assert "DOES NOT FIT" in summary(cramped)[0]
    assert "it fits with offload" in "\n".join(summary(cramped))


def test_a_phase_that_may_take_longer_than_a_hang_is_told_with_a_remedy():
    plan = split(4, 4)
    most = forecast(*RL, plan=plan)
    assert most.times is not None
    seconds = most.times.seconds(most.at_most)[BOTH]  # the trainer's phase ends when all rows are scored
    assert 1800 < seconds < 4 * 3600  # longer than a server may be silent, shorter than the default
    assert "hang_timeout" not in "\n".join(page(most))
    hasty = forecast(*RL, "trainer.hang_timeout=3600", plan=plan)
    (line,) = [line for line in summary(hasty) if "hang_timeout" in line]
    assert line in [f"  {line}" for line in page(hasty)]
    hours, minutes = divmod(round(seconds) // 60, 60)
    most_text = f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {round(seconds) % 60:02d}s"
    assert re.search(rf"^  {BOTH} may take {most_text}, .* after 1h 00m in one phase: set trainer.hang", line)
    remedy = line.rpartition(" ")[2]
    assert not [line for line in page(forecast(*RL, remedy, plan=plan)) if "hang_timeout" in line]
    assert not [line for line in page(forecast(*RL, "trainer.hang_timeout=0", plan=plan)) if "hang_t" in line]


def test_the_page_says_how_much_scoring_hides():
    found = forecast(*RL, plan=split(4, 4))
    assert found.times is not None
    overlapped = found.times.seconds(found.assumed)
    assert re.search(
        rf"^  {BOTH} +{duration(overlapped[BOTH], tenths=True)} ", "\n".join(page(found)), re.MULTILINE
    )
    serial = forecast(*RL, "generation.overlap=false", plan=split(4, 4))
    assert serial.times is not None
    phases = serial.times.seconds(serial.assumed)
    scoring = phases["reward"] + phases["reference"]
    hidden = phases["generation"] + scoring - overlapped[BOTH]
    assert (
        f"of {duration(scoring, tenths=True)} of scoring {duration(hidden, tenths=True)} pass while"
        in "\n".join(page(found))
    )
    assert "while servers write" not in "\n".join(page(serial))


def test_steps_are_counted_from_rows():
    config = configured(*SFT)
    assert make_forecast(config, split(0, 8), 1000).num_steps == 625  # 10 epochs x 1,000 / 16
    assert make_forecast(config, split(0, 8), None).num_steps == 10_444  # 10 x 16,710 / 16, rounded up
    config.dataset_id_or_path = "some/other"
    unknown = make_forecast(config, split(0, 8), None)
    assert unknown.num_steps is None
    assert "no GPU-hours: the number of steps is not known" in "\n".join(page(unknown))
    config.trainer.max_steps = 7
    assert make_forecast(config, split(0, 8), None).num_steps == 7


@pytest.mark.parametrize(
    ("gpus", "words", "reason"),
    [
        ("", [], "no forecast: it is made for GPUs"),
        ("0,1", ["model_name_or_path=no-one/nothing"], "no-one/nothing is not on this machine"),
        ("0,1", ["trainer_args.optim=adafactor"], "keeps another state than AdamW"),
        ("0,1", ["trainer_args.use_liger_kernel=true"], "changes what is kept in memory"),
    ],
)
def test_where_there_is_none_a_line_says_why(gpus, words, reason, capsys, monkeypatch):
    text = lines_of(
        "cfgs/run_cfg/teacher_sft.yaml", *words, gpus=gpus, capsys=capsys, monkeypatch=monkeypatch
    )
    assert reason in text


@pytest.mark.slow
def test_a_model_that_cannot_be_counted_is_no_crash(tiny_tokenizer, tmp_path, capsys, monkeypatch):
    fake_model(tmp_path, '{"model_type": "qwen2_moe", "hidden_size": 7}')
    tiny_tokenizer.save_pretrained(tmp_path)  # which the dry run reads
    words = ["cfgs/run_cfg/teacher_sft.yaml", f"model_name_or_path={tmp_path}"]
    text = lines_of(*words, gpus="0", capsys=capsys, monkeypatch=monkeypatch)
    assert "no forecast of memory and time" in text
    assert "is of the type qwen2_moe, which cannot be counted" in text


@pytest.mark.slow
def test_a_mixture_has_a_forecast(tmp_path):
    """Before: none. gpt-oss-20b: 20.9 B parameters, of which 3.6 B are active (arXiv 2508.10925)."""
    AutoConfig.for_model("gpt_oss", num_hidden_layers=24, num_local_experts=32).save_pretrained(tmp_path)
    words = ("teacher_rl", f"model_name_or_path={tmp_path}", f"student_model={tmp_path}")
    found = forecast(*words, "hardware.gpu=h100-80g", plan=split(2, 6))
    text = "\n".join(page(found))
    assert "20.91 B parameters (3.61 B for each token), student 20.91 B (3.61 B for each token)" in text
    # by hand: 24 layers x 2 x 8 heads x 64 x 2 bytes; half of them see 128 of 32,768 tokens: 24 KiB and a bit
    assert "24.09 KiB a token" in text
    assert found.needs.training.kept["reference"] == 2 * found.models.policy.parameters / 6


def test_a_forecast_loads_no_torch():
    code = (
        "import sys; from rlt.launch.main import main; "
        f"main(['launch.sh', 'cfgs/run_cfg/teacher_rl.yaml', '{HUB_MODEL}', '--dry-run']); "
        "sys.exit('torch' in sys.modules)"
    )
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "0,1"}
    project = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=project, env=env, capture_output=True, text=True)
    assert "each training GPU" in done.stdout
    assert done.returncode == 0, done.stderr


def test_every_kind_of_the_schema_is_known():
    assert GPUS.keys() == set(GPU_KINDS)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80g"),
        ("NVIDIA H200", "h200-141g"),
        ("NVIDIA B200", "b200-180g"),
        ("NVIDIA A100-SXM4-80GB", "a100-80g"),
        ("NVIDIA A100-SXM4-40GB", "a100-40g"),
        ("NVIDIA L40S", "l40s-48g"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090-24g"),
        ("NVIDIA GeForce RTX 3090", "rtx-3090-24g"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
    ],
)
def test_names_of_nvidia_smi(name, kind):
    found = recognise(name, 1000)
    assert found.memory == 1000 * 2**20
    assert found.flops == (GPUS[kind].flops if kind else None)


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("echo 'NVIDIA L40S, 46068'; echo 'NVIDIA L40S, 46068'", "NVIDIA L40S"),
        ("echo 'No devices were found'; exit 6", GPUS["h100-80g"].name),
        ("echo '[N/A], [N/A]'", GPUS["h100-80g"].name),
    ],
)
def test_the_gpu_of_this_machine_is_taken(answer, name, tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\n{answer}\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpu_kind(configured("teacher_sft").hardware).name == name
    assert gpu_kind(configured("teacher_sft", "hardware.gpu=a100-40g").hardware) == GPUS["a100-40g"]


def test_memory_is_forecast_for_a_gpu_of_unknown_speed(monkeypatch):
    monkeypatch.setattr("rlt.forecast.forecast.gpu_kind", lambda _: recognise("NVIDIA H100 PCIe", 81559))
    text = "\n".join(page(forecast(*SFT, plan=split(0, 8))))
    assert "no times: the speed of NVIDIA H100 PCIe is not known" in text
    assert ": fits" in text


def test_an_argument_that_is_not_followed_is_named():
    with pytest.raises(NoForecast, match="keeps another state"):
        forecast(*SFT, "trainer_args.optim=lomo", plan=split(0, 8))
