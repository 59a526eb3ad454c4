"""Every command of the package: what it is for, an example, and the module whose `main` runs it.

`python -m rlt VERB …` and `python -m MODULE …` are the same.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module

from rlt.errors import ConfigError
from rlt.surroundings.leaving import Main

_COLUMNS = 80


@dataclass(frozen=True)
class Verb:
    """One command."""

    about: str
    example: str
    """What is typed after `python -m rlt VERB`."""
    module: str


VERBS = {
    "quickstart": Verb(
        "the whole method on tiny models and this machine, in minutes",
        "--output results/quickstart",
        "rlt.quickstart.main",
    ),
    "claim": Verb(
        "the quickstart over several seeds, with intervals",
        "--seeds 5 --output results/claim",
        "rlt.quickstart.claim",
    ),
    "claims": Verb(
        "the paper's claims in miniature, over several seeds",
        "--seeds 0 1 --parts models rivals",
        "rlt.quickstart.claims",
    ),
    "real-model": Verb(
        "the method on a real small language model and GSM8K, in hours",
        "3 results/real_model --data gsm8k_train.jsonl",
        "rlt.real_model.main",
    ),
    "serve": Verb(
        "vLLM servers alone, for a training on another machine",
        "cfgs/run_cfg/teacher_rl.yaml generation.host=0.0.0.0 generation.api_key_file=~/.rlt_key",
        "rlt.launch.serve",
    ),
    "student-server": Verb(
        "a server that scores with a frozen student",
        "STUDENT --temperature 0.7 --port 8100",
        "rlt.launch.student_server",
    ),
    "status": Verb(
        "what runs are doing: step, time left, processes, servers",
        "results/teacher_rl --json",
        "rlt.status.__main__",
    ),
    "watch": Verb(
        "one run, live: its status and the curves of its metrics", "results/teacher_rl", "rlt.status.watch"
    ),
    "lineage": Verb(
        "where a trace or a model comes from, and what was made of it",
        "PROBLEM_ID:0 results/pipeline",
        "rlt.lineage.__main__",
    ),
    "compare": Verb(
        "two evaluations by problem: is one better, or is it noise",
        "results/base results/student",
        "rlt.evaluation.compare",
    ),
    "regrade": Verb(
        "answers that lighteval, SkyThought or evalchemy has sampled, graded here",
        "results.json --output results/regraded",
        "rlt.regrade.__main__",
    ),
    "benchmarks": Verb("the benchmarks that evaluate knows", "", "rlt.tasks.benchmarks.__main__"),
    "rank-correlation": Verb(
        "the reward of traces against the accuracy of their students",
        "results/students_by_rank",
        "rlt.pipeline.rank_correlation",
    ),
    "recipe-diff": Verb(
        "how a recipe differs from the defaults of TRL",
        "run_cfg=teacher_rl recipe=modern",
        "rlt.trainers.recipe_diff",
    ),
    "differences": Verb(
        "how this project differs from SakanaAI/RLT", "--against DIR", "rlt.differences.__main__"
    ),
    "migrate": Verb("a run file of SakanaAI/RLT in our settings", "FILE.yaml", "rlt.migrate.__main__"),
    "devices": Verb("the GPUs that torch can use here", "", "rlt.devices"),
    "env": Verb("versions and hardware, for a bug report", "", "rlt.cli.env"),
    "completion": Verb(
        "tab completion of settings and their values, bash or zsh", "bash", "rlt.cli.completion"
    ),
}

_HEAD = """\
usage: python -m rlt COMMAND [ARGUMENT …]     (python -m rlt COMMAND --help)

Trainings and all other stages are started with ./launch.sh RUN_FILE or
python train.py run_cfg=NAME; see their --help. The commands:
"""


def page() -> str:
    """Return the list of commands with an example of each."""
    lines = [_HEAD]
    for name, verb in VERBS.items():
        lines += textwrap.wrap(verb.about, _COLUMNS, initial_indent=f"{name:18}", subsequent_indent=" " * 18)
        lines += textwrap.wrap(
            f"python -m rlt {name} {verb.example}".rstrip(),
            _COLUMNS,
            initial_indent="    ",
            subsequent_indent=" " * 8,
            break_on_hyphens=False,
            break_long_words=False,
        )
    return "\n".join(lines) + "\n"


def command(name: str) -> Main:
    """Return the function behind a verb; ConfigError names the nearest one."""
    if name not in VERBS:
        near = get_close_matches(name, VERBS, n=1)
        meant = f", did you mean `{near[0]}`?" if near else ":"
        raise ConfigError(f"`{name}` is not a command of rlt{meant} `python -m rlt` lists all.")
    return import_module(VERBS[name].module).main
