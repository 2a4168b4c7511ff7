"""What a threshold gives: the mask of the k largest, quantiles, the median, a trimmed mean; and two other top-k."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, ScalarLike

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._sorting import argsort
from jaxlab.smooth._common import in_unit, last, over
from jaxlab.smooth.kernel import LogisticLink, check_count, hard_threshold, threshold_parts

__all__ = ["grad_top_k", "iterative_top_k", "median", "quantile", "top_k_mask", "trimmed_mean"]


def _check_whole(name: str):
    def check(x, *, k, axis=-1, **_):
        check_count(name, x, k, axis)
        _check.at_least(name, "k", k, 1)

    return check


def _hard_mask(x, k, mask):
    """One for the k largest along the last axis, the first of ties first."""
    order = argsort(jnp.where(mask, x, -jnp.inf), descending=True)
    rank = jnp.argsort(order, -1)
    return jnp.where(mask & (rank.astype(k.dtype) < k[..., None]), 1, 0).astype(x.dtype)


def soft_mask(x, k, mask, temperature, weights=None):
    """Along the last axis the logistic function of what is above the threshold, of a (weighted) sum of k."""
    anchor, offset = threshold_parts(x, k, mask, temperature, LogisticLink(), weights)
    z = over(jnp.where(mask, x - anchor[..., None], 0), temperature) - offset[..., None]
    full = k >= (mask.astype(k.dtype) if weights is None else weights).sum(-1)
    return jnp.where(mask, jnp.where(full[..., None], 1, jax.nn.sigmoid(z)), 0)


@jit(
    static=("axis",),
    hard_at_zero=("temperature",),
    check=lambda x, k, *, axis=-1, **_: check_count("top_k_mask", x, k, axis, minimum=1),
)
def top_k_mask(
    x: Float[Array, "*shape"],
    k: ScalarLike,
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    r"""The smooth indicator of the k largest elements: numbers of [0, 1] that sum to k.

    .. math:: \sigma\big((x_i - \theta) / \lambda\big), \qquad \sum_i = k

    with :math:`\theta` of :func:`threshold`. With the gap g between the k-th and the next, the error of each is at most
    :math:`n\, e^{-g / 2\lambda}`; elements tied at the threshold share equally what is left.

    Args:
      x: any finite numbers.
      k: how many, in 1 ... n; it may be traced (then down to 0), and need not be whole.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives the mask of ``jax.lax.top_k``.
      axis: the axis that sums to k.
      where: valid elements; the others get 0. With no more than k of them, each gets 1.

    Returns:
      Numbers in [0, 1], in the dtype of ``x``.

    Gradient:
      The implicit one, to every order; zero at temperature 0.

    Raises:
      ValueError: if k is a Python number outside 1 ... n, ``temperature`` negative, ``axis`` no axis of ``x`` or
        ``where`` of another shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> top_k_mask(jnp.array([3.0, 1.0, 2.0, 0.0]), 2, temperature=0.01).round(6).tolist()
      [1.0, 0.0, 1.0, 0.0]

    Reference:
      Su, "Searching for smooth approximations of the top-k operator" (in Chinese), 2024 (ThreTopK).
      https://kexue.fm/archives/10373
    """
    values, mask = last("top_k_mask", "x", x, axis, where)
    counts = jnp.broadcast_to(jnp.asarray(k, values.dtype), values.shape[:-1])
    if _check.is_zero(temperature):
        result = _hard_mask(values, counts, mask)
    else:
        result = soft_mask(values, counts, mask, temperature)
    return jnp.moveaxis(result, -1, axis).astype(x.dtype)


@jit(
    static=("axis",),
    hard_at_zero=("temperature",),
    check=lambda x, q, **_: _check.within("quantile", "q", q, 0, 1),
)
def quantile(
    x: Float[Array, "..."],
    q: ScalarLike,
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""The smooth quantile: the :func:`threshold` that a share 1 - q of the elements exceeds.

    .. math:: \theta: \quad \sum_i \sigma\big((x_i - \theta) / \lambda\big) = (1 - q)\, n

    Its limit is ``numpy.quantile(x, q, method="averaged_inverted_cdf")``: an element, or the middle of two where q n is
    whole. The error is at most :math:`\lambda \log n` for 1/n <= q <= 1 - 1/n.

    Args:
      x: any finite numbers.
      q: the share below, in [0, 1]; it may be traced.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives the limit.
      axis: the axis to reduce.
      where: valid elements; the others do not count.

    Returns:
      The quantile, in the dtype of ``x``; 0 where nothing is valid.

    Gradient:
      The implicit one, to every order.

    Raises:
      ValueError: if q is a Python number outside [0, 1], ``temperature`` negative, ``axis`` no axis of ``x`` or
        ``where`` of another shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(quantile(jnp.array([1.0, 2.0, 4.0, 8.0]), 0.25, temperature=0.0))
      1.5
    """
    values, mask = last("quantile", "x", x, axis, where)
    size = mask.sum(-1).astype(values.dtype)
    counts = (1 - jnp.asarray(q, values.dtype)) * size
    # A q like 0.9 is not a float: what would be whole but for that counts as whole.
    whole = lax.stop_gradient(jnp.round(counts))
    counts = jnp.where(
        jnp.abs(counts - whole) <= 4 * jnp.finfo(values.dtype).eps * size,
        counts - (lax.stop_gradient(counts) - whole),
        counts,
    )
    if _check.is_zero(temperature):
        return hard_threshold(values, counts, mask).astype(x.dtype)
    anchor, offset = threshold_parts(values, counts, mask, temperature, LogisticLink())
    return jnp.where(mask.any(-1), anchor + in_unit(offset, temperature), 0).astype(x.dtype)


@jit(static=("axis",), hard_at_zero=("temperature",))
def median(
    x: Float[Array, "..."],
    *,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""The smooth median, the :func:`quantile` 1/2.

    .. math:: \theta: \quad \sum_i \tanh\big((x_i - \theta) / 2\lambda\big) = 0, \qquad
              |\mathrm{error}| \le \lambda \log n

    Args:
      x: any finite numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jnp.median``; infinity the mean.
      axis: the axis to reduce.
      where: valid elements; the others do not count.

    Returns:
      The median, in the dtype of ``x``; 0 where nothing is valid.

    Gradient:
      The implicit one, to every order.

    Raises:
      ValueError: if ``temperature`` is a negative Python number, ``axis`` no axis of ``x`` or ``where`` of another
        shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(median(jnp.array([1.0, 2.0, 9.0, 4.0]), temperature=1e-6))
      3.0
    """
    return quantile(x, 0.5, temperature=temperature, axis=axis, where=where)


@jit(
    static=("axis",),
    hard_at_zero=("temperature",),
    check=lambda x, *, proportion=0.25, **_: _check.within("trimmed_mean", "proportion", proportion, 0, 0.49),
)
def trimmed_mean(
    x: Float[Array, "..."],
    *,
    proportion: ScalarLike = 0.25,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""The mean of what is left when a share of the smallest and of the largest elements is left out.

    .. math:: \frac{1}{n - 2 g} \sum_i (m^{n - g}_i - m^{g}_i)\, x_i, \qquad g = \lfloor n\,
              \mathrm{proportion} \rfloor, \qquad |\mathrm{error}| \le \lambda\, \frac{n \log 2}{n - 2 g}

    with :math:`m^k` the :func:`top_k_mask` (the soft sum of the k largest is their sum less at most the temperature
    times the entropy of n bits).

    Args:
      x: any finite numbers.
      proportion: the share left out at each end, in [0, 0.49].
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``scipy.stats.trim_mean``.
      axis: the axis to reduce.
      where: valid elements; the others do not count.

    Returns:
      The trimmed mean, in the dtype of ``x``; 0 where nothing is valid.

    Gradient:
      The implicit one of the masks and that of the mean; none for ``proportion``.

    Raises:
      ValueError: if ``proportion`` is a Python number outside [0, 0.49], ``temperature`` negative, ``axis`` no axis of
        ``x`` or ``where`` of another shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(trimmed_mean(jnp.array([1.0, 2.0, 4.0, 99.0]), temperature=0.0))
      3.0
    """
    values, mask = last("trimmed_mean", "x", x, axis, where)
    size = mask.sum(-1).astype(values.dtype)
    out = jnp.floor(lax.stop_gradient(jnp.asarray(proportion, values.dtype)) * size)
    if _check.is_zero(temperature):
        kept = _hard_mask(values, size - out, mask) - _hard_mask(values, out, mask)
    else:
        kept = soft_mask(values, size - out, mask, temperature)
        kept = kept - jnp.where((out > 0)[..., None], soft_mask(values, out, mask, temperature), 0)
    return (jnp.sum(kept * values, -1) / jnp.maximum(size - 2 * out, 1)).astype(x.dtype)


@jit(static=("k", "axis"), hard_at_zero=("temperature",), check=_check_whole("grad_top_k"))
def grad_top_k(
    x: Float[Array, "*shape"],
    *,
    k: int,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    r"""The chance of each element to be in a random subset of k, drawn in proportion to the product of its weights.

    .. math:: p = \lambda\, \nabla_x \log e_k(e^{x / \lambda}), \qquad
              e_k(w) = \sum_{|S| = k} \prod_{i \in S} w_i

    The gradient of the elementary symmetric polynomial, which is gathered in a scan over the elements in logarithms:
    no subtraction, O(n k). For k = 1 it is the softmax. :func:`top_k_mask` is much faster, and differs.

    Args:
      x: any finite numbers.
      k: how many, in 1 ... n.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives the mask of ``jax.lax.top_k``.
      axis: the axis that sums to k.
      where: valid elements; the others get 0. With no more than k of them, each gets 1.

    Returns:
      Numbers in [0, 1] that sum to k, in the dtype of ``x``.

    Gradient:
      That of the smooth function, a covariance of indicators; zero at temperature 0.

    Raises:
      ValueError: if k is outside 1 ... n, ``temperature`` negative, ``axis`` no axis of ``x`` or ``where`` of another
        shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> grad_top_k(jnp.zeros(4), k=2).round(6).tolist()
      [0.5, 0.5, 0.5, 0.5]

    Reference:
      Su, "Searching for smooth approximations of the top-k operator" (in Chinese), 2024 (GradTopK).
      https://kexue.fm/archives/10373
    """
    values, mask = last("grad_top_k", "x", x, axis, where)
    if _check.is_zero(temperature):
        result = _hard_mask(values, jnp.full(values.shape[:-1], k, values.dtype), mask)
        return jnp.moveaxis(result, -1, axis).astype(x.dtype)
    top = lax.stop_gradient(jnp.max(values, -1, keepdims=True, where=mask, initial=jnp.finfo(values.dtype).min))
    logits = jnp.where(mask, over(jnp.where(mask, values - top, 0), temperature), 0)
    never = jnp.asarray(-1e30 if values.dtype == jnp.float32 else -1e300, values.dtype)  # finite: it is differentiated

    def log_polynomial(logits):
        def add(log_sums, element):
            logit, valid = element
            longer = jnp.maximum(
                jnp.concatenate([jnp.full_like(log_sums[:1], never), log_sums[:-1]]) + logit[None], never
            )
            return jnp.where(valid[None], jnp.logaddexp(log_sums, longer), log_sums), None

        start = jnp.full((k + 1, *logits.shape[:-1]), never).at[0].set(0)
        log_sums, _ = lax.scan(add, start, (jnp.moveaxis(logits, -1, 0), jnp.moveaxis(mask, -1, 0)))
        return jnp.sum(log_sums[k])

    few = mask.sum(-1, keepdims=True) <= k
    result = jnp.where(mask, jnp.where(few, 1, jax.grad(log_polynomial)(logits)), 0)
    return jnp.moveaxis(result, -1, axis).astype(x.dtype)


@jit(static=("k", "axis"), hard_at_zero=("temperature",), check=_check_whole("iterative_top_k"))
def iterative_top_k(
    x: Float[Array, "*shape"],
    *,
    k: int,
    temperature: ScalarLike = 1.0,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    r"""Su's iterative k-max: k softmaxes, each of which turns away from what was taken already. For comparison.

    .. math:: x \leftarrow x - \min x, \qquad
              p \leftarrow p + \mathrm{softmax}\big((1 - p)\, x / \lambda\big), \qquad k \text{ times}

    It fails where :func:`top_k_mask` does not: entries may exceed 1, a larger element may get less than a smaller one,
    and the smallest elements are taken before an element is taken twice only if x is spread out (for two ties and
    k = 2 at a temperature far above x both get about 1; for x = (1, 0) at k = 2 and a low temperature the first step
    takes the first element, and the second divides itself equally: 1.5 and 0.5).

    Args:
      x: any finite numbers.
      k: how many steps, in 1 ... n.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives the mask of ``jax.lax.top_k``.
      axis: the axis that sums to k.
      where: valid elements; the others get 0.

    Returns:
      Numbers of at least 0 that sum to k, in the dtype of ``x``; they may exceed 1. Zeros where nothing is valid.

    Gradient:
      That of the iteration; zero at temperature 0.

    Raises:
      ValueError: if k is outside 1 ... n, ``temperature`` negative, ``axis`` no axis of ``x`` or ``where`` of another
        shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> iterative_top_k(jnp.array([1.0, 0.0]), k=2, temperature=0.01).tolist()
      [1.5, 0.5]

    Reference:
      Su, "Function smoothing: differentiable approximations of non-differentiable functions" (in Chinese), 2019.
      https://kexue.fm/archives/6620
    """
    values, mask = last("iterative_top_k", "x", x, axis, where)
    if _check.is_zero(temperature):
        result = _hard_mask(values, jnp.full(values.shape[:-1], k, values.dtype), mask)
        return jnp.moveaxis(result, -1, axis).astype(x.dtype)
    lowest = jnp.min(values, -1, keepdims=True, where=mask, initial=jnp.finfo(values.dtype).max)
    raised = over(jnp.where(mask, values - jnp.where(mask.any(-1, keepdims=True), lowest, 0), 0), temperature)

    def take(taken, _):
        return taken + jax.nn.softmax((1 - taken) * raised, -1, where=mask), None

    taken, _ = lax.scan(take, jnp.zeros_like(values), length=k)
    return jnp.moveaxis(taken, -1, axis).astype(x.dtype)
