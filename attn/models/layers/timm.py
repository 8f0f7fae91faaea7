"""Names in timm of the parts that transformers share, see `attn.interop`."""

import re
from collections.abc import Callable

# Substitutions, a pattern and what replaces it, applied to a path in this order.
Rules = tuple[tuple[str, str | Callable[[re.Match], str]], ...]

PLAIN: Rules = (
    (r"^block(\d+)", r"blocks.\1"),
    (r"^embed\b", "patch_embed.proj"),
    (r"^class_token$", "cls_token"),
    (r"^position$", "pos_embed"),
    (r"^classifier\b", "head"),
)
