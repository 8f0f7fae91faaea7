"""What an attention looked at, as maps of the image and as numbers.

Maps are float32 [B, H, W] of sum 1, at the resolution of the image:

    maps = attn.explain.attention_maps(model, variables, images)    # one an attention
    maps = attn.explain.saliency(model, variables, images)          # of any model
    maps = attn.explain.rollout(model, variables, images)           # through all tokens
    maps = attn.explain.gradient_rollout(model, variables, images, target=labels)

and what they say, [B]:

    attn.explain.share_inside(maps, objects)        # mass in the object
    attn.explain.pointing_game(maps, objects)       # is the highest point in it?
    attn.explain.entropy(maps)                      # 1 is even, 0 a single place
    score = attn.explain.confidence(model, variables, images)
    attn.explain.area(attn.explain.deletion(score, images, maps))
    attn.explain.measure(model, variables, images, objects)     # all, by name

docs/explain.md tells what each says and does not say.
"""

from attn.explain.attended import (
    attention_maps,
    attention_paths,
    class_activation,
    mean_map,
    saliency,
)
from attn.explain.curves import area, blur, confidence, deletion, insertion
from attn.explain.measures import (
    entropy,
    mean_distance,
    pointing_game,
    share_inside,
)
from attn.explain.places import normalise, relevance, spread
from attn.explain.rollout import gradient_rollout, rollout
from attn.explain.summary import MEASURES, Measure, measure, measure_each

__all__ = [
    "MEASURES",
    "Measure",
    "area",
    "attention_maps",
    "attention_paths",
    "blur",
    "class_activation",
    "confidence",
    "deletion",
    "entropy",
    "gradient_rollout",
    "insertion",
    "mean_distance",
    "mean_map",
    "measure",
    "measure_each",
    "normalise",
    "pointing_game",
    "relevance",
    "rollout",
    "saliency",
    "share_inside",
    "spread",
]
