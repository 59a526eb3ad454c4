"""Run one stage: compose the configuration, check it, hand it to the stage. `python train.py --help`."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from rlt.config.allocator import allocator_env
from rlt.config.attention import loaded_models
from rlt.config.compose import compose
from rlt.config.explain import explain, help_page
from rlt.config.files import reads_elsewhere
from rlt.config.resolve import resolve
from rlt.config.save import to_yaml
from rlt.config.schema import Config, stage_of
from rlt.config.validate import validate
from rlt.errors import ConfigError, Paused, RLTError


def run(words: Sequence[str]) -> None:
    """Compose, check, then run the stage, or print what was asked for instead."""
    options, overrides = read_options(words)
    if options.help or options.explain:
        sys.stdout.write(explain(options.explain) if options.explain else help_page())
        return
    config = resolve(compose(overrides))
    if not options.cfg:
        validate(config, num_processes=int(os.environ.get("WORLD_SIZE", "1")))
    if config.stage == "pipeline" and not options.cfg:  # runs stages, each in a process of its own
        import_module("rlt.pipeline.run").run(config, overrides, dry_run=options.dry_run)
    elif options.cfg or options.dry_run:
        sys.stdout.write(to_yaml(config, options.package))
        if options.dry_run and stage_of(config).trains:
            check_text(config)
    else:
        os.environ |= allocator_env(os.environ)  # torch, which is not imported yet, reads it on GPUs
        if any(loaded_models(config)):  # else servers compute
            import_module("rlt.devices").on_gpu()  # raises where it should and cannot
        import_module(f"rlt.stages.{config.stage}").run(config)


def check_text(config: Config) -> None:
    """Read what a training would, tokenizers and rows, and raise what it would; load no model."""
    import_module("rlt.reporting.origin").require_same_origin(config)
    if elsewhere := reads_elsewhere(config):
        logging.info("not looked into, as it is not on this machine: %s", ", ".join(elsewhere))
        return
    import_module("rlt.reporting.progress").setup_logging(0)
    import_module("rlt.stages.attention").check_attention(config)
    import_module(f"rlt.stages.{config.stage}").check(config)
    logging.getLogger("rlt").info("tokenizers, templates and rows are as %s needs them", config.stage)


def read_options(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the flags of train.py, and the words that make up the configuration."""
    parser = Parser(add_help=False, allow_abbrev=False)
    for flag in ("--help", "--dry-run", "--cfg"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--package")
    parser.add_argument("--explain")
    parser.add_argument("--config-dir", action="append", default=[])
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args(words)
    overrides = [word for word in options.overrides if not (options.cfg and word == "job")]
    return options, overrides + [f"--config-dir={folder}" for folder in options.config_dir]


class Parser(argparse.ArgumentParser):
    """Answers a wrong flag with one sentence."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}: `python train.py --help` lists what can be typed.")


def main(words: Sequence[str]) -> int:
    """Run what the command line says; return the exit code."""
    rank = os.environ.get("RANK", "0")
    logging.basicConfig(
        level=logging.INFO if rank == "0" else logging.ERROR, format="%(levelname)s: %(message)s"
    )
    # Every process of a machine would say the same, but another machine may lack a file.
    speaks = os.environ.get("LOCAL_RANK", "0") == "0"
    who = "" if rank == "0" else f" (process {rank} on {platform.node()})"
    try:
        run(words)
    except Paused as paused:
        sys.stderr.write(f"{paused}\n" if rank == "0" else "")
        # torchrun would take another code than 0 for a failure; the launcher reads run.json.
        return 0 if "TORCHELASTIC_RUN_ID" in os.environ else paused.exit_code
    except RLTError as error:
        sys.stderr.write(f"error{who}: {error}\n" if speaks else "")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n" if speaks else "")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
