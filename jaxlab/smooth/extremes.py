"""Smooth maxima and what they are the derivatives of: one-hot vectors of the largest, softmax to sparsemax.

Every one is a regularised maximum, :math:`\\max_{p} \\langle p, x \\rangle - \\lambda\\, \\Omega(p)` over the simplex:
its error lies between 0 and the temperature times the range of :math:`\\Omega`. An element of ``-inf`` counts as masked
(``+inf`` for the minimum).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Num, ScalarLike

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab.smooth._common import in_unit, last, over
from jaxlab.smooth.kernel import ExponentialLink, PowerLink, threshold_parts

__all__ = ["argmax", "boltzmann", "entmax", "maximum", "mellowmax", "minimum", "one_hot_argmax", "sparsemax"]


def _log_sum_exp(x, mask, temperature):
    """The temperature times the log-sum-exp along the last axis; ``-inf`` where nothing is valid."""
    mask = mask & (x > -jnp.inf)
    some = mask.any(-1)
    top = jnp.where(some, lax.stop_gradient(jnp.max(x, -1, where=mask, initial=-jnp.inf)), 0)
    scaled = over(jnp.where(mask, x - top[..., None], 0), temperature)
    total = jnp.sum(jnp.exp(scaled), -1, where=mask)
    value = top + in_unit(jnp.log(jnp.where(some, total, 1)), temperature)
    return jnp.where(some, value, -jnp.inf)


def _simplex(x, mask, temperature, link):
    """Probabilities ``f((x - threshold) / temperature)`` that sum to one; zeros where nothing is valid."""
    mask = mask & (x > -jnp.inf)
    x = jnp.where(mask, x, 0)
    anchor, offset = threshold_parts(x, jnp.ones(x.shape[:-1], x.dtype), mask, temperature, link)
    scaled = over(x - anchor[..., None], temperature) - offset[..., None]
    return jnp.where(mask, link.value(jnp.where(mask, scaled, -1)), 0)


@jit(static=("axis",), hard_at_zero=("temperature",))
def maximum(
    x: Float[Array, "..."],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""The smooth maximum along an axis: the log-sum-exp.

    .. math:: \lambda \log \sum_i e^{x_i / \lambda}, \qquad 0 \le \mathrm{error} \le \lambda \log n

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jnp.max``.
      axis: the axis to reduce.
      where: valid elements; the others do not count.

    Returns:
      The smooth maximum, at least the maximum; ``-inf`` where nothing is valid.

    Gradient:
      That of the smooth function, :func:`one_hot_argmax`; at temperature 0, shared equally among ties.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``axis`` no axis of ``x`` or ``where`` of another
        shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(maximum(jnp.array([1.0, 3.0]), temperature=0.01))
      3.0
    """
    values, mask = last("maximum", "x", x, axis, where)
    if _check.is_zero(temperature):
        return jnp.max(values, -1, where=mask, initial=-jnp.inf).astype(x.dtype)
    return _log_sum_exp(values, mask, temperature).astype(x.dtype)


@jit(static=("axis",), hard_at_zero=("temperature",))
def minimum(
    x: Float[Array, "..."],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""The smooth minimum along an axis, minus the smooth maximum of ``-x``.

    .. math:: -\lambda \log \sum_i e^{-x_i / \lambda}, \qquad -\lambda \log n \le \mathrm{error} \le 0

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jnp.min``.
      axis: the axis to reduce.
      where: valid elements; the others do not count.

    Returns:
      The smooth minimum, at most the minimum; ``inf`` where nothing is valid.

    Gradient:
      That of the smooth function; at temperature 0, shared equally among ties.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``axis`` no axis of ``x`` or ``where`` of another
        shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(minimum(jnp.array([1.0, 3.0]), temperature=0.01))
      1.0
    """
    values, mask = last("minimum", "x", x, axis, where)
    if _check.is_zero(temperature):
        return jnp.min(values, -1, where=mask, initial=jnp.inf).astype(x.dtype)
    return (-_log_sum_exp(-values, mask, temperature)).astype(x.dtype)


@jit(static=("axis",), hard_at_zero=("temperature",))
def mellowmax(
    x: Float[Array, "..."],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""The smooth maximum from below, from the mean (at a temperature of infinity) to the maximum.

    .. math:: \lambda \log \frac{1}{n} \sum_i e^{x_i / \lambda}, \qquad -\lambda \log n \le \mathrm{error} \le 0

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jnp.max``.
      axis: the axis to reduce.
      where: valid elements; the others do not count.

    Returns:
      A number between mean and maximum; ``-inf`` where nothing is valid.

    Gradient:
      That of the smooth function, :func:`one_hot_argmax`; at temperature 0, shared equally among ties.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``axis`` no axis of ``x`` or ``where`` of another
        shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(mellowmax(jnp.array([2.0, 2.0])))
      2.0

    Reference:
      Asadi, Littman, "An Alternative Softmax Operator for Reinforcement Learning", 2017.
      https://arxiv.org/abs/1612.05628
    """
    values, mask = last("mellowmax", "x", x, axis, where)
    if _check.is_zero(temperature):
        return jnp.max(values, -1, where=mask, initial=-jnp.inf).astype(x.dtype)
    log_count = jnp.log(jnp.maximum(mask.sum(-1), 1).astype(values.dtype))
    return (_log_sum_exp(values, mask, temperature) - in_unit(log_count, temperature)).astype(x.dtype)


@jit(static=("axis",), hard_at_zero=("temperature",))
def boltzmann(
    x: Float[Array, "..."],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""The mean of the elements under their softmax: a maximum from below that is neither monotone nor convex.

    .. math:: \sum_i x_i\, \mathrm{softmax}(x / \lambda)_i, \qquad
              -\lambda\, W\big((n - 1) / e\big) \le \mathrm{error} \le 0

    with Lambert's W (0.2785 for n = 2, 1.10 for 10, 4.42 for 1,000).

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jnp.max``.
      axis: the axis to reduce.
      where: valid elements; the others do not count.

    Returns:
      A number between minimum and maximum; ``-inf`` where nothing is valid.

    Gradient:
      That of the smooth function; at temperature 0, shared equally among ties.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``axis`` no axis of ``x`` or ``where`` of another
        shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(boltzmann(jnp.array([0.0, 2.0]), temperature=0.01))
      2.0
    """
    values, mask = last("boltzmann", "x", x, axis, where)
    if _check.is_zero(temperature):
        return jnp.max(values, -1, where=mask, initial=-jnp.inf).astype(x.dtype)
    weights = _simplex(values, mask, temperature, ExponentialLink())
    finite = jnp.where(values > -jnp.inf, values, 0)
    some = (mask & (values > -jnp.inf)).any(-1)
    return jnp.where(some, jnp.sum(weights * finite, -1), -jnp.inf).astype(x.dtype)


@jit(static=("axis",), hard_at_zero=("temperature",))
def one_hot_argmax(
    x: Float[Array, "*shape"],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    r"""The smooth one-hot vector of the largest element: the softmax, which is the entropy-regularised argmax.

    .. math:: p_i = e^{x_i / \lambda} / \sum_j e^{x_j / \lambda}, \qquad
              |\mathrm{error}| \le 1 - p_{\max} \le (n - 1)\, e^{-\mathrm{gap} / \lambda}

    with the gap between the two largest. In the limit ties share equally; at temperature 0 the first one has all.

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives the one-hot vector of ``jnp.argmax``.
      axis: the axis that sums to one.
      where: valid elements; the others get 0.

    Returns:
      Probabilities; zeros where nothing is valid.

    Gradient:
      That of the smooth function; zero at temperature 0.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``axis`` no axis of ``x`` or ``where`` of another
        shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> one_hot_argmax(jnp.array([1.0, 2.0, 9.0]), temperature=0.1).round(6).tolist()
      [0.0, 0.0, 1.0]
    """
    values, mask = last("one_hot_argmax", "x", x, axis, where)
    result = _hard_one_hot(values, mask) if _check.is_zero(temperature) else None
    if result is None:
        result = _simplex(values, mask, temperature, ExponentialLink())
    return jnp.moveaxis(result, -1, axis).astype(x.dtype)


def _hard_one_hot(values, mask):
    best = jnp.argmax(jnp.where(mask, values, -jnp.inf), -1)
    return jnp.where(mask, jax.nn.one_hot(best, values.shape[-1], dtype=values.dtype), 0)


@jit(static=("axis",), hard_at_zero=("temperature",))
def argmax(
    x: Float[Array, "..."],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "..."] | None = None,
) -> Num[Array, "..."]:
    r"""The smooth index of the largest element: the mean index under the softmax.

    .. math:: \sum_i i\, \mathrm{softmax}(x / \lambda)_i, \qquad
              |\mathrm{error}| \le (n - 1)^2 e^{-\mathrm{gap} / \lambda}

    It means something where the large elements are neighbours: of two equal ones far apart it is the middle.

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jnp.argmax``, as a float.
      axis: the axis to reduce.
      where: valid elements; the others do not count.

    Returns:
      A number in [0, n - 1], in float32 at least (bfloat16 has no 257); 0 where nothing is valid.

    Gradient:
      That of the smooth function; zero at temperature 0.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``axis`` no axis of ``x`` or ``where`` of another
        shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(argmax(jnp.array([1.0, 2.0, 9.0]), temperature=0.1))
      2.0
    """
    values, mask = last("argmax", "x", x, axis, where)
    index = jnp.arange(values.shape[-1], dtype=values.dtype)
    if _check.is_zero(temperature):
        weights = _hard_one_hot(values, mask)
    else:
        weights = _simplex(values, mask, temperature, ExponentialLink())
    return jnp.matmul(weights, index, precision="highest")


@jit(static=("axis",), hard_at_zero=("temperature",))
def sparsemax(
    x: Float[Array, "*shape"],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    r"""The point of the simplex nearest to ``x / temperature``: an argmax with exact zeros.

    .. math:: \arg\max_p \langle p, x \rangle - \tfrac{\lambda}{2} \lVert p \rVert^2
              = \max\big((x - \theta) / \lambda, 0\big)

    with the threshold :math:`\theta` at which it sums to one. It is the one-hot vector, exactly, once the gap between
    the two largest is at least the temperature.

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives the one-hot vector of ``jnp.argmax``.
      axis: the axis that sums to one.
      where: valid elements; the others get 0.

    Returns:
      Probabilities; zeros where nothing is valid.

    Gradient:
      That of the function, which is piecewise linear.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``axis`` no axis of ``x`` or ``where`` of another
        shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> sparsemax(jnp.array([0.5, 1.0, -2.0])).tolist()
      [0.25, 0.75, 0.0]

    Reference:
      Martins, Astudillo, "From Softmax to Sparsemax", 2016. https://arxiv.org/abs/1602.02068
    """
    values, mask = last("sparsemax", "x", x, axis, where)
    if _check.is_zero(temperature):
        result = _hard_one_hot(values, mask)
    else:
        result = _simplex(values, mask, temperature, PowerLink(1.0))
    return jnp.moveaxis(result, -1, axis).astype(x.dtype)


@jit(static=("axis", "alpha"), hard_at_zero=("temperature",))
def entmax(
    x: Float[Array, "*shape"],
    *,
    alpha: float = 1.5,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    r"""An argmax between softmax and sparsemax, regularised by the Tsallis entropy of order alpha.

    .. math:: p_i = \max\big((\alpha - 1)\, x_i / \lambda - \theta, 0\big)^{1 / (\alpha - 1)}

    with the threshold :math:`\theta` at which it sums to one.

    Args:
      x: any numbers.
      alpha: in (1, 2]: near 1 the softmax, at 2 :func:`sparsemax`.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives the one-hot vector of ``jnp.argmax``.
      axis: the axis that sums to one.
      where: valid elements; the others get 0.

    Returns:
      Probabilities; zeros where nothing is valid.

    Gradient:
      That of the function; continuous for alpha below 2.

    Raises:
      ValueError: if ``alpha`` is outside (1, 2], ``temperature`` a negative Python number, ``axis`` no axis of ``x``
        or ``where`` of another shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> entmax(jnp.array([4.0, 4.0, 0.0])).round(6).tolist()
      [0.5, 0.5, 0.0]

    Reference:
      Peters, Niculae, Martins, "Sparse Sequence-to-Sequence Models", 2019, eq. (10). https://arxiv.org/abs/1905.05702
    """
    if not 1 < alpha <= 2:
        raise ValueError(f"entmax: alpha must lie in (1, 2]; got {alpha}")
    values, mask = last("entmax", "x", x, axis, where)
    if _check.is_zero(temperature):
        result = _hard_one_hot(values, mask)
    else:
        result = _simplex((alpha - 1) * values, mask, temperature, PowerLink(1 / (alpha - 1)))
    return jnp.moveaxis(result, -1, axis).astype(x.dtype)
