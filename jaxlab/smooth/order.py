"""Smooth sorts and ranks, by projection onto permutahedra (isotonic regression) and by pairs."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from jaxlab import _check
from jaxlab._chunks import by_rows
from jaxlab._jit import jit
from jaxlab._sorting import argsort
from jaxlab.smooth._common import in_unit, last, over
from jaxlab.smooth.isotonic import blocks, means_of_blocks, nondecreasing_fit

__all__ = ["pairwise_rank", "rank", "sort", "spearman"]


def ascending_of(
    values: Float[Array, "*batch n"], mask: Bool[Array, "*batch n"]
) -> tuple[Float[Array, "*batch n"], Int[Array, "*batch n"], Bool[Array, "*batch n"]]:
    """Sorted along the last axis, the invalid ones last and 0; the order; which of the sorted are valid."""
    order = argsort(jnp.where(mask, values, jnp.inf))
    sorted_values = jnp.take_along_axis(values, order, -1)
    return sorted_values, order, jnp.take_along_axis(mask, order, -1)


def _unsort(values, order):
    def of_row(values, order):
        return jnp.zeros_like(values).at[order].set(values, unique_indices=True)

    return jnp.vectorize(of_row, signature="(n),(n)->(n)")(values, order)


def _project(point, vertex, valid, temperature):
    """The projection of an ascending point, over the temperature, onto the permutahedron of an ascending vertex.

    Within a block of the isotonic fit to their difference, the vertex's mean and the point's own deviations.
    """
    difference = jnp.where(valid, over(point, temperature) - vertex, 0)
    highest = jnp.max(difference, -1, keepdims=True)
    block = blocks(jnp.where(valid, difference, highest), jnp.ones_like(point))
    # A block with invalid ones in it begins at the highest valid difference: their point and vertex must not count.
    weight = means_of_blocks(valid.astype(point.dtype), block)
    share = jnp.where(weight > 0, weight, 1)
    mean_vertex = means_of_blocks(jnp.where(valid, vertex, 0), block) / share
    mean_point = means_of_blocks(jnp.where(valid, point, 0), block) / share
    # A block of one is its vertex, bit for bit, however large the point.
    return jnp.where(valid, mean_vertex + over(point - mean_point, temperature), 0)


def _hard_rank(values, mask):
    """Ranks from 1 among the valid, ties sharing the mean of theirs."""
    ascending, order, valid = ascending_of(values, mask)
    fresh = jnp.concatenate([jnp.zeros_like(valid[..., :1]), ascending[..., 1:] != ascending[..., :-1]], -1)
    fresh = fresh | jnp.concatenate([jnp.zeros_like(valid[..., :1]), valid[..., 1:] != valid[..., :-1]], -1)
    block = jnp.cumsum(fresh, -1)
    places = jnp.broadcast_to(jnp.arange(1, values.shape[-1] + 1, dtype=values.dtype), values.shape)
    return jnp.where(mask, _unsort(means_of_blocks(places, block), order), 0)


@jit(static=("axis",), hard_at_zero=("temperature",))
def rank(
    x: Float[Array, "*shape"],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    r"""Smooth ranks, from 1 for the smallest: the point of the permutahedron of (1, ..., n) nearest to x / temperature.

    .. math:: \arg\min_{r \in \mathcal{P}(1, \dots, n)} \lVert r - x / \lambda \rVert^2

    Equal to the ranks once the temperature is at most the smallest gap between neighbours, and to
    :math:`x / \lambda + \mathrm{const}` once it is large: for n standard normal numbers a temperature of 1 / n is
    of the size of the gaps, and at 1 the order no longer plays a part.

    Args:
      x: any finite numbers.
      temperature: :math:`\lambda`, in the unit of ``x`` per rank; the number 0 gives the ranks, ties sharing the mean
        of theirs (``scipy.stats.rankdata``).
      axis: the axis to rank along.
      where: valid elements; the others do not count, and get 0.

    Returns:
      Numbers in [1, n] with the sum of 1 ... n, in float32 at least (bfloat16 has no 257).

    Gradient:
      That of the projection for almost every x: each block of elements less than about a temperature apart passes
      differences on, divided by the temperature; a block of one passes nothing. Zero at temperature 0.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``axis`` no axis of ``x`` or ``where`` of another
        shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> rank(jnp.array([3.0, 0.0, 2.0, 1.75])).tolist()
      [3.75, 1.0, 2.75, 2.5]

    Reference:
      Blondel et al., "Fast Differentiable Sorting and Ranking", 2020, eq. (4). https://arxiv.org/abs/2002.08871
    """
    values, mask = last("rank", "x", x, axis, where)
    if _check.is_zero(temperature):
        return jnp.moveaxis(_hard_rank(values, mask), -1, axis)
    ascending, order, valid = ascending_of(values, mask)
    places = jnp.broadcast_to(jnp.arange(1, values.shape[-1] + 1, dtype=values.dtype), values.shape)
    ranks = _project(ascending, places, valid, temperature)
    return jnp.moveaxis(_unsort(ranks, order), -1, axis)


@jit(static=("axis",), hard_at_zero=("temperature",))
def sort(
    x: Float[Array, "*shape"],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    r"""The smooth sort: the sorted x with neighbours drawn together by the temperature, and equal where they meet.

    .. math:: \arg\min_{y_1 \le \dots \le y_n} \sum_i \big(y_i - x_{(i)} + \lambda (i - \tfrac{n + 1}{2})\big)^2, \qquad
              |\mathrm{error}| \le \lambda\, \tfrac{n - 1}{2}

    It and :func:`rank` are the two gradients of one function,

    .. math:: f(x, \rho) = \max_{r \in \mathcal{P}(\rho)} \; \langle x, r \rangle - \tfrac{\lambda}{2}
              \lVert r - \bar \rho \rVert^2 \quad\text{at}\quad \rho = (1, \dots, n):

    the ranks that for x, the sorted numbers that for :math:`\rho`. In both, the temperature is the gap below which
    neighbours are one. (Another sort of the same paper, eq. (3), projects :math:`\rho / \varepsilon` onto the
    permutahedron of x. Its knob is in ranks per unit of x, and it shares between what is far apart, not what is near.)

    Args:
      x: any finite numbers.
      temperature: :math:`\lambda`, in the unit of ``x`` per rank; the number 0 gives ``jnp.sort``, infinity the mean in
        every place.
      axis: the axis to sort along.
      where: valid elements; they come first, then zeros.

    Returns:
      Ascending numbers between the smallest and the largest of x, with the sum of x, in the dtype of ``x``.

    Gradient:
      That of the smooth function for almost every x, in every mode and to every order: elements less than about a
      temperature apart share it equally, at ties too. At temperature 0 that of ``jnp.sort``.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``axis`` no axis of ``x`` or ``where`` of another
        shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> sort(jnp.array([3.0, 0.0, 2.0, 1.75]), temperature=0.5).tolist()
      [0.75, 1.875, 1.875, 2.25]

    Reference:
      Blondel et al., "Fast Differentiable Sorting and Ranking", 2020, eq. (4) and Lemma 1 (the regularised program and
      its solution by isotonic regression). https://arxiv.org/abs/2002.08871
    """
    values, mask = last("sort", "x", x, axis, where)
    ascending, _, valid = ascending_of(values, mask)
    if _check.is_zero(temperature):
        return jnp.moveaxis(ascending, -1, axis).astype(x.dtype)
    places = 1 + lax.broadcasted_iota(values.dtype, values.shape, values.ndim - 1)
    middle = (valid.sum(-1, keepdims=True).astype(values.dtype) + 1) / 2
    drawn = jnp.where(valid, ascending - in_unit(places - middle, temperature), 0)
    fit = nondecreasing_fit(drawn, jnp.ones_like(drawn), valid)
    return jnp.moveaxis(fit, -1, axis).astype(x.dtype)


@jit(static=("axis",), hard_at_zero=("temperature",))
def spearman(
    x: Float[Array, "*shape"],
    y: Float[Array, "*shape"],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "..."]:
    r"""The smooth rank correlation: Pearson's correlation of the smooth ranks of x with the ranks of y.

    .. math:: \frac{\sum_i (r_i - \bar r)(s_i - \bar s)}{\sqrt{\sum_i (r_i - \bar r)^2 \sum_i (s_i - \bar s)^2}},
              \qquad r = \mathrm{rank}_\lambda(x), \quad s = \mathrm{rank}_0(y)

    Args:
      x: predictions.
      y: what they should order alike; its ranks are the hard ones.
      temperature: :math:`\lambda`, in the unit of ``x``, as in :func:`rank`; the number 0 gives
        ``scipy.stats.spearmanr``.
      axis: the axis to reduce.
      where: valid elements; the others do not count.

    Returns:
      A number in [-1, 1], in float32 at least; 0 where either has no two different values.

    Gradient:
      That of the smooth function for x; none for y.

    Raises:
      ValueError: if the shapes differ, ``temperature`` is a negative Python number or ``axis`` no axis.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(spearman(jnp.array([1.0, 2.0, 3.0]), jnp.array([5.0, 6.0, 9.0]))), 5)
      1.0
    """
    _check.same_shape("spearman", x=x, y=y)
    _, mask = last("spearman", "x", x, axis, where)
    ranks = jnp.moveaxis(rank(x, temperature=temperature, axis=axis, where=where), axis, -1)
    others = jnp.moveaxis(rank(lax.stop_gradient(y), temperature=0.0, axis=axis, where=where), axis, -1)
    middle = (mask.sum(-1, keepdims=True).astype(ranks.dtype) + 1) / 2
    one, other = jnp.where(mask, ranks - middle, 0), jnp.where(mask, others - middle.astype(others.dtype), 0)
    other = other.astype(one.dtype)
    squares = jnp.sum(one**2, -1) * jnp.sum(other**2, -1)
    varies = squares > 0
    return jnp.where(varies, jnp.sum(one * other, -1) / jnp.sqrt(jnp.where(varies, squares, 1)), 0)


@jit(static=("axis", "chunk_size"), hard_at_zero=("temperature",))
def pairwise_rank(
    x: Float[Array, "*shape"],
    *,
    temperature: ScalarLike = 1.0,
    chunk_size: int = 128,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    r"""Smooth ranks by comparing all pairs: infinitely differentiable, at ties too; O(n^2) work in chunks.

    .. math:: 1 + \sum_{j \ne i} \sigma\big((x_i - x_j) / \lambda\big), \qquad
              |\mathrm{error}| \le (n - 1)\, \sigma(-\mathrm{gap} / \lambda)

    Args:
      x: any finite numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives the ranks, ties sharing the mean of theirs.
      chunk_size: how many elements at a time are compared with all: memory for value and gradient is this times n.
      axis: the axis to rank along.
      where: valid elements; the others do not count, and get 0.

    Returns:
      Numbers in [1, n] with the sum of 1 ... n, in float32 at least.

    Gradient:
      That of the smooth function; zero at temperature 0.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``chunk_size`` below 1, ``axis`` no axis of ``x`` or
        ``where`` of another shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> pairwise_rank(jnp.array([3.0, 0.0, 2.0, 2.0]), temperature=0.01).tolist()
      [4.0, 1.0, 2.5, 2.5]
    """
    _check.at_least("pairwise_rank", "chunk_size", chunk_size, 1)
    values, mask = last("pairwise_rank", "x", x, axis, where)
    if _check.is_zero(temperature):
        return jnp.moveaxis(_hard_rank(values, mask), -1, axis)

    def of_row(row, valid):
        def of_element(element):
            return 0.5 + jnp.sum(jax.nn.sigmoid(over(element - row, temperature)), where=valid)

        return jnp.where(valid, by_rows(of_element, row, chunk_size), 0)

    return jnp.moveaxis(jnp.vectorize(of_row, signature="(n),(n)->(n)")(values, mask), -1, axis)
