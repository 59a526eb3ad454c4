"""What the table of stages says of one stage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Stage:
    """What there is to know of a stage before anything of it is imported."""

    about: str
    """What it does, in a few words."""
    settings: tuple[str, ...]
    """What it reads, its launcher included: settings, and sections of which it reads all."""
    checks: tuple[str, ...]
    """Its rules in their order, by their names in validate.py."""
    needs: tuple[tuple[str, str], ...] = ()
    """Settings that must not be empty, each with the rest of the sentence "`NAME` is empty …"."""
    model: str | None = None
    """Who `model_name_or_path` is: teacher or student. infer takes either; None where none is loaded."""
    trains: bool = False
    generates: bool = False
    """Its completions come from the engine of `generation`."""
    fills_context: bool = False
    """It generates up to the end of the model's context, whatever max_completion_length is."""
    scores: bool = False
    """Frozen students judge explanations."""
    is_judged: bool = False
    """A teacher gives the tokens that it writes their probabilities."""
    reads_traces: bool = False
    """Its rows are explanations."""
    rehearses: bool = False
    """It can take long, so that --rehearse makes sense."""
    remedy: str = "remove it"
    """What to do with a setting `{name}` that has no effect."""
    notes: tuple[tuple[str, str], ...] = ()
    """Why it does not read a setting that one might expect it to read."""

    @property
    def is_rl(self) -> bool:
        """Whether it trains on what its own model has just written."""
        return self.trains and self.generates

    @property
    def only_generates(self) -> bool:
        """Whether it generates and trains nothing: every GPU is the engine's."""
        return self.generates and not self.trains

    @property
    def only_scores(self) -> bool:
        """Whether it scores and trains nothing; a teacher is optional."""
        return self.scores and not self.trains

    @property
    def reads_text_alone(self) -> bool:
        """Whether it reads traces without any model; of the student no more than its tokenizer."""
        return self.reads_traces and self.model is None

    def reads(self, name: str) -> bool:
        """Return whether a setting counts here, or with the name of a section any of its settings."""
        return _reads(self.settings, name)


@cache
def _reads(settings: tuple[str, ...], name: str) -> bool:
    """Return whether a setting, or one of a section, is among some; asked thousands of times at once."""
    return any(f"{name}.".startswith(f"{known}.") or known.startswith(f"{name}.") for known in settings)
