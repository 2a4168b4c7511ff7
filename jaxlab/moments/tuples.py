"""Means of a kernel over tuples of samples: of different ones (U-statistics), of all (V-statistics)."""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxlab import _check
from jaxlab._chunks import by_rows, rows_with_others
from jaxlab.moments.statistics import enough

__all__ = ["u_statistic", "v_statistic"]


def _tuples(kernel, samples, order):
    """The kernel at all ordered tuples of samples, with one axis of n for each place (there may be none)."""
    function = kernel
    for place in reversed(range(order)):
        function = jax.vmap(function, [0 if other == place else None for other in range(order)])
    return function(*(samples,) * order)


def _rows_of(samples, order):
    """How many first samples at a time: each is taken with all tuples of the others."""
    return rows_with_others(samples.size * max(1, samples.shape[0]) ** max(0, order - 2))


def u_statistic(kernel: Callable, *, order: int = 2) -> Callable:
    r"""The unbiased mean of a kernel: over all tuples of *different* samples.

    .. math:: U = \frac{(n - r)!}{n!} \sum_{i_1, \dots, i_r \;\text{different}} h(x_{i_1}, \dots, x_{i_r})

    Args:
      kernel: h, a function of ``order`` single samples; its value is a number or an array.
      order: r, at least 1; time grows as n to the power r, memory as n to the power r - 1.

    Returns:
      A function of samples [n, ...]: the U-statistic, whose mean over sets of independent samples is that of h.

    Gradient:
      Exact, and unbiased as the gradient of the mean of h.

    Raises:
      ValueError: if ``order`` is below 1; when called, if there are fewer samples than ``order``.

    Examples:
      >>> import jax.numpy as jnp
      >>> half_square = u_statistic(lambda x, y: (x - y) ** 2 / 2)
      >>> float(half_square(jnp.array([1.0, 3.0])))  # the variance
      2.0

    Reference:
      Hoeffding, "A Class of Statistics with Asymptotically Normal Distribution", 1948.
    """
    _check.at_least("u_statistic", "order", order, 1)

    def statistic(samples: Array) -> Array:
        enough("u_statistic", samples, order)
        size = samples.shape[0]
        index = jnp.arange(size)

        def of_first(item):
            """The sum over all tuples whose first sample is this one."""
            number, first = item
            values = _tuples(functools.partial(kernel, first), samples, order - 1)
            different = jnp.ones((size,) * (order - 1), bool)
            places = [jnp.expand_dims(index, [a for a in range(order - 1) if a != place]) for place in range(order - 1)]
            for one, other in itertools.combinations([number, *places], 2):
                different = different & jnp.broadcast_to(one != other, different.shape)
            mask = different.reshape(*different.shape, *(1,) * (values.ndim - order + 1))
            # The kernel at equal samples may be infinite: it is left out before it is added.
            return jnp.sum(jnp.where(mask, values, 0), tuple(range(order - 1)))

        count = 1.0
        for place in range(order):
            count *= size - place
        return jnp.sum(by_rows(of_first, (index, samples), _rows_of(samples, order)), 0) / count

    return statistic


def v_statistic(kernel: Callable, *, order: int = 2) -> Callable:
    r"""The plug-in mean of a kernel: over all tuples of samples, equal ones too; biased, of less variance.

    .. math:: V = n^{-r} \sum_{i_1, \dots, i_r} h(x_{i_1}, \dots, x_{i_r})

    Args:
      kernel: h, a function of ``order`` single samples; its value is a number or an array.
      order: r, at least 1; time grows as n to the power r, memory as n to the power r - 1.

    Returns:
      A function of samples [n, ...]: the V-statistic, the mean of h under the empirical distribution.

    Gradient:
      Exact; biased as the gradient of the mean of h, by O(1 / n).

    Raises:
      ValueError: if ``order`` is below 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> half_square = v_statistic(lambda x, y: (x - y) ** 2 / 2)
      >>> float(half_square(jnp.array([1.0, 3.0])))  # the biased variance
      1.0

    Reference:
      von Mises, "On the Asymptotic Distribution of Differentiable Statistical Functions", 1947.
    """
    _check.at_least("v_statistic", "order", order, 1)

    def statistic(samples: Array) -> Array:
        enough("v_statistic", samples, 1)

        def of_first(first):
            return jnp.mean(_tuples(functools.partial(kernel, first), samples, order - 1), tuple(range(order - 1)))

        return jnp.mean(by_rows(of_first, samples, _rows_of(samples, order)), 0)

    return statistic
