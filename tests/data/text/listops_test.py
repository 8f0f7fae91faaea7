"""ListOps, against an evaluator that shares no code with it."""

import statistics

import numpy as np
import pytest

from attn import data, settings
from attn.data.text import listops
from tests.data.streams import taken

SMALL = {"train_size": 400, "eval_size": 60}


def opened(**config):
    return data.open({"name": "listops", "validation": "validation", **SMALL, **config})


def examples(batches):
    for batch in batches:
        for row in np.flatnonzero(batch.get("weight", np.ones(len(batch["index"])))):
            tokens = batch["tokens"][row][batch["tokens_mask"][row]]
            yield tokens, int(batch["label"][row])


def value(text):
    """The value, depth and most arguments of an expression: rewritten from inside."""
    stack = [[]]
    depth = arguments = 0
    for word in text.split():
        if word.startswith("["):
            stack.append([word[1:]])
        elif word == "]":
            name, *numbers = stack.pop()
            arguments = max(arguments, len(numbers))
            found = {
                "MIN": sorted(numbers)[0],
                "MAX": sorted(numbers)[-1],
                "MED": int(statistics.median(numbers)),
                "SM": int(str(sum(numbers))[-1]),
            }[name]
            stack[-1].append(found)
        else:
            stack[-1].append(int(word))
        depth = max(depth, len(stack))
    ((result,),) = stack
    return result, depth, arguments


@pytest.mark.parametrize(
    "config",
    [{}, {"depth": 3, "arguments": 8, "low": 5, "high": 30}, {"depth": 2, "low": 4}],
)
def test_labels_are_the_values(config):
    dataset = opened(**config)
    words, seen, labels = dataset.facts["tokenizer"], set(), []
    limits = {"depth": 6, "arguments": 5, "low": 16, "high": 96} | config
    depths, arguments = [], []
    for tokens, label in examples(taken(dataset.split("test", 7))):
        assert tokens[0] == dataset.facts["cls"]
        text = words.decode(tokens)
        result, depth, most = value(text)
        assert result == label
        assert limits["low"] <= len(text.split()) <= limits["high"]
        assert words.encode(text) == tokens[1:].tolist()
        seen.add(text)
        labels.append(label)
        depths.append(depth)
        arguments.append(most)
    assert len(seen) == 60 and len(set(labels)) == 10
    assert max(depths) == limits["depth"]
    assert max(arguments) == limits["arguments"]


def test_operations_by_hand():
    operate = listops.OPERATIONS
    assert operate["[MED"]([4, 9, 1]) == 4 and operate["[MED"]([4, 9, 1, 6]) == 5
    assert operate["[MED"]([1, 2]) == 1 and operate["[SM"]([7, 8, 9]) == 4
    assert value("[SM 1 [MAX 2 [MIN 9 8 ] ] 4 ]") == (3, 4, 3)


def test_no_expression_comes_twice():
    dataset, found = opened(low=4, high=8), []
    for split in ("validation", "test"):
        found += [t.tobytes() for t, _ in examples(taken(dataset.split(split, 8)))]
    found += [
        dataset.sources["train"].read(np.array([row]), None)["tokens"][0].tobytes()
        for row in range(400)
    ]
    assert len(set(found)) == len(found) == 520


def test_arguments_are_operations_every_fourth_time():
    texts = [
        listops.SYMBOLS.decode(tokens)
        for tokens, _ in examples(taken(opened(low=4).train(16, seed=0), 25))
    ]
    first = [text.split()[1] for text in texts]
    share = np.mean([word.startswith("[") for word in first])
    assert 0.2 < share < 0.5  # more than 1/4, as short ones are drawn again
    kinds = [text.split()[0] for text in texts]
    assert {kinds.count(kind) > 40 for kind in listops.OPERATIONS} == {True}


def test_facts_and_batches():
    dataset = opened()
    facts = dataset.facts
    assert facts["vocab_size"] == 17 and facts["num_classes"] == 10
    assert facts["class_names"] == tuple("0123456789") and facts["pad"] == 0
    words = facts["tokenizer"].words([1, 2, 11, 12, 16, 0])
    assert words == ["[CLS]", "0", "9", "[MIN", "]", "[PAD]"]
    batches = taken(dataset.train(8, seed=0), 20)
    assert {b["label"].dtype for b in batches} == {np.dtype(np.int32)}
    assert all(not b["segments"].any() for b in batches)
    shapes = {b["tokens"].shape for b in batches}
    assert len(shapes) > 1 and max(s[1] for s in shapes) == facts["max_length"]
    again = taken(dataset.train(8, seed=0, start=19), 1)[0]
    np.testing.assert_array_equal(again["tokens"], batches[19]["tokens"])


@pytest.mark.parametrize(
    "config, message",
    [
        ({"low": 9, "high": 8}, "low must be at most high, got 9 and 8"),
        ({"depth": 1}, "must be at least 2, got 1 and 5"),
        ({"depth": 2, "low": 90}, "hardly an expression of depth 2 with 5 arg.* 90 to"),
        ({"low": 4, "high": 4, "train_size": 9999}, "4 to 4 symbols and is new"),
    ],
)
def test_what_does_not_fit_is_one_sentence(config, message):
    with pytest.raises(settings.Invalid, match=message):
        opened(**config)
