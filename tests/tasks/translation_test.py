"""Translation against float64 NumPy and against sacrebleu's own functions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu

from attn import decoding, settings, tasks
from attn.tasks import tokens
from attn.train import partition
from attn.train.program import Program
from tests.train import small

RANDOM = np.random.default_rng(1)
START, END, WORDS = 1, 2, 9
LENGTHS = np.array([5, 1, 3, 4])
MASK = np.arange(6) < LENGTHS[:, None]
LOGITS = 2 * RANDOM.normal(size=(4, 6, WORDS)).astype(np.float32)
LOGITS[2, 4:] = np.nan  # padding
TARGET = RANDOM.integers(3, WORDS, (4, 6)).astype(np.int32)
TARGET[np.arange(4), LENGTHS - 1] = END
TARGET[0, :2] = LOGITS[0, :2].argmax(-1)
TARGET[3, :4] = LOGITS[3, :4].argmax(-1)  # all right
FACTS = {"vocab_size": WORDS, "start": START, "end": END, "pad": 0, "other": 3}
BATCH = {
    "target": TARGET,
    "target_mask": MASK,
    "target_in": np.full((4, 6), START, np.int32),
    "source": TARGET,
    "source_mask": MASK,
}


def task(**changes):
    return tasks.create({"name": "translation", **changes}, FACTS)


def entropy(i, k, smoothing):
    logits = LOGITS[i, k].astype(np.float64)
    log = logits - np.log(np.exp(logits).sum())
    wanted = np.full(WORDS, smoothing / WORDS)
    wanted[TARGET[i, k]] += 1 - smoothing
    return -wanted @ log


def every(function):
    """A figure of each token of each example."""
    return [[function(i, k) for k in range(n)] for i, n in enumerate(LENGTHS)]


def flat(function):
    """A figure of each token of all examples."""
    return [value for values in every(function) for value in values]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_a_mean_over_tokens(smoothing):
    made = task(label_smoothing=smoothing)
    means = tasks.divide(jax.device_get(jax.jit(made.loss)(LOGITS, BATCH)))
    found = flat(lambda i, k: entropy(i, k, smoothing))
    assert means["loss"] == pytest.approx(np.mean(found), rel=1e-5)
    missed = flat(lambda i, k: LOGITS[i, k].argmax() != TARGET[i, k])
    assert means["token_error"] == pytest.approx(100 * np.mean(missed))


def test_the_evaluation_is_of_each_example_and_has_no_smoothing():
    made = task(label_smoothing=0.3)
    found = jax.device_get(jax.jit(made.evaluate)(LOGITS, BATCH))
    want = [sum(values) for values in every(lambda i, k: entropy(i, k, 0))]
    np.testing.assert_allclose(found["log_perplexity"].total, want, rtol=1e-5)
    np.testing.assert_array_equal(found["log_perplexity"].weight, LENGTHS)
    means = tasks.divide(found)
    assert made.derive(means)["perplexity"] == pytest.approx(np.exp(means["loss"]))
    assert made.derive({"log_perplexity": 1e4})["perplexity"] == np.inf


def test_the_gradient_of_a_smoothed_loss_is_that_of_its_targets():
    logits, right = LOGITS[0], TARGET[0]
    gradient = jax.grad(lambda x: tokens.cross_entropy(x, right, 0.3).sum())(logits)
    wanted = 0.7 * np.eye(WORDS)[right] + 0.3 / WORDS
    np.testing.assert_allclose(gradient, jax.nn.softmax(logits) - wanted, atol=1e-6)


class Letters:
    """A tokenizer of letters."""

    def decode(self, ids):
        return "".join(chr(ord("a") + i) for i in ids)


def test_scores_are_those_of_sacrebleu_on_texts():
    said = np.array([[3, 4, END, 5, 0], [5, 6, 7, 8, 3], [END, 3, 3, 3, 3]], np.int32)
    right = np.array(
        [[3, 4, END, 0, 0], [5, 6, 8, 8, END], [3, END, 8, 8, 8]], np.int32
    )
    mask = np.arange(5) < np.array([[3], [5], [2]])
    batch = {"target": right, "target_mask": mask}
    made = task()
    for tokenizer, texts in (
        ({}, (["3 4", "5 6 7 8 3", ""], ["3 4", "5 6 8 8", "3"])),
        ({"tokenizer": Letters()}, (["de", "fghid", ""], ["de", "fgii", "d"])),
    ):
        found = made.score({"words": said}, batch, {**FACTS, **tokenizer})
        bleu = sacrebleu.corpus_bleu(texts[0], [texts[1]])
        chrf = sacrebleu.corpus_chrf(texts[0], [texts[1]])
        assert found["bleu"] == pytest.approx(bleu.score)
        assert found["chrf"] == pytest.approx(chrf.score)
        assert found["exact"] == pytest.approx(100 / 3)


def test_the_record_has_the_signatures():
    notes = {m.name: m.note for m in task().metrics}
    assert notes["bleu"] == (
        "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:" + sacrebleu.__version__
    )
    assert notes["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0")
    assert "note" in dataclasses.asdict(task().metrics[0])


def test_captions_tell_what_is_said_and_whether_it_is_wrong():
    logits = np.nan_to_num(LOGITS)
    found = task().describe(logits, BATCH, FACTS)
    said = logits[3, :3].argmax(-1)
    text = " ".join(map(str, said))
    assert found[3] == (f"{text} → {text}", False)
    right = logits.argmax(-1) == TARGET
    want = [not right[i, :n].all() for i, n in enumerate(LENGTHS)]
    assert [wrong for _, wrong in found] == want


class Parrot:
    """A model that is only asked what it is called with."""

    inputs = ("source", "source_mask", "target_in")
    max_length = 20


def test_the_search_gets_the_settings(monkeypatch):
    seen = {}

    def generate(model, variables, sources, **options):
        seen.update(options, sources=sources)
        return decoding.Found(jnp.ones((4, 1, 3), jnp.int32), jnp.zeros((4, 1)))

    monkeypatch.setattr(decoding, "generate", generate)
    made = task(beams=3, length_penalty=1.0, extra_length=2)
    found = made.predict(Parrot(), {}, BATCH, jax.random.key(0))
    np.testing.assert_array_equal(found["words"], [[1, 1, 1, 0]] * 4)
    np.testing.assert_array_equal(seen["limits"], LENGTHS + 2)
    assert (seen["start"], seen["end"], seen["length"]) == (START, END, 8)
    assert seen["pad"] == 0
    assert (seen["beams"], list(seen["never"])) == (3, [0, START])
    assert seen["penalty"](7) == pytest.approx(2)
    assert len(seen["sources"]) == 2
    task().predict(Parrot(), {}, BATCH, jax.random.key(0))
    assert seen["length"] == 20  # the model has no more positions


@pytest.mark.parametrize(
    "changes, logits, facts, message",
    [
        ({"beams": 10}, (1, 6, 9), FACTS, "from 1 to the 9 words .* got 10"),
        ({}, (1, 6, 8), FACTS, "8 logits for 9 words"),
        ({}, (1, 6), FACTS, r"takes logits \[B, T, V\] for targets \(1, 6\)"),
        ({}, (1, 6, 9), {"vocab_size": 9}, "needs the tokens 'start' and 'end'"),
    ],
)
def test_what_does_not_fit_is_refused(changes, logits, facts, message):
    made = tasks.create({"name": "translation", **changes}, facts)
    outputs = jax.ShapeDtypeStruct(logits, jnp.float32)
    example = {"target": jax.ShapeDtypeStruct((1, 6), jnp.int32)}
    with pytest.raises(settings.Invalid, match=message):
        made.check(outputs, example, facts)


@pytest.mark.parametrize("changes", [{"beams": 0}, {"label_smoothing": 1.0}])
def test_settings_have_bounds(changes):
    with pytest.raises(settings.Invalid, match=next(iter(changes))):
        task(**changes)


def test_it_is_learnt_decoded_and_scored_on_any_number_of_devices():
    config = small.config(
        data={
            "name": "sequences",
            "task": "reverse",
            "words": 8,
            "low": 2,
            "high": 5,
            "buckets": 1,
            "budget": "examples",
            "test": "test[:44]",
        },
        model={
            "name": "transformer",
            "width": 32,
            "depth": 1,
            "num_heads": 2,
            "mlp_dim": 64,
            "dropout": 0.0,
        },
        task={"name": "translation"},
        optimizer={"name": "adam"},
        schedule={"name": "constant", "peak": 0.005},
        train={"steps": 400, "batch_size": 32},
    )
    one, eight = (Program(config, jax.devices()[:n]) for n in (1, 8))
    state = small.start(one, 0)
    with one.dataset.train(32, seed=0) as batches:
        for _ in range(400):
            state, _ = one.train_step(state, small.fed(one, next(batches)))
    found = small.evaluate(one, state)
    assert found.values["exact"] > 80
    assert found.values["bleu"] > 85
    assert found.values["perplexity"] < 1.5
    state = eight.partition.stack([partition.fetch(state)])
    other = small.evaluate(eight, state)
    assert found.values == pytest.approx(other.values, rel=1e-4)
    headline = one.task.metrics[0].name
    np.testing.assert_allclose(
        found.outcomes[headline].total, other.outcomes[headline].total, atol=1e-3
    )


def test_a_model_without_a_decoder_is_refused():
    config = small.config(
        data={"name": "sequences"},
        model={"name": "tests.user_code.copying:Copier"},
        task={"name": "translation"},
    )
    message = "calls the method 'encode' of a model, and Copier has none"
    with pytest.raises(settings.Invalid, match=message):
        Program(config, jax.devices()[:1])
