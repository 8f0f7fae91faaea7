"""Sub-words: lossless, reproducible to the byte, and published files by path."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer as Published
from tokenizers import decoders, models, pre_tokenizers

from attn import settings
from attn.data import cache
from attn.data.text import tokenizer

TEXTS = [
    "the cat sat on the mat, and the dog on the log",
    "Die Katze saß auf der Matte; der Hund lag 1.234,5 Meter weit",
    "  two  spaces and\ta tab",
    *(f"on {day} May {year} the cats came" for day in (1, 2, 3) for year in (1998, 7)),
]
SPECIAL = ("[PAD]", "[START]", "[END]", "[MASK]")
TRAIN = f"""
import sys
from attn.data.text import tokenizer
texts = {TEXTS!r}
sys.stdout.buffer.write(tokenizer.train(texts, 320, {SPECIAL!r}).file)
"""


@pytest.fixture(scope="module")
def words():
    return tokenizer.train(TEXTS, 320, SPECIAL)


@pytest.mark.parametrize(
    "text",
    [
        "the cat",
        " the  cat ",
        "",
        "\t\n\r\x00\x7f\x85\u2028",
        "[PAD] is no [MASK] and [START] neither",
        "日本語 ‎العربية नमस्ते 👩‍👩‍👧 e\u0301 é \ufeff\uffff",
        "\uff26\uff35\ufb01 \u2126 \u212b",  # what normalisation would change
        "".join(map(chr, [*range(0xD800), *range(0xE000, 0x11000, 7)])),
    ],
)
def test_decoding_gives_the_very_text_back(words, text):
    ids = words.encode(text)
    assert words.decode(ids) == text
    assert words.decode(np.array([1, *ids, 2, 0, 0], np.int32)) == text
    assert all(4 <= i < words.vocab_size for i in ids)


def test_the_file_is_the_same_to_the_byte_in_fresh_processes(words, tmp_path):
    runs = []
    for seed in ("1", "2"):  # a cache of its own each, so that both train
        extra = {"PYTHONHASHSEED": seed, "XDG_CACHE_HOME": str(tmp_path / seed)}
        run = subprocess.Popen(
            [sys.executable, "-c", TRAIN],
            cwd=pathlib.Path(__file__).parents[3],
            env=os.environ | extra,
            stdout=subprocess.PIPE,
        )
        runs.append(run)
    files = [run.communicate(timeout=1000)[0] for run in runs]
    assert len(list(tmp_path.glob("?/attn/data/tokenizer-*"))) == 2
    assert files == [words.file] * 2


def test_what_was_trained_once_is_read(words, monkeypatch):
    monkeypatch.setattr(tokenizer, "_trained", lambda *_: pytest.fail("trained again"))
    again = tokenizer.train(iter(TEXTS), 320, SPECIAL)
    assert again == words and hash(again) == hash(words) and again is not words


@pytest.mark.parametrize("change", ["texts", "size", "special"])
def test_another_training_is_another_tokenizer(words, change):
    texts = [*TEXTS[:-1], TEXTS[-1] + "!"] if change == "texts" else TEXTS
    special = SPECIAL[:3] if change == "special" else SPECIAL
    other = tokenizer.train(texts, 310 if change == "size" else 320, special)
    assert other != words or change == "texts"  # one more "!" changes no pair


def test_special_tokens_come_first_and_frequent_words_are_whole(words):
    assert [words.special(n) for n in ("pad", "start", "end", "mask")] == [0, 1, 2, 3]
    assert words.vocab_size == 320
    assert words.words(words.encode("on the cats")) == ["on", "▁the", "▁cats"]
    with pytest.raises(settings.Invalid, match=r"'sep', such as \[SEP\] or </s>"):
        words.special("sep")


def test_numbers_are_written_digit_by_digit(words):
    assert words.words(words.encode("on 1998, 7.")) == [
        *("on", "▁1", "9", "9", "8", ",", "▁7", "."),
    ]


def test_words_can_be_shown(words):
    assert words.words([0, 3, 9999]) == ["[PAD]", "[MASK]", "<9999>"]
    assert words.words(words.encode("\n日")) == ["\\n", "<E6>", "<97>", "<A5>"]
    assert "".join(words.words(words.encode("the dog."))) == "the▁dog."


def test_words_that_were_added_are_not_made_of_bytes(words):
    form = json.loads(words.file)
    last = {**form["added_tokens"][0], "id": words.vocab_size, "special": False}
    form["added_tokens"].append({**last, "content": "  \u20ac"})
    longer = tokenizer.Tokenizer(json.dumps(form).encode())
    assert longer.decode([words.vocab_size]) == "  \u20ac"
    assert longer.words([words.vocab_size]) == ["▁▁\u20ac"]


def test_special_tokens_in_a_text_on_demand(words):
    ids = words.encode("the [MASK] cat", special=True)
    assert words.words(ids) == [*words.words(words.encode("the")), "[MASK]", "▁cat"]
    assert 3 not in words.encode("the [MASK] cat")


def test_many_texts_are_as_one_each(words):
    many = words.encode_all(TEXTS * 3)
    assert [row.tolist() for row in many.rows()] == [words.encode(t) for t in TEXTS * 3]
    assert many.flat.dtype == np.int32
    assert words.encode_all([]).size == 0


def test_too_small_a_vocabulary_is_one_sentence():
    with pytest.raises(settings.Invalid, match=r"at least 260, for 4 .*, got 100$"):
        tokenizer.train(TEXTS, 100, SPECIAL)


def test_a_published_tokenizer_by_path(tmp_path):
    vocab = {"<pad>": 0, "<s>": 1, "</s>": 2, "<mask>": 3, "c": 4, "##at": 5, "cat": 6}
    made = Published(models.WordPiece(vocab | {"[UNK]": 7}))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["<pad>", "<s>", "</s>", "<mask>"])
    made.enable_truncation(2)
    made.enable_padding(length=9)
    made.save(str(tmp_path / "tokenizer.json"))
    words = tokenizer.load(str(tmp_path / "tokenizer.json"))
    assert words.encode("cat cat dog") == [6, 6, 7] and words.vocab_size == 8
    assert words.words([4, 5, 1]) == ["c", "##at", "<s>"]
    assert words.decode([1, 4, 5, 6, 2]) == "cat cat"
    roles = ("pad", "start", "end", "cls", "sep", "mask")
    assert [words.special(role) for role in roles] == [0, 1, 2, 1, 2, 3]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xfe"])
def test_what_is_no_tokenizer_is_one_sentence(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        settings.Invalid, match=r"tokenizer\.json' cannot be read \("
    ) as e:
        tokenizer.load(str(path))
    assert "\n" not in str(e.value)


def test_a_damaged_file_of_the_cache_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []
    make = lambda: made.append(1) or b"content"
    for _ in range(2):
        assert cache.kept("kind", ["a", b"b"], make) == b"content"
    assert len(made) == 1
    (path,) = cache.directory().iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.kept("kind", ["a", b"b"], make) == b"content" and len(made) == 2
    cache.kept("kind", ["ab", b""], make)
    assert len(made) == 3  # parts end where they end
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert cache.kept("kind", ["a", b"b"], make) == b"content" and len(made) == 4
