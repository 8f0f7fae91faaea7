"""Token modules, and the contract that all of them keep.

    module(q, kv=None, *, mask=None, kv_mask=None, causal=False, grid=None,
           decode=False, train, q_position=None, k_position=None) -> [B, T, C]

    q        queries: tokens [B, T, C] that attend.
    kv       keys and values: tokens [B, S, C] that are attended to. None takes `q`:
             self-attention.
    mask     boolean, True = may attend, broadcastable to [B, N, T, S].
    kv_mask  boolean [B, S], True = a real source, False = padding. Padding changes
             nothing, not even where it is NaN, and gets no gradient.
    causal   whether target t sees the sources s <= t only; there must be T of them.
    grid     (rows, columns) on which the sources lie, row by row, for modules that need
             their places, and for maps. Tokens of a prefix, such as a class token, come
             before the grid and are not counted.
    decode   whether `q` continues the tokens of the calls before, see below.
    train    whether to drop; draws from the random stream "dropout".
    q_position, k_position
             vectors of places, [B or 1, T, C] and [B or 1, S, C]: queries are made of
             q + q_position, keys of kv + k_position, values of kv alone, as in DETR
             (https://arxiv.org/abs/2005.12872, figure 10). For self-attention
             k_position is q_position unless it is given.

A target that may attend to nothing reads zeros: the output is what the last linear map
makes of zeros. `Card.supports` names those of "mask", "kv_mask", "causal", "decode" and
"cross" (kv of any length) that a module has; to ask for another raises ValueError.

Decoding is causal and keeps what later targets need in the collection "cache". A call
of full length makes the cache, and each call after it appends one or more tokens:

    cache = module.init(key, jnp.zeros((B, L, C)), decode=True, train=False)["cache"]
    for x in ...:                                                 # [B, 1, C] each
        y, changed = module.apply(
            {"params": params, "cache": cache}, x, decode=True, train=False,
            mutable=["cache"],
        )
        cache = changed["cache"]

The outputs are those of one causal call. `kv_mask` is of the new tokens, `mask` of the
new targets and of all L places. A call that goes beyond L is NaN in all its tokens,
since nobody can raise an error there. Cross-attention whose cache was made with `kv`
keeps the projected sources: a call with `kv` fills the cache, calls without it read it.
"""

from attn.modules.token.base import Call, Heads, Token, Visible

__all__ = ["Call", "Heads", "Token", "Visible"]
