"""Images with captions of TensorFlow Datasets, such as COCO's, as words.

The vocabulary is of whole words, in lower case and without punctuation, the most
frequent of the split "train", as in Xu et al., "Show, Attend and Tell", 2015,
https://arxiv.org/abs/1502.03044, section 5.2; others are "<unk>".
"""

import collections
import dataclasses
import functools
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from attn import settings
from attn.data import cache, prepare
from attn.data.images import augment, labelled, normalise
from attn.data.source import Batch, Source
from attn.data.text.vocabulary import Vocabulary

WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
MARKS = ("", "<start>", "<end>")
PAD, START, END, UNKNOWN = range(4)
FIRST = 4  # number of the first word


@dataclasses.dataclass(frozen=True)
class Captions:
    """Images with one caption, drawn from theirs, and all of them as references.

    Fields "image", int32 "target_in" and "target" [L] with bool "target_mask", and
    "references" [R, L] with "references_mask"; facts as of sets of translations. It
    needs the split "train", for the vocabulary. Captions without words are left out,
    and longer ones cut; how many, and how many words are unknown, is said on standard
    error.

    Attributes:
        name: such as "coco_captions/2014".
        vocab_size: words, with four marks.
        longest: L, words of a caption at most, its end included.
        image_size: as of `attn.data.images.Classes`.
        directory: likewise.
    """

    name: str = "coco_captions/2014"
    vocab_size: settings.Positive = 10_000
    longest: settings.Positive = 50
    image_size: settings.Positive | None = None
    directory: str = ""

    def __post_init__(self) -> None:
        if self.vocab_size <= FIRST:
            raise settings.Invalid(
                f"vocab_size must be more than the {FIRST} marks, got {self.vocab_size}"
            )
        if self.longest < 2:
            raise settings.Invalid(
                f"longest must be at least 2, a word and the end, got {self.longest}"
            )

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]".

        Raises:
            Invalid: no such split, no "image" with "captions", or an image without any
                caption that has words.
        """
        import tensorflow_datasets as tfds

        builder = prepare.builder(self.name, self.directory)
        _check(self.name, builder.info.features)
        texts = functools.partial(_texts, self.name, builder)
        words = _vocabulary(texts("train"), self.vocab_size)
        labelled.check_split(self.name, split, builder.info.splits)
        encoded = {"image": tfds.decode.SkipDecoding()}
        records = builder.as_data_source(split, decoders=encoded)
        found = _encoded(self, split, words, texts(split))
        return Source(
            len(records),
            functools.partial(self._read, records, found),
            {
                "vocab_size": words.vocab_size,
                "max_length": self.longest,
                "pad": PAD,
                "start": START,
                "end": END,
                "tokenizer": words,
            },
            draws=1,
            threads=min(16, os.cpu_count() or 1),
            statistics=normalise.statistics(self.name, 3),
            files={"vocabulary.json": json.dumps(words.names).encode()},
        )

    def _read(
        self, records: Any, captions: np.ndarray, rows: np.ndarray, draws: np.ndarray
    ) -> Batch:
        some = records.__getitems__(rows.tolist())
        images = {"image": [labelled.decoded(record, 3) for record in some]}
        if self.image_size:
            images = augment.centre_crops(images, (self.image_size, self.image_size))
        references = captions[rows]
        there = (references != PAD).any(axis=-1).sum(axis=1)  # the first ones
        chosen = (draws[:, 0] * there).astype(int)
        target = references[np.arange(len(rows)), chosen]
        start = np.full((len(rows), 1), START, np.int32)
        return {
            **images,
            "target_in": np.concatenate([start, target[:, :-1]], axis=1),
            "target": target,
            "target_mask": target != PAD,
            "references": references,
            "references_mask": references != PAD,
        }


def _check(name: str, features: Any) -> None:
    parts = dict(features.items()) if hasattr(features, "items") else {}
    captions = getattr(parts.get("captions"), "feature", None)
    if "image" not in parts or "text" not in (captions or {}):
        raise settings.Invalid(
            f"data set {name!r} is not one of captions: it needs an 'image' and"
            f" 'captions' with a 'text', and has {', '.join(sorted(parts))}"
        )


def _texts(name: str, builder: Any, split: str) -> list[list[str]]:
    """The captions of each image of a split; read once, and kept on disk."""
    import tensorflow_datasets as tfds

    labelled.check_split(name, split, builder.info.splits)

    def read() -> bytes:
        encoded = {"image": tfds.decode.SkipDecoding()}
        records = builder.as_data_source(split, decoders=encoded)
        found = [[_text(t) for t in row["captions"]["text"]] for row in records]
        return json.dumps(found).encode()

    sizes = [(s.num_examples, s.num_bytes) for s in builder.info.splits.values()]
    key = [builder.info.full_name, str(builder.data_path), split, repr(sizes)]
    return json.loads(cache.kept("captions", key, read))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _vocabulary(texts: Iterable[Sequence[str]], size: int) -> Vocabulary:
    """The most frequent words; of equally frequent ones those that come first."""
    counts = collections.Counter(
        word for captions in texts for text in captions for word in split_words(text)
    )
    words = (word for word, _ in counts.most_common(size - FIRST))
    names = (*MARKS, "<unk>", *words)
    return Vocabulary(names, marks=MARKS, unknown=names[UNKNOWN])


def split_words(text: str) -> list[str]:
    """The words of a caption, in lower case, without punctuation."""
    return WORD.findall(text.lower())


def _encoded(
    chosen: Captions, split: str, words: Vocabulary, texts: Sequence[Sequence[str]]
) -> np.ndarray:
    """All captions with their ends, int32 [n, R, L], the real ones first."""
    number = {word: i for i, word in enumerate(words.names)}
    longest, counts = chosen.longest, collections.Counter()
    most = max(map(len, texts))
    found = np.full((len(texts), most, longest), PAD, np.int32)
    what = f"data set {chosen.name!r}, split {split!r}"
    for row, captions in enumerate(texts):
        known = [split_words(text) for text in captions]
        kept = [some for some in known if some]
        counts["captions without words left out"] += len(known) - len(kept)
        if not kept:
            raise settings.Invalid(f"{what}: image {row} has no caption with words")
        for place, some in enumerate(kept):
            ids = [number.get(word, UNKNOWN) for word in some]
            counts["unknown words"] += ids.count(UNKNOWN)
            counts[f"captions cut to {longest - 1} words"] += len(ids) >= longest
            ids = [*ids[: longest - 1], END]
            found[row, place, : len(ids)] = ids
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    if said:
        print(f"{what}: {said}", file=sys.stderr)
    return found
