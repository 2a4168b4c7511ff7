"""Smooth permutation matrices, which sort by a product. For comparison: they take n x n numbers."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, ScalarLike

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab.gumbel import log_sinkhorn
from jaxlab.smooth._common import last, over
from jaxlab.smooth.order import ascending_of

__all__ = ["neural_sort", "sinkhorn_sort", "soft_sort"]

#: The logit of what is not valid: finite, so that a row without any has no NaN.
_NEVER = -1e30


def _hard_permutation(values, mask):
    return jax.nn.one_hot(ascending_of(values, mask)[1], values.shape[-1], dtype=values.dtype)


def _placed(matrix, valid, mask, axis, dtype):
    """The matrix, 0 in places and for elements that are not valid, its two axes where the elements' axis was."""
    matrix = jnp.where(valid[..., :, None] & mask[..., None, :], matrix, 0)
    axis %= matrix.ndim - 1
    return jnp.moveaxis(matrix, (-2, -1), (axis, axis + 1)).astype(dtype)


def _softmax(logits, mask):
    """Over the valid elements; without any, over all."""
    return jax.nn.softmax(jnp.where(mask[..., None, :], logits, _NEVER), -1)


def _places(mask):
    """Which places are taken: the first ones, as many as there are valid elements."""
    return lax.broadcasted_iota(jnp.int32, mask.shape, mask.ndim - 1) < mask.sum(-1, keepdims=True, dtype=jnp.int32)


@jit(static=("axis",), hard_at_zero=("temperature",))
def soft_sort(
    x: Float[Array, "*shape"],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*matrices"]:
    r"""A smooth permutation matrix, row i of which says which element comes i-th in ascending order. For comparison.

    .. math:: P_{ij} = \mathrm{softmax}_j\big(-|x_{(i)} - x_j| / \lambda\big)

    Args:
      x: any finite numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives the permutation matrix of ``jnp.argsort``.
      axis: the axis to sort along.
      where: valid elements; they come first, and the others have rows (the last ones) and columns of zeros.

    Returns:
      Instead of ``axis`` two, places and elements; rows sum to one (columns need not) and are largest at the i-th
      smallest; in the dtype of ``x``.

    Gradient:
      That of the smooth function; zero at temperature 0.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``axis`` no axis of ``x`` or ``where`` of another
        shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> soft_sort(jnp.array([3.0, 1.0]), temperature=0.01).tolist()
      [[0.0, 1.0], [1.0, 0.0]]

    Reference:
      Prillo, Eisenschlos, "SoftSort: A Continuous Relaxation for the argsort Operator", 2020.
      https://arxiv.org/abs/2006.16038
    """
    values, mask = last("soft_sort", "x", x, axis, where)
    ascending, _, valid = ascending_of(values, mask)
    if _check.is_zero(temperature):
        return _placed(_hard_permutation(values, mask), valid, mask, axis, x.dtype)
    difference = ascending[..., :, None] - values[..., None, :]
    distance = over(difference * jnp.sign(difference), temperature)
    return _placed(_softmax(-distance, mask), valid, mask, axis, x.dtype)


@jit(static=("axis",), hard_at_zero=("temperature",))
def neural_sort(
    x: Float[Array, "*shape"],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*matrices"]:
    r"""A smooth permutation matrix whose rows all change with every element. For comparison.

    .. math:: P_{ij} = \mathrm{softmax}_j\Big(\big((2i - 1 - n)\, x_j - \sum_k |x_j - x_k|\big) / \lambda\Big)

    Args:
      x: any finite numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives the permutation matrix of ``jnp.argsort``.
      axis: the axis to sort along.
      where: valid elements, of which n is the number; they come first, and the others have rows (the last ones) and
        columns of zeros.

    Returns:
      Instead of ``axis`` two, places and elements, for ascending order; rows sum to one (columns need not); in the
      dtype of ``x``.

    Gradient:
      That of the smooth function; zero at temperature 0.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``axis`` no axis of ``x`` or ``where`` of another
        shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> neural_sort(jnp.array([3.0, 1.0]), temperature=0.01).tolist()
      [[0.0, 1.0], [1.0, 0.0]]

    Reference:
      Grover et al., "Stochastic Optimization of Sorting Networks via Continuous Relaxations", 2019, eq. (5) (there
      for descending order). https://arxiv.org/abs/1903.08850
    """
    values, mask = last("neural_sort", "x", x, axis, where)
    valid = _places(mask)
    if _check.is_zero(temperature):
        return _placed(_hard_permutation(values, mask), valid, mask, axis, x.dtype)
    difference = values[..., :, None] - values[..., None, :]
    distances = jnp.sum(difference * jnp.sign(difference), -1, where=mask[..., None, :])
    places = 1 + lax.broadcasted_iota(values.dtype, values.shape, values.ndim - 1)
    scale = 2 * places - 1 - mask.sum(-1, keepdims=True).astype(values.dtype)
    logits = scale[..., :, None] * values[..., None, :] - distances[..., None, :]
    return _placed(_softmax(over(logits, temperature), mask), valid, mask, axis, x.dtype)


@jit(static=("axis", "num_iterations"), hard_at_zero=("temperature",))
def sinkhorn_sort(
    x: Float[Array, "*shape"],
    *,
    temperature: ScalarLike = 1.0,
    num_iterations: int = 100,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*matrices"]:
    r"""A smooth permutation matrix by entropic transport between the places and the elements. For comparison.

    .. math:: P = \mathrm{Sinkhorn}\big(i\, x_j / \lambda\big)

    Args:
      x: any finite numbers.
      temperature: :math:`\lambda`, in the unit of ``x`` times a rank; the number 0 gives the permutation matrix of
        ``jnp.argsort``.
      num_iterations: pairs of normalisations, at least 1; the lower the temperature, the more are needed.
      axis: the axis to sort along.
      where: valid elements; they come first, and the others have rows (the last ones) and columns of zeros.

    Returns:
      Instead of ``axis`` two, places and elements, for ascending order; columns sum to one, and rows up to what the
      iterations leave; in the dtype of ``x``.

    Gradient:
      That of the iterations; zero at temperature 0.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``num_iterations`` below 1, ``axis`` no axis of ``x``
        or ``where`` of another shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> sinkhorn_sort(jnp.array([3.0, 1.0]), temperature=0.25).round(1).tolist()
      [[0.0, 1.0], [1.0, 0.0]]

    Reference:
      Cuturi, Teboul, Vert, "Differentiable Ranks and Sorting using Optimal Transport", 2019.
      https://arxiv.org/abs/1905.11885
    """
    _check.at_least("sinkhorn_sort", "num_iterations", num_iterations, 1)
    values, mask = last("sinkhorn_sort", "x", x, axis, where)
    valid = _places(mask)
    if _check.is_zero(temperature):
        return _placed(_hard_permutation(values, mask), valid, mask, axis, x.dtype)
    count = jnp.maximum(mask.sum(-1, keepdims=True), 1).astype(values.dtype)
    mean = lax.stop_gradient(jnp.sum(values, -1, keepdims=True) / count)  # it changes nothing, but for rounding
    places = 1 + lax.broadcasted_iota(values.dtype, values.shape, values.ndim - 1)
    logits = over(places[..., :, None] * jnp.where(mask, values - mean, 0)[..., None, :], temperature)
    # The places and elements that are not valid go to one another: a block of its own.
    apart = valid[..., :, None] != mask[..., None, :]
    matrix = jnp.exp(log_sinkhorn(jnp.where(apart, _NEVER, logits), num_iterations=num_iterations))
    return _placed(matrix, valid, mask, axis, x.dtype)
