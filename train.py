"""Run one stage: compose the configuration, check it, hand it to the stage. `python train.py --help`."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
from collections.abc import Sequence
from importlib import import_module

from rlt.config.allocator import allocator_env
from rlt.config.attention import loaded_models
from rlt.config.compose import compose
from rlt.config.explain import explain, help_page
from rlt.config.files import is_here, reads
from rlt.config.overrides import read
from rlt.config.resolve import resolve
from rlt.config.save import to_yaml
from rlt.config.schema import Config, stage_of
from rlt.config.typed import chosen_settings
from rlt.config.validate import validate
from rlt.data.own_layout import adopt_layouts
from rlt.errors import ConfigError, Paused, RLTError
from rlt.parser import Parser
from rlt.rundir.stop_file import LAUNCHED_VARIABLE
from rlt.surroundings.last_words import let_first_end
from rlt.surroundings.place import settle
from rlt.surroundings.roll_call import meet_processes
from rlt.surroundings.world import ALONE, PROCESSES_VARIABLE, join_world


def settings(options: argparse.Namespace, overrides: Sequence[str], num_processes: int) -> Config:
    """Return the configuration with its models' own prompts, checked unless it is only to be shown."""
    launched = {LAUNCHED_VARIABLE, PROCESSES_VARIABLE} & os.environ.keys()
    chosen = chosen_settings(read(overrides))
    config = adopt_layouts(resolve(compose(overrides, launched=bool(launched))), chosen, tell=False)
    if options.cfg:
        return config
    validate(config, num_processes=num_processes)
    # Once more, to tell of it, and for models of the Hub that are not on this machine yet.
    return adopt_layouts(config, chosen, download=not options.dry_run)


def run(config: Config, options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Run the stage, or print what was asked for instead."""
    if config.stage == "pipeline" and not options.cfg:  # runs stages, each in a process of its own
        import_module("rlt.pipeline.run").run(config, overrides, dry_run=options.dry_run)
    elif options.cfg or options.dry_run:
        sys.stdout.write(to_yaml(config, options.package))
        if options.dry_run and stage_of(config).trains:
            check_text(config)
        elif options.dry_run:
            import_module("rlt.launch.preflight").check_local_data(config)
    else:
        os.environ |= allocator_env(os.environ)  # torch, which is not imported yet, reads it on GPUs
        if any(loaded_models(config)):  # else servers compute
            import_module("rlt.devices").on_gpu()  # raises where it should and cannot
        import_module(f"rlt.stages.{config.stage}").run(config)


def check_text(config: Config) -> None:
    """Read what a training would, tokenizers and rows, and raise what it would; load no model."""
    import_module("rlt.rundir.origin").require_same_origin(config)
    elsewhere = [name for name in reads(config) if not is_here(name)]
    unchecked = "not checked, because it comes from the Hub: %s"
    if len(elsewhere) == len(reads(config)):
        logging.info(unchecked, ", ".join(elsewhere))
        return
    import_module("rlt.reporting.progress").setup_logging(0)
    import_module("rlt.stages.attention").check_attention(config)
    import_module("rlt.stages.heads").check_heads(config)
    import_module(f"rlt.stages.{config.stage}").check(config)
    logger = logging.getLogger("rlt")
    if elsewhere:
        logger.info(f"{unchecked}; what is here is as %s needs it", ", ".join(elsewhere), config.stage)
    else:
        logger.info("tokenizers, templates and rows are as %s needs them", config.stage)


def read_options(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the flags of train.py, and the words that make up the configuration."""
    parser = Parser(prog="python train.py", add_help=False)
    for flag in ("--help", "--dry-run", "--cfg"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--package")
    parser.add_argument("--explain")
    parser.add_argument("--config-dir", action="append", default=[])
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args(words)
    overrides = [word for word in options.overrides if not (options.cfg and word == "job")]
    return options, overrides + [f"--config-dir={folder}" for folder in options.config_dir]


def main(words: Sequence[str]) -> int:
    """Run what the command line says; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    # Every process of a machine would say the same, but nobody would if the first had not come.
    world, others_speak = ALONE, True
    try:
        settle(os.environ)
        options, overrides = read_options(words)
        if options.help or options.explain:
            sys.stdout.write(explain(options.explain) if options.explain else help_page())
            return 0
        world = join_world(os.environ)
        logging.getLogger().setLevel(logging.INFO if world.rank == 0 else logging.WARNING)
        if world.has_agent:
            meet_processes(world)
            others_speak = False
        dry = options.dry_run or options.cfg
        asked = os.environ.get(PROCESSES_VARIABLE) if dry else None
        config = settings(options, overrides, int(asked or world.size))
        if config.stage == "pipeline" and world.size > 1 and not dry:
            raise ConfigError(f"a pipeline is one process, and {world.by} has started {world.size}.")
        if not dry and not world.has_agent:
            meet_processes(world)
        others_speak = False
        logging.getLogger().setLevel(logging.INFO if world.rank == 0 else logging.ERROR)
        run(config, options, overrides)
    except Paused as paused:
        sys.stderr.write(f"{paused}\n" if world.rank == 0 else "")
        # torchrun would take another code than 0 for a failure; the launcher reads run.json.
        return 0 if "TORCHELASTIC_RUN_ID" in os.environ else paused.exit_code
    except RLTError as error:
        # Another machine may lack a file.
        who = f" (process {world.rank} on {platform.node()})" if world.rank else ""
        sys.stderr.write(f"error{who}: {error}\n" if world.local_rank == 0 or others_speak else "")
        let_first_end(world)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n" if world.local_rank == 0 or others_speak else "")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
