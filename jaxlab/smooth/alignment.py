r"""Smooth alignments of two sequences: dynamic programmes as one scan over the antidiagonals of their grid.

Every one is the smooth length of a shortest path from one corner of a grid to the other, with three moves:

.. math:: R_{ij} = \min\nolimits_\lambda\big(R_{i-1,j-1} + a_{ij},\; R_{i-1,j} + b_{ij},\; R_{i,j-1} + c_{ij}\big)

All cells of an antidiagonal are independent: n + m - 1 steps, and memory for a row of each.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, ScalarLike

from jaxlab import _check
from jaxlab._chunks import by_rows, rows_at_once
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.smooth._common import in_unit, over

__all__ = ["dtw", "dtw_divergence", "edit_distance", "longest_common_subsequence"]


def _antidiagonals(grid):
    """[n, m] to [n + m - 1, n]: entry (d, i) is that of row i and column d - i, or of another cell outside."""
    rows, columns = grid.shape
    sheared = jnp.pad(grid, ((0, 0), (0, rows))).reshape(-1)[: rows * (rows + columns - 1)]
    return sheared.reshape(rows, rows + columns - 1).T


def _smooth_minimum(options, temperature):
    """Along the first axis; the options are finite."""
    if _check.is_zero(temperature):
        return jnp.min(options, 0)
    lowest = lax.stop_gradient(jnp.min(options, 0))
    total = jnp.sum(jnp.exp(-over(options - lowest[None], temperature)), 0)
    return lowest - in_unit(jnp.log(total), temperature)


def _far(dtype):
    """A cost that no path has, whose multiples are finite and pass on no gradient."""
    return jnp.asarray(1e18 if dtype == jnp.float32 else 1e150, dtype)


def _shortest_path(diagonal, down, right, temperature):
    """The smooth length of the shortest path over [n + 1, m + 1] costs of entering each cell by each move."""
    rows, columns = diagonal.shape
    far = _far(diagonal.dtype)
    index = jnp.arange(rows)

    def step(carry, costs):
        last, before = carry  # the two antidiagonals before this one, by row
        distance, enter_diagonal, enter_down, enter_right = costs

        def shifted(values):
            return jnp.concatenate([far[None], values[:-1]])

        options = [shifted(before) + enter_diagonal, shifted(last) + enter_down, last + enter_right]
        values = _smooth_minimum(jnp.minimum(jnp.stack(options), 4 * far), temperature)
        column = distance - index
        inside = (column >= 0) & (column < columns)
        values = jnp.where(distance == 0, jnp.where(index == 0, 0, far), jnp.where(inside, values, far))
        return (values, last), None

    none = jnp.full(rows, far)
    costs = (jnp.arange(rows + columns - 1), *(_antidiagonals(grid) for grid in (diagonal, down, right)))
    # Kept for the gradient are the antidiagonals alone: what a step makes of them is made again.
    (last, _), _ = lax.scan(jax.checkpoint(step, prevent_cse=False), (none, none), costs)
    return last[-1]


def _masked(name, grid, where_rows, where_columns):
    for argument, mask, size in (
        ("where_rows", where_rows, grid.shape[0]),
        ("where_columns", where_columns, grid.shape[1]),
    ):
        if mask is not None and mask.shape != (size,):
            raise ValueError(f"{name}: {argument} must have the shape {[size]}; got {list(mask.shape)}")
    rows = jnp.ones(grid.shape[0], bool) if where_rows is None else where_rows
    columns = jnp.ones(grid.shape[1], bool) if where_columns is None else where_columns
    valid = rows[:, None] & columns[None, :]
    return jnp.where(valid, widen(grid), 0), rows, columns


def _path(cost, rows, columns, gap_down, gap_right, temperature):
    """The path whose diagonal moves cost ``cost``, others the gaps; an invalid row or column is passed for nothing."""
    far = _far(cost.dtype)
    size = (cost.shape[0] + 1, cost.shape[1] + 1)
    row = jnp.concatenate([jnp.ones(1, bool), rows])[:, None]
    column = jnp.concatenate([jnp.ones(1, bool), columns])[None, :]
    inner = jnp.pad(cost, ((1, 0), (1, 0)), constant_values=0)
    border = (jnp.arange(size[0])[:, None] == 0) | (jnp.arange(size[1])[None, :] == 0)
    diagonal = jnp.where(border | ~row | ~column, far, inner)
    # In an invalid row there is one way, down; in an invalid column (of a valid row) one, to the right.
    down = jnp.where(row, jnp.where(column, gap_down, far), 0)
    right = jnp.where(row, jnp.where(column, gap_right, 0), far)
    return _shortest_path(diagonal, down, right, temperature)


@jit(hard_at_zero=("temperature",))
def dtw(
    cost: Float[Array, "n m"],
    *,
    temperature: ScalarLike = 1.0,
    where_rows: Bool[Array, "n"] | None = None,
    where_columns: Bool[Array, "m"] | None = None,
) -> Float[Array, ""]:
    r"""The smooth dynamic time warping distance: the least sum of costs along a monotone alignment of two sequences.

    .. math:: R_{ij} = D_{ij} + \min\nolimits_\lambda(R_{i-1,j-1}, R_{i-1,j}, R_{i,j-1}), \qquad
              -\lambda \log(\text{number of alignments}) \le \mathrm{error} \le 0

    There are fewer than 3^(n + m) alignments.

    Args:
      cost: D, the cost of matching each element of one sequence with each of the other, such as squared distances.
      temperature: :math:`\lambda`, in the unit of ``cost``; the number 0 gives the distance itself.
      where_rows: valid elements of the first sequence; the others are skipped.
      where_columns: valid elements of the second.

    Returns:
      The smooth distance, in the dtype of ``cost``; it may be negative. 0 if nothing is valid in both, and without
      meaning (very large) if in one.

    Gradient:
      That of the smooth function: the chance of each cell to lie on the path.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``cost`` empty or a mask of another length.

    Examples:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([0.0, 1.0, 2.0]), jnp.array([0.0, 0.0, 1.0, 2.0])
      >>> float(dtw((x[:, None] - y[None, :]) ** 2, temperature=0.0))
      0.0

    Reference:
      Cuturi, Blondel, "Soft-DTW: a Differentiable Loss Function for Time-Series", 2017. https://arxiv.org/abs/1703.01541
    """
    _check.axis_of("dtw", "cost", cost, 0)
    _check.axis_of("dtw", "cost", cost, 1)
    grid, rows, columns = _masked("dtw", cost, where_rows, where_columns)
    far = _far(grid.dtype)
    gaps = jnp.pad(grid, ((1, 0), (1, 0)), constant_values=far)
    return _path(grid, rows, columns, gaps, gaps, temperature).astype(cost.dtype)


@jit(hard_at_zero=("temperature",))
def dtw_divergence(
    x: Float[Array, "n d"], y: Float[Array, "m d"], *, temperature: ScalarLike = 1.0
) -> Float[Array, ""]:
    r"""The soft-DTW divergence of two sequences of vectors under squared distances: 0 at equality, never negative.

    .. math:: \mathrm{dtw}_\lambda(x, y) - \tfrac12 \mathrm{dtw}_\lambda(x, x) - \tfrac12 \mathrm{dtw}_\lambda(y, y)

    Args:
      x: a sequence.
      y: another, of any length.
      temperature: :math:`\lambda`, in the unit of ``x`` squared; the number 0 gives the warping distance.

    Returns:
      At least 0, in the dtype of ``x``.

    Gradient:
      That of the smooth function; zero where the sequences are equal.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, the vectors are of different sizes, or there are none.

    Examples:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0], [1.0]])
      >>> float(dtw_divergence(x, x)), float(dtw_divergence(x, x + 1, temperature=0.0))
      (0.0, 2.0)

    Reference:
      Blondel, Mensch, Vert, "Differentiable Divergences Between Time Series", 2021. https://arxiv.org/abs/2010.08354
    """
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"dtw_divergence: x has vectors of size {x.shape[-1]}, y of size {y.shape[-1]}")
    _check.axis_of("dtw_divergence", "x", x, 0)
    _check.axis_of("dtw_divergence", "y", y, 0)
    wide, other = widen(x), widen(y)

    def distance(one, two):
        # Some vectors at a time: not all differences of all features at once.
        cost = by_rows(lambda vector: jnp.sum((vector[None] - two) ** 2, -1), one, rows_at_once(two.size))
        return dtw(cost, temperature=temperature)

    both = distance(wide, other)
    return (both - (distance(wide, wide) + distance(other, other)) / 2).astype(x.dtype)


@jit(hard_at_zero=("temperature",))
def edit_distance(
    substitution: Float[Array, "n m"],
    *,
    gap: ScalarLike = 1.0,
    temperature: ScalarLike = 1.0,
    where_rows: Bool[Array, "n"] | None = None,
    where_columns: Bool[Array, "m"] | None = None,
) -> Float[Array, ""]:
    r"""The smooth edit distance: the least cost of substitutions, insertions and deletions between two sequences.

    .. math:: R_{ij} = \min\nolimits_\lambda(R_{i-1,j-1} + D_{ij},\; R_{i-1,j} + g,\; R_{i,j-1} + g), \qquad
              -\lambda \log(\text{number of alignments}) \le \mathrm{error} \le 0

    Args:
      substitution: D, the cost of putting each element of one sequence in the place of each of the other: 0 for equal
        symbols and 1 for others gives Levenshtein's distance; the chance to differ its expected kind.
      gap: g, the cost of an insertion or deletion.
      temperature: :math:`\lambda`, in the unit of the costs; the number 0 gives the edit distance itself.
      where_rows: valid elements of the first sequence; the others are skipped.
      where_columns: valid elements of the second.

    Returns:
      The smooth distance, in the dtype of ``substitution``; it may be negative.

    Gradient:
      That of the smooth function: the chance of each substitution to be made.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, or a mask of another length.

    Examples:
      >>> import jax.numpy as jnp
      >>> kitten, sitting = jnp.array([*b"kitten"]), jnp.array([*b"sitting"])
      >>> differ = (kitten[:, None] != sitting[None, :]).astype(jnp.float32)
      >>> float(edit_distance(differ, temperature=0.0))
      3.0

    Reference:
      Levenshtein, "Binary Codes Capable of Correcting Deletions, Insertions, and Reversals", 1966 (the distance).
    """
    grid, rows, columns = _masked("edit_distance", substitution, where_rows, where_columns)
    gap = jnp.asarray(gap, grid.dtype)
    return _path(grid, rows, columns, gap, gap, temperature).astype(substitution.dtype)


@jit(hard_at_zero=("temperature",))
def longest_common_subsequence(
    match: Float[Array, "n m"],
    *,
    temperature: ScalarLike = 1.0,
    where_rows: Bool[Array, "n"] | None = None,
    where_columns: Bool[Array, "m"] | None = None,
) -> Float[Array, ""]:
    r"""The smooth length of the longest common subsequence: the largest sum of matches along a monotone alignment.

    .. math:: R_{ij} = \max\nolimits_\lambda(R_{i-1,j-1} + M_{ij},\; R_{i-1,j},\; R_{i,j-1}), \qquad
              0 \le \mathrm{error} \le \lambda \log(\text{number of alignments})

    Args:
      match: M, the chance that each element of one sequence equals each of the other; 0 and 1 for symbols.
      temperature: :math:`\lambda`, in matches; the number 0 gives the length itself.
      where_rows: valid elements of the first sequence; the others are skipped.
      where_columns: valid elements of the second.

    Returns:
      The smooth length, in the dtype of ``match``.

    Gradient:
      That of the smooth function: the chance of each pair to be matched.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, or a mask of another length.

    Examples:
      >>> import jax.numpy as jnp
      >>> one, other = jnp.array([*b"kitten"]), jnp.array([*b"sitting"])
      >>> equal = (one[:, None] == other[None, :]).astype(jnp.float32)
      >>> float(longest_common_subsequence(equal, temperature=0.0))
      4.0

    Reference:
      Wagner, Fischer, "The String-to-String Correction Problem", 1974 (the recursion).
    """
    grid, rows, columns = _masked("longest_common_subsequence", match, where_rows, where_columns)
    nothing = jnp.zeros((), grid.dtype)
    return (-_path(-grid, rows, columns, nothing, nothing, temperature)).astype(match.dtype)
