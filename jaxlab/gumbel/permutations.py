"""Doubly stochastic matrices: relaxed permutations."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.gumbel.noise import perturb

__all__ = ["gumbel_sinkhorn", "log_sinkhorn"]


@jit(static=("num_iterations",))
def log_sinkhorn(logits: Float[Array, "*batch k k"], *, num_iterations: int = 20) -> Float[Array, "*batch k k"]:
    r"""The logarithm of the doubly stochastic matrix that scaling rows and columns of ``exp(logits)`` leads to.

    .. math:: X \leftarrow X - \mathrm{logsumexp}_{\mathrm{columns}} X, \qquad
              X \leftarrow X - \mathrm{logsumexp}_{\mathrm{rows}} X, \qquad \text{repeated}

    Args:
      logits: finite, in nats.
      num_iterations: pairs of normalisations, at least 1.

    Returns:
      Log-probabilities whose exponentials sum to one down each column, and along each row up to an error
      that falls geometrically with ``num_iterations``; in the dtype of ``logits``.

    Gradient:
      Exact for this number of iterations, by differentiating them. Of each iteration only the k numbers are kept that
      columns were scaled by, and the matrices are made again from them: one pass more, and memory for k x k numbers
      and not ``num_iterations`` times as many.

    Raises:
      ValueError: if ``num_iterations`` is below 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> jnp.exp(log_sinkhorn(jnp.zeros((2, 2)))).tolist()
      [[0.5, 0.5], [0.5, 0.5]]

    Reference:
      Mena et al., "Learning Latent Permutations with Gumbel-Sinkhorn Networks", 2018 (the Sinkhorn operator).
      https://arxiv.org/abs/1802.08665
    """
    _check.at_least("log_sinkhorn", "num_iterations", num_iterations, 1)

    wide = widen(logits)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def scale(columns, _):
        matrix = jax.nn.log_softmax(wide - columns[..., None, :], -1)
        return columns + jax.nn.logsumexp(matrix, -2), None

    # Zeros that vary over devices as the matrix does.
    zeros = jnp.where(jnp.isnan(lax.stop_gradient(wide).sum(-2)), 0, jnp.zeros((), wide.dtype))
    columns, _ = lax.scan(scale, zeros, length=num_iterations - 1)
    # The last pair on the matrix itself: what rounding the sums of logarithms did to its sums is undone.
    matrix = jax.nn.log_softmax(wide - columns[..., None, :], -1)
    matrix = jax.nn.log_softmax(matrix, -2)
    return matrix.astype(logits.dtype)


@jit(static=("num_iterations",), positive=("temperature",))
def gumbel_sinkhorn(
    key: PRNGKeyArray,
    logits: Float[Array, "*batch k k"],
    *,
    temperature: ScalarLike = 1.0,
    num_iterations: int = 20,
) -> Float[Array, "*batch k k"]:
    r"""A random doubly stochastic matrix near a random permutation matrix.

    .. math:: Y = \exp \mathrm{Sinkhorn}\big((\Phi + G) / \lambda\big)

    In the limit of temperature 0 it is the permutation that maximises the sum of the perturbed logits it picks. For
    a hard permutation with this gradient, round with an assignment solver (``optax.assignment.hungarian_algorithm``)
    and join the two with :func:`jaxlab.gradients.straight_through`.

    Args:
      key: consumed.
      logits: finite scores, in nats, of row i going to column j.
      temperature: positive, without unit.
      num_iterations: pairs of row and column normalisations, at least 1; low temperatures need more.

    Returns:
      Probabilities in [0, 1] summing to one down each column (rows: see :func:`log_sinkhorn`).

    Gradient:
      Exact for this sample and number of iterations; biased as a gradient of an expectation over permutations.

    Raises:
      ValueError: if ``temperature`` is a Python number not above 0, or ``num_iterations`` is below 1.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> y = gumbel_sinkhorn(jax.random.key(0), jnp.zeros((3, 3)), temperature=0.5)
      >>> y.sum(0).round(4).tolist()
      [1.0, 1.0, 1.0]

    Reference:
      Mena et al., "Learning Latent Permutations with Gumbel-Sinkhorn Networks", 2018 (Gumbel-Sinkhorn distribution).
      https://arxiv.org/abs/1802.08665
    """
    _check.at_least("gumbel_sinkhorn", "num_iterations", num_iterations, 1)
    perturbed = perturb(key, logits)
    return jnp.exp(log_sinkhorn(perturbed / temperature, num_iterations=num_iterations)).astype(logits.dtype)
