"""Visual attention in JAX and Flax: mechanisms, models, and their fair comparison.

attn.names("channel")                       # what there is
attn.card("squeeze_excite")                 # paper, formula, exact parameters
module = attn.create("squeeze_excite", reduction=8)
y, maps = attn.capture(module, variables, x)    # output, and attention maps
"""

from attn import explain
from attn.modules import capture, card, create, names

__all__ = ["capture", "card", "create", "explain", "names"]
