r"""Distances and dependences between samples, each with the diagonal (biased) and without it (unbiased).

All are means of a kernel over pairs. Over all pairs they are V-statistics, never negative and biased; over pairs of
different samples they are U-statistics, unbiased, and negative about half the time where the truth is 0.

Time grows as the square of the number of samples, memory in proportion to it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from jaxlab import _check
from jaxlab._chunks import by_rows, rows_with_others
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.moments.statistics import as_many, enough, safe_sqrt

__all__ = [
    "centered_kernel_alignment",
    "energy_distance",
    "gaussian_kernel",
    "gini",
    "hsic",
    "kendall",
    "linear_kernel",
    "mmd",
]


@jit(positive=("bandwidth",))
def gaussian_kernel(x: Float[Array, "d"], y: Float[Array, "d"], *, bandwidth: ScalarLike = 1.0) -> Float[Array, ""]:
    r"""The Gaussian kernel, :math:`\exp(-\lVert x - y \rVert^2 / 2 h^2)`.

    Args:
      x: a vector.
      y: another, of the same size.
      bandwidth: h, in the unit of the vectors, positive.

    Returns:
      A number in (0, 1].

    Gradient:
      Exact.

    Raises:
      ValueError: if the sizes differ, or ``bandwidth`` is a Python number not above 0.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(gaussian_kernel(jnp.ones(2), jnp.ones(2)))
      1.0
    """
    _check.same_shape("gaussian_kernel", x=x, y=y)
    wide = widen(x) - widen(y)
    return jnp.exp(-jnp.sum(wide**2) / (2 * jnp.asarray(bandwidth, wide.dtype) ** 2)).astype(x.dtype)


@jit()
def linear_kernel(x: Float[Array, "d"], y: Float[Array, "d"]) -> Float[Array, ""]:
    r"""The linear kernel, the inner product of two vectors.

    Args:
      x: a vector.
      y: another, of the same size.

    Returns:
      Any number.

    Gradient:
      Exact.

    Raises:
      ValueError: if the sizes differ.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(linear_kernel(jnp.ones(2), jnp.ones(2)))
      2.0
    """
    _check.same_shape("linear_kernel", x=x, y=y)
    # As a product and not a sum of products: of all pairs of samples it is one of matrices.
    return jnp.dot(widen(x), widen(y), precision="highest").astype(x.dtype)


def _numbered(x):
    """Each sample, or pair of samples, with its number."""
    return jnp.arange(jax.tree.leaves(x)[0].shape[0]), x


def _row_of(kernel, y, without_itself=False):
    """From the number of a sample, and the sample, to the kernel of it with all of ``y``; 0 with that of its number."""

    def row(item):
        number, one = item
        values = jax.vmap(lambda other: kernel(one, other))(y)
        return jnp.where(jnp.arange(y.shape[0]) == number, 0, values) if without_itself else values

    return row


def _mean_of_pairs(kernel, x, y):
    row = _row_of(kernel, y)
    return jnp.mean(by_rows(lambda item: jnp.mean(row(item)), _numbered(x), rows_with_others(y.size)))


def _mean_within(kernel, x, unbiased):
    """Over the pairs of samples of one set."""
    size = x.shape[0]
    row = _row_of(kernel, x, unbiased)
    sums = by_rows(lambda item: jnp.sum(row(item)), _numbered(x), rows_with_others(x.size))
    return jnp.sum(sums) / size / (size - 1 if unbiased else size)


@jit(static=("kernel", "unbiased"))
def mmd(
    x: Float[Array, "n d"], y: Float[Array, "m d"], *, kernel: Callable = gaussian_kernel, unbiased: bool = True
) -> Float[Array, ""]:
    r"""The squared maximum mean discrepancy of two sets of samples.

    .. math:: \overline{k(x, x')} + \overline{k(y, y')} - 2\, \overline{k(x, y)}

    Args:
      x: samples of one law.
      y: samples of the other.
      kernel: a positive definite function of two vectors.
      unbiased: leave out the pairs of a sample with itself (then it may be negative).

    Returns:
      An estimate of at least 0, in float32 at least.

    Gradient:
      Exact; unbiased as the value is.

    Raises:
      ValueError: if the vectors are of different sizes, or the unbiased version has fewer than 2 samples of one.

    Examples:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0], [1.0]])
      >>> float(mmd(x, x, unbiased=False))
      0.0

    Reference:
      Gretton et al., "A Kernel Two-Sample Test", 2012, eq. (3) and (5).
    """
    x, y = widen(x), widen(y)
    for name, samples in (("x", x), ("y", y)):
        enough(f"mmd of {name}", samples, 2 if unbiased else 1)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"mmd: x has vectors of size {x.shape[1]}, y of size {y.shape[1]}")
    within = _mean_within(kernel, x, unbiased) + _mean_within(kernel, y, unbiased)
    return within - 2 * _mean_of_pairs(kernel, x, y)


def _centred_rows(kernel, x, unbiased):
    """Rows of the kernel's matrix, less their means and those of the columns; unbiased, less the mean off the diagonal.

    A constant off the diagonal changes nothing in the unbiased estimate; without it its three terms do not cancel.
    """
    size = x.shape[0]
    row = _row_of(kernel, x, unbiased)
    sums = by_rows(lambda item: jnp.sum(row(item)), _numbered(x), rows_with_others(x.size))
    if unbiased:
        mean = jnp.sum(sums) / size / (size - 1)
        return lambda item: jnp.where(jnp.arange(size) == item[0], 0, row(item) - mean)
    means = sums / size
    return lambda item: row(item) - means[item[0]] - means + jnp.mean(means)


def _hsics(kernel, x, y, unbiased):
    """The dependence of x on itself, of x on y, and of y on itself, with memory for some rows of their matrices.

    The kernel is symmetric: the means of rows are those of columns.
    """
    size = x.shape[0]
    left, right = _centred_rows(kernel, x, unbiased), _centred_rows(kernel, y, unbiased)

    def of_row(item):
        number, (one, other) = item
        a, b = left((number, one)), right((number, other))
        return (
            jnp.stack([jnp.dot(*pair, precision="highest") for pair in ((a, a), (a, b), (b, b))]),
            jnp.sum(a),
            jnp.sum(b),
        )

    products, of_left, of_right = by_rows(of_row, _numbered((x, y)), rows_with_others(x.size + y.size))
    products = jnp.sum(products, 0)
    if not unbiased:
        return products / size / size
    pairs = [(of_left, of_left), (of_left, of_right), (of_right, of_right)]
    sums = jnp.stack([jnp.sum(a) * jnp.sum(b) for a, b in pairs]) / (size - 1) / (size - 2)
    rows = 2 / (size - 2) * jnp.stack([jnp.sum(a * b) for a, b in pairs])
    return (products + sums - rows) / size / (size - 3)


@jit(static=("kernel", "unbiased"))
def hsic(
    x: Float[Array, "n d"], y: Float[Array, "n h"], *, kernel: Callable = gaussian_kernel, unbiased: bool = True
) -> Float[Array, ""]:
    r"""The Hilbert-Schmidt independence criterion of paired samples: 0 for independent ones.

    .. math:: \frac{1}{n (n - 3)} \Big(\mathrm{tr}\, \tilde K \tilde L + \frac{\mathbf{1}^\top \tilde K \mathbf{1}\,
              \mathbf{1}^\top \tilde L \mathbf{1}}{(n - 1)(n - 2)} - \frac{2}{n - 2} \mathbf{1}^\top \tilde K \tilde L
              \mathbf{1}\Big)

    with zeros on the diagonals; the biased one is :math:`\mathrm{tr}\, K H L H / n^2`.

    Args:
      x: vectors.
      y: those that belong to them.
      kernel: a positive definite function of two vectors, for both.
      unbiased: leave out the pairs of a sample with itself (then it may be negative).

    Returns:
      An estimate of at least 0, in float32 at least.

    Gradient:
      Exact; unbiased as the value is.

    Raises:
      ValueError: if the numbers of samples differ, or are below 4 (1 for the biased one).

    Examples:
      >>> import jax.numpy as jnp
      >>> float(hsic(jnp.zeros((5, 2)), jnp.arange(5.0)[:, None]))
      0.0

    Reference:
      Song et al., "Feature Selection via Dependence Maximization", 2012, eq. (5).
    """
    as_many("hsic", x=x, y=y)
    enough("hsic", x, 4 if unbiased else 1)
    x, y = widen(x), widen(y)
    return _hsics(kernel, x, y, unbiased)[1]


@jit(static=("kernel", "unbiased"))
def centered_kernel_alignment(
    x: Float[Array, "n d"], y: Float[Array, "n h"], *, kernel: Callable = linear_kernel, unbiased: bool = True
) -> Float[Array, ""]:
    r"""The similarity of two representations of the same examples (CKA).

    .. math:: \frac{\mathrm{HSIC}(x, y)}{\sqrt{\mathrm{HSIC}(x, x)\, \mathrm{HSIC}(y, y)}}

    The biased one is near 1 for *independent* representations of more dimensions than examples.

    Args:
      x: a representation of n examples.
      y: another one, of any size.
      kernel: a positive definite function of two vectors, for both.
      unbiased: use the unbiased :func:`hsic` in all three places (their ratio has a bias of order 1 / n).

    Returns:
      A number in [0, 1] for the biased one, about that for the unbiased one, in float32 at least; 0 where one
      representation does not vary.

    Gradient:
      Exact where both vary.

    Raises:
      ValueError: if the numbers of samples differ, or are below 4 (1 for the biased one).

    Examples:
      >>> import jax.numpy as jnp
      >>> x = jnp.arange(10.0).reshape(5, 2) ** 2
      >>> f"{float(centered_kernel_alignment(x, 3 * x)):.4f}"
      '1.0000'

    Reference:
      Kornblith et al., "Similarity of Neural Network Representations Revisited", 2019, https://arxiv.org/abs/1905.00414;
      Song et al., "Feature Selection via Dependence Maximization", 2012, eq. (5) (the unbiased parts).
    """
    as_many("centered_kernel_alignment", x=x, y=y)
    enough("centered_kernel_alignment", x, 4 if unbiased else 1)
    x, y = widen(x), widen(y)
    of_left, of_both, of_right = _hsics(kernel, x, y, unbiased)
    squares = of_left * of_right
    varies = squares > 0
    return jnp.where(varies, of_both / jnp.sqrt(jnp.where(varies, squares, 1)), 0)


def _distance(x, y):
    return safe_sqrt(jnp.sum((x - y) ** 2))


@jit(static=("unbiased",))
def energy_distance(x: Float[Array, "n d"], y: Float[Array, "m d"], *, unbiased: bool = True) -> Float[Array, ""]:
    r"""The energy distance of two sets of samples: 0 for equal laws.

    .. math:: 2\, \overline{\lVert x - y \rVert} - \overline{\lVert x - x' \rVert} - \overline{\lVert y - y' \rVert}

    Args:
      x: samples of one law.
      y: samples of the other.
      unbiased: leave out the pairs of a sample with itself (then it may be negative).

    Returns:
      An estimate of at least 0, in float32 at least.

    Gradient:
      Exact where the samples differ.

    Raises:
      ValueError: if the vectors are of different sizes, or the unbiased version has fewer than 2 samples of one.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(energy_distance(jnp.array([[0.0]]), jnp.array([[3.0]]), unbiased=False))
      6.0

    Reference:
      Székely, Rizzo, "Energy Statistics: A Class of Statistics Based on Distances", 2013.
    """
    for name, samples in (("x", x), ("y", y)):
        enough(f"energy_distance of {name}", samples, 2 if unbiased else 1)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"energy_distance: x has vectors of size {x.shape[1]}, y of size {y.shape[1]}")
    x, y = widen(x), widen(y)
    within = _mean_within(_distance, x, unbiased) + _mean_within(_distance, y, unbiased)
    return 2 * _mean_of_pairs(_distance, x, y) - within


@jit(static=("unbiased",))
def kendall(x: Float[Array, "n"], y: Float[Array, "n"], *, unbiased: bool = True) -> Float[Array, ""]:
    r"""Kendall's rank correlation (tau-a): concordant minus discordant pairs.

    .. math:: \overline{\mathrm{sign}(x_i - x_j)\, \mathrm{sign}(y_i - y_j)}

    Args:
      x: numbers.
      y: those that belong to them.
      unbiased: the mean over pairs of different samples (a pair of one with itself counts 0).

    Returns:
      A number in [-1, 1], in float32 at least; ties count 0, as in ``scipy.stats.kendalltau`` where there are none.

    Gradient:
      Zero: it is a step function. :func:`u_statistic` of ``jaxlab.smooth.sign`` has one.

    Raises:
      ValueError: if the lengths differ, or are below 2 (1 for the biased one).

    Examples:
      >>> import jax.numpy as jnp
      >>> float(kendall(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 3.0, 9.0])))
      1.0
    """
    _check.same_shape("kendall", x=x, y=y)
    enough("kendall", x, 2 if unbiased else 1)
    x, y = widen(x), widen(y)
    # Its derivative is 0, so one expression makes no matrix: it is summed as it is computed.
    signs = jnp.sign(x[:, None] - x[None]) * jnp.sign(y[:, None] - y[None]).astype(x.dtype)
    return jnp.sum(signs) / x.size / (x.size - 1 if unbiased else x.size)


@jit(static=("unbiased",))
def gini(samples: Float[Array, "n"], *, unbiased: bool = True) -> Float[Array, ""]:
    r"""Gini's coefficient of inequality: half the mean difference over the mean.

    .. math:: \frac{\overline{|x_i - x_j|}}{2 \bar x}

    Args:
      samples: of positive mean.
      unbiased: the mean difference over pairs of different samples, which is unbiased (its ratio to the mean has a bias
        of order 1 / n left).

    Returns:
      A number in [0, 1] for samples of at least 0, in float32 at least.

    Gradient:
      Exact where the samples differ.

    Raises:
      ValueError: if there are fewer than 2 samples (1 for the biased one).

    Examples:
      >>> import jax.numpy as jnp
      >>> float(gini(jnp.array([0.0, 1.0]))), float(gini(jnp.array([0.0, 1.0]), unbiased=False))
      (1.0, 0.5)

    Reference:
      Gini, "Variabilità e mutabilità", 1912.
    """
    enough("gini", samples, 2 if unbiased else 1)
    samples = widen(samples)

    def distance(one, other):
        return (one - other) * jnp.sign(one - other)

    return _mean_within(distance, samples, unbiased) / (2 * jnp.mean(samples))
