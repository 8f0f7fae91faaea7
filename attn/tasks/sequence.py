"""Sequences: some labels an image in an order, right only if all of them are.

House numbers in the spatial-transformer paper (https://arxiv.org/abs/1506.02025,
section 4.2, after Goodfellow et al., 2014, https://arxiv.org/abs/1312.6082): a softmax
for each place, with a class for "none" after the last digit. Goodfellow et al. predict
the length apart and train the places before it only; here, as in the later paper,
every place counts.
"""

import dataclasses
from typing import ClassVar

from attn.tasks.classification import Classification


@dataclasses.dataclass(frozen=True)
class Sequence(Classification):
    """n labels an image: logits [B, n, K] for labels [B, n].

    The loss is a mean over places; the error is the percentage of examples of which
    any place is wrong. The settings are those of `Classification`, at each place.
    """

    probes: ClassVar[tuple[str, ...]] = ("attention", "measures")
    _labels: ClassVar[str] = "[B, n]"
    _logits: ClassVar[str] = "[B, n, K]"
    _advice: ClassVar[str] = "the data must give sequences, and the model as many heads"
