"""Reports follow the recorded metrics: direction, unit, decimals, kind and split."""

import io
import json
import re

import pytest
import rich.console

from attn import report
from attn.report.analyse import columns, numbers, published, regression, summary, table
from attn.report.draw import scatter, style
from attn.report.formats import console, markdown, page
from attn.report.read import metrics, results, saved
from attn.report.read.metrics import ERROR
from tests.report import scored, synthetic

VALUES = {"none": [30.0, 30.4], "good": [34.1, 34.4], "bad": [26.2, 26.7]}


@pytest.fixture
def sweep(tmp_path):
    return scored.restoration(tmp_path / "s", VALUES)


def texts(sweep, name):
    (found,) = [c for c in columns.columns(sweep, table.rows(sweep)) if c.name == name]
    return [cell.replace(numbers.FIGURE_SPACE, "") for cell in found.cells]


def printed(sweep, then=None):
    file = io.StringIO()
    console.show([sweep], rich.console.Console(file=file, width=160), then)
    return file.getvalue()


def test_higher_is_better_in_verdicts_and_sentences(sweep):
    rows = {row.label: row for row in table.rows(sweep)}
    assert rows["good"].difference.mean == pytest.approx(4.05)
    assert [rows[name].verdict for name in VALUES] == ["", "better", "worse"]
    assert summary.summary(rows.values()) == [
        f"The highest mean test PSNR is 34.2 {numbers.PLUS_MINUS} 1.9 dB, good.",
        "Better than none: good.",
        "Worse than none: bad.",
    ]


def test_columns_have_the_labels_units_and_decimals_of_the_record(sweep):
    found = columns.columns(sweep, table.rows(sweep))
    assert [column.title for column in found] == [
        "seeds",
        "test PSNR, dB",
        "difference, dB",
        "verdict",
        "test SSIM",
        "parameters",
        "MACs, k",
        "time, ms/step",
    ]
    assert texts(sweep, "ssim")[0] == f"0.755 {numbers.PLUS_MINUS} 0.064"
    (inside,) = columns.measures(sweep, table.rows(sweep))
    assert inside.title == "mass inside, %"
    assert [cell[:4].strip(numbers.FIGURE_SPACE) for cell in inside.cells] == [
        numbers.DASH,
        "74.2",
        "66.5",
    ]


def test_a_metric_that_no_row_has_is_left_out(sweep, tmp_path):
    for path in sweep.directory.glob("*/result.json"):
        result = json.loads(path.read_text())
        del result["test"]["ssim"]
        path.write_text(json.dumps(result))
    other = results.read(sweep.directory)
    names = [column.name for column in columns.columns(other, table.rows(other))]
    assert "psnr" in names and "ssim" not in names


def test_no_report_of_it_speaks_of_errors_or_images(sweep, tmp_path):
    then = saved.read(saved.save(sweep, tmp_path / "r.json"))
    html = page.render([sweep], then)
    html = re.sub(r"data:[^\"]*|<style>.*?</style>", "", html, flags=re.DOTALL)
    for text in (printed(sweep, then), markdown.text(sweep), html):
        assert "PSNR" in text
        assert "dB" in text
        assert not re.search(r"\berror|\bimages?\b|The lowest", text)
        assert "better" in text or "**34" in text


def test_the_page_shows_validation_curves_and_the_direction(sweep):
    html = page.render([sweep])
    rows = table.rows(sweep)
    drawn = list(zip(rows, style.styles(rows), strict=True))
    headings = [heading for heading, _ in page._plots(sweep, drawn)["learning"]]
    assert headings[-1] == "Validation PSNR, dB"
    assert 'aria-label="validation psnr, dB over the steps"' in html.replace(
        "PSNR", "psnr"
    )
    assert "worse &nbsp;|&nbsp; better" in html
    assert "Test PSNR against cost" in html
    assert "Higher is better." in html


def test_measures_have_a_table_of_their_own_everywhere(sweep):
    html, text = page.render([sweep]), printed(sweep)
    assert html.index("<h2>Result") < html.index("<h2>Measures of attention")
    assert "mass inside <small>%</small>" in html
    assert "Higher is better: mass inside." in html
    assert "Higher is better: mass inside." in text
    assert text.index("Measures of attention") < text.index("mass inside, %")
    lines = markdown.text(sweep).splitlines()
    head = lines.index("| attention | mass inside, % |")
    assert lines[head - 1] == ""
    assert lines[head + 2] == f"| none | {numbers.DASH} |"
    assert lines[head + 3].startswith("| good | 74.2 ")
    none = scored.restoration(sweep.directory / "new", {"none": [30.0]})
    for shown in (page.render([none]), printed(none), markdown.text(none)):
        assert "Measures of attention" not in shown
        assert "mass inside" not in shown


def test_markdown_has_the_highest_in_bold(sweep):
    lines = markdown.text(sweep).splitlines()
    assert lines[0].startswith("| attention | test PSNR, dB | difference | verdict |")
    assert "**34.2" in lines[3]
    assert sum("**" in line for line in lines) == 1
    assert "Test PSNR in dB (higher is better), mean over 2 seeds" in lines[-1]


def test_all_metrics_and_measures_survive_the_file(sweep, tmp_path):
    back = saved.read(saved.save(sweep, tmp_path / "r.json"))
    assert back.metrics == sweep.metrics
    assert back.measures == sweep.measures
    for old, new in zip(sweep.points, back.points, strict=True):
        for kept in ("values", "validation", "measured"):
            was, now = (getattr(p.result, kept) for p in (old, new))
            assert now == pytest.approx(was, abs=1e-3)
    assert [row.verdict for row in table.rows(back)] == ["", "better", "worse"]


def test_against_a_record_higher_is_better_too(sweep, tmp_path):
    then = saved.read(saved.save(sweep, tmp_path / "r.json"))
    more = {
        name: [v + 0.01 * i + 1 for i, v in enumerate(VALUES[name])] for name in VALUES
    }
    found = regression.compare(scored.restoration(tmp_path / "new", more), then)
    assert [line.verdict for line in found.lines] == ["better"] * 3
    less = {
        name: [v + 0.01 * i - 1 for i, v in enumerate(VALUES[name])] for name in VALUES
    }
    found = regression.compare(scored.restoration(tmp_path / "less", less), then)
    assert [line.verdict for line in found.lines] == ["worse"] * 3


def test_points_without_a_finite_headline_failed_by_its_label(sweep):
    path = sweep.directory / "good-1" / "result.json"
    record = json.loads(path.read_text())
    record["test"]["psnr"] = float("inf")
    path.write_text(json.dumps(record))
    (problem,) = results.read(sweep.directory).unfinished
    assert problem == "failed: its test PSNR is not a number"


def test_only_a_share_has_a_floor(tmp_path):
    pairs = {"none": [(20.0, 60.0), (20.1, 60.1)], "x": [(22.0, 62.0), (22.1, 62.1)]}
    sweep = scored.translation(tmp_path / "s", pairs)
    base, other = table.rows(sweep)
    exact = sweep.metrics[1]
    of_share = table.between(other, base, exact)
    assert of_share.mean == pytest.approx(other.difference.mean) == pytest.approx(2.0)
    assert other.difference.half < 0.4
    assert of_share.half() > 0.8
    notes = " ".join(summary.notes(sweep, [base, other]))
    assert "test examples allows" not in notes
    assert "over seeds alone, for these test examples, as BLEU is no mean" in notes
    assert "BLEU: nrefs:1|case:mixed." in notes
    kept = saved.read(saved.save(sweep, tmp_path / "r.json"))
    assert "BLEU: nrefs:1|case:mixed." in markdown.text(kept)


def test_the_papers_columns_are_metrics_by_name_or_label(tmp_path):
    theirs = [
        {"axes": {"attention": kind}, "values": {"BLEU": bleu, "chrF": 50.0}}
        for kind, bleu in (("none", 27.3), ("x", 28.4), ("y", 29.0))
    ]
    pairs = {
        "none": [(20.0, 60.0), (20.1, 61.1)],
        "x": [(22.0, 62.0), (22.2, 61.0)],
        "y": [(21.0, 62.0), (21.1, 61.0)],
    }
    paper = {"source": "them", "rows": theirs}
    sweep = scored.translation(tmp_path / "s", pairs, published=paper)
    found = published.compare(sweep, table.rows(sweep))
    assert [(c.head, c.ranked) for c in found.columns] == [
        ("test BLEU", True),
        ("chrF", False),
    ]
    assert (found.overall.same, found.overall.other) == (2, 1)
    assert published.best(found) == {(1, 0)}
    (svg,) = scatter.beside(found, drawn(sweep))
    assert "our test BLEU against the paper" in svg


def drawn(sweep):
    rows = table.rows(sweep)
    return list(zip(rows, style.styles(rows), strict=True))


def test_scores_below_zero_are_in_the_plot(tmp_path):
    sweep = scored.restoration(tmp_path / "s", {"none": [-3.0], "x": [-1.0]})
    (svg,) = scatter.against(drawn(sweep), "ms_per_step", "ms per step")
    ticks = re.findall(r">(.?[\d.]+)</text>", svg)
    assert {f"{numbers.MINUS}3.0", f"{numbers.MINUS}1.0"} <= {*ticks}


def test_records_that_do_not_describe_their_metric_are_of_errors(tmp_path):
    points = [{"a": "none", "seed": 0}]
    sweep = synthetic.bare(tmp_path / "s", ["a", "seed"], points, [4.0])
    assert sweep.metrics == (ERROR,)
    assert (ERROR.unit, ERROR.better, ERROR.kind) == ("%", "lower", "share")


def test_files_of_the_first_version_are_read(tmp_path):
    points = [{"a": a, "seed": s} for a in ("none", "x") for s in (0, 1)]
    sweep = synthetic.bare(tmp_path / "s", ["a", "seed"], points, [4.0, 5.0, 2.0, 3.5])
    path = report.save(sweep.directory, tmp_path / "r.json")
    record = json.loads(path.read_text())
    record["format"] = "attn results, version 1"
    for name in ("metrics", "measures"):
        del record[name]
    for row in record["rows"]:
        row["errors"] = row.pop("test")["error"]
        del row["validation"], row["measures"]
        row["other_code"] = {"1": "feed123"}
    record["environment"] = {"commit": "4be1c07"}
    path.write_text(json.dumps(record))
    back = saved.read(path)
    assert back.metrics == (ERROR,)
    assert [point.result.values for point in back.points] == [
        {"error": error} for error in (4.0, 5.0, 2.0, 3.5)
    ]
    assert [point.codes for point in back.points[:2]] == [("4be1c07",), ("feed123",)]


def test_nothing_finished_is_named_by_what_was_logged(tmp_path):
    sweep = scored.restoration(tmp_path / "s", {"none": [None], "x": [None]})
    assert sweep.headline.name == "psnr"
    assert summary.summary(table.rows(sweep)) == ["No point is finished yet."]
    assert "validation psnr over the steps" in page.render([sweep])


@pytest.mark.parametrize(
    "entries",
    [None, "psnr", [], [3], [{"label": "PSNR"}], [{"name": None}]],
)
def test_damaged_descriptions_are_no_error(entries):
    assert metrics.described(entries) == ()


@pytest.mark.parametrize("better", [None, ""])
def test_a_measure_may_have_no_direction(better):
    (found,) = metrics.described([{"name": "entropy", "better": better}])
    assert found.better == ""
    assert summary.directions([found]) == []


def test_what_a_description_lacks_has_a_default():
    (found,) = metrics.described([{"name": "ap", "digits": "three", "extra": 1}])
    assert found == metrics.Metric("ap", "ap", "", "lower", 2, "mean")
