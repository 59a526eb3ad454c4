"""The rules of on-policy distillation: what its teacher, its loss and its places allow together."""

from __future__ import annotations

from importlib.util import find_spec

from rlt.config.rules.servers import check_addresses
from rlt.config.schema import OPD_LOSS_TYPES, Config
from rlt.config.teacher import has_own_weights
from rlt.errors import ConfigError


def check_opd(config: Config) -> None:
    """Raise ConfigError for the first broken rule."""
    _check_teacher(config)
    _check_objective(config)
    _check_placement(config)


def _check_teacher(config: Config) -> None:
    opd = config.opd
    if opd.teacher == "model" and not config.teacher_model:
        raise ConfigError(
            "`teacher_model` is empty, but opd.teacher=model judges by it: give a model's folder or a Hub "
            "name, or take opd.teacher=ema, self or start, which are the student's own weights."
        )
    if opd.teacher == "ema" and config.model.lora.rank:
        raise ConfigError(
            "`opd.teacher=ema` averages all weights, which do not move with model.lora.rank > 0: take "
            "opd.teacher=self or start, or model.lora.rank=0."
        )
    if opd.teacher == "ema" and opd.dtype != "float32":
        raise ConfigError(
            f"`opd.dtype={opd.dtype}` would round a share of {opd.ema_share:g} of each change away, and the "
            "average would not move: take opd.dtype=float32 with opd.teacher=ema."
        )
    if opd.solution_in == "question":
        for slot in ("{question}", "{solution}"):
            if slot not in opd.question:
                raise ConfigError(f"`opd.question` must hold {slot}, where the problem's own goes.")


def _check_objective(config: Config) -> None:
    opd = config.opd
    if opd.support == "sampled" and opd.divergence != "reverse_kl":
        raise ConfigError(
            f"`opd.divergence={opd.divergence}` needs more of the teacher than the sampled token, on which "
            "only the reverse KL can be estimated: take opd.support=top_k or full."
        )
    _check_trainer_args(config)
    if config.trainer.loss_type in OPD_LOSS_TYPES:
        return
    loss, those = f"`trainer.loss_type={config.trainer.loss_type}` is a loss of advantages", OPD_LOSS_TYPES
    if opd.support != "sampled":
        raise ConfigError(
            f"{loss}, and a divergence has none: take {' or '.join(those)}, or opd.support=sampled."
        )
    if opd.answer_coeff:
        raise ConfigError(f"{loss}, and answers have none: take {' or '.join(those)}, or opd.answer_coeff=0.")


_PLAIN = {"importance_sampling_level": "token", "off_policy_mask_threshold": None, "delta": None}
"""Arguments of TRL for the one advantage of a row, with the value that leaves each token its own."""
_WITHOUT_DIVERGENCE = {"top_entropy_quantile": 1.0}
"""Arguments that act on advantages, of which a divergence has none."""


def _check_trainer_args(config: Config) -> None:
    """Raise for arguments of TRL's loss that this one would read wrongly, or not at all."""
    given, sampled = config.trainer_args, config.opd.support == "sampled"
    for name, plain in {**_PLAIN, **({} if sampled else _WITHOUT_DIVERGENCE)}.items():
        if given.get(name, plain) != plain:
            why = (
                "every token has an advantage of its own, and it takes one for all tokens of a completion"
                if sampled
                else f"opd.support={config.opd.support} has no advantages, on which it acts"
            )
            raise ConfigError(
                f"`trainer_args.{name}={given[name]}` has no place in student_opd: {why}. Leave it out."
            )


def _check_placement(config: Config) -> None:
    opd = config.opd
    check_addresses("opd.servers", opd.servers)
    if not has_own_weights(config):
        return
    if opd.support == "full" and opd.placement in ("cpu_offload", "server"):
        raise ConfigError(
            f"`opd.placement={opd.placement}` keeps the teacher's head away from the loss, which needs it "
            "for every token with opd.support=full: take opd.support=top_k, or placement replicated or "
            "zero3."
        )
    if opd.placement == "server" and opd.teacher != "model":
        raise ConfigError(
            f"`opd.placement=server` serves a model of its own, and opd.teacher={opd.teacher} is the "
            "student's: take opd.teacher=model with teacher_model, or opd.placement=replicated."
        )
    if opd.placement == "server" and not opd.servers:
        raise ConfigError(
            "`opd.placement=server` needs running servers: start one with `python -m "
            f"rlt.launch.student_server {config.teacher_model} --temperature {config.temperature:g} "
            "--port PORT` and give opd.servers=[http://127.0.0.1:PORT]."
        )
    if opd.placement == "server" and opd.temperature not in (None, config.temperature):
        raise ConfigError(
            f"`opd.temperature={opd.temperature:g}` is not the temperature={config.temperature:g} that the "
            "teacher's servers hold their model at: remove it, or take opd.placement=replicated."
        )
    if opd.placement == "zero3" and find_spec("deepspeed") is None:
        raise ConfigError(
            "`opd.placement=zero3` needs DeepSpeed, which is not installed: pip install 'rlt[deepspeed]', "
            "or take replicated or cpu_offload."
        )
    if opd.placement == "zero3" and opd.dtype != config.model.dtype:
        raise ConfigError(
            f"`opd.placement=zero3` shards the teacher in the dtype of the run, which is model.dtype="
            f"{config.model.dtype}, but opd.dtype is {opd.dtype}: set opd.dtype={config.model.dtype}, or "
            "take replicated or cpu_offload."
        )
