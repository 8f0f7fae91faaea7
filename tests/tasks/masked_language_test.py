"""Masked words and next sentences against float64 NumPy, on one device and on eight."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import settings, tasks
from attn.data import Source
from attn.data.text import tokenizer
from attn.train import partition
from attn.train.program import Program
from tests.train import small

RANDOM = np.random.default_rng(2)
WORDS, PLACES = 11, 4
COUNTS = np.array([4, 0, 1, 3, 2])
MASK = np.arange(PLACES) < COUNTS[:, None]
MASKED = RANDOM.integers(0, WORDS, (5, PLACES)).astype(np.int32)
OUTPUTS = {
    "masked": 2 * RANDOM.normal(size=(5, PLACES, WORDS)).astype(np.float32),
    "is_next": RANDOM.normal(size=(5, 2)).astype(np.float32),
}
MASKED[0] = OUTPUTS["masked"][0].argmax(-1)
BATCH = {
    "masked": MASKED,
    "places_mask": MASK,
    "is_next": np.array([0, 1, 1, 0, 1], np.int32),
}
FACTS = {"vocab_size": WORDS}


def entropies(logits, right):
    logits = logits.astype(np.float64)
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(log, right[..., None], -1)[..., 0]


def task(**changes):
    return tasks.create({"name": "masked_language", **changes}, FACTS)


def evaluated(made):
    return jax.device_get(jax.jit(made.evaluate)(OUTPUTS, BATCH))


def test_masked_words_weigh_the_same():
    found = evaluated(task(next_sentence=False))
    want = np.where(MASK, entropies(OUTPUTS["masked"], MASKED), 0).sum(1)
    np.testing.assert_allclose(found["log_perplexity"].total, want, rtol=1e-5)
    np.testing.assert_array_equal(found["log_perplexity"].weight, COUNTS)
    right = OUTPUTS["masked"].argmax(-1) == MASKED
    accuracy = tasks.divide(found)["masked_accuracy"]
    assert accuracy == pytest.approx(100 * right[MASK].mean())
    assert set(found) == {"log_perplexity", "masked_accuracy"}


def test_the_next_sentence_is_a_loss_of_its_own():
    made, alone = task(), tasks.create({"name": "next_sentence"})
    both = tasks.divide(evaluated(made))
    one = tasks.divide(evaluated(alone))
    want = entropies(OUTPUTS["is_next"], BATCH["is_next"]).mean()
    assert one["loss"] == pytest.approx(want, rel=1e-5)
    assert both["next_loss"] == one["loss"]
    right = OUTPUTS["is_next"].argmax(-1) == BATCH["is_next"]
    assert one["next_accuracy"] == pytest.approx(100 * right.mean())
    derived = made.derive(both)
    assert derived["loss"] == both["log_perplexity"] + both["next_loss"]
    assert derived["perplexity"] == pytest.approx(np.exp(both["log_perplexity"]))


def test_captions():
    (first, wrong), *others = task().describe(OUTPUTS, BATCH, FACTS)
    assert first == ", ".join(f"{w} → {w}" for w in MASKED[0]) and not wrong
    assert others[0] == ("", False)  # nothing is masked
    said = tasks.create({"name": "next_sentence"}).describe(OUTPUTS, BATCH, {})
    guess = OUTPUTS["is_next"][1].argmax()
    assert said[1][1] == (guess == 0)
    assert said[1][0].startswith("follows → ")


@pytest.mark.parametrize(
    "name, outputs, message",
    [
        ("masked_language", {"is_next": (5, 2)}, "needs the output 'masked'.*is_next"),
        ("masked_language", {"masked": (5, 4, 11)}, "needs the output 'is_next'"),
        ("masked_language", {"masked": (5, 4, 10)}, r"\(5, 4, 11\), got \(5, 4, 10\)"),
        ("next_sentence", {"masked": (5, 4, 11)}, "needs the output 'is_next'"),
        ("next_sentence", None, "this one has no names"),
    ],
)
def test_a_model_without_the_head_is_refused(name, outputs, message):
    shaped = lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    if outputs is None:
        shapes = shaped((5, 2))
    else:
        shapes = {name: shaped(shape) for name, shape in outputs.items()}
    with pytest.raises(settings.Invalid, match=message):
        tasks.create({"name": name}).check(shapes, BATCH, FACTS)


class Guesser(nn.Module):
    """The least model with both heads."""

    vocab_size: int
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    inputs = ("tokens", "places")
    streams = ()

    @nn.compact
    def __call__(self, tokens, places, *, train):
        del train
        x = nn.Embed(self.vocab_size, 6)(tokens)
        of = jnp.take_along_axis(x, places[..., None], axis=1)
        return {
            "masked": nn.Dense(self.vocab_size)(of),
            "is_next": nn.Dense(2)(x.mean(1)),
        }


@dataclasses.dataclass(frozen=True)
class Masked:
    """Rows of words, more of which are masked in every eighth."""

    def open(self, split):
        rng = np.random.default_rng(3)
        rows = {
            "tokens": rng.integers(0, WORDS, (40, 5)).astype(np.int32),
            "places": rng.integers(0, 5, (40, PLACES)).astype(np.int32),
            "places_mask": np.arange(40)[:, None] % 8 < np.array([[1, 0, 3, 8]]),
            "masked": rng.integers(0, WORDS, (40, PLACES)).astype(np.int32),
            "is_next": rng.integers(0, 2, 40).astype(np.int32),
        }
        read = lambda of, draws: {name: a[of] for name, a in rows.items()}
        return Source(40, read, {"vocab_size": WORDS})


def test_a_step_is_the_same_on_one_device_and_on_eight():
    """The masked words are not spread evenly; the loss is the sum of two means."""
    here = "tests.tasks.masked_language_test"
    config = small.config(
        data={"name": f"{here}:Masked", "train": "train", "test": "test"},
        model={"name": f"{here}:Guesser"},
        task={"name": "masked_language"},
    )
    found = []
    for devices in (jax.devices()[:1], jax.devices()):
        program = Program(config, devices)
        state = small.start(program, 0)
        with program.dataset.train(16, seed=0) as batches:
            batch = next(batches)
        values = small.evaluate(program, state).values
        state, loss = program.train_step(state, small.fed(program, batch))
        after = partition.fetch(state)
        totals = after.totals
        found.append((values, float(loss), tasks.divide(totals), after.params))
        weights = {name: float(mean.weight) for name, mean in totals.items()}
        assert weights["masked_loss"] == batch["places_mask"].sum()
        assert weights["next_loss"] == 16
        assert weights["loss"] == 1
    one, eight = found
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    _, loss, means, _ = one
    assert loss == pytest.approx(means["masked_loss"] + means["next_loss"], rel=1e-6)
    assert loss == pytest.approx(means["loss"], rel=1e-6)


TEXTS = ["one two three two one", "two three four", "four three"]


@pytest.mark.parametrize("causal", [False, True])
def test_masks_are_filled_with_the_five_best(causal):
    words = tokenizer.train(TEXTS, 270, ("[PAD]", "[CLS]", "[SEP]", "[MASK]"))
    facts = {
        "vocab_size": words.vocab_size,
        "max_length": 20,
        "tokenizer": words,
        "causal": causal,
        **{name: words.special(name) for name in ("pad", "cls", "sep", "mask")},
    }
    model = Guesser(words.vocab_size)
    where = np.zeros((1, 3), np.int32)
    variables = model.init(jax.random.key(0), where, where, train=False)
    lines = ["one [MASK] three", "", "four", "[MASK] and [MASK]", "a [MASK]" * 9]
    found = list(task().respond(model, variables, lines, facts, most=2))
    mask = facts["mask"]
    row = [facts["cls"], *words.encode(" one"), mask, *words.encode(" three")]
    row = np.array([[*row, facts["sep"]]], np.int32)
    places = np.flatnonzero(row[0] == mask)[None].astype(np.int32) - causal
    logits = model.apply(variables, row, places, train=False)["masked"][0, 0]
    chances = np.asarray(jax.nn.softmax(logits))
    best = np.argsort(-chances)[:5]
    row[row == mask] = best[0]
    named = zip(words.words(best), chances[best], strict=True)
    guesses = ", ".join(f"{word} {100 * chance:.0f} %" for word, chance in named)
    assert found[0].text.split("\t") == [words.decode(row[0]).strip(), guesses]
    assert found[1:3] == [("", ""), ("four", "it has no [MASK]")]
    assert len(found[3].text.split("\t")) == 3
    assert found[4].note.startswith("cut to 18 of its ")
