"""Metrics of numbers and vectors: explained variance, quantile losses, similarities."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from jaxlab import _check, smooth
from jaxlab._precision import widen
from jaxlab.metrics.classification import soft_bins
from jaxlab.metrics.decisions import ratio
from jaxlab.metrics.metric import Metric, Outer
from jaxlab.moments.statistics import safe_sqrt

__all__ = ["cosine", "linear_cka", "mutual_information", "pinball", "r_squared"]


def r_squared(*, center: float = 0.0, zero_division: float = 0.0) -> Metric:
    r"""The coefficient of determination, the share of the targets' variance that the predictions explain.

    .. math:: 1 - \frac{\overline{(y - \hat y)^2}}{\overline{(y - c)^2} - (\overline{y - c})^2}

    Args:
      center: c, a number near the targets' mean: it cancels in the formula, and saves the bits of targets far from 0.
      zero_division: the value where the targets do not vary.

    Returns:
      A :class:`Metric` of at most 1, of two numbers; it is ``sklearn.metrics.r2_score``.

    Gradient:
      Exact; biased on a minibatch.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> float(metrics.evaluate(r_squared(), jnp.array([1.0, 2.0]), jnp.array([1.0, 3.0])))
      0.5
    """

    def stat(prediction: Float[Array, ""], target: Float[Array, ""]) -> dict[str, Array]:
        _check.same_shape("r_squared", prediction=prediction, target=target)
        prediction, target = widen(prediction), widen(target)
        shifted = target - center
        return {"error": (target - prediction) ** 2, "square": shifted**2, "mean": shifted}

    def final(means: dict[str, Array]) -> Array:
        variance = means["square"] - means["mean"] ** 2
        varies = variance > 0
        return jnp.where(varies, 1 - means["error"] / jnp.where(varies, variance, 1), zero_division)

    return Metric(stat, final, counts=False, statistic=f"squares about {center:g}")


def pinball(*, q: ScalarLike = 0.5, temperature: ScalarLike = 0.0) -> Metric:
    r"""The quantile loss, least where the predictions are the targets' quantile q.

    .. math:: q\, \mathrm{relu}_\lambda(y - \hat y) + (1 - q)\, \mathrm{relu}_\lambda(\hat y - y)

    Args:
      q: in [0, 1].
      temperature: :math:`\lambda`, in the unit of the targets; the number 0 gives
        ``sklearn.metrics.mean_pinball_loss``.

    Returns:
      A :class:`Metric` of at least 0 of two numbers, where less is better.

    Gradient:
      That of the smooth rectifiers; unbiased on a minibatch.

    Raises:
      ValueError: if q is a Python number outside [0, 1], or ``temperature`` negative.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> float(metrics.evaluate(pinball(q=0.75), jnp.array([1.0, 1.0]), jnp.array([3.0, 0.0])))
      0.875

    Reference:
      Koenker, Bassett, "Regression Quantiles", 1978.
    """
    _check.within("pinball", "q", q, 0, 1)
    _check.non_negative("pinball", "temperature", temperature)

    def stat(prediction: Float[Array, ""], target: Float[Array, ""]) -> Array:
        _check.same_shape("pinball", prediction=prediction, target=target)
        difference = widen(target) - widen(prediction)
        share = jnp.asarray(q, difference.dtype)
        above, below = (smooth.relu(side * difference, temperature=temperature) for side in (1, -1))
        return share * above + (1 - share) * below

    return Metric(stat, lambda mean: mean, increasing=False, counts=False, statistic="quantile losses")


def cosine() -> Metric:
    r"""The mean cosine of the angle between two vectors.

    .. math:: \langle x, y \rangle / \lVert x \rVert \lVert y \rVert

    Returns:
      A :class:`Metric` in [-1, 1], of two vectors; 0 for a zero vector.

    Gradient:
      Exact; unbiased on a minibatch.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> f"{float(metrics.evaluate(cosine(), jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 1.0]]))):.4f}"
      '0.7071'
    """

    def stat(x: Float[Array, "d"], y: Float[Array, "d"]) -> Array:
        _check.same_shape("cosine", prediction=x, target=y)
        x, y = widen(x), widen(y)
        return ratio(jnp.sum(x * y), safe_sqrt(jnp.sum(x**2)) * safe_sqrt(jnp.sum(y**2)), 0.0)

    return Metric(stat, lambda mean: mean, statistic="cosines")


def linear_cka() -> Metric:
    r"""The linear centred kernel alignment of two representations, gathered in any batches.

    .. math:: \frac{\lVert \Sigma_{xy} \rVert^2}{\lVert \Sigma_{xx} \rVert\, \lVert \Sigma_{yy} \rVert}

    It is biased: near 1 for independent representations of more dimensions than examples. For the unbiased parts, which
    need all pairs at once, see :func:`jaxlab.moments.centered_kernel_alignment`.

    Returns:
      A :class:`Metric` in [0, 1], of two vectors of an example; 0 where one does not vary.

    Gradient:
      Exact; biased on a minibatch.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> x = jnp.arange(10.0).reshape(5, 2) ** 2
      >>> f"{float(metrics.evaluate(linear_cka(), x, 3 * x)):.3f}"
      '1.000'

    Reference:
      Kornblith et al., "Similarity of Neural Network Representations Revisited", 2019, eq. (3).
      https://arxiv.org/abs/1905.00414
    """

    def stat(x: Float[Array, "d"], y: Float[Array, "h"]) -> dict[str, Any]:
        x, y = widen(x), widen(y)
        return {"x": x, "y": y, "xy": Outer(x, y), "xx": Outer(x, x), "yy": Outer(y, y)}

    def final(means: dict[str, Array]) -> Array:
        def square(left: str, right: str) -> Array:
            return jnp.sum((means[left + right] - jnp.outer(means[left], means[right])) ** 2)

        return ratio(square("x", "y"), safe_sqrt(square("x", "x")) * safe_sqrt(square("y", "y")), 0.0)

    return Metric(stat, final, counts=False, statistic="products of two vectors")


def mutual_information(*, num_bins: int = 16, temperature: ScalarLike = 0.02) -> Metric:
    r"""The mutual information, in nats, of two numbers of [0, 1], from their joint soft histogram.

    .. math:: \sum_{ab} p_{ab} \log \frac{p_{ab}}{p_a\, p_b}

    Biased upwards, by about :math:`(B - 1)^2 / 2n` nats for B bins and independent numbers: :func:`delta_metric`.

    Args:
      num_bins: of equal width in [0, 1], for each number.
      temperature: of the edges of the bins; the number 0 bins hard.

    Returns:
      A :class:`Metric` of at least 0.

    Gradient:
      That of the soft histogram; biased on a minibatch.

    Raises:
      ValueError: if ``num_bins`` is below 1 or ``temperature`` negative.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> x = jnp.array([0.25, 0.75])
      >>> f"{float(metrics.evaluate(mutual_information(num_bins=2, temperature=0.0), x, x)):.4f}"
      '0.6931'

    Reference:
      Viola, Wells, "Alignment by Maximization of Mutual Information", 1997.
    """
    _check.at_least("mutual_information", "num_bins", num_bins, 1)
    _check.non_negative("mutual_information", "temperature", temperature)

    def stat(x: Float[Array, ""], y: Float[Array, ""]) -> Outer:
        rows, columns = (soft_bins(widen(z), num_bins, temperature) for z in (x, y))
        return Outer(rows, columns)

    def final(joint: Array) -> Array:
        both = jnp.outer(joint.sum(1), joint.sum(0))
        some = (joint > 0) & (both > 0)
        return jnp.sum(jnp.where(some, joint * jnp.log(jnp.where(some, joint, 1) / jnp.where(some, both, 1)), 0))

    def check(function: str, predictions: Any, targets: Any, weights: Any) -> None:
        _check.values_within(function, "predictions", predictions, 0, 1, weights)
        _check.values_within(function, "targets", targets, 0, 1, weights)

    return Metric(stat, final, statistic=f"joint histogram of {num_bins} bins", check=check)
