"""Every command in README and docs/ is run: launchers as far as a dry run goes, the rest on toy models.

A command that needs more than that says so in a comment, `# needs …`, and is counted here.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from helpers.fake_models import fake_model
from test_documents import PAGES

import train
from rlt.cli.verbs import VERBS
from rlt.config.compose import compose
from rlt.errors import ConfigError
from rlt.launch.command_line import parse
from rlt.launch.main import describe, prepare

ROOT = Path(__file__).parents[1]
EIGHT_GPUS = "0,1,2,3,4,5,6,7"
LAUNCHERS = ("./launch.sh", "./launch_with_server.sh")
NEEDS = {
    "the network": 4,
    "SkyThought's package": 1,
    "the network for packages; a CPU is enough": 1,
    "the network; once, for CUDA or CPU": 1,
    "minutes": 6,
    "hours": 1,
    "the network and hours": 2,
    "vLLM and minutes": 1,
    "vLLM and a GPU": 3,
    "a GPU and eight minutes": 1,
    "Slurm": 2,
    "its finished runs": 2,
    "the quickstart's models": 3,
}
"""What commands need that is not here, with how many there are of each."""
STAND_INS = {
    "STUDENT": "models/student",
    "TEACHER": "models/teacher",
    "HOST": "gpu1",
    "SERVER": "gpu2",
    "PORT": "8000",
}
"""Words in capitals that a reader replaces."""


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    page: str
    text: str
    needs: str | None

    def __str__(self) -> str:
        """Return it as the name of a test."""
        return f"{self.page}: {self.text}"


def commands_in(page: Path) -> Iterator[Command]:
    """Yield the commands of a page's bash blocks, continued lines joined."""
    for block in re.findall(
        r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        for line in block.replace("\\\n", " ").splitlines():
            text, _, comment = re.sub(r"\s+", " ", line).partition(" # ")
            needs = comment.removeprefix("needs ") if comment.startswith("needs ") else None
            if text.strip() and not text.startswith("#"):
                yield Command(page.name, text.strip(), needs)


COMMANDS = [command for page in PAGES for command in commands_in(page)]
HERE = list({command.text: command for command in COMMANDS if command.needs is None}.values())
"""Each once, whichever pages show it."""


def test_what_is_not_run_is_counted():
    found: dict[str, int] = {}
    for command in COMMANDS:
        if command.needs is not None:
            found[command.needs] = found.get(command.needs, 0) + 1
    assert found == NEEDS
    assert len(HERE) > 2 * sum(NEEDS.values())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path, tiny_student: Path) -> Path:
    """Return a folder with what the pages take for granted: data, traces, and models at their places."""
    folder = tmp_path_factory.mktemp("place")
    rows = [
        {
            "question": f"{a}+{b}*2",
            "solution": str((a + b) * 2 % 10),
            "answer": str((a + b) * 2 % 10),
            "reasoning_trace": f"{a}+{b}={(a + b) % 10}\n{(a + b) % 10}*2={(a + b) * 2 % 10}",
            "system": "Think and then solve.",
        }
        for a in range(6)
        for b in range(6)
    ]
    traces = [
        {**row, "explanation": row["reasoning_trace"], "score": n / 7, "breakdown": {"student_nll": n / 9}}
        for n, row in enumerate(rows)
    ]
    tables = {
        "my.jsonl": rows,
        "my_test.jsonl": rows[:3],
        "traces.jsonl": traces,
        "results/score_traces/scores.jsonl": traces,
        "results/collect_traces/traces.jsonl": traces,
        "results/make_countdown/train.jsonl": rows,
        "data/countdown/train.jsonl": rows,
        "data/countdown/test.jsonl": rows,
    }
    for name, table in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in table))
    (folder / "prompt.txt").write_text("Think and then solve.")
    (folder / ".rlt_key").write_text("0123456789abcdef" * 4)
    (folder / ".rlt_key").chmod(0o600)
    (folder / "my_rewards.py").write_text(
        "def brevity(explanations):\n    return [0.0] * len(explanations)\n"
    )
    for name in ("pre_rl_model", "teacher_rl", "student_sft", "student_32b"):
        fake_model(folder / "results" / name)
    (folder / "models").mkdir()
    (folder / "models" / "teacher").symlink_to(tiny_teacher)
    (folder / "models" / "student").symlink_to(tiny_student)
    return folder


def stand_in(word: str) -> str:
    """Return a word with what a reader would put for its capitals."""
    pattern = rf"(?<![\w.-])({'|'.join(STAND_INS)})(?![\w.-])"
    return re.sub(pattern, lambda found: STAND_INS[found[1]], word)


def dry_run(script: str, words: list[str]) -> None:
    """Go as far as a launcher's dry run does without a look at tokenizers; a pipeline's whole one."""
    line = parse(script, [word for word in words if word != "--dry-run"])
    if compose(line.overrides).stage == "pipeline":
        assert train.main([*line.overrides, "--dry-run"]) == 0
        return
    described = describe(prepare(script, parse(script, [*words, "--dry-run"])))
    assert "# training; log: " in described


def test_a_command_that_does_not_work_is_seen(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", EIGHT_GPUS)
    for wrong in ("learning_rat=2e-6", "dataset_id_or_path=none.jsonl", "correctness.weight=2"):
        with pytest.raises(ConfigError):
            dry_run("launch.sh", ["cfgs/run_cfg/teacher_rl.yaml", wrong])


SMALL = {
    "student_sft": "models/student",
    "teacher_rl": "models/teacher",
}


def run_train(words: list[str]) -> None:
    """Run train.py: the pages of help and stages that take seconds whole, on toy models; else a dry run."""
    words = [re.sub(r"^(model_name_or_path=)results/(\w+)$", lambda m: m[1] + SMALL[m[2]], w) for w in words]
    if "--explain" in words or "--help" in words:
        assert train.main(words) == 0
        return
    stage = next(word.removeprefix("run_cfg=") for word in words if word.startswith("run_cfg="))
    small = {
        "make_countdown": ["countdown.num_train=3", "countdown.num_test=2"],
        "infer": ["model.dtype=float32", "max_completion_length=4"],
        "plan_traces": [],
        "select_traces": [],
        "evaluate": ["max_prompt_length=256", "max_completion_length=512", "--dry-run"],
    }[stage]
    assert train.main([*words, *small]) == 0


def write_evaluation(run: Path) -> None:
    """Write what compare reads of a finished evaluation."""
    run.mkdir(exist_ok=True)
    rows = [{"task": "math500", "problem_id": str(n), "correct": n % 2 == 0} for n in range(8)]
    (run / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "manifest.json").write_text("{}")


def run_module(words: list[str]) -> None:
    """Run `python -m rlt VERB …`, or a module's main, as Python does."""
    module, *rest = words
    if module == "rlt" and rest:
        module, *rest = [VERBS[rest[0]].module, *rest[1:]]
    if module in ("rlt.status.__main__", "rlt.status.watch", "rlt.lineage.__main__"):
        return check_help(module)  # their runs are not here; tests/status and tests/lineage run them
    if module == "rlt.launch.serve":
        return dry_run("launch.sh", rest)
    if module == "rlt.config.reference":
        assert import_module(module).reference()
        return None
    if module == "rlt.evaluation.compare":
        for run in rest:
            write_evaluation(Path(run))
    if module == "rlt.migrate.__main__":
        Path(rest[-1]).unlink(missing_ok=True)
    assert import_module(module if module != "rlt" else "rlt.__main__").main(rest) == 0
    return None


def check_help(module: str) -> None:
    """Read a module's options."""
    with pytest.raises(SystemExit) as ended:
        import_module(module).main(["-h"])
    assert not ended.value.code


@pytest.mark.slow
@pytest.mark.parametrize("command", HERE, ids=str)
def test_a_command_of_the_pages(command, place, monkeypatch, request):
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    if command.text.startswith("("):  # a line of shell
        subprocess.run(["bash", "-c", command.text], check=True, timeout=60)
        return
    if "original" in re.split(r"\W", command.text) and not Path("original").exists():
        Path("original").symlink_to(request.getfixturevalue("original"))
    words = [stand_in(word) for word in shlex.split(command.text)]
    assigned = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    words = words[len(assigned) :]
    program, rest = words[0], words[1:]
    if program in LAUNCHERS:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", assigned.get("CUDA_VISIBLE_DEVICES", EIGHT_GPUS))
        dry_run(program.removeprefix("./"), rest)
    elif words[:2] == ["python", "train.py"]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        run_train(rest[1:])
    elif words[:2] == ["python", "-m"]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", EIGHT_GPUS)
        run_module(rest[1:])
    elif program == "python" and rest[0] == "scripts/draw_overview.py":
        subprocess.run([sys.executable, str(ROOT / rest[0]), *rest[1:]], check=True, timeout=60)
        assert Path("overview.svg").read_text() == (ROOT / "docs" / "overview.svg").read_text()
    else:  # tests/test_examples.py runs these
        assert program == "python"
        assert rest[0] in ("scripts/examples/reward_in_python.py", "scripts/examples/reward_in_grpo.py")
