r"""Gumbel noise: samples of a categorical as an argmax, its relaxations, subsets and permutations.

With :math:`G_i` independent standard Gumbel variables, :math:`\arg\max_i (\phi_i + G_i)` is a draw from
:math:`\mathrm{softmax}(\phi)`; the perturbed logits :math:`\phi_i + G_i` are the continuous variable behind it.

All noise is drawn and compared in float32 (float64 for float64 logits), whatever the dtype of the logits: bfloat16 has
128 distinct Gumbel values, and its ties would give the first 100 of 1,000 equal classes about 54% of the draws.
Logits may be ``-inf`` (an impossible category), and one of them may be ``+inf`` (a certain one).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, ScalarLike

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen

__all__ = [
    "OrderedSubset",
    "binary_concrete",
    "concrete",
    "conditional_gumbel",
    "gumbel_max",
    "gumbel_sinkhorn",
    "gumbel_top_k",
    "log_concrete",
    "log_sinkhorn",
    "perturb",
    "perturb_binary",
]


def _finite_above(logits: Float[Array, "..."]) -> Float[Array, "..."]:
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
    logits = _finite_above(logits)
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


def log_softmax_at(perturbed: Float[Array, "..."], *, temperature: ScalarLike, axis: int) -> Float[Array, "..."]:
    """``log_softmax(perturbed / temperature)``, shifted first so that no division overflows to NaN."""
    shifted = perturbed - lax.stop_gradient(perturbed.max(axis, keepdims=True))
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
    logits = _finite_above(logits)
    tiny = jnp.finfo(logits.dtype).tiny
    log_exponential = jnp.log(jnp.maximum(jax.random.exponential(key, logits.shape, logits.dtype), tiny))
    given = jax.nn.one_hot(codes, logits.shape[-1], dtype=jnp.bool_)
    log_exponential_of_code = jnp.sum(jnp.where(given, log_exponential, 0), -1, keepdims=True)
    below = log_exponential_of_code - jax.nn.logsumexp(logits, -1, keepdims=True)
    return jnp.where(given, -below, -jnp.logaddexp(log_exponential - logits, below))


class OrderedSubset(NamedTuple):
    """Categories drawn one after another without replacement, the first one first."""

    codes: Int[Array, "*batch n"]
    log_probs: Float[Array, "*batch n"]  # of each draw given those before it; their sum is the ordered draw's
    perturbed: Float[Array, "*batch n"]  # perturbed logits, descending


@jit(static=("num_samples",))
def gumbel_top_k(key: PRNGKeyArray, logits: Float[Array, "*batch k"], *, num_samples: int) -> OrderedSubset:
    r"""Draws ``num_samples`` different categories, as the top of the perturbed logits.

    .. math:: c_1, \dots, c_n = \mathrm{arg\,top}_n (\phi + G), \qquad
              \log p(c_j \mid c_{<j}) = \phi_{c_j} - \log \sum_{i \notin \{c_1, \dots, c_{j-1}\}} e^{\phi_i}

    the law of drawing from :math:`\mathrm{softmax}(\phi)` n times without replacement (Plackett-Luce).

    Args:
      key: consumed.
      logits: unnormalised log-probabilities, in nats, along the last axis.
      num_samples: how many categories, 1 ... k.

    Returns:
      ``codes`` in 0 ... k - 1, all different; ``log_probs`` of each given the earlier ones, at most 0, in the
      dtype of ``logits`` (``-inf`` once the possible categories are used up); ``perturbed`` logits in float32.

    Gradient:
      ``log_probs`` carry their own with ``codes`` held fixed (for score-function estimators, unbiased); ``perturbed``
      the identity at the codes.

    Raises:
      ValueError: if ``num_samples`` is below 1 or above k.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> subset = gumbel_top_k(jax.random.key(0), jnp.log(jnp.array([0.5, 0.3, 0.2])), num_samples=3)
      >>> sorted(subset.codes.tolist())
      [0, 1, 2]
      >>> float(subset.log_probs[-1])  # the last one is certain
      0.0

    Reference:
      Kool, van Hoof, Welling, "Stochastic Beams and Where to Find Them", 2019 (the Gumbel-top-k trick).
      https://arxiv.org/abs/1903.06059
    """
    _check.at_least("gumbel_top_k", "num_samples", num_samples, 1)
    num_categories = logits.shape[-1]
    if num_samples > num_categories:
        raise ValueError(
            f"gumbel_top_k: num_samples must be at most the number of categories, {num_categories}; got {num_samples}"
        )
    perturbed, codes = lax.top_k(perturb(key, logits), num_samples)
    wide = _finite_above(logits)
    lowest = jnp.finfo(wide.dtype).min / 2  # in place of -inf, whose sums have NaN derivatives
    bounded = jnp.maximum(wide, lowest)
    drawn = jnp.take_along_axis(bounded, codes, -1)
    never_drawn = jnp.put_along_axis(jnp.ones(wide.shape, bool), codes, False, axis=-1, inplace=False)
    rest = jax.nn.logsumexp(jnp.where(never_drawn, bounded, lowest), -1, keepdims=True)
    # What is left at draw j is what never comes plus what comes at j or later: a sum from the end, all terms positive.
    left = lax.cumlogsumexp(jnp.concatenate([drawn, rest], -1), axis=drawn.ndim - 1, reverse=True)[..., :-1]
    log_probs = jnp.where(drawn > lowest, drawn - left, -jnp.inf)
    return OrderedSubset(codes, log_probs.astype(logits.dtype), perturbed)


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
      Exact for this number of iterations, by differentiating them.

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

    def normalise(matrix, _):
        matrix = jax.nn.log_softmax(matrix, -1)
        return jax.nn.log_softmax(matrix, -2), None

    matrix, _ = lax.scan(normalise, widen(logits), length=num_iterations)
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
