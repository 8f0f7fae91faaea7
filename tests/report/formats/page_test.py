"""The page: whole, alone, and honest about what is missing."""

import html.parser
import json
import os
import re
import shutil

import pytest

from attn import report, settings
from attn.report.analyse import numbers
from attn.report.formats import page
from attn.report.read import results
from tests.report import papers, synthetic


class Reader(html.parser.HTMLParser):
    """Collects what a page refers to, its text and its images."""

    def __init__(self, source):
        super().__init__()
        self.links, self.images, self.text, self.open = [], [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [attrs[k] for k in ("src", "href", "srcset") if k in attrs]
        if tag == "img":
            self.images.append(attrs)
        elif tag not in ("meta", "br", "wbr", "line", "circle", "path", "use", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    synthetic.sweep(root / "sweep", seeds=2, images=2)
    return report.write([root / "sweep"], root / "out" / "report.html")


def rendered(root):
    source = page.render([results.read(root)])
    return source, " ".join(" ".join(Reader(source).text).split())


def test_the_page_needs_nothing_but_itself(whole):
    source = whole.read_text(encoding="utf-8")
    reader = Reader(source)
    assert reader.open == []
    assert all(link.startswith(("data:image/png", "#")) for link in reader.links)
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\((?!#)", source)
    assert "<script" not in source
    assert len(source) < 1_000_000
    assert not list(whole.parent.glob(".*"))


def test_the_page_shows_every_row_with_its_pictures(whole):
    source = whole.read_text(encoding="utf-8")
    images = Reader(source).images
    for name in synthetic.ATTENTIONS:
        assert f">{name}</th>" in source.replace("</svg> ", ">")
    # 2 images for each of 5 rows with attention, and for each strip: channels 3, cbam
    # 6, pixels 3, two queries of matrices and of factors in 3 blocks, the grid and what
    # it reads.
    assert len(images) == 2 * (5 + 3 + 6 + 3 + 2 * 2 * 3 + 2)
    assert all(image["alt"] for image in images)
    assert source.count("what the grid reads") == 1 + 2
    assert source.count("<figure>") == 5


def test_the_page_tells_labels_and_predictions(whole):
    source = whole.read_text(encoding="utf-8")
    assert re.search(r"<span>7 → 7</span>", source)
    assert re.search(r'<span class="wrong">\d → 8</span>', source)


def test_the_page_tells_how_it_was_run(whole):
    text = " ".join(" ".join(Reader(whole.read_text(encoding="utf-8")).text).split())
    assert "12 of 12 points finished" in text
    assert "2026-11-22 10:02" in text
    assert f"model.slots.block.residual {numbers.DASH} squeeze_excite cbam" in text
    assert "versions.jax 0.10.2" in text
    assert "train.steps 250" in text
    assert "Not finished" not in text


def test_what_is_not_finished_is_listed_first(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["none", "cbam"], seeds=2, images=1)
    (root / "cbam-0" / "result.json").unlink()
    shutil.rmtree(root / "cbam-1")
    _, text = rendered(root)
    assert "Not finished: 2 of 4 points" in text
    assert "recorded up to step 250 of 250 cbam-0" in text
    assert "not started cbam-1" in text
    assert "Without a finished point: cbam." in text
    assert text.index("Not finished") < text.index("Learning curves")


def test_a_description_has_paragraphs_commands_and_code(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["none"], seeds=1, images=1)
    record = json.loads((root / "experiment.json").read_text())
    record["description"] = (
        "The `r` & more.\n\n    python a.py\n    python b.py\n\nEnd."
    )
    (root / "experiment.json").write_text(json.dumps(record))
    source, _ = rendered(root)
    assert '<p class="lead">The <code>r</code> &amp; more.</p>' in source
    assert "<pre>python a.py\npython b.py</pre>" in source
    assert "<p>End.</p>" in source
    record["description"] = "    python a.py\n\nEnd."
    (root / "experiment.json").write_text(json.dumps(record))
    assert "<pre>python a.py</pre>" in rendered(root)[0]


def test_a_section_is_left_out_where_no_point_has_its_file(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["none", "cbam"], seeds=1, images=1)
    assert "<h2>Attention maps</h2>" in rendered(root)[0]
    for path in root.glob("*/attention.npz"):
        path.unlink()
    source, _ = rendered(root)
    heads = re.findall(r"<h2>(.*?)</h2>", source)
    assert heads[-2:] == ["Test error against cost", "How it was run"]


def test_other_maps_are_shown_where_the_first_file_is_missing(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["pixel_attention"], seeds=2, images=1)
    (root / "pixel_attention-0" / "attention.npz").unlink()
    source, text = rendered(root)
    assert "pixel_attention-0: it has no attention.npz" in text
    assert len(Reader(source).images) == 1 + 3


def test_a_single_point_without_curves_is_a_page(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["cbam"], seeds=1, images=1)
    (root / "cbam-0" / "metrics.jsonl").unlink()
    (root / "cbam-0" / "attention.npz").unlink()
    for name in ("config", "environment"):
        (root / "cbam-0" / f"{name}.json").unlink()
    source, text = rendered(root)
    assert "one seed only, so no interval" in text
    assert "nan" not in re.sub(r"data:[^\"]*", "", source).lower()
    assert "Learning curves" not in text


def test_nothing_done_is_a_page(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["none", "cbam"], seeds=1, images=1)
    for name in ("none-0", "cbam-0"):
        shutil.rmtree(root / name)
    _, text = rendered(root)
    assert "No point is finished yet." in text


def test_many_points_fit(tmp_path, monkeypatch):
    kinds = {f"kind_{i}": (8 + i / 4, 1000 + i, 5000, 9.0) for i in range(20)}
    monkeypatch.setattr(synthetic, "ATTENTIONS", kinds)
    root = synthetic.sweep(tmp_path / "s", list(kinds), seeds=2, images=1)
    source, text = rendered(root)
    assert "40 of 40 points finished" in text
    assert len(source) < 3_000_000


def test_text_from_outside_cannot_be_markup(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["none"], seeds=1, images=1)
    record = json.loads((root / "experiment.json").read_text())
    record["title"] = "<script>alert(1)</script> & $x$"
    record["points"][0]["axes"]["attention"] = "<b>$y</b>"
    (root / "experiment.json").write_text(json.dumps(record))
    source, text = rendered(root)
    assert "<script" not in source
    assert "<b>$y" not in source
    assert "<b>$y</b>" in text


def test_what_differs_between_machines_says_who_had_it(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["none"], seeds=3, images=1)
    other = synthetic.environment()
    other["machine"]["cores"] = 64
    (root / "none-1" / "environment.json").write_text(json.dumps(other))
    assert "machine.cores 2; 64 in none-1" in rendered(root)[1]


def test_several_sweeps_share_a_page(tmp_path):
    roots = [
        synthetic.sweep(tmp_path / name, [name], seeds=1, images=1)
        for name in ("none", "cbam")
    ]
    path = report.write(roots, tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8").count("<article>") == 2


def test_show_prints_the_table(tmp_path, capsys):
    report.show([synthetic.sweep(tmp_path / "s", ["cbam"], seeds=1, images=1)])
    assert "79,442" in capsys.readouterr().out


def test_a_foreign_directory_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="is not a sweep"):
        report.write([tmp_path], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ["file/below.html", f"{300 * 'x'}.html"])
def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path, name):
    root = synthetic.sweep(tmp_path / "s", ["none"], seeds=1, images=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(settings.Invalid, match=rf"{name} cannot be written: \w"):
        report.write([root], tmp_path / name)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_only_be_read_is_one_sentence(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["none"], seeds=1, images=1)
    root.chmod(0o500)
    with pytest.raises(settings.Invalid, match=r"report\.html cannot be written: P"):
        report.write([root], root / "report.html")


def test_the_papers_table_comes_first_and_plots_are_by_its_columns(tmp_path):
    root = papers.transformers(
        tmp_path / "stn", images=2, seeds=2, snapshots=[0, 50, 250]
    )
    source, text = rendered(root)
    heads = re.findall(r"<h2>(.*?)</h2>", source)
    assert heads == [
        "In short",
        "Beside the paper",
        "Result",
        "Learning curves",
        "Test error against cost",
        "Attention maps during training",
        "Attention maps",
        "How it was run",
    ]
    assert len(source) < 3_000_000
    assert Reader(source).open == []
    # a plot for each distortion: ours and theirs, two curves, two costs; the
    # parameters agree within 1 % and are not drawn
    assert source.count("<figure>") == 4 * (1 + 2 + 2)
    assert "because all rows agree within 1 %: parameters" in text
    table_of = source[source.index("Beside the paper") : source.index("<h2>Result")]
    assert table_of.count('class="theirs">0.8<') == 7
    assert "Jaderberg et al. 2015, Table 1. There on all of MNIST." in text
    assert source.count('class="group"') == 4
    assert "Recorded and not shown, to keep the page small: " in text


def test_an_unfinished_cell_of_the_papers_table_is_a_dash(tmp_path):
    root = papers.transformers(
        tmp_path / "s",
        ["FCN"],
        ["none", "affine"],
        ["r"],
        seeds=2,
        images=1,
        snapshots=(),
    )
    (root / "FCN-none-r-1" / "result.json").unlink()
    for seed in (0, 1):
        shutil.rmtree(root / f"FCN-affine-r-{seed}")
    _, text = rendered(root)
    beside = text[text.index("Beside the paper") : text.index("Learning curves")]
    assert "1 of 2 seeds" in beside
    assert f"FCN · affine {numbers.DASH} 1.2" in beside
    assert "not started FCN-affine-r-0" in text
    assert "CNN · none not among our points" in beside


def test_channel_gates_have_their_place(tmp_path):
    root = papers.reductions(tmp_path / "s", ["none", 16], seeds=2, images=1)
    source, text = rendered(root)
    assert "Channel gates by class and depth" in text
    assert "top-5 error" in text
    assert "8 of 9 places are shown." in text
    assert Reader(source).open == []
