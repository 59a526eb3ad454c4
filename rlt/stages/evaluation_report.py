"""report.html of an evaluation: the tables of rlt/evaluation on the page of rlt/reporting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rlt.config.schema import EvaluateSettings
from rlt.evaluation.protocol import described
from rlt.evaluation.published import PUBLISHED, unlike
from rlt.evaluation.summary import Numbers
from rlt.evaluation.table import beside_published, by_group, has_published, how_measured, legend, results
from rlt.io import input_label
from rlt.reporting.evaluation_page import Results, write_evaluation_page
from rlt.reporting.evaluation_plots import Accuracy, draw_accuracies
from rlt.rundir.run_record import read_run


def evaluation_report(evaluate: EvaluateSettings, run_dir: Path) -> Path | None:
    """Return the path of report.html, written from a run directory; None where the run did not finish.

    The files of a run that failed may be those of an earlier one.
    """
    run = read_run(run_dir)
    if run["status"] != "finished":
        return None
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    tasks, model = summary["tasks"], input_label(run["inputs"]["model"])
    with_published = evaluate.reference and has_published(list(tasks))
    shown = Results(
        model=model,
        how=f"{how_measured(summary['sampling'])} {described(summary)}",
        table=results(tasks),
        accuracies=[draw_accuracies(title, lines) for title, lines in plots(summary, with_published)],
        groups=by_group(tasks),
        published=beside_published(tasks, model, summary) if with_published else (),
        legend=legend(tasks, summary) if with_published else "",
    )
    return write_evaluation_page(run_dir, shown, evaluate.report_samples)


def plots(summary: Mapping[str, Numbers], with_published: bool) -> list[tuple[str, list[Accuracy]]]:
    """Return titles and lines of the plots: one of all tasks, and one of each with published numbers.

    A star marks what was measured otherwise than here.
    """
    tasks: Mapping[str, Numbers] = summary["tasks"]
    drawn = [("this run", [ours(task, numbers) for task, numbers in tasks.items()])]
    if with_published:
        for task in (task for task in tasks if has_published([task])):
            others = [
                Accuracy(
                    other.model,
                    value,
                    source=other.trust + (" *" if unlike(other.trust, task, tasks[task], summary) else ""),
                )
                for other in PUBLISHED
                if (value := other.accuracy(task)) is not None
            ]
            drawn.append((task, [ours("this run", tasks[task]), *others]))
    return drawn


def ours(name: str, numbers: Numbers) -> Accuracy:
    """Return the line of our accuracy in a task."""
    interval = numbers["interval_95"]
    in_percent = (100 * interval[0], 100 * interval[1]) if interval else None
    return Accuracy(name, 100 * numbers["accuracy"], in_percent)
