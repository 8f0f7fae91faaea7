"""Results files: what is kept, what comes back, and what they are compared with."""

import dataclasses
import json
import shutil

import pytest
import scipy.stats

from attn import report
from attn.report.analyse import numbers, regression, table
from attn.report.formats import console, markdown
from attn.report.read import results, saved
from tests.report import papers, synthetic


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    root = tmp_path_factory.mktemp("record") / "sweep"
    return synthetic.sweep(root, ["none", "cbam", "non_local"], seeds=3, images=1)


@pytest.fixture
def changed(sweep, tmp_path):
    """A copy of the sweep with other errors of cbam, by other code, and more steps."""
    root = tmp_path / "changed"
    shutil.copytree(sweep, root)
    for seed, change in enumerate((0.5, 0.9, 0.7)):
        place = root / f"cbam-{seed}"
        result = json.loads((place / "result.json").read_text())
        result["test"]["error"] += change
        (place / "result.json").write_text(json.dumps(result))
        config = json.loads((place / "config.json").read_text())
        config["train"]["steps"] = 500
        (place / "config.json").write_text(json.dumps(config))
    for path in root.glob("*/environment.json"):
        path.write_text(json.dumps(synthetic.environment("feed123")))
    return root


def test_what_is_saved_comes_back(sweep, tmp_path):
    path = report.save(sweep, tmp_path / "new" / "r.json")
    rows, back = (table.rows(s) for s in (results.read(sweep), saved.read(path)))
    assert [row.label for row in back] == [row.label for row in rows]
    assert [row.baseline for row in back] == [True, False, False]
    for old, new in zip(rows, back, strict=True):
        assert new.headline.mean == pytest.approx(old.headline.mean, abs=1e-4)
        assert new.headline.half == pytest.approx(old.headline.half, abs=1e-3)
        assert new.ms_per_step.half == pytest.approx(old.ms_per_step.half, abs=1e-2)
        assert new.verdict == old.verdict
        for cost in ("parameters", "macs"):
            assert new.cost(cost) == old.cost(cost)
    data = json.loads(path.read_text())
    assert data["environment"]["commit"] == "4be1c07"
    assert data["environment"]["versions.jax"] == "0.10.2"
    assert data["time"] == "2026-11-22 10:02"
    assert data["rows"][1]["axes"] == {"attention": "cbam"}
    assert list(data["rows"][1]["test"]["error"]) == ["0", "1", "2"]
    assert data["settings"]["train.steps"] == 250
    assert data["rows"][1]["settings"] == {"model.slots.block.residual": "cbam"}


def test_the_file_is_stable_and_small(tmp_path):
    root = papers.transformers(tmp_path / "s", images=1, snapshots=())
    path = report.save(root, tmp_path / "a.json")
    assert path.read_bytes() == report.save(root, tmp_path / "b.json").read_bytes()
    assert len(path.read_bytes()) < 100_000
    assert len(json.loads(path.read_text())["rows"]) == 32
    again = saved.save(saved.read(path), tmp_path / "c.json")
    both = [json.loads(p.read_text()) for p in (path, again)]
    assert both[0]["rows"] == both[1]["rows"]
    assert both[0]["published"] == both[1]["published"]


def test_other_code_and_what_is_not_finished_are_kept(sweep, tmp_path, capsys):
    root = tmp_path / "s"
    shutil.copytree(sweep, root)
    (root / "none-2" / "result.json").unlink()
    other = json.dumps(synthetic.environment("feed123"))
    (root / "cbam-1" / "environment.json").write_text(other)
    path = report.save(root, tmp_path / "r.json")
    assert json.loads(path.read_text())["unfinished"] == ["none-2"]
    rows = {row.label: row for row in table.rows(saved.read(path))}
    assert [p.seed for p in rows["cbam"].other_code] == [1]
    assert not rows["none"].other_code
    assert len(rows["none"].done) == 2
    capsys.readouterr()
    report.show_saved(path)
    said = capsys.readouterr().out
    count = len(saved.read(path).points) + 1
    assert f"Not finished: 1 of {count} points" in said
    assert "not finished when this was saved: none-2" in said
    assert f"Not finished: 1 of {count} points." in markdown.text(saved.read(path))


def test_a_split_of_one_example_is_compared_by_its_seeds(tmp_path):
    errors = {"none": 10.0, "other": 20.0}
    sweep = synthetic.outcomes(tmp_path / "s", errors, count=1)
    _, row = table.rows(sweep)
    assert row.difference.half == 0
    path = report.save(sweep.directory, tmp_path / "r.json")
    record = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert record["outcomes"] == {}
    _, back = table.rows(saved.read(path))
    assert back.difference == row.difference


def test_nothing_finished_is_not_saved(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["none"], seeds=1, images=1)
    (root / "none-0" / "result.json").unlink()
    with pytest.raises(ValueError, match="no finished point"):
        report.save(root, tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize("content", [None, "", "[]", '{"rows": []}'])
def test_what_is_no_record_is_refused_by_name(tmp_path, content):
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(
        ValueError, match=r"r\.json (is not a results file|cannot be read)"
    ):
        saved.read(path)


def test_a_damaged_record_is_one_sentence(sweep, tmp_path):
    path = report.save(sweep, tmp_path / "r.json")
    data = json.loads(path.read_text())
    del data["rows"][0]["test"]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="is a damaged results file"):
        saved.read(path)


def test_against_itself_everything_is_the_same(sweep, tmp_path):
    path = report.save(sweep, tmp_path / "r.json")
    found = regression.compare(results.read(sweep), saved.read(path))
    assert [line.verdict for line in found.lines] == ["the same"] * 3
    assert regression.sentences(found) == [
        "Of 3 rows that are in r.json too: 3 the same.",
        "Code, versions and machine are the same.",
    ]


def test_against_a_record_rows_are_paired_by_seed(sweep, changed, tmp_path):
    path = report.save(sweep, tmp_path / "r.json")
    shutil.rmtree(changed / "cbam-0")  # two seeds are left in both
    found = regression.compare(results.read(changed), saved.read(path))
    lines = {line.now.label: line for line in found.lines}
    assert lines["none"].verdict == lines["non_local"].verdict == "the same"
    wanted = scipy.stats.ttest_1samp([0.9, 0.7], 0).confidence_interval()
    line = lines["cbam"]
    assert line.seeds == 2
    assert line.difference.mean == pytest.approx(0.8)
    assert line.difference.low == pytest.approx(wanted.low, abs=1e-3)
    assert line.verdict == "not distinguishable"
    said = " ".join(regression.sentences(found))
    assert "commit 4be1c07 → feed123" in said
    assert "Settings then and now: train.steps 250 → 500." in said


@pytest.mark.parametrize("swap", [False, True])
def test_the_smaller_of_two_splits_bounds_an_interval(sweep, tmp_path, swap):
    shutil.copytree(sweep, tmp_path / "small")
    for path in tmp_path.glob("small/cbam-*/result.json"):
        result = json.loads(path.read_text())
        result["test"]["error"] -= 1.0  # one of 100
        result["test"]["examples"] = 100
        path.write_text(json.dumps(result))
    sides = [results.read(sweep), results.read(tmp_path / "small")]
    lines = regression.compare(*(sides[::-1] if swap else sides)).lines
    (line,) = [line for line in lines if line.now.label == "cbam"]
    assert line.difference.half == pytest.approx(1.959964)


def test_rows_that_one_side_lacks_are_named(sweep, tmp_path):
    path = report.save(sweep, tmp_path / "r.json")
    others = ["cbam", "squeeze_excite", "none"]
    other = synthetic.sweep(tmp_path / "s", others, seeds=2, images=1)
    found = regression.compare(results.read(other), saved.read(path))
    pairs = [(line.now.label, line.then.label) for line in found.lines]
    assert pairs == [("cbam", "cbam"), ("none", "none")]
    assert (found.added, found.missing) == (("squeeze_excite",), ("non_local",))
    said = " ".join(regression.sentences(found))
    assert "Only in this sweep: squeeze_excite." in said
    assert "Only in r.json, or not finished here: non_local." in said


def test_against_is_on_the_terminal_and_on_the_page(sweep, changed, tmp_path, capsys):
    path = report.save(sweep, tmp_path / "r.json")
    report.show([changed], path)
    shown = capsys.readouterr().out
    assert "Against r.json" in shown
    assert "worse" in shown
    page = report.write([changed], tmp_path / "page.html", path).read_text()
    assert "<h2>Against r.json</h2>" in page
    assert page.index("<h2>Result") < page.index("<h2>Against")


def test_markdown_has_the_papers_rows_and_columns(tmp_path, capsys):
    root = papers.transformers(
        tmp_path / "s",
        ["FCN"],
        ["none", "affine"],
        ["r", "rts"],
        images=1,
        snapshots=(),
    )
    path = report.save(root, tmp_path / "r.json")
    report.show_saved(path, markdown=True)
    lines = capsys.readouterr().out.splitlines()
    heads = [f"distortion {name}" for name in ("r", "rts", "p", "e")]
    assert lines[0] == f"| network · transformer | {' | '.join(heads)} |"
    assert {line.count("|") for line in lines[:10]} == {6}
    sweep = results.read(root)
    row = next(
        r for r in table.rows(sweep) if (r.kind, r.column) == ("FCN · affine", "rts")
    )
    cell = f"**{numbers.plus_minus(row.headline, 2)}** (0.8)"
    assert cell in next(line for line in lines if line.startswith("| FCN · affine"))
    assert "| CNN · affine | (0.7) | (0.5) | (0.8) | (1.2) |" in lines
    assert "In brackets: Jaderberg et al. 2015, Table 1." in lines[-1]
    assert "commit 4be1c07" in lines[-1]


def test_the_note_on_a_papers_table_stands_after_its_source(tmp_path, capsys):
    root = papers.transformers(
        tmp_path / "s", ["FCN"], ["none"], images=1, snapshots=()
    )
    sweep = results.read(root)
    noted = {**sweep.published, "note": "Of other digits."}
    sweep = dataclasses.replace(sweep, published=noted)
    assert "Jaderberg et al. 2015, Table 1. Of other digits." in markdown.text(sweep)
    console.show([sweep])
    assert "Of other digits." in capsys.readouterr().out


def test_markdown_without_a_paper_is_the_table(sweep, tmp_path):
    path = report.save(sweep, tmp_path / "r.json")
    lines = markdown.text(saved.read(path)).splitlines()
    assert lines[0].startswith("| attention | test error, % | difference | verdict |")
    assert len(lines) == 2 + 3 + 2
    assert "| baseline |" in lines[2]


def test_a_record_is_shown_without_a_work_directory(sweep, tmp_path, capsys):
    report.show_saved(report.save(sweep, tmp_path / "r.json"))
    assert "79,442" in capsys.readouterr().out
