"""Captioning against loops in float64, sacrebleu's functions, and truth by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu

from attn import settings, tasks
from attn.data.digits.scene import FACTS, WORDS
from attn.data.images.captioned import MARKS
from attn.data.text.vocabulary import Vocabulary
from attn.report.sections import examples
from attn.report.sections.budget import Budget
from attn.train import partition
from attn.train.probes import captions
from attn.train.program import Program
from tests.train import small

RANDOM = np.random.default_rng(3)
B, T, H, W, N = 3, 6, 2, 3, 2
V = FACTS["vocab_size"]
LENGTHS = np.array([6, 4, 5])
MASK = np.arange(T) < LENGTHS[:, None]
MAPS = RANDOM.uniform(0.1, 1, (B, T, H, W))
MAPS /= MAPS.sum(axis=(2, 3), keepdims=True)
OUTPUTS = {
    "logits": RANDOM.normal(size=(B, T, V)).astype(np.float32),
    "attention": MAPS.astype(np.float32),
    "log_prob": -RANDOM.uniform(0, 2, (B, T)).astype(np.float32),
    "entropy": RANDOM.uniform(0, 2, (B, T)).astype(np.float32),
}
SOFT = {name: OUTPUTS[name] for name in ("logits", "attention")}
BATCH = {
    "image": np.zeros((B, 8, 12, 3), np.float32),
    "target": np.where(MASK, RANDOM.integers(2, 20, (B, T)), 0).astype(np.int32),
    "target_mask": MASK,
    # the first image has two things, the second one, the third none that is named
    "named": np.array(
        [[-1, 1, -1, 0, -1, -1], [0, -1, -1, -1, -1, -1], [-1] * 6], np.int32
    ),
    "boxes": np.array(
        [
            [[0, 0, 5, 3], [4, 4, 12, 8]],
            [[3, 1, 9, 7], [0, 0, 0, 0]],
            [[1, 1, 4, 4]] * 2,
        ],
        np.float32,
    ),
    "boxes_mask": np.array([[True, True], [True, False], [True, True]]),
}


def task(**changes):
    return tasks.create({"name": "captioning", **changes}, FACTS)


def nats(i):
    """The cross-entropy of each word of a caption."""
    logits = OUTPUTS["logits"][i].astype(np.float64)
    own = logits[np.arange(T), BATCH["target"][i]]
    return (np.log(np.exp(logits).sum(axis=-1)) - own)[: LENGTHS[i]]


def test_the_loss_is_that_of_words_and_the_penalty_of_the_attention():
    found = task(penalty=0.7).loss(SOFT, BATCH)
    for i in range(B):
        read = MAPS[i, : LENGTHS[i]].sum(axis=0)
        penalty = np.square(1 - read).sum()
        np.testing.assert_allclose(found["penalty"].total[i], penalty, rtol=1e-5)
        expected = nats(i).sum() + 0.7 * penalty
        np.testing.assert_allclose(found["loss"].total[i], expected, rtol=1e-5)
        assert found["loss"].weight[i] == LENGTHS[i]
    alone = task(penalty=0.0).loss(SOFT, BATCH)["loss"].total
    np.testing.assert_allclose(alone, [nats(i).sum() for i in range(B)], rtol=1e-5)


def test_what_was_drawn_is_rewarded_by_the_caption_over_the_average():
    made = task(penalty=0.0, reward=0.5, entropy=0.3, decay=0.75)
    batch = {**BATCH, "reward_average": jnp.float32(-11.0)}

    def total(chosen, spread):
        outputs = {**OUTPUTS, "log_prob": chosen, "entropy": spread}
        return made.loss(outputs, batch)["loss"].total.sum()

    grads = jax.grad(total, argnums=(0, 1))(OUTPUTS["log_prob"], OUTPUTS["entropy"])
    rewards = np.array([-nats(i).sum() for i in range(B)])
    expected = -0.5 * (rewards + 11)[:, None] * MASK
    np.testing.assert_allclose(grads[0], expected, rtol=1e-4)
    np.testing.assert_allclose(grads[1], -0.3 * MASK, rtol=1e-5)
    found = made.loss(OUTPUTS, batch)
    np.testing.assert_allclose(found["reward"].total, rewards, rtol=1e-5)
    kept = made.keep(OUTPUTS, batch)["reward_average"]
    assert kept == pytest.approx(0.75 * -11 + 0.25 * rewards.mean(), rel=1e-5)
    assert made.keep(SOFT, batch)["reward_average"] == -11
    # words learn by their own loss alone
    by_words = lambda logits, given: made.loss({**given, "logits": logits}, batch)
    slope = lambda given: jax.grad(lambda x: by_words(x, given)["loss"].total.sum())(
        OUTPUTS["logits"]
    )
    np.testing.assert_allclose(slope(OUTPUTS), slope(SOFT), atol=1e-6)


def test_each_draw_may_be_rewarded_by_its_own_word_over_what_was_learnt():
    made = task(penalty=0.0, reward=0.5, entropy=0.0, credit="word", baseline="learnt")
    batch = {**BATCH, "reward_average": jnp.float32(-2.0)}
    expected = RANDOM.normal(size=(B, T)).astype(np.float32)
    outputs = {**OUTPUTS, "baseline": expected}

    def total(chosen, learnt):
        given = {**outputs, "log_prob": chosen, "baseline": learnt}
        return made.loss(given, batch)["loss"].total.sum()

    grads = jax.grad(total, argnums=(0, 1))(OUTPUTS["log_prob"], expected)
    for i in range(B):
        over = -nats(i) - expected[i, : LENGTHS[i]]
        np.testing.assert_allclose(grads[0][i, : LENGTHS[i]], -0.5 * over, rtol=1e-4)
        np.testing.assert_allclose(grads[1][i, : LENGTHS[i]], -2 * over, rtol=1e-4)
    assert not np.any(grads[0][~MASK]) and not np.any(grads[1][~MASK])
    found = made.loss(outputs, batch)["reward"].total
    np.testing.assert_allclose(found, [-nats(i).sum() for i in range(B)], rtol=1e-5)
    mean = -np.concatenate([nats(i) for i in range(B)]).mean()
    kept = made.keep(OUTPUTS, batch)["reward_average"]
    assert kept == pytest.approx(0.9 * -2 + 0.1 * mean, rel=1e-5)


def test_a_baseline_that_the_model_does_not_learn_is_refused():
    shapes = jax.eval_shape(lambda: SOFT)
    task().check(shapes, BATCH, FACTS)
    with pytest.raises(settings.Invalid, match=r"model\.baseline=True"):
        task(baseline="learnt").check(shapes, BATCH, FACTS)


def test_a_baseline_that_the_task_does_not_read_is_refused():
    expected = jnp.zeros(BATCH["target"].shape)
    shapes = jax.eval_shape(lambda: {**SOFT, "baseline": expected})
    task(baseline="learnt").check(shapes, BATCH, FACTS)
    with pytest.raises(settings.Invalid, match=r"task\.baseline='learnt'"):
        task().check(shapes, BATCH, FACTS)


def test_a_baseline_of_what_is_never_drawn_is_refused():
    outputs = {**SOFT, "baseline": np.zeros((B, T), np.float32)}
    with pytest.raises(settings.Invalid, match="attention of this model draws nothing"):
        task(baseline="learnt").loss(outputs, BATCH)


def test_where_the_attention_was_is_counted_pixel_by_pixel():
    found = jax.jit(task().evaluate)(SOFT, BATCH)
    named = {0: [(3, 0), (1, 1)], 1: [(0, 0)], 2: []}
    for i in range(B):
        inside = pointing = 0.0
        for place, thing in named[i]:
            fine = np.kron(MAPS[i, place], np.ones((4, 4))) / 16  # 8 x 12 pixels
            x0, y0, x1, y1 = BATCH["boxes"][i, thing].astype(int)
            inside += fine[y0:y1, x0:x1].sum()
            hit = np.zeros((8, 12), bool)
            hit[y0:y1, x0:x1] = True
            highest = fine > fine.max() - 1e-9
            pointing += (hit & highest).sum() / highest.sum()
        assert found["inside"].weight[i] == len(named[i])
        np.testing.assert_allclose(found["inside"].total[i], 100 * inside, rtol=1e-4)
        np.testing.assert_allclose(
            found["pointing"].total[i], 100 * pointing, rtol=1e-4, atol=1e-4
        )
        p = MAPS[i, : LENGTHS[i]].reshape(-1, H * W)
        spread = -(p * np.log(p)).sum() / np.log(H * W)
        np.testing.assert_allclose(
            found["attention_entropy"].total[i], 100 * spread, rtol=1e-4
        )


def test_a_model_without_attention_counts_nothing_of_it():
    found = task().evaluate({"logits": OUTPUTS["logits"]}, BATCH)
    for name in ("inside", "pointing", "attention_entropy"):
        assert not np.any(found[name].weight)
    loss = task().loss({"logits": OUTPUTS["logits"]}, BATCH)
    assert "penalty" not in loss
    plain = task().loss(OUTPUTS["logits"], BATCH)  # of a model that names nothing
    np.testing.assert_array_equal(plain["loss"].total, loss["loss"].total)
    assert not np.any(task().evaluate(OUTPUTS["logits"], BATCH)["inside"].weight)


SAID = ["a large 3 above a small 7 and left of a small 2", "a large 5 below a small 1"]
TRUE = ["a large 3 left of a small 2 and above a small 7", "a large 5 above a small 4"]


def rows(texts, end=True):
    found = np.zeros((len(texts), FACTS["max_length"]), np.int32)
    for row, text in zip(found, texts, strict=True):
        words = [*WORDS.encode(text), FACTS["end"]]
        row[: len(words)] = words
    return found


def test_truth_is_what_is_claimed_in_any_order():
    made, target = task(), rows(TRUE)
    batch = {"target": target, "target_mask": target > 0}
    found = made.score({"words": rows(SAID)}, batch, FACTS)
    # three things and two relations of the first are right; of the second one of two
    assert found["true"] == 50 and found["exact"] == 0
    assert found["things"] == pytest.approx(100 * 4 / 5)
    assert found["relations"] == pytest.approx(100 * 2 / 3)
    for order in range(1, 5):
        known = sacrebleu.BLEU(max_ngram_order=order).corpus_score(SAID, [TRUE]).score
        assert found[f"bleu{order}"] == pytest.approx(known)
    assert found["bleu1"] > found["bleu4"] > 0
    right = made.score({"words": target}, batch, FACTS)
    assert list(right.values()) == pytest.approx([100] * len(right))
    longer = made.score({"words": rows([SAID[0], TRUE[1]])}, batch, FACTS)
    more = made.score({"words": rows([TRUE[0], SAID[0]])}, batch, FACTS)
    assert longer["true"] == 100 and more["things"] == pytest.approx(100 * 3 / 6)


def test_an_image_may_have_several_references():
    made, target = task(), rows(TRUE)
    references = np.stack([rows(TRUE), rows([SAID[0], ""])], axis=1)
    references[1, 1] = 0
    batch = {
        "target": target,
        "target_mask": target > 0,
        "references": references,
        "references_mask": references > 0,
    }
    found = made.score({"words": rows(SAID)}, batch, FACTS)
    assert found["exact"] == 50
    known = sacrebleu.BLEU(max_ngram_order=2).corpus_score(
        SAID, [TRUE, [SAID[0], None]]
    )
    assert found["bleu2"] == pytest.approx(known.score)


def test_an_unknown_word_is_like_no_other_and_counts_as_one():
    words = Vocabulary(("", "<start>", "<end>", "<unk>", *"abcd"), MARKS, "<unk>")
    facts = {"tokenizer": words, "pad": 0, "start": 1, "end": 2}
    made = tasks.create({"name": "captioning"}, facts)
    ids = lambda text: [words.names.index(word) for word in [*text.split(), "<end>"]]
    target = np.array([ids("a b c <unk> d")])
    batch = {"target": target, "target_mask": target > 0}
    for said, meant in (("a b c x d", "a b c y d"), ("a b c d d", "a b c y d")):
        spoken = np.array([ids(said.replace("x", "<unk>"))])
        found = made.score({"words": spoken}, batch, facts)
        known = sacrebleu.BLEU(max_ngram_order=2).corpus_score([said], [[meant]])
        assert found["bleu2"] == pytest.approx(known.score)
        assert found["exact"] == 0


def test_metrics_are_those_that_the_data_allow():
    names = [metric.name for metric in task().metrics]
    assert names[0] == "log_perplexity" and names[3] == "bleu4"
    assert {"true", "things", "relations", "inside", "pointing"} < set(names)
    plain = tasks.create({"name": "captioning"}, {"start": 1, "end": 2})
    names = {metric.name for metric in plain.metrics}
    assert not {"true", "things", "relations", "inside", "pointing"} & names
    with pytest.raises(settings.Invalid, match="captioning' takes logits"):
        task().check({"boxes": OUTPUTS["attention"]}, BATCH, FACTS)


CONFIG = {
    "data": {"name": "digits_scene", "canvas": 32, "test": "test[:20]"},
    "model": {
        "name": "captioner",
        "width": 8,
        "embedding": 6,
        "backbone": {"depth": 8, "layout": "cifar", "width": 4, "stem_stride": 4},
        "slots": {"decoder.cross": "hard_attention"},
    },
    "task": {"name": "captioning", "beams": 1},
}


@pytest.fixture(scope="module")
def trained():
    """The averages behind two steps, and the program with its state."""
    program = Program(small.config(**CONFIG), jax.devices()[:1])
    state, averages = small.start(program, 0), []
    with program.dataset.train(small.BATCH, seed=0) as batches:
        for _ in range(2):
            extras = partition.fetch(state).extras
            averages.append(float(extras["task"]["reward_average"]))
            state, _ = program.train_step(state, small.fed(program, next(batches)))
    extras = partition.fetch(state).extras
    averages.append(float(extras["task"]["reward_average"]))
    return program, state, averages


def test_a_training_keeps_the_average_of_rewards(trained):
    before, first, second = trained[2]
    # three to five digits, 12 to 22 words, of ln 21 nats or so each
    assert before == 0 and 0.1 * -75 < first < 0.1 * -30
    assert second < 1.7 * first


def test_an_evaluation_has_every_metric(trained):
    program, state, _ = trained
    found = small.evaluate(program, state)
    assert {m.name for m in program.task.metrics} <= set(found.values)
    assert np.isfinite(list(found.values.values())).all()


def test_pictures_show_what_each_written_word_read(trained, tmp_path):
    program, state, _ = trained
    variables = partition.fetch(state.variables())
    assert captions.write(tmp_path, program, variables, program.dataset) == []
    fields = examples.read(tmp_path / "examples.npz")
    maps, words = fields["read"].arrays
    assert maps.shape == (3, 23, 2, 2) and words.shape == (3, 23)
    np.testing.assert_allclose(maps.sum(axis=(2, 3)), 1, rtol=1e-5)
    said = [" ".join(filter(None, row)) for row in words.tolist()]
    assert said == fields["caption"].arrays[0].tolist()
    assert fields["reference"].arrays[0][0].startswith("a large ")
    (first, *_) = examples.KINDS["words"](fields["read"], fields, Budget(10**6))
    assert len(first.pictures) == len(first.titles) == len(words[0][words[0] != ""])
    assert " ".join(first.titles) == said[0]
