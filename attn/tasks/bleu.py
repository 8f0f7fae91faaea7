"""BLEU and chrF, by sacrebleu (Post 2018, https://arxiv.org/abs/1804.08771).

BLEU is that of Papineni et al. 2002, chrF that of Popović 2015. sacrebleu has a
tokenizer of its own, so that scores of models with other sub-words are comparable; the
signature says which, and its version.

CIDEr is not among the scores: the packages that have it are copies of COCO's captioning
tools (pycocoevalcap), whose tokenizer needs Java.
"""

import functools
from collections.abc import Sequence
from typing import Any

SCORES = ("bleu", "chrf")
ORDERS = ("bleu1", "bleu2", "bleu3", "bleu4")


def corpus(said: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """The scores of some texts by name, from 0 to 100."""
    found = {}
    for name in SCORES:
        score = _scorer(name).corpus_score(list(said), [list(references)])
        found[name] = float(score.score)
    return found


def sentence(said: str, reference: str) -> float:
    """chrF of one sentence, for which BLEU is not made."""
    return float(_scorer("chrf").sentence_score(said, [reference]).score)


def orders(
    said: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """BLEU of the corpus up to words, pairs, ... of four, by name: "bleu1", ...

    Args:
        said: n texts.
        references: those of each text, of which some may have more than others.
    """
    most = max(map(len, references))
    # the library takes the first reference of every text, then the second, and so on
    lists = [[r[k] if k < len(r) else None for r in references] for k in range(most)]
    return {
        name: float(_scorer(name).corpus_score(list(said), lists).score)
        for name in ORDERS
    }


@functools.cache
def signature(name: str) -> str:
    """How a score is computed, in sacrebleu's words."""
    scorer = _scorer(name)
    scorer.corpus_score(["a"], [["a"]])  # it counts the references
    text = str(scorer.get_signature())
    # of captions there may be any number, for each image
    return text.replace("nrefs:1|", "") if name in ORDERS else text


@functools.cache
def _scorer(name: str) -> Any:
    from sacrebleu import metrics

    if name in ORDERS:
        return metrics.BLEU(max_ngram_order=int(name[-1]))
    return {"bleu": metrics.BLEU, "chrf": metrics.CHRF}[name]()
