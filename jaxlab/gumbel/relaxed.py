"""Relaxed draws: points of the simplex near one-hot vectors, and numbers near bits."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab.gumbel.noise import finite_above, perturb, perturb_binary

__all__ = ["binary_concrete", "concrete", "log_concrete"]


def log_softmax_at(perturbed: Float[Array, "..."], *, temperature: ScalarLike, axis: int) -> Float[Array, "..."]:
    """``log_softmax(perturbed / temperature)``, shifted first so that no division overflows to NaN."""
    perturbed = finite_above(perturbed)
    shifted = perturbed - lax.stop_gradient(perturbed.max(axis, keepdims=True, initial=-jnp.inf))
    # An impossible category stays impossible, and passes no 0 * inf to the gradient of the temperature; one beside a
    # certain category becomes impossible in this division.
    possible = shifted / temperature > -jnp.inf
    scaled = jnp.where(possible, jnp.where(possible, shifted, 0) / temperature, -jnp.inf)
    return jax.nn.log_softmax(scaled, axis)


def sigmoid_at(perturbed: Float[Array, "..."], *, temperature: ScalarLike) -> Float[Array, "..."]:
    """``sigmoid(perturbed / temperature)``; a certain bit passes no 0 * inf to the gradient of the temperature."""
    certain = jnp.isinf(perturbed)
    sigmoid = jax.nn.sigmoid(jnp.where(certain, 0, perturbed) / temperature)
    return jnp.where(certain, (perturbed > 0).astype(sigmoid.dtype), sigmoid)


@jit(static=("axis",), positive=("temperature",))
def log_concrete(
    key: PRNGKeyArray, logits: Float[Array, "*shape"], *, temperature: ScalarLike = 1.0, axis: int = -1
) -> Float[Array, "*shape"]:
    r"""The logarithm of a Gumbel-softmax (Concrete) sample.

    .. math:: \log y = \log\mathrm{softmax}\big((\phi + G) / \lambda\big)

    Below a temperature of about 0.3 many components of :func:`concrete` underflow to zero and its density and
    gradients with it; their logarithms do not.

    Args:
      key: consumed.
      logits: unnormalised log-probabilities, in nats, along ``axis``.
      temperature: positive, without unit; the limit 0 puts all mass on one category.
      axis: the axis of the categories.

    Returns:
      Log-probabilities at most 0, whose exponentials sum to one along ``axis``, in the dtype of ``logits``.

    Gradient:
      Exact for this sample (reparameterised); biased as a gradient of an expectation over the discrete draw.

    Raises:
      ValueError: if ``temperature`` is a Python number not above 0, or ``axis`` no axis of ``logits``.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> log_y = log_concrete(jax.random.key(0), jnp.zeros(4), temperature=0.01)
      >>> bool(jnp.isfinite(log_y).all())
      True

    Reference:
      Maddison, Mnih, Teh, "The Concrete Distribution", 2017, appendix C.3 (ExpConcrete).
      https://arxiv.org/abs/1611.00712
    """
    _check.axis_of("log_concrete", "logits", logits, axis)
    return log_softmax_at(perturb(key, logits), temperature=temperature, axis=axis).astype(logits.dtype)


@jit(static=("axis",), positive=("temperature",))
def concrete(
    key: PRNGKeyArray, logits: Float[Array, "*shape"], *, temperature: ScalarLike = 1.0, axis: int = -1
) -> Float[Array, "*shape"]:
    r"""A Gumbel-softmax (Concrete) sample: a random point of the simplex near a random one-hot vector.

    .. math:: y = \mathrm{softmax}\big((\phi + G) / \lambda\big)

    Args:
      key: consumed.
      logits: unnormalised log-probabilities, in nats, along ``axis``.
      temperature: positive, without unit; the limit 0 is the one-hot draw, infinity the uniform vector.
      axis: the axis of the categories.

    Returns:
      Probabilities in [0, 1] that sum to one along ``axis``, in the dtype of ``logits``. The largest one is
      category i with probability :math:`\mathrm{softmax}(\phi)_i` at every temperature.

    Gradient:
      Exact for this sample (reparameterised); biased as a gradient of an expectation over the discrete draw. Its
      second moment grows like 1 / ``temperature``.

    Raises:
      ValueError: if ``temperature`` is a Python number not above 0, or ``axis`` no axis of ``logits``.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> y = concrete(jax.random.key(0), jnp.array([1.0, 2.0, 3.0]), temperature=0.5)
      >>> round(float(y.sum()), 5)
      1.0

    Reference:
      Jang, Gu, Poole, "Categorical Reparameterization with Gumbel-Softmax", 2017, eq. (2).
      https://arxiv.org/abs/1611.01144
    """
    _check.axis_of("concrete", "logits", logits, axis)
    return jnp.exp(log_softmax_at(perturb(key, logits), temperature=temperature, axis=axis)).astype(logits.dtype)


@jit(positive=("temperature",))
def binary_concrete(
    key: PRNGKeyArray, logits: Float[Array, "*shape"], *, temperature: ScalarLike = 1.0
) -> Float[Array, "*shape"]:
    r"""Binary Concrete samples: random numbers of [0, 1] near random bits.

    .. math:: y = \sigma\big((\phi + \log U - \log(1 - U)) / \lambda\big)

    The first component of :func:`concrete` for two categories with logits :math:`(\phi, 0)`, in distribution.

    Args:
      key: consumed.
      logits: log-odds, in nats.
      temperature: positive, without unit; the limit 0 is the Bernoulli draw.

    Returns:
      Numbers in [0, 1], in the dtype of ``logits``; above 1/2 with probability :math:`\sigma(\phi)`.

    Gradient:
      Exact for this sample (reparameterised); biased as a gradient of an expectation over the bits.

    Raises:
      ValueError: if ``temperature`` is a Python number not above 0.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> binary_concrete(jax.random.key(0), jnp.array([-jnp.inf, jnp.inf])).tolist()
      [0.0, 1.0]

    Reference:
      Maddison, Mnih, Teh, "The Concrete Distribution", 2017, appendix B. https://arxiv.org/abs/1611.00712
    """
    return sigmoid_at(perturb_binary(key, logits), temperature=temperature).astype(logits.dtype)
