import base64
import json
import re
from xml.etree import ElementTree

import pytest
from helpers.page_tags import parse

from rlt.errors import DataError
from rlt.evaluation.intervals import paired_interval
from rlt.reporting.curves import Panel, draw_panel, panels_of, running_mean
from rlt.reporting.report import write_report
from rlt.rundir.metrics import metrics_row
from rlt.rundir.run_record import RunRecord


def test_the_report_of_an_rl_run_is_whole_and_loads_nothing(rl_report):
    page = parse(rl_report)
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 14
    for source in images:
        assert source.startswith("data:image/svg+xml;base64,")
        ElementTree.fromstring(base64.b64decode(source.split(",", 1)[1]))
    attributes = {name for _, found in page.tags for name in found}
    assert not attributes & {"href", "onerror", "onload", "action", "srcset"}
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base"})
    for expected in (
        "Result",
        "Curves",
        "Samples of step 60",
        "To run it again",
        "Versions",
        "learning_rate: 1.0e-06",
    ):
        assert expected in page.text
    assert "./launch.sh cfgs/run_cfg/teacher_rl.yaml" in page.text
    assert "hf_abcdef" not in page.text
    assert "[-1, -0.8]" in page.text  # the interval of the first held-out reward, -0.9 ± 0.1
    assert "not finite 1 times" in page.text


def test_hostile_sample_text_is_shown_not_run(rl_report, hostile):
    raw = rl_report.read_text(encoding="utf-8")
    page = parse(rl_report)
    assert hostile.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e") in page.text
    assert "&lt;script&gt;" in raw
    assert "<script" not in raw
    assert "\x1b" not in raw
    assert [a for t, a in page.tags if t == "img" and not a["src"].startswith("data:")] == []


def test_best_and_worst_samples_are_ordered_by_reward(rl_report):
    page = parse(rl_report)
    places = re.findall(r"(best|worst) · problem problem(\d)", page.text)
    assert places == [
        ("best", "7"),
        ("best", "6"),
        ("best", "5"),
        ("worst", "0"),
        ("worst", "1"),
        ("worst", "2"),
    ]


def test_an_sft_run_without_samples_has_a_report(tmp_path):
    with RunRecord.start(tmp_path, stage="teacher_sft", seed=1, inputs={}):
        rows = [
            metrics_row(s, 0.1 * s, s, {"loss": 2.0 - s / 10, "learning_rate": 1e-5}) for s in range(1, 11)
        ]
        rows.append(metrics_row(10, 1.0, 11, {"eval_loss": 1.25}))
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = parse(write_report(tmp_path, paired_interval))
    assert sum(tag == "img" for tag, _ in page.tags) == 2
    # mean of 1.9, 1.8, 1.7, 1.6, 1.5 and of 1.4, 1.3, 1.2, 1.1, 1.0
    assert re.search(r"loss\s*1\.7\s*1\.2", page.text)
    assert "held out: loss" in page.text
    assert "Samples" not in page.text


def test_a_failed_run_without_metrics_says_so(tmp_path):
    with pytest.raises(RuntimeError), RunRecord.start(tmp_path, stage="teacher_rl", seed=1, inputs={}):
        raise RuntimeError("<b>server</b> gone")
    page = parse(write_report(tmp_path, paired_interval))
    assert "RuntimeError: <b>server</b> gone" in page.text
    assert "Nothing was logged." in page.text
    with pytest.raises(DataError, match="not a run directory"):
        write_report(tmp_path / "elsewhere", paired_interval)


@pytest.mark.slow
def test_two_reports_of_a_run_are_equal(rl_run):
    assert (
        write_report(rl_run, paired_interval).read_bytes()
        == write_report(rl_run, paired_interval).read_bytes()
    )


def test_a_metric_that_was_never_finite_still_has_its_panel():
    rows = [metrics_row(1, 0, 0, {"reward": float("nan")})]
    assert [panel.title for panel in panels_of(rows)] == ["reward"]
    assert "not finite (1)" not in draw_panel(
        [metrics_row(1, 0, 0, {"reward": 1.0})], Panel("r", ("reward",))
    )
    ElementTree.fromstring(draw_panel(rows, Panel("r", ("reward",))))


def test_running_mean_by_hand():
    assert running_mean([1.0, 2.0, 6.0, 3.0], 1) == pytest.approx([1.5, 3.0, 11 / 3, 4.5])


def test_a_benchmark_of_ones_own_has_its_panels():
    rows = [{"step": 1, **{f"eval_chem_{name}": 0.5 for name in ("accuracy", "truncated", "tokens")}}]
    rows[0] |= {"mean_token_accuracy": 0.3, "eval_gsm8k_accuracy": 0.1, "eval_gsm8k_truncated": 0.0}
    titles = [panel.title for panel in panels_of(rows)]
    assert titles[-4:] == [
        "gsm8k: right answers",
        "gsm8k: length (tokens)",
        "chem: right answers",
        "chem: length (tokens)",
    ]
