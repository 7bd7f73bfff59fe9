"""Steps of a random walk: each adds a few nodes that fit what is there, or does nothing where none does.

A step takes a scope, picks values by type and shape, and leaves what it made in sight. What it makes stays
near 1 in size, and has no jumps, so that two orders of the same sums agree to 1e-5 of the peak.
"""

from __future__ import annotations

from steps_nested import branch, call, chance, foreign, loop
from steps_plain import (
    binary,
    casts,
    choose,
    clip,
    concat,
    constant_arithmetic,
    no_op,
    reduce,
    reshape_by_shape,
    split,
    turn,
    twins,
    unary,
    unused,
    widen,
)
from steps_weighted import (
    attention,
    cache,
    contributed,
    conv,
    embedding,
    gemm,
    half_product,
    layer_norm,
    product,
    product_of_left,
    product_of_values,
    recurrent,
    scaled,
    weight_of_two,
)

# A step is taken the more often the more often it stands here.
STEPS = [
    *(4 * [product]),
    *(2 * [gemm, conv, layer_norm, binary, no_op, turn, branch, loop, call, foreign]),
    *[product_of_left, product_of_values, attention, embedding, embedding, weight_of_two],
    *[unary, unary, split, reduce, widen, reshape_by_shape, twins, clip, choose, casts, concat, cache],
    *[recurrent, unused, chance, contributed, constant_arithmetic, scaled, half_product],
]
