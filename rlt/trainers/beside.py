"""This project's files in each checkpoint, written before the one that marks it as whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from typing_extensions import override

from rlt.generation.collective import on_main_process


def nothing_beside(_: Path) -> None:
    """Keep no file of this project in a checkpoint."""


class KeepsBeside(Trainer):
    """A mixin in front of a trainer class.

    `_save_checkpoint` is overridden because a callback's `on_save` comes after transformers has written
    trainer_state.json: a run that is killed in between would leave a whole checkpoint without our files.
    """

    keep_beside: Callable[[Path], None] = staticmethod(nothing_beside)
    """Writes them into the folder of a checkpoint; called on the main process."""

    @override
    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        assert self.args.output_dir is not None
        folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        on_main_process(self.accelerator, lambda: self.keep_beside(folder))
        super()._save_checkpoint(model, trial)

    def keep_trained(self, saving: Callable[[], object]) -> str | None:
        """Write a checkpoint of the last whole step, unless there is one; return where it is.

        `saving` is called before the writing. Samples are drawn before anything of the next step is computed,
        so a run that ends there continues as if nothing had been.
        """
        assert self.args.output_dir is not None
        step = self.state.global_step
        folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
        if not step:
            return None
        if not on_main_process(self.accelerator, (folder / TRAINER_STATE_NAME).is_file):
            saving()
            self._save_checkpoint(self.model, None)
            self.callback_handler.on_save(self.args, self.state, self.control)
        return (
            f"step {step} of {self.state.max_steps} is kept in {folder}: resume_from=latest continues there"
        )
