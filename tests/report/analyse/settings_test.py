"""Settings in which rows differ, in tables that fit."""

from attn.report.analyse import numbers, settings, table
from attn.report.read import results
from tests.report import papers, synthetic


def listings(root):
    return settings.listings(table.rows(results.read(root)))


def test_a_sweep_without_columns_has_one_table(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["none", "cbam"], seeds=2, images=1)
    (listing,) = listings(root)
    assert listing.heads == ("none", "cbam")
    assert listing.lines == (("model.slots.block.residual", (numbers.DASH, "cbam")),)


def test_settings_of_columns_of_kinds_and_of_both_stand_apart(tmp_path):
    kinds, names = ["none", "affine"], ["r", "rts", "e"]
    root = papers.transformers(
        tmp_path / "s", ["FCN", "CNN"], kinds, names, seeds=1, images=1, snapshots=()
    )
    by_column, by_kind = listings(root)
    assert by_column.heads == ("r", "rts", "e")
    # the widths that the match chose stand among them
    assert dict(by_column.lines) == {
        "data.distortion": ("r", "rts", "e"),
        "model.widths": ("[90, 64]", "[40, 64]", "[86, 64]"),
    }
    assert by_kind.heads[1] == "FCN · affine"
    slots = numbers.DASH, "spatial_transformer"
    assert dict(by_kind.lines) == {
        "model.name": ("fcn", "fcn", "cnn", "cnn"),
        "model.slots.input": (*slots, *slots),
    }


def test_a_setting_that_takes_both_has_a_line_for_each_kind(tmp_path):
    kinds, names = ["none", "affine"], ["r", "rts"]
    root = papers.transformers(
        tmp_path / "s", ["FCN"], kinds, names, seeds=1, images=1, snapshots=()
    )
    path = root / "FCN-affine-rts-0" / "config.json"
    path.write_text(path.read_text().replace("[40, 64]", "[31, 64]"))
    *_, both = listings(root)
    assert both.lines == (
        ("model.widths, FCN · none", ("[90, 64]", "[40, 64]")),
        ("model.widths, FCN · affine", ("[90, 64]", "[31, 64]")),
    )
