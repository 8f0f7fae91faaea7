"""The convolution of modules and models: Flax's, by the faster program.

`attn.ops.convolution` says which program is taken where; the numbers are the same, to
rounding, and so are the parameters.
"""

import functools

import flax.linen as nn

from attn.ops import convolution

Conv = functools.partial(nn.Conv, conv_general_dilated=convolution.conv_general_dilated)
