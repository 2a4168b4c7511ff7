r"""The threshold at which a sum of links reaches a number: the kernel below top-k, quantiles and sparse simplexes.

For each row the root :math:`\theta` of :math:`\sum_i f\big((x_i - \theta) / \lambda\big) = k`. It is held as
:math:`\theta = a + \lambda \delta` with an element of the row as the anchor a: where the temperature is far below the
spacing of floating-point numbers, a sum of the two would have lost :math:`\delta`.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, ScalarLike

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab.smooth._common import in_unit, last, over

__all__ = ["ExponentialLink", "Link", "LogisticLink", "PowerLink", "threshold"]


@dataclass(frozen=True)
class Link:
    """An increasing function f with f(-inf) = 0, and the logarithm of its derivative."""

    def value(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        raise NotImplementedError

    def log_slope(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        raise NotImplementedError


@dataclass(frozen=True)
class LogisticLink(Link):
    """The logistic function: top-k masks, quantiles."""

    def value(self, z):
        return jax.nn.sigmoid(z)

    def log_slope(self, z):
        return -jax.nn.softplus(z) - jax.nn.softplus(-z)


@dataclass(frozen=True)
class ExponentialLink(Link):
    """The exponential function: the softmax."""

    def value(self, z):
        return jnp.exp(z)

    def log_slope(self, z):
        return z


@dataclass(frozen=True)
class PowerLink(Link):
    """A power of the positive part: the sparsemax (power 1), the 1.5-entmax (power 2)."""

    power: float = 1.0

    def value(self, z):
        positive = z > 0
        return jnp.where(positive, jnp.where(positive, z, 1) ** self.power, 0)

    def log_slope(self, z):
        positive = z > 0
        slope = self.power * jnp.where(positive, z, 1) ** (self.power - 1)
        return jnp.where(positive, jnp.log(slope), -jnp.inf)


@jax.custom_vjp
def _never_differentiated(x):
    """The identity, a derivative through which raises.

    JAX differentiates the body of a function with a rule of its own, and not the rule, in the second derivative of a
    scan in reverse mode; the body here is a search, whose derivative would be a silent zero.
    """
    return x


def _forbid(*_):
    raise TypeError("threshold: its second derivative through the reverse mode of a scan is not defined")


_never_differentiated.defvjp(_forbid, _forbid)


def _bisect(too_low, low, high):
    """The end of a bisection: ``too_low(middle)`` says whether the root lies above."""
    # Each step gains a bit; a float of the type has no more than these.
    num_steps = jnp.finfo(low.dtype).nmant + 8

    def halve(_, bracket):
        low, high = bracket
        middle = low + (high - low) / 2
        above = too_low(middle)
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    low, high = lax.fori_loop(0, num_steps, halve, (low, high))
    return low, high


def _logistic_sum_is_large(u, k, weights, offset):
    """Whether the weighted sum of ``sigmoid(u - offset)`` exceeds k, with the sum of what is above kept apart.

    (Of weights of 1 that sum is a whole number: exact.)
    """
    z = u - offset[..., None]
    above = z > 0
    tail = weights * jax.nn.sigmoid(-jnp.abs(z))
    signed = jnp.sum(jnp.where(above, -tail, tail), -1)
    return (jnp.sum(jnp.where(above, weights, 0), -1) - k) + signed > 0


def _logistic_root(u, k, weights, low, high):
    """The offset at which the weighted logistic sum is k, in a bracket."""
    mask = weights > 0
    low, high = _bisect(lambda middle: _logistic_sum_is_large(u, k, weights, middle), low, high)
    offset = low + (high - low) / 2
    # Between two elements, with exactly k above, both tails may underflow and the bisection has seen no difference:
    # there the root is where their logarithms are equal. Their ratio is so nearly exponential that Newton needs few.
    above = mask & (u > offset[..., None])
    floor = jnp.max(u, -1, where=mask & ~above, initial=-jnp.inf)
    ceiling = jnp.min(u, -1, where=above, initial=jnp.inf)
    between = (jnp.sum(jnp.where(above, weights, 0), -1) == k) & jnp.isfinite(floor) & jnp.isfinite(ceiling)
    log_weights = jnp.log(jnp.where(mask, weights, 1))
    floor, ceiling = jnp.where(between, floor, 0), jnp.where(between, ceiling, 0)

    def log_tail(distance, members):
        log_values = jnp.where(members, log_weights - jax.nn.softplus(distance), -jnp.inf)
        top = jnp.max(log_values, -1, keepdims=True, initial=jnp.finfo(u.dtype).min)
        shares = jnp.where(members, jnp.exp(log_values - top), 0)
        total = jnp.maximum(shares.sum(-1), jnp.finfo(u.dtype).tiny)
        slope = jnp.sum(shares * jax.nn.sigmoid(distance), -1) / total
        return top[..., 0] + jnp.log(total), slope

    def newton(_, offset):
        below_log, below_slope = log_tail(offset[..., None] - u, mask & ~above)
        above_log, above_slope = log_tail(u - offset[..., None], above)
        moved = offset + (below_log - above_log) / jnp.maximum(below_slope + above_slope, 0.5)
        return jnp.clip(moved, floor, ceiling)

    refined = lax.fori_loop(0, 4, newton, jnp.where(between, offset, 0))
    return jnp.where(between, refined, offset)


def _power_root(u, k, mask, link):
    """The offset at which the sum of powers is k; the largest element of ``u`` is 0."""
    size = jnp.maximum(mask.sum(-1), 1).astype(u.dtype)
    low, high = -(k ** (1 / link.power)), -((k / size) ** (1 / link.power))

    def total(offset):
        return jnp.sum(link.value(u - offset[..., None]), -1, where=mask)

    low, high = _bisect(lambda middle: total(middle) > k, low, high)

    def newton(_, offset):
        slope = jnp.sum(jnp.exp(link.log_slope(u - offset[..., None])), -1, where=mask)
        return offset + (total(offset) - k) / jnp.maximum(slope, jnp.finfo(u.dtype).tiny)

    # From below the root of a convex function Newton's steps do not overshoot: exact for the sparsemax after one.
    return lax.fori_loop(0, 2, newton, low)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def _root(u, k, weights, bracket, link):
    """The offset at which the weighted ``sum f(u - offset)`` is k, along the last axis.

    The weights of other links than the logistic are 0 and 1.
    """
    mask = weights > 0
    if isinstance(link, ExponentialLink):
        total = jnp.sum(jnp.exp(u), -1, where=mask)
        return jnp.log(jnp.where(total > 0, total, 1)) - jnp.log(k)
    u = _never_differentiated(u)
    if isinstance(link, PowerLink):
        return _power_root(u, k, mask, link)
    return _logistic_root(u, k, _never_differentiated(weights), *bracket)


@_root.defjvp
def _root_jvp(link, primals, tangents):
    u, k, weights, bracket = primals
    u_dot, k_dot, weights_dot, _ = tangents
    offset = _root(u, k, weights, bracket, link)
    mask = weights > 0
    z = jnp.where(mask, u - offset[..., None], 0)
    log_slope = jnp.where(mask, link.log_slope(z) + jnp.log(jnp.where(mask, weights, 1)), -jnp.inf)
    # In logarithms: the slopes themselves may all underflow, their shares cannot.
    top = lax.stop_gradient(jnp.max(log_slope, -1, initial=jnp.finfo(u.dtype).min))
    relative = jnp.where(log_slope > -jnp.inf, log_slope - top[..., None], 0)
    shares = jnp.where(log_slope > -jnp.inf, jnp.exp(relative), 0)
    total = shares.sum(-1)
    total = jnp.where(total > 0, total, 1)
    # Bounded, so that it stays finite where no slope is left: there the threshold may jump as k changes.
    per_count = jnp.exp(jnp.minimum(-top, 0.4 * jnp.log(jnp.finfo(u.dtype).max))) / total
    moved = jnp.sum(weights_dot * link.value(z), -1, where=mask) - k_dot
    return offset, jnp.sum(shares * u_dot, -1) / total + per_count * moved


def threshold_parts(
    x: Float[Array, "... n"],
    k: Float[Array, "..."],
    mask: Bool[Array, "... n"],
    temperature: ScalarLike,
    link: Link,
    weights: Float[Array, "... n"] | None = None,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Anchor and offset of the threshold along the last axis: it is ``anchor + temperature * offset``.

    With the logistic link the sum may be weighted (``mask`` is then where the weights are positive).
    """
    fixed = lax.stop_gradient(x)
    dtype = x.dtype
    share = mask.astype(dtype) if weights is None else weights
    top = jnp.max(fixed, -1, where=mask, initial=-jnp.inf)
    top = jnp.where(mask.any(-1), top, 0)
    zero = jnp.zeros_like(top)
    if not isinstance(link, LogisticLink):
        u = jnp.where(mask, over(jnp.where(mask, x - top[..., None], 0), temperature), 0)
        return top, _root(u, k, share, (zero, zero), link)
    size = share.sum(-1)
    margin = 16 * jnp.finfo(dtype).eps * jnp.where(mask.any(-1), size, 1)
    k = jnp.clip(k, margin, jnp.maximum(size - margin, margin))
    bottom = jnp.where(mask.any(-1), jnp.min(fixed, -1, where=mask, initial=jnp.inf), 0)
    middle = bottom + (top - bottom) / 2
    # Where one element alone would have to be: the ends of the bracket.
    part = lax.stop_gradient(
        jnp.clip(k / jnp.where(mask.any(-1), size, 1), jnp.finfo(dtype).eps, 1 - jnp.finfo(dtype).eps)
    )
    reach = jnp.abs(jnp.log(part) - jnp.log1p(-part)) + 1
    at = lax.stop_gradient(jnp.asarray(temperature, dtype))
    u = jnp.where(mask, over(jnp.where(mask, fixed - middle[..., None], 0), at), 0)
    low, high = over(bottom - middle, at) - reach, over(top - middle, at) + reach
    low, high = _bisect(functools.partial(_logistic_sum_is_large, u, *lax.stop_gradient((k, share))), low, high)
    # The element nearest to the root becomes the anchor, and the root is looked for again from there.
    distance = jnp.where(mask, jnp.abs(u - ((low + high) / 2)[..., None]), jnp.inf)
    nearest = jnp.argmin(distance, -1, keepdims=True)
    anchor = jnp.take_along_axis(fixed, nearest, -1)[..., 0]
    anchor = jnp.where(mask.any(-1), anchor, 0)
    shift = jnp.take_along_axis(u, nearest, -1)[..., 0]
    spacing = 4 * jnp.finfo(dtype).eps * (jnp.abs(shift) + over(jnp.abs(anchor), at))
    u = jnp.where(mask, over(jnp.where(mask, x - anchor[..., None], 0), temperature), 0)
    bracket = low - shift - spacing - reach, high - shift + spacing + reach
    return anchor, _root(u, k, share, bracket, link)


def check_count(name: str, x: Any, k: Any, axis: int, *, minimum: int = 0) -> None:
    """Raises if the axis is none, or k a Python number outside ``minimum`` ... n."""
    _check.axis_of(name, "x", x, axis)
    _check.within(name, "k", k, minimum, x.shape[axis])


def hard_threshold(x: Float[Array, "... n"], k: Float[Array, "..."], mask: Bool[Array, "... n"]) -> Float[Array, "..."]:
    """Between the k-th and the next largest along the last axis if k is whole, else the one that k falls on."""
    size = mask.sum(-1)
    descending = jnp.sort(jnp.where(mask, x, -jnp.inf), -1, descending=True)
    first = jnp.clip(jnp.ceil(k).astype(jnp.int32) - 1, 0, jnp.maximum(size - 1, 0).astype(jnp.int32))
    second = jnp.clip(jnp.floor(k).astype(jnp.int32), 0, jnp.maximum(size - 1, 0).astype(jnp.int32))
    one, other = (jnp.take_along_axis(descending, at[..., None], -1)[..., 0] for at in (first, second))
    some = size > 0
    one, other = jnp.where(some, one, 0), jnp.where(some, other, 0)
    return 0.5 * one + 0.5 * other


@jit(
    static=("axis", "link"),
    hard_at_zero=("temperature",),
    check=lambda x, k, *, axis=-1, **_: check_count("threshold", x, k, axis),
)
def threshold(
    x: Float[Array, "..."],
    k: ScalarLike,
    *,
    temperature: ScalarLike = 1.0,
    link: Link = LogisticLink(),
    axis: int = -1,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    r"""The threshold that about k elements exceed: the root of a sum of smooth steps.

    .. math:: \theta: \quad \sum_i f\big((x_i - \theta) / \lambda\big) = k

    With the logistic link the limit of temperature 0 lies midway between the k-th and the next largest element for a
    whole k, and on an element otherwise. The error is at most :math:`\lambda \log n` for 1 <= k <= n - 1.

    Args:
      x: any finite numbers.
      k: how much the links sum to, between 0 and n (held off both by a relative 2e-6); it may be traced.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives the limit of the logistic link.
      link: f: :class:`LogisticLink`, :class:`ExponentialLink` (its threshold is the log-sum-exp, less
        :math:`\lambda \log k`) or :class:`PowerLink`.
      axis: the axis to reduce.
      where: valid elements; the others do not count.

    Returns:
      The threshold, in float32 at least; 0 where nothing is valid.

    Gradient:
      The implicit one, to every order: the mean of the elements' tangents, weighted by the slopes of their links.

    Raises:
      ValueError: if k is a Python number outside 0 ... n, ``temperature`` negative, ``axis`` no axis of ``x`` or
        ``where`` of another shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(threshold(jnp.array([1.0, 2.0, 4.0, 8.0]), 2, temperature=0.01))
      3.0

    Reference:
      Blondel et al., "Learning with Fenchel-Young Losses", 2020, section 6 (thresholds by root finding).
      https://arxiv.org/abs/1901.02324
    """
    values, mask = last("threshold", "x", x, axis, where)
    counts = jnp.broadcast_to(jnp.asarray(k, values.dtype), values.shape[:-1])
    if _check.is_zero(temperature):
        return hard_threshold(values, counts, mask)
    anchor, offset = threshold_parts(values, counts, mask, temperature, link)
    return jnp.where(mask.any(-1), anchor + in_unit(offset, temperature), 0)
