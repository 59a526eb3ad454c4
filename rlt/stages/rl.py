"""What the two RL stages share: engine, settings, and the run from the resume point to the final model."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rlt.config.files import sequence_length
from rlt.config.lengths import rows_per_pass, tokens_per_pass, tokens_with_gradients
from rlt.config.schema import PLAIN_SAMPLING, Config, stage_of
from rlt.data.kept import KeptRows
from rlt.data.lengths import keep_shortest
from rlt.data.load import count_overlap, require_full_step
from rlt.generation.choose_sync import make_weight_sync
from rlt.generation.collective import on_main_process
from rlt.generation.drift import rounding_limit
from rlt.generation.names import served_names
from rlt.generation.sync_folder import sync_folder
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.weights import model_weights
from rlt.models.checkpoint_tensors import checkpoint_tensors
from rlt.models.passes import joined_tokens
from rlt.models.plain import PlainModel
from rlt.rundir.run_record import RunRecord
from rlt.rundir.samples import SampleRow, format_sample, prepare_samples, write_samples
from rlt.stages.common import (
    is_main_process,
    observe,
    resume_point,
    start_step,
    tidy_checkpoints,
)
from rlt.stages.engine import are_loading, check_servers, make_sampling, server_pool
from rlt.stages.turn_ends import check_ends
from rlt.trainers.engine import Engine, LocalEngine
from rlt.trainers.epochs import train
from rlt.trainers.final_model import SavedWith, save_final_model
from rlt.trainers.first_check_verdict import FirstCheck
from rlt.trainers.gradients import accumulate_gradients_in
from rlt.trainers.order import Places
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.recompute import recompute_above
from rlt.trainers.reference import require_reference
from rlt.trainers.rl import RLTrainer
from rlt.trainers.rl_parts import RLData, RLParts, RLSettings
from rlt.trainers.server_engine import PolicyWeights, Restarts, ServerEngine

logger = logging.getLogger(__name__)
SHOW_SAMPLE_EVERY = 10


def rl_resume_point(config: Config) -> Path | None:
    """Return the checkpoint to resume from, which holds the moved reference where there is one."""
    checkpoint = resume_point(config)
    if checkpoint and config.trainer.beta and config.trainer.ref_sync_steps:
        require_reference(checkpoint)
    return checkpoint


def open_pool(config: Config) -> VLLMPool | None:
    """Return the servers that generate; None where the policy itself does.

    They have answered, unless they are still loading: `await_servers` comes later.
    """
    pool = server_pool(config) if config.generation.backend == "vllm" else None
    if pool and is_main_process() and not are_loading():
        check_servers(pool, config)
    return pool


def await_servers(pool: VLLMPool | None, config: Config) -> None:
    """Return once the servers that were loading have answered."""
    if pool and is_main_process() and are_loading():
        check_servers(pool, config)


def rl_data(
    train_rows: KeptRows[PromptedProblem],
    eval_rows: KeptRows[PromptedProblem] | None,
    config: Config,
    places: Places | None = None,
) -> RLData:
    """Return the problems of a run; DataError when they do not fill one step."""
    if eval_rows:
        eval_rows = keep_shortest(eval_rows, lambda row: len(row.prompt_ids), config.data)
    data = RLData(train_rows.values, eval_rows.values if eval_rows else [], places)
    count_overlap([p.problem for p in data.train], [p.problem for p in data.held_out])
    require_full_step(len(data.train), config)
    return data


def rl_parts(pool: VLLMPool | None, config: Config, checkpoint: Path | None, record: RunRecord) -> RLParts:
    """Return what the trainer is given from outside."""
    return RLParts(
        make_engine=partial(make_engine, pool=pool, config=config),
        write_samples=partial(store_samples, Path(config.output_dir) / "samples"),
        first_check=first_check(config, checkpoint, lambda found: record.update(first_check=found)),
    )


def first_check(
    config: Config, checkpoint: Path | None, note: Callable[[dict[str, Any]], None]
) -> FirstCheck:
    """Return what the comparison of engine and policy before the first step needs to know."""
    length = sequence_length(config)
    assert length is not None, "an RL run knows its longest sequence"
    return FirstCheck(
        length=length,
        temperature=config.temperature,
        limit=rounding(config),
        plain=starting_weights(config, checkpoint),
        is_fresh=checkpoint is None,
        note=note,
    )


def starting_weights(config: Config, checkpoint: Path | None) -> PlainModel | str:
    """Return the weights on disk that the policy starts with, or why there are none."""
    dtype, trust = config.model.dtype, config.model.trust_remote_code
    if checkpoint is None:  # new adapters change nothing
        assert config.model_name_or_path is not None, "validate() has asked for a model"
        return PlainModel(config.model_name_or_path, dtype, config.model.revision, trust)
    if config.model.lora.rank:
        return "the policy is a model with adapters, which is whole in the trainer alone"
    if not any(checkpoint.glob("*.safetensors")):
        return f"{checkpoint} holds no whole weights"
    return PlainModel(str(checkpoint), dtype, trust=trust)


def make_engine(trainer: RLTrainer[Any], *, pool: VLLMPool | None, config: Config) -> Engine:
    """Return the source of completions: a pool of servers, or the policy itself."""
    sampling = make_sampling(config, trainer.stop_token_ids)
    overlaps = pool is not None and config.generation.overlap and trainer.rows_together is not None
    if config.generation.overlap and not overlaps and is_main_process():
        why = "the policy itself writes them" if pool is None else "weights come from host memory each time"
        logger.info("completions are scored together, after the last one is written: %s", why)
    if pool is None:
        return LocalEngine(
            trainer.policy_for_generation,
            trainer.accelerator,
            sampling=sampling,
            tokenizer=trainer.layout.tokenizer,
            batch_size=config.per_device_train_batch_size,
        )
    pool.stopwatch = trainer.meter.stopwatch
    name = config.model_name_or_path
    assert name is not None, "validate() has asked for a model"
    served = on_main_process(trainer.accelerator, lambda: checkpoint_tensors(name, config.model.revision))
    names = served_names(trainer.policy, served, name)
    sync = make_weight_sync(
        config.generation.weight_sync,
        pool,
        device=trainer.accelerator.device,
        directory=sync_folder(config.output_dir, config.generation.sync_dir),
        timeout=config.generation.sync_timeout,
    )
    return ServerEngine(
        PolicyWeights(
            gather=lambda: names(model_weights(trainer.policy)),
            updates=lambda: trainer.state.global_step,
        ),
        trainer.accelerator,
        generator=pool,
        sync=sync,
        sampling=sampling,
        restarts=Restarts(
            partial(pool.wait_until_back, name, config.generation.startup_timeout),
            config.generation.max_restarts,
        ),
        overlaps=overlaps,
    )


def store_samples(directory: Path, name: str, rows: list[SampleRow]) -> None:
    """Write a table of samples, and show one of it now and then."""
    write_samples(directory, name, rows)
    step = int(name.rpartition("_")[2])
    if not name.startswith("eval") and step % SHOW_SAMPLE_EVERY == 1:
        logger.info("a sample of step %d\n%s", step, format_sample(rows[0]))


def rl_settings(config: Config) -> RLSettings:
    """Return what the trainer reads of the configuration besides TRL's arguments."""
    is_paid_by_samples = stage_of(config).scores and config.reward.teacher_logprobs == "engine"
    return RLSettings(
        ref_sync_steps=config.trainer.ref_sync_steps,
        ref_mixup=config.trainer.ref_mixup,
        drift_limit=drift_limit(config),
        drift_error=1e-3 if is_paid_by_samples else None,
        mask_truncated=config.trainer.mask_truncated,
        tokens_per_pass=tokens_per_pass(config),
        joined_tokens=joined_tokens(tokens_with_gradients(config)),
        rows_per_pass=rows_per_pass(config),
        come_one_by_one=config.generation.backend == "vllm",
        max_staleness=config.generation.max_staleness * (config.generation.backend == "vllm"),
        eval_num_generations=config.evaluation.num_generations,
        monitors=config.monitors,
    )


def drift_limit(config: Config) -> float:
    """Return the mean drift of a step above which to warn."""
    if any(getattr(config.generation, name) != off for name, off in PLAIN_SAMPLING.items()):
        return math.inf  # the samples are not the policy's own, so the two differ by design
    return rounding(config)


def rounding(config: Config) -> float:
    """Return the mean drift of plain samples that is not a fault: what rounding explains, or the user's."""
    generation = config.generation
    if generation.drift_limit is not None:
        return generation.drift_limit
    engine = generation.dtype if generation.backend == "vllm" else config.model.dtype
    return rounding_limit(config.model.dtype, engine)


def keep_earlier_run_apart(config: Config, checkpoint: Path | None) -> None:
    """Make the run directory fit a run that starts at a checkpoint, or at the beginning."""
    if is_main_process():
        output, step = Path(config.output_dir), start_step(checkpoint)
        prepare_samples(output / "samples", step)
        tidy_checkpoints(output, step)


def train_and_save(
    trainer: RLTrainer[Any],
    config: Config,
    checkpoint: Path | None,
    saved: SavedWith,
) -> None:
    """Train from the model or from a checkpoint of the run, and write the model to its directory.

    `saved` goes with the model.
    """
    accumulate_gradients_in(config.trainer.grad_accum_dtype, trainer.accelerator)
    trainer.recompute_above = recompute_above(config)
    policy = trainer.policy
    plain = policy.get_base_model() if hasattr(policy, "get_base_model") else policy  # under adapters
    plain.generation_config = saved.generation
    observers = observe(trainer, config, saved.layout)
    trainer.on_phase = observers.phases.enter
    if checkpoint:
        trainer.monitors.load(checkpoint)
        for moving in trainer.moving_models:
            moving.load(checkpoint)
        trainer.load_written_ahead(checkpoint)
    try:
        train(trainer, checkpoint)
    finally:
        trainer.engine.close()
    observers.pause.leave()
    output, tokenizer = Path(config.output_dir), trainer.layout.tokenizer
    save_final_model(trainer.policy, trainer.accelerator, tokenizer, output, saved.layout)
    if is_main_process():
        who = stage_of(config).model
        assert who is not None, "an RL stage trains one of the two"
        logger.info("%s", check_ends(output, list(trainer.stop_token_ids), tokenizer, who))
