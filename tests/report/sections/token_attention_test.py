"""What words read: alignments, heads and entropies of a file, and what it lacks."""

import json
import re

import numpy as np
import pytest

from attn.report.analyse import table
from attn.report.draw import style
from attn.report.formats import page
from attn.report.read import results
from attn.report.sections import token_attention
from attn.report.sections.budget import Budget
from tests.report import synthetic

WORDS = {
    "source": [["one", "two"], ["a", "<b>", "c", "d"], ["x"]],
    "target": [["eins", "zwei", "[END]"], ["u", "v", "w", "[END]"], ["ix", "[END]"]],
}
# Of each attention its sides, and the entropies of its heads.
MAPS = {
    "encoder0/mixer": ("source", "source", [0.5, 0.7]),
    "decoder0/cross": ("target", "source", [0.9, 0.3]),
    "decoder1/cross": ("target", "source", [0.1, 0.4]),
}


def write(path):
    rng = np.random.default_rng(0)
    arrays, entries = {}, []
    for i, (where, (*sides, entropy)) in enumerate(MAPS.items()):
        shape = [4 if side == "source" else 8 for side in sides]
        arrays[f"m{i}"] = rng.uniform(size=(3, *shape)).astype(np.float16)
        arrays[f"h{i}"] = rng.uniform(size=(2, *shape)).astype(np.float16)
        keys = {"mean": f"m{i}", "heads": f"h{i}"}
        entries.append({"path": where, "sides": sides, "entropy": entropy, **keys})
    index = json.dumps({"words": WORDS, "maps": entries})
    captions = np.array(["best: chrF 90.0", "median: chrF 50.0", "worst: chrF 1.0"])
    np.savez(path, captions=captions, index=index, **arrays)


@pytest.fixture
def root(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["none", "cbam"], seeds=2, images=1)
    write(root / "cbam-1" / "token_attention.npz")
    return root


def section(root):
    rows = table.rows(results.read(root))
    drawn = list(zip(rows, style.styles(rows), strict=True))
    return token_attention.section(drawn, Budget(10**6))


def test_the_sharpest_attention_is_drawn_with_the_words_of_each_sentence(root):
    (block,) = section(root).blocks
    assert block.aligned == "decoder1/cross"
    assert [caption[:4] for caption, _ in block.alignments] == ["best", "medi", "wors"]
    texts = [re.findall(r">\s*([^<>]+?)\s*</text>", svg) for _, svg in block.alignments]
    for i, found in enumerate(texts):
        escaped = [
            w.replace("<", "&lt;").replace(">", "&gt;") for w in WORDS["source"][i]
        ]
        assert found == [*escaped, *WORDS["target"][i]]


def test_heads_are_those_of_the_encoder_in_the_middle_example(root):
    (block,) = section(root).blocks
    assert block.caption == "median: chrF 50.0"
    (line,) = block.lines
    assert line.path == "encoder0/mixer"
    assert len(line.pictures) == 2


def test_entropies_are_in_groups_of_layers(root):
    (block,) = section(root).blocks
    for name in ("encoder/mixer", "decoder/cross"):
        assert f"{name}<" in block.entropy


def test_it_stands_in_the_page(root):
    html = page.render([results.read(root)])
    assert "What words read" in html
    assert "zwei" in html
    (root / "cbam-1" / "token_attention.npz").unlink()
    assert section(root) is None
    assert "What words read" not in page.render([results.read(root)])


def test_a_damaged_file_is_a_remark(root):
    path = root / "cbam-1" / "token_attention.npz"
    path.write_bytes(path.read_bytes()[:200])
    (block,) = section(root).blocks
    assert "cannot be read" in block.remarks[0]
    assert not block.alignments
