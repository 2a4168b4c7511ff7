"""Decisions (of one class, of each label, of one bit), hard or at a temperature; and averages over classes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from jaxlab import _check, smooth
from jaxlab._precision import widen

__all__ = ["binary", "macro", "micro", "multiclass", "multilabel", "weighted"]

Decision = Callable[[Any, Any], tuple[Array, Array]]


@dataclass(frozen=True)
class Rule:
    """A decision with a name, which tells states apart, and a check of the targets of a batch that is not traced."""

    decide: Decision
    name: str
    check: Callable[[str, Any, Any, Any], None]

    def __call__(self, prediction: Any, target: Any) -> tuple[Array, Array]:
        return self.decide(prediction, target)


def name_of(decision: Decision) -> str:
    """What a decision is called, in the name of a statistic."""
    return getattr(decision, "name", getattr(decision, "__qualname__", type(decision).__name__))


def check_of(decision: Decision) -> Callable[[str, Any, Any, Any], None] | None:
    """How the targets of a batch are checked, where that is known."""
    return getattr(decision, "check", None)


def check_bits(function: str, predictions: Any, targets: Any, weights: Any) -> None:
    """Raises if a target that is known is no bit."""
    _check.values_within(function, "bits", targets, 0, 1, weights)


def ratio(numerator: Array, denominator: Array, zero_division: float) -> Array:
    """The quotient, and what is said to be 0 / 0; with no NaN in the gradient."""
    some = denominator != 0
    return jnp.where(some, numerator / jnp.where(some, denominator, 1), zero_division)


def multiclass(*, temperature: ScalarLike = 1.0) -> Decision:
    r"""The decision for one of k classes: ``softmax(logits / temperature)``, or the one-hot argmax at the number 0.

    Args:
      temperature: in the unit of the logits; the number 0 decides hard (the first of ties).

    Returns:
      A function of logits [k] and an integer label of 0 ... k - 1 to two vectors [k], decided and true. A traced label
      outside counts as no class (others are refused).

    Gradient:
      That of the softmax.

    Raises:
      ValueError: if ``temperature`` is a negative Python number; when called, if the label is not an integer; when a
        metric is evaluated outside of ``jit``, if a label of some weight is not in 0 ... k - 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> decided, true = multiclass(temperature=0.0)(jnp.array([1.0, 3.0]), jnp.array(0))
      >>> decided.tolist(), true.tolist()
      ([0.0, 1.0], [1.0, 0.0])
    """
    _check.non_negative("multiclass", "temperature", temperature)

    def decide(logits: Float[Array, "k"], label: Array) -> tuple[Array, Array]:
        if jnp.ndim(logits) != 1 or not jnp.issubdtype(jnp.asarray(label).dtype, jnp.integer):
            raise ValueError(
                f"multiclass: an example must have logits [k] and an integer label; got {jnp.shape(logits)}"
                f" and {jnp.asarray(label).dtype}{list(jnp.shape(label))}"
            )
        decided = smooth.one_hot_argmax(widen(logits), temperature=temperature)
        return decided, jax.nn.one_hot(label, logits.shape[0], dtype=decided.dtype)

    def check(function: str, predictions: Any, targets: Any, weights: Any) -> None:
        if jnp.issubdtype(targets.dtype, jnp.integer):  # others are refused when the decision is made
            _check.values_within(function, "labels", targets, 0, predictions.shape[-1] - 1, weights)

    return Rule(decide, "multiclass", check)


def multilabel(*, temperature: ScalarLike = 1.0) -> Decision:
    r"""The decision for each of k labels: ``sigmoid(logits / temperature)``, or ``logits > 0`` at the number 0.

    Args:
      temperature: in the unit of the logits; the number 0 decides hard.

    Returns:
      A function of logits [k] and bits [k] to two vectors [k], decided and true.

    Gradient:
      That of the logistic function.

    Raises:
      ValueError: if ``temperature`` is a negative Python number; when called, if the shapes differ; when a metric is
        evaluated outside of ``jit``, if a bit of some weight is outside 0 ... 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> multilabel(temperature=0.0)(jnp.array([1.0, -3.0]), jnp.array([1, 1]))[0].tolist()
      [1.0, 0.0]
    """
    _check.non_negative("multilabel", "temperature", temperature)

    def decide(logits: Float[Array, "k"], bits: Array) -> tuple[Array, Array]:
        _check.same_shape("multilabel", logits=logits, bits=bits)
        wide = widen(logits)
        if _check.is_zero(temperature):
            return (wide > 0).astype(wide.dtype), bits.astype(wide.dtype)
        return smooth.step(wide, temperature=temperature), bits.astype(wide.dtype)

    return Rule(decide, "multilabel", check_bits)


def binary(*, temperature: ScalarLike = 1.0) -> Decision:
    r"""The decision for one bit: ``sigmoid(logit / temperature)``, or ``logit > 0`` at the number 0.

    Args:
      temperature: in the unit of the logit; the number 0 decides hard.

    Returns:
      A function of a logit and a bit to two vectors [1], decided and true: counts are of the positive class alone.

    Gradient:
      That of the logistic function.

    Raises:
      ValueError: if ``temperature`` is a negative Python number; when a metric is evaluated outside of ``jit``, if a
        bit of some weight is outside 0 ... 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> binary()(jnp.array(0.0), jnp.array(1))[0].tolist()
      [0.5]
    """
    _check.non_negative("binary", "temperature", temperature)
    of_labels = multilabel(temperature=temperature)

    def decide(logit: Float[Array, ""], bit: Array) -> tuple[Array, Array]:
        _check.same_shape("binary", logit=logit, bit=bit)
        return of_labels(jnp.reshape(logit, (1,)), jnp.reshape(bit, (1,)))

    return Rule(decide, "binary", check_bits)


def macro(score: Callable, counts: dict[str, Array]) -> Array:
    r"""The mean over classes of a score of each, :math:`\frac{1}{k} \sum_c s(n_c)`.

    Args:
      score: a function of counts to scores, elementwise.
      counts: for each class, "both", "decided" and "true".

    Returns:
      One number.

    Gradient:
      Exact.

    Examples:
      >>> import jax.numpy as jnp
      >>> counts = {name: jnp.array([1.0, 0.0]) for name in ("both", "decided", "true")}
      >>> float(macro(lambda counts: counts["both"], counts))
      0.5
    """
    return jnp.mean(score(counts))


def micro(score: Callable, counts: dict[str, Array]) -> Array:
    r"""The score of the counts of all classes together, :math:`s(\sum_c n_c)`.

    Args:
      score: a function of counts to scores, elementwise.
      counts: for each class, "both", "decided" and "true".

    Returns:
      One number.

    Gradient:
      Exact.

    Examples:
      >>> import jax.numpy as jnp
      >>> counts = {name: jnp.array([1.0, 2.0]) for name in ("both", "decided", "true")}
      >>> float(micro(lambda counts: counts["both"], counts))
      3.0
    """
    return score({name: jnp.sum(count) for name, count in counts.items()})


def weighted(score: Callable, counts: dict[str, Array]) -> Array:
    r"""The mean over classes of a score of each, weighted by how often each is true.

    .. math:: \sum_c t_c\, s(n_c) / \sum_c t_c

    Args:
      score: a function of counts to scores, elementwise.
      counts: for each class, "both", "decided" and "true".

    Returns:
      One number; 0 if no class is ever true.

    Gradient:
      Exact.

    Examples:
      >>> import jax.numpy as jnp
      >>> counts = {name: jnp.array([1.0, 3.0]) for name in ("both", "decided", "true")}
      >>> float(weighted(lambda counts: counts["both"], counts))
      2.5
    """
    return ratio(jnp.sum(counts["true"] * score(counts)), jnp.sum(counts["true"]), 0.0)
