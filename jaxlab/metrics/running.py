"""A state that forgets: the metric of the recent past, for a training step."""

import jax
import jax.numpy as jnp
from jaxtyping import ScalarLike

from jaxlab import _check
from jaxlab.metrics.metric import State, Sum, check_statistic

__all__ = ["decay_state"]


def decay_state(state: State, batch: State, *, decay: ScalarLike = 0.99) -> State:
    r"""The running state of a metric after one more batch: all sums decay alike, so that their ratios are means.

    .. math:: S \leftarrow d\, S + (1 - d)\, S_{\text{batch}}

    Take the loss around the state first (:func:`linearize`), and decay it then: a state that holds the batch that is
    measured around it brings the bias back.

    Args:
      state: the running state; at first that of some batch, as large as the others.
      batch: the state of the batch.
      decay: d, in [0, 1).

    Returns:
      The new state, a pytree of the same structure, shapes and dtypes as a state of counts: fit for ``jax.lax.scan``.

    Gradient:
      Exact.

    Raises:
      ValueError: if ``decay`` is a Python number outside [0, 1), or the states are of different statistics.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> accuracy = metrics.accuracy(metrics.binary(temperature=0.0))
      >>> good = metrics.state_of(accuracy, jnp.array([1.0]), jnp.array([1]))
      >>> bad = metrics.state_of(accuracy, jnp.array([1.0]), jnp.array([0]))
      >>> float(metrics.value_of(accuracy, decay_state(good, bad, decay=0.75)))
      0.75
    """
    _check.fraction("decay_state", "decay", decay)
    check_statistic("decay_state", batch, state.statistic)

    def mix(old: Sum, new: Sum) -> Sum:
        one, other = (sum.whole.astype(sum.rest.dtype) + sum.rest for sum in (old, new))
        share = jnp.asarray(decay, one.dtype)
        return Sum(jnp.zeros_like(old.whole), share * one + (1 - share) * other)

    return jax.tree.map(mix, state, batch, is_leaf=lambda node: isinstance(node, Sum))
