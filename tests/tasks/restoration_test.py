"""Restoration: losses and measures of padded images against NumPy and scikit-image."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color
import skimage.metrics

from attn import ops, settings, tasks

SCALE = 2
SIZE, CANVAS = (14, 17), (16, 24)  # of an image, and of what it is padded to


def batch():
    rng = np.random.default_rng(0)
    whole = [SCALE * side for side in CANVAS]
    mask = np.zeros((2, *CANVAS), bool)
    mask[0, : SIZE[0], : SIZE[1]] = mask[1] = True
    return {
        "image": rng.uniform(size=(2, *CANVAS, 3)).astype(np.float32),
        "target": rng.integers(0, 256, (2, *whole, 3), np.uint8),
        "image_mask": mask,
    }


def outputs():
    noise = np.random.default_rng(1).normal(0, 0.1, batch()["target"].shape)
    return (batch()["target"] / 255 + noise).astype(np.float32)


def evaluated(task, outputs, batch):
    found = jax.jit(task.evaluate)(outputs, batch)
    return {
        name: np.asarray(m.total) / np.asarray(m.weight) for name, m in found.items()
    }


def measured(a, b, border, luma):
    """PSNR and SSIM of two images of 8 bits."""
    inside = np.s_[border : len(a) - border, border : a.shape[1] - border]
    options = {} if luma else {"channel_axis": -1}
    if luma:
        a, b = (skimage.color.rgb2ycbcr(one)[..., 0] for one in (a, b))
    a, b = a[inside], b[inside]
    return (
        skimage.metrics.peak_signal_noise_ratio(a, b, data_range=255),
        skimage.metrics.structural_similarity(
            a,
            b,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            **options,
        ),
    )


@pytest.mark.parametrize(
    ("given", "border"),
    [({}, 2), ({"luma": False, "border": 3}, 3), ({"border": 0}, 0)],
)
def test_whole_images_are_measured_without_their_padding(given, border):
    task = tasks.create({"name": "restoration", **given}, {"scale": SCALE})
    found = evaluated(task, outputs(), batch())
    height, width = SIZE[0] * SCALE, SIZE[1] * SCALE
    restored = np.rint(255 * np.clip(outputs()[0], 0, 1)).astype(np.uint8)
    pair = [one[:height, :width] for one in (restored, batch()["target"][0])]
    psnr, ssim = measured(*pair, border, given.get("luma", True))
    assert found["psnr"][0] == pytest.approx(psnr, abs=1e-3)
    assert found["ssim"][0] == pytest.approx(ssim, abs=1e-4)
    distance = np.abs(255 * outputs()[0] - batch()["target"][0])[:height, :width]
    assert found["loss"][0] == pytest.approx(distance.mean(), rel=1e-4)
    larger = np.asarray(ops.imresize(batch()["image"][1], SCALE), np.float64)
    larger = np.rint(255 * np.clip(larger, 0, 1)).astype(np.uint8)
    pair = (larger, batch()["target"][1])
    psnr, _ = measured(*pair, border, given.get("luma", True))
    assert found["input_psnr"][1] == pytest.approx(psnr, abs=1e-3)
    note = task.metrics[0].note
    assert f"without {border} pixels" in note and ("Y" in note) == task.luma


def test_images_without_a_window_of_ssim_do_not_count():
    task = tasks.create({"name": "restoration"}, {"scale": SCALE})
    given = batch()
    given["image_mask"][0, 6:] = False  # 12 rows, of which 8 are inside the border
    found = jax.jit(task.evaluate)(outputs(), given)
    assert np.asarray(found["ssim"].weight).tolist() == [0, 1]
    assert np.asarray(found["psnr"].weight).tolist() == [1, 1]
    assert np.isfinite(found["ssim"].total).all()


class Lopsided(nn.Module):
    """What it makes depends on where up and left are."""

    @nn.compact
    def __call__(self, image, *, train):
        x = jnp.repeat(jnp.repeat(image, SCALE, 1), SCALE, 2)
        rows = jnp.arange(x.shape[1], dtype=jnp.float32)[None, :, None, None]
        columns = jnp.arange(x.shape[2], dtype=jnp.float32)[None, None, :, None]
        return x * x + 0.01 * rows + 0.002 * columns


def test_the_ensemble_is_the_mean_over_the_eight_ways_to_turn_an_image():
    task = tasks.create({"name": "restoration", "ensemble": True}, {"scale": SCALE})
    assert task.scored and [m.name for m in task.metrics][2] == "ensemble_psnr"
    assert not dataclasses.replace(task, ensemble=False).scored
    model, given = Lopsided(), batch()
    predict = jax.jit(lambda b: task.predict(model, {}, b, jax.random.key(0)))
    found = predict(given)
    run = lambda x: np.asarray(model.apply({}, x, train=False))
    total = 0
    for mirrored in (False, True):
        for turns in range(4):
            x = given["image"][:, :, ::-1] if mirrored else given["image"]
            y = np.rot90(run(np.rot90(x, turns, (1, 2))), -turns, (1, 2))
            total = total + (y[:, :, ::-1] if mirrored else y)
    expected = evaluated(task, total / 8, given)
    plain = evaluated(task, run(given["image"]), given)
    for name in ("psnr", "ssim"):
        values = found[f"ensemble_{name}"]
        np.testing.assert_allclose(values, expected[name], rtol=1e-4)
        assert np.abs(plain[name] - expected[name]).max() > 1e-3
    assert found["has_psnr"].all() and found["has_ssim"].all()
    some = {"ensemble_psnr": np.array([20.0, 25.0]), "has_psnr": np.ones(2, bool)}
    some |= {"ensemble_ssim": np.array([0.5, np.nan]), "has_ssim": np.eye(2)[0] > 0}
    scores = task.score(some, {}, {})
    assert scores == {"ensemble_psnr": 22.5, "ensemble_ssim": 0.5}


def test_images_without_a_window_of_ssim_are_left_out_of_the_ensemble():
    task = tasks.create({"name": "restoration", "ensemble": True}, {"scale": SCALE})
    given = batch()
    given["image_mask"][0, 6:] = False
    predict = jax.jit(lambda b: task.predict(Lopsided(), {}, b, jax.random.key(0)))
    found = jax.device_get(predict(given))
    assert found["has_ssim"].tolist() == [False, True]
    scores = task.score(found, given, {})
    assert scores["ensemble_ssim"] == pytest.approx(found["ensemble_ssim"][1])
    assert np.isfinite(scores["ensemble_psnr"])


def test_what_does_not_fit_is_refused_before_training():
    task = tasks.create({"name": "restoration"}, {"scale": SCALE})
    example = jax.eval_shape(lambda: batch())
    task.check(example["target"], example, {})
    with pytest.raises(settings.Invalid, match="scale=2 of the data must be that"):
        task.check(jax.ShapeDtypeStruct((2, 48, 72, 3), jnp.float32), example, {})
    wide = dataclasses.replace(task, border=11)
    with pytest.raises(settings.Invalid, match="border of 11, got 32x48"):
        wide.check(example["target"], example, {})
