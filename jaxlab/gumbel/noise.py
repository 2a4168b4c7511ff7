"""Logits plus noise: the continuous variable behind a categorical draw, and the draw."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen

__all__ = ["conditional_gumbel", "gumbel_max", "perturb", "perturb_binary"]


def finite_above(logits: Float[Array, "..."]) -> Float[Array, "..."]:
    """``logits`` in at least float32, with ``+inf`` as the largest number, so that no difference is NaN."""
    logits = widen(logits)
    return jnp.minimum(logits, jnp.finfo(logits.dtype).max)


@jit()
def perturb(key: PRNGKeyArray, logits: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    r"""The logits plus independent standard Gumbel noise.

    .. math:: z_i = \phi_i + G_i, \qquad G_i = -\log(-\log U_i), \quad U_i \sim \mathrm{Uniform}(0, 1)

    Args:
      key: consumed.
      logits: unnormalised log-probabilities, in nats.

    Returns:
      Perturbed logits in float32 (float64 for float64 logits), also for logits of fewer bits: rounded to them,
      distinct values would become ties. Their maximum over an axis is Gumbel with location
      ``logsumexp(logits)``, and independent of where it lies.

    Gradient:
      Exact (the noise is additive): the identity.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> perturb(jax.random.key(0), jnp.zeros(3, jnp.bfloat16)).dtype
      dtype('float32')

    Reference:
      Gumbel, "Statistical Theory of Extreme Values and Some Practical Applications", 1954 (the distribution);
      Maddison, Tarlow, Minka, "A* Sampling", 2014 (the Gumbel-max trick). https://arxiv.org/abs/1411.0030
    """
    logits = finite_above(logits)
    return logits + jax.random.gumbel(key, logits.shape, logits.dtype)


@jit()
def perturb_binary(key: PRNGKeyArray, logits: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    r"""The logits of binary variables plus independent standard logistic noise.

    .. math:: z_i = \phi_i + \log U_i - \log(1 - U_i)

    The difference of two Gumbel variables is logistic: this is :func:`perturb` for two categories with logits
    :math:`(\phi, 0)`, reduced to the difference. ``z > 0`` is a Bernoulli draw with probability
    :math:`\sigma(\phi)`.

    Args:
      key: consumed.
      logits: log-odds, in nats.

    Returns:
      Perturbed logits in float32 (float64 for float64 logits).

    Gradient:
      Exact (the noise is additive): the identity.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> bool(perturb_binary(jax.random.key(0), jnp.array(jnp.inf)) > 0)
      True

    Reference:
      Maddison, Mnih, Teh, "The Concrete Distribution", 2017, appendix B. https://arxiv.org/abs/1611.00712
    """
    logits = widen(logits)
    return logits + jax.random.logistic(key, logits.shape, logits.dtype)


@jit(static=("axis",))
def gumbel_max(key: PRNGKeyArray, logits: Float[Array, "..."], *, axis: int = -1) -> Int[Array, "..."]:
    r"""Draws categories as the argmax of perturbed logits.

    .. math:: c = \arg\max_i (\phi_i + G_i) \sim \mathrm{Categorical}(\mathrm{softmax}(\phi))

    Args:
      key: consumed.
      logits: unnormalised log-probabilities, in nats, of the categories along ``axis``.
      axis: the axis of the categories.

    Returns:
      Codes in 0 ... k - 1, without ``axis``.

    Gradient:
      None: codes are integers. For a gradient through the draw use an estimator of :mod:`jaxlab.estimators`.

    Raises:
      ValueError: if ``axis`` is no axis of ``logits`` or is empty.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> int(gumbel_max(jax.random.key(0), jnp.array([-jnp.inf, 0.0, -jnp.inf])))
      1

    Reference:
      Maddison, Tarlow, Minka, "A* Sampling", 2014 (the Gumbel-max trick). https://arxiv.org/abs/1411.0030
    """
    _check.axis_of("gumbel_max", "logits", logits, axis)
    return jnp.argmax(perturb(key, logits), axis)


@jit()
def conditional_gumbel(
    key: PRNGKeyArray, logits: Float[Array, "*batch k"], codes: Int[Array, "*batch"]
) -> Float[Array, "*batch k"]:
    r"""Perturbed logits given that their argmax is ``codes``.

    With :math:`E_i` independent standard exponentials, :math:`Z = \sum_i e^{\phi_i}` and c the given category,

    .. math:: z_c = \log Z - \log E_c, \qquad z_i = -\log\big(E_i e^{-\phi_i} + E_c / Z\big) \quad (i \ne c)

    is distributed as :func:`perturb` given :math:`\arg\max_i z_i = c`: drawing codes and then this is drawing the
    perturbed logits. The sum is taken in log space.

    Args:
      key: consumed.
      logits: unnormalised log-probabilities, in nats, along the last axis.
      codes: the category of each row that is to be the largest; it must be possible.

    Returns:
      Perturbed logits in float32 (float64 for float64 logits), the largest in each row at ``codes`` (a tie by
      rounding has a probability of about 1e-7).

    Gradient:
      Exact for this sample, with ``codes`` held fixed; this is the path that REBAR and RELAX differentiate.

    Raises:
      ValueError: if ``codes`` has not the shape of ``logits`` without its last axis.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> z = conditional_gumbel(jax.random.key(0), jnp.array([5.0, 0.0, 0.0]), jnp.array(2))
      >>> int(z.argmax())
      2

    Reference:
      Tucker et al., "REBAR", 2017, appendix C (normalised logits), https://arxiv.org/abs/1703.07370; Maddison, Tarlow,
      Minka, "A* Sampling", 2014 (the top-down construction, of which this is a case). https://arxiv.org/abs/1411.0030
    """
    if codes.shape != logits.shape[:-1]:
        raise ValueError(
            f"conditional_gumbel: codes must have the shape of logits without its last axis,"
            f" {list(logits.shape[:-1])}; got {list(codes.shape)}"
        )
    logits = finite_above(logits)
    tiny = jnp.finfo(logits.dtype).tiny
    log_exponential = jnp.log(jnp.maximum(jax.random.exponential(key, logits.shape, logits.dtype), tiny))
    given = jax.nn.one_hot(codes, logits.shape[-1], dtype=jnp.bool_)
    log_exponential_of_code = jnp.sum(jnp.where(given, log_exponential, 0), -1, keepdims=True)
    below = log_exponential_of_code - jax.nn.logsumexp(logits, -1, keepdims=True)
    return jnp.where(given, -below, -jnp.logaddexp(log_exponential - logits, below))
