"""The cumulative softmax: a soft split of ordered levels, its hard and random versions, and its moments."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.gradients import straight_through
from jaxlab.gumbel import log_concrete
from jaxlab.gumbel.noise import finite_above

__all__ = [
    "concrete_cumax",
    "cumax",
    "expected_split",
    "hard_cumax",
    "sample_cumax",
    "split_entropy",
    "straight_through_cumax",
]

# Up to here the sums are a product with a triangle of ones.
MAXIMAL_TRIANGLE = 256


def sums_before(x: Float[Array, "*batch k"]) -> Float[Array, "*batch n"]:
    """The k + 1 sums of the first 0 ... k elements; of elements of at least 0 they never fall in rounding."""
    size = x.shape[-1]
    if size <= MAXIMAL_TRIANGLE:
        # All columns are summed in one order, and more terms of 0 or above never make a rounded sum smaller.
        triangle = jnp.arange(size)[:, None] < jnp.arange(size + 1)[None]
        return jnp.matmul(x, triangle.astype(x.dtype), precision=lax.Precision.HIGHEST)
    sums = jnp.cumsum(x, -1)
    return jnp.concatenate([jnp.zeros_like(sums[..., :1]), sums], -1)


@jax.custom_jvp
def split_below(logits: Float[Array, "*batch k"]) -> Float[Array, "*batch n"]:
    """P(split < 0) ... P(split < k): exactly 0 at first and exactly 1 at last, never falling."""
    size = logits.shape[-1]
    # The largest weight is 1, so the last sum is at least 1.
    sums = sums_before(jnp.exp(logits - logits.max(-1, keepdims=True)))
    if size > MAXIMAL_TRIANGLE:
        # A parallel cumsum groups each sum differently: neighbours may be a rounding error out of order.
        sums = lax.cummax(sums, axis=sums.ndim - 1)
    # A compiler may divide by multiplying with the inverse, and come out beside 1.
    split = jnp.minimum(sums / sums[..., -1:], 1)
    return jnp.where(lax.broadcasted_iota(jnp.int32, split.shape, split.ndim - 1) == size, 1, split)


@split_below.defjvp
def split_below_jvp(primals, tangents):
    """With p the softmax of the logits, dP(split < k) = sum_{j < k} p_j dz_j - P(split < k) sum_j p_j dz_j.

    Fewer operations than the derivative of what is computed above: a recurrent cell has two of them at every step.
    """
    (logits,), (d_logits,) = primals, tangents
    split, weighted = split_below(logits), jax.nn.softmax(logits) * d_logits
    return split, sums_before(weighted) - split * jnp.sum(weighted, -1, keepdims=True)


@jit(static=("axis", "reverse", "exclusive"))
def cumax(
    logits: Float[Array, "*shape"], *, axis: int = -1, reverse: bool = False, exclusive: bool = False
) -> Float[Array, "*shape"]:
    r"""The cumulative sum of the softmax: the distribution function of a split point.

    .. math:: y_k = \sum_{j \le k} \mathrm{softmax}(\phi)_j = P(\mathrm{split} \le k)

    Summed in float32 also for logits of fewer bits (sums in bfloat16 are off by up to 0.016), and divided by the last
    sum, so that the end of the scale is exactly 1.

    Args:
      logits: unnormalised log-probabilities of the split point, in nats, along ``axis``.
      axis: the axis of the levels.
      reverse: sum from the last level on: :math:`P(\mathrm{split} \ge k)`.
      exclusive: leave out the level itself: :math:`P(\mathrm{split} < k)`, or :math:`P(\mathrm{split} > k)`.

    Returns:
      In [0, 1], in the dtype of ``logits``, never falling along ``axis`` (never rising if ``reverse``); the last
      element (the first if ``reverse``) is exactly 1, or with ``exclusive`` the first (the last) is exactly 0.

    Gradient:
      Exact.

    Raises:
      ValueError: if ``axis`` is no axis of ``logits``.

    Examples:
      >>> import jax.numpy as jnp
      >>> cumax(jnp.zeros(4)).tolist(), cumax(jnp.zeros(4), reverse=True, exclusive=True).tolist()
      ([0.25, 0.5, 0.75, 1.0], [0.75, 0.5, 0.25, 0.0])

    Reference:
      Shen, Tan, Sordoni, Courville, "Ordered Neurons: Integrating Tree Structures into Recurrent Neural Networks",
      2019, eq. (6). https://arxiv.org/abs/1810.09536
    """
    _check.axis_of("cumax", "logits", logits, axis)
    wide = jnp.moveaxis(finite_above(logits), axis, -1)
    if reverse:
        wide = jnp.flip(wide, -1)
    split = split_below(wide)
    split = split[..., :-1] if exclusive else split[..., 1:]
    if reverse:
        split = jnp.flip(split, -1)
    return jnp.moveaxis(split, -1, axis).astype(logits.dtype)


@jit(static=("axis", "reverse", "exclusive"))
def hard_cumax(
    logits: Float[Array, "*shape"], *, axis: int = -1, reverse: bool = False, exclusive: bool = False
) -> Float[Array, "*shape"]:
    r"""The step from 0 to 1 at the most probable split point: :func:`cumax` at temperature 0.

    .. math:: y_k = [k \ge \arg\max_j \phi_j]

    Args:
      logits: scores of the split point along ``axis``; of equal ones the first is taken.
      axis: the axis of the levels.
      reverse: the step from 1 to 0, :math:`[k \le \arg\max_j \phi_j]`.
      exclusive: a strict inequality in place of these.

    Returns:
      Zeros and ones, in the dtype of ``logits``.

    Gradient:
      Zero.

    Raises:
      ValueError: if ``axis`` is no axis of ``logits``.

    Examples:
      >>> import jax.numpy as jnp
      >>> hard_cumax(jnp.array([0.0, 5.0, 1.0])).tolist()
      [0.0, 1.0, 1.0]
    """
    _check.axis_of("hard_cumax", "logits", logits, axis)
    split = jnp.argmax(logits, axis, keepdims=True)
    level = lax.broadcasted_iota(split.dtype, logits.shape, axis % logits.ndim)
    if reverse:
        level, split = -level, -split
    split = jnp.broadcast_to(split, logits.shape)
    return (level > split if exclusive else level >= split).astype(logits.dtype)


@jit(static=("axis", "reverse", "exclusive"))
def straight_through_cumax(
    logits: Float[Array, "*shape"], *, axis: int = -1, reverse: bool = False, exclusive: bool = False
) -> Float[Array, "*shape"]:
    r"""The hard split with the gradient of the soft one.

    .. math:: y = \mathrm{hard\_cumax}(\phi), \qquad \mathrm{d}y := \mathrm{d}\,\mathrm{cumax}(\phi)

    Args:
      logits: unnormalised log-probabilities of the split point, in nats, along ``axis``.
      axis: the axis of the levels.
      reverse: as in :func:`hard_cumax`.
      exclusive: as in :func:`hard_cumax`.

    Returns:
      Zeros and ones, in the dtype of ``logits``.

    Gradient:
      That of :func:`cumax`: biased, and useful.

    Raises:
      ValueError: if ``axis`` is no axis of ``logits``.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> logits = jnp.array([0.0, 5.0, 1.0])
      >>> straight_through_cumax(logits).tolist()
      [0.0, 1.0, 1.0]
      >>> bool((jax.grad(lambda x: straight_through_cumax(x)[0])(logits) != 0).any())
      True

    Reference:
      Bengio, Léonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
      Computation", 2013 (straight-through). https://arxiv.org/abs/1308.3432
    """
    hard = hard_cumax(logits, axis=axis, reverse=reverse, exclusive=exclusive)
    return straight_through(hard, cumax(logits, axis=axis, reverse=reverse, exclusive=exclusive))


@jit(static=("axis", "reverse", "exclusive"), positive=("temperature",))
def concrete_cumax(
    key: PRNGKeyArray,
    logits: Float[Array, "*shape"],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    reverse: bool = False,
    exclusive: bool = False,
) -> Float[Array, "*shape"]:
    r"""The cumulative sum of a Gumbel-softmax sample: a random, nearly hard split.

    .. math:: y = \mathrm{cumax}\big((\phi + G) / \lambda\big)

    Args:
      key: consumed.
      logits: unnormalised log-probabilities of the split point, in nats, along ``axis``.
      temperature: positive, without unit; the limit 0 is a split drawn from :math:`\mathrm{softmax}(\phi)`.
      axis: the axis of the levels.
      reverse: as in :func:`cumax`.
      exclusive: as in :func:`cumax`.

    Returns:
      As :func:`cumax`.

    Gradient:
      Exact for this sample; biased as a gradient of an expectation over hard splits.

    Raises:
      ValueError: if ``temperature`` is a Python number not above 0, or ``axis`` no axis of ``logits``.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> concrete_cumax(jax.random.key(0), jnp.zeros(3), temperature=0.5).shape
      (3,)

    Reference:
      Jang, Gu, Poole, "Categorical Reparameterization with Gumbel-Softmax", 2017. https://arxiv.org/abs/1611.01144
    """
    perturbed = log_concrete(key, widen(logits), temperature=temperature, axis=axis)
    return cumax(perturbed, axis=axis, reverse=reverse, exclusive=exclusive).astype(logits.dtype)


@jit(static=("axis", "reverse", "exclusive"), positive=("temperature",))
def sample_cumax(
    key: PRNGKeyArray,
    logits: Float[Array, "*shape"],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    reverse: bool = False,
    exclusive: bool = False,
) -> Float[Array, "*shape"]:
    r"""The step at a split point drawn from the softmax, with the gradient of its relaxation.

    .. math:: y_k = [k \ge s], \quad s = \arg\max_j (\phi_j + G_j) \sim \mathrm{softmax}(\phi), \qquad
              \mathrm{d}y := \mathrm{d}\,\mathrm{cumax}\big((\phi + G) / \lambda\big)

    Its expectation is :func:`cumax`: the soft gate is the mean of this discrete one.

    Args:
      key: consumed.
      logits: unnormalised log-probabilities of the split point, in nats, along ``axis``.
      temperature: of the relaxation that is differentiated; positive, without unit.
      axis: the axis of the levels.
      reverse: as in :func:`hard_cumax`.
      exclusive: as in :func:`hard_cumax`.

    Returns:
      Zeros and ones, in the dtype of ``logits``.

    Gradient:
      That of :func:`concrete_cumax` for the same noise: biased.

    Raises:
      ValueError: if ``temperature`` is a Python number not above 0, or ``axis`` no axis of ``logits``.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> sample_cumax(jax.random.key(0), jnp.array([-jnp.inf, 0.0, -jnp.inf])).tolist()
      [0.0, 1.0, 1.0]

    Reference:
      Jang, Gu, Poole, "Categorical Reparameterization with Gumbel-Softmax", 2017, section 2.2 (straight-through).
      https://arxiv.org/abs/1611.01144
    """
    perturbed = log_concrete(key, widen(logits), temperature=temperature, axis=axis)
    return straight_through_cumax(perturbed, axis=axis, reverse=reverse, exclusive=exclusive).astype(logits.dtype)


@jit(static=("axis",))
def expected_split(logits: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    r"""The mean of the split point: the syntactic distance of the ON-LSTM.

    .. math:: \mathbb{E}\, s = \sum_k k\, \mathrm{softmax}(\phi)_k = \sum_k (1 - \mathrm{cumax}(\phi)_k)

    Args:
      logits: unnormalised log-probabilities of the split point, in nats, along ``axis``.
      axis: the axis of the levels, counted from 0.

    Returns:
      In [0, number of levels - 1], without ``axis``, in float32 (float64 for float64 logits): fewer bits make ties.

    Gradient:
      Exact.

    Raises:
      ValueError: if ``axis`` is no axis of ``logits``.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(expected_split(jnp.zeros(5)))
      2.0

    Reference:
      Shen, Tan, Sordoni, Courville, "Ordered Neurons", 2019, eq. (15). https://arxiv.org/abs/1810.09536
    """
    _check.axis_of("expected_split", "logits", logits, axis)
    probabilities = jnp.moveaxis(jax.nn.softmax(finite_above(logits), axis), axis, -1)
    places = jnp.arange(probabilities.shape[-1], dtype=probabilities.dtype)
    return jnp.matmul(probabilities, places, precision="highest")


@jit(static=("axis",))
def split_entropy(logits: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    r"""The entropy of the split point, in nats: how far from hard a gate is.

    .. math:: H = -\sum_k p_k \log p_k, \qquad p = \mathrm{softmax}(\phi)

    Args:
      logits: unnormalised log-probabilities of the split point, in nats, along ``axis``.
      axis: the axis of the levels.

    Returns:
      In [0, log of the number of levels], without ``axis``, in float32 (float64 for float64 logits).

    Gradient:
      Exact.

    Raises:
      ValueError: if ``axis`` is no axis of ``logits``.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(jnp.exp(split_entropy(jnp.zeros(5))).round(4))
      5.0
    """
    _check.axis_of("split_entropy", "logits", logits, axis)
    log_probs = jax.nn.log_softmax(finite_above(logits), axis)
    bounded = jnp.where(log_probs > -jnp.inf, log_probs, 0)  # 0 log 0 = 0
    return -jnp.sum(jnp.exp(log_probs) * bounded, axis)
