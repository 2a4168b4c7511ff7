"""Linear maps and attention with backward passes of their own: what a general rule makes slow on a processor.

The gradient of a matrix product is written so that no operand has to be copied in another order. Attention keeps
queries, keys, values, its result and one number a row; the weights are made again for the backward pass, with keys
before queries, so that four of its five products read their operands in the order they lie in.

Reference: for the backward pass without stored weights, Dao et al., "FlashAttention", 2022, appendix B.2,
https://arxiv.org/abs/2205.14135.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.bert.dropout import kept, places


@jax.custom_vjp
def product(x: jax.Array, weight: jax.Array) -> Any:
    """``x @ weight`` for ``x`` of any rank and a matrix."""
    return x @ weight


def _product_forward(x, weight):
    return x @ weight, (x, weight)


def _product_backward(kept_values, gradient):
    x, weight = kept_values
    of_x = lax.dot_general(gradient, weight, (((gradient.ndim - 1,), (1,)), ((), ())))
    rows, slopes = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    return of_x, lax.dot_general(rows, slopes, (((0,), (0,)), ((), ())))


product.defvjp(_product_forward, _product_backward)


def heads(x: jax.Array, num_heads: int) -> jax.Array:
    """From [b, t, d] to [b, heads, t, d / heads]."""
    return x.reshape(*x.shape[:2], num_heads, -1).swapaxes(1, 2)


def joined(x: jax.Array) -> jax.Array:
    """From [b, heads, t, d / heads] to [b, t, d]."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def wide(dtype: Any) -> Any:
    """The type of sums: float32, or ``dtype`` if that is wider."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def by_head(left: jax.Array, right: jax.Array, left_axis: int, right_axis: int) -> jax.Array:
    """The product of two stacks of matrices over the given axes, summed in float32 or wider."""
    axes = (((left_axis,), (right_axis,)), ((0, 1), (0, 1)))
    return lax.dot_general(left, right, axes, preferred_element_type=wide(left.dtype))


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array,
    seed: jax.Array | None = None,
    *,
    num_heads: int,
    rate: float = 0.0,
) -> jax.Array:
    """Scaled dot-product attention of several heads.

    Args:
      query: [b, t, d]; each head has its own part of the last axis.
      key: the same.
      value: the same.
      bias: added to the logits of each token that is looked at, [b, t]; no gradient flows into it.
      seed: two random words for dropout of weights; none without it.
      num_heads: into how many parts the last axis is cut.
      rate: share of weights that is dropped.

    Returns:
      [b, t, d], of the type of ``value``.
    """
    if seed is None or rate == 0:
        seed, rate = jnp.zeros(2, jnp.uint32), 0.0
    parts = [heads(x, num_heads) for x in (query, key, value)]
    return joined(_attention(*parts, lax.stop_gradient(bias), seed, rate))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attention(query, key, value, bias, seed, rate):
    return _attention_forward(query, key, value, bias, seed, rate)[0]


def _attention_forward(query, key, value, bias, seed, rate):
    logits = by_head(query, key, 3, 3) / math.sqrt(query.shape[-1]) + bias[:, None, None, :]
    most = logits.max(-1, keepdims=True)
    weights = jnp.exp(logits - most)
    total = weights.sum(-1, keepdims=True)
    if rate:
        weights = jnp.where(kept(seed, places(weights.shape), rate), weights, 0)
    # The sum divides the result, which is smaller than the weights.
    mixed = by_head(weights.astype(value.dtype), value, 3, 2) / (total * (1 - rate))
    mixed = mixed.astype(value.dtype)
    return mixed, (query, key, value, bias, seed, mixed, most + jnp.log(total))


def _attention_backward(rate, kept_values, gradient):
    query, key, value, bias, seed, mixed, log_total = kept_values
    scale = 1 / math.sqrt(query.shape[-1])
    # Keys come before queries in all that follows: [b, heads, key, query].
    row = log_total.swapaxes(2, 3)
    weights = jnp.exp(by_head(key, query, 3, 3) * scale + bias[:, None, :, None] - row)
    slopes = by_head(value, gradient, 3, 3)
    used = weights
    if rate:
        b, h, k, q = weights.shape
        stays = kept(seed, places((b, h, q, k), (0, 1, 3, 2)), rate)
        used = jnp.where(stays, weights / (1 - rate), 0)
        slopes = jnp.where(stays, slopes / (1 - rate), 0)
    mean_slope = jnp.sum(mixed.astype(weights.dtype) * gradient.astype(weights.dtype), -1)[:, :, None, :]
    of_logits = (weights * (slopes - mean_slope) * scale).astype(query.dtype)
    of_value = by_head(used.astype(gradient.dtype), gradient, 3, 2).astype(value.dtype)
    of_key = by_head(of_logits, query, 3, 2).astype(key.dtype)
    of_query = by_head(of_logits, key, 2, 2).astype(query.dtype)
    no_gradient = np.zeros(seed.shape, jax.dtypes.float0)
    return of_query, of_key, of_value, jnp.zeros_like(bias), no_gradient


_attention.defvjp(_attention_forward, _attention_backward)
