"""Random permutations, and with them subsets: the first rows of a permutation are a draw without replacement."""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from jaxlab import _check, gumbel
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.distributions.discrete import MAXIMAL_NUM_STATES, weighted
from jaxlab.gradients import first_order_only, straight_through
from jaxlab.gumbel.relaxed import log_softmax_at

__all__ = ["PlackettLuce"]


def bounded(x: Float[Array, "k"]) -> Float[Array, "k"]:
    """``x`` in at least float32, with large numbers in place of infinite ones, so that no difference is NaN."""
    x = widen(x)
    largest = jnp.finfo(x.dtype).max / 4
    return jnp.clip(x, -largest, largest)


def log_sums_of_rest(ordered: Float[Array, "k"]) -> Float[Array, "k"]:
    """For each place, the logarithm of the sum of exponentials over that place and all after it."""
    return lax.cumlogsumexp(ordered, reverse=True)


class PlackettLuce(NamedTuple):
    r"""A permutation, whose items are drawn one after another without replacement.

    .. math:: p(c) = \prod_i \frac{e^{\phi_{c_i}}}{\sum_{j \ge i} e^{\phi_{c_j}}}

    ``logits`` [k] are the items' unnormalised log-probabilities in nats. A value is a permutation matrix [k, k] whose
    row i is the one-hot item in place i: the sum of its first n rows is a random subset of n items, and ``value @ x``
    puts x in order. Items with logit ``-inf`` come last, in their own order. Scored, Relaxable, Conditionable and (up
    to 9 items) Enumerable.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> order = PlackettLuce(jnp.log(jnp.array([0.5, 0.3, 0.2])))
      >>> round(float(jnp.exp(order.log_prob(jnp.eye(3)))), 4)  # 0.5 * 0.3 / (0.3 + 0.2)
      0.3
      >>> order.sample(jax.random.key(0))[:2].sum().tolist()  # a subset of two
      2.0

    Reference:
      Plackett, "The Analysis of Permutations", 1975, https://doi.org/10.2307/2346567; relaxed, Prillo, Eisenschlos,
      "SoftSort: A Continuous Relaxation for the argsort Operator", 2020. https://arxiv.org/abs/2006.16038
    """

    logits: Float[Array, "k"]

    @jit()
    def sample(self, key: PRNGKeyArray) -> Float[Array, "k k"]:
        """Draws a permutation matrix in the dtype of ``logits``: the order of perturbed logits.

        Gradient:
          None: a constant to ``jax.grad``. For a gradient through the draw, use an estimator.
        """
        return self.harden(self.perturb(key))

    @jit()
    def log_prob(self, value: Float[Array, "k k"]) -> Float[Array, ""]:
        r"""Log-probability in nats of the order, :math:`\sum_i \phi_{c_i} - \log\sum_{j \ge i} e^{\phi_{c_j}}`.

        Between permutation matrices it is that of ``value @ logits`` as the logits in order.

        Gradient:
          Exact, in both arguments.

        Raises:
          ValueError: if ``value`` is not square, of the size of ``logits``.
        """
        self._check_matrix("PlackettLuce.log_prob", value)
        ordered = self._in_order(value)
        return jnp.sum(ordered - log_sums_of_rest(ordered)).astype(self.logits.dtype)

    @jit()
    def perturb(self, key: PRNGKeyArray) -> Float[Array, "k"]:
        """Logits plus Gumbel noise, in float32; the draw is their descending order. Gradient: exact."""
        return gumbel.perturb(key, self.logits)

    @jit(positive=("temperature",))
    def soften(self, perturbed: Float[Array, "k"], *, temperature: ScalarLike = 1.0) -> Float[Array, "k k"]:
        r"""The relaxed permutation :math:`\mathrm{softmax}(-|z_{c_i} - z_j| / \lambda)` (SoftSort), rows summing to 1.

        Gradient: exact.
        """
        _check.same_shape("PlackettLuce.soften", perturbed=perturbed, logits=self.logits)
        perturbed = bounded(perturbed)
        in_order = -jnp.sort(-perturbed)
        distances = in_order[:, None] - perturbed[None]
        # By ``where``, whose derivatives of every order are right at 0, an item's distance from itself.
        log_soft = log_softmax_at(jnp.where(distances > 0, -distances, distances), temperature=temperature, axis=-1)
        return jnp.exp(log_soft).astype(self.logits.dtype)

    @jit()
    def harden(self, perturbed: Float[Array, "k"]) -> Float[Array, "k k"]:
        """The permutation matrix of the descending order, ties by their place. Gradient: none, a constant."""
        _check.same_shape("PlackettLuce.harden", perturbed=perturbed, logits=self.logits)
        order = jnp.argsort(-perturbed)
        return jax.nn.one_hot(order, self.logits.shape[-1], dtype=self.logits.dtype)

    @jit()
    def perturb_given(self, key: PRNGKeyArray, value: Float[Array, "k k"]) -> Float[Array, "k"]:
        r"""Perturbed logits in float32 given their order.

        .. math:: z_{c_i} = -\log\sum_{l \le i} E_l / \sum_{j \ge l} e^{\phi_{c_j}}, \qquad E_l \sim
                  \mathrm{Exponential}(1)

        for :math:`e^{-z}` are arrival times, and the wait for the next arrival is exponential.

        Gradient:
          Exact along this path, with the order held fixed; none reaches ``value``.

        Raises:
          ValueError: if ``value`` is not square, of the size of ``logits``.
        """
        self._check_matrix("PlackettLuce.perturb_given", value)
        value = widen(lax.stop_gradient(value))
        ordered = self._in_order(value)
        waits = jax.random.exponential(key, ordered.shape, ordered.dtype)
        log_waits = jnp.log(jnp.maximum(waits, jnp.finfo(waits.dtype).tiny)) - log_sums_of_rest(ordered)
        return jnp.sum(value * -lax.cumlogsumexp(log_waits)[:, None], 0)

    @jit()
    def condition(self, perturbed: Float[Array, "k"]) -> Float[Array, "k"]:
        r"""The same perturbed logits, which move with the logits as :meth:`perturb_given` of their own order does.

        .. math:: \mathrm d z_{c_i} = e^{z_{c_i}} \sum_{l \le i} (e^{-z_{c_l}} - e^{-z_{c_{l - 1}}})\,
                  \mathrm d \log \sum_{j \ge l} e^{\phi_{c_j}}

        Gradient:
          As above, to first order (a second derivative raises TypeError); none reaches ``perturbed``.

        Raises:
          ValueError: if ``perturbed`` has not the shape of ``logits``.
        """
        _check.same_shape("PlackettLuce.condition", perturbed=perturbed, logits=self.logits)
        perturbed = lax.stop_gradient(perturbed)
        order = jnp.argsort(-perturbed)
        times = bounded(perturbed)[order]
        # The sum up to place i is exp(z_i - z_(i - 1)) times that up to i - 1, and the rest of 1 times the last term;
        # there is no time before the first.
        steps = jnp.minimum(times[1:] - times[:-1], 0)
        kept = jnp.pad(jnp.exp(steps), (1, 0))[: order.size]
        new = jnp.pad(-jnp.expm1(steps), (1, 0), constant_values=1)[: order.size]
        sums = log_sums_of_rest(bounded(self.logits).at[order].get(unique_indices=True))

        def then(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
            return first[0] * second[0], first[1] * second[0] + second[1]

        _, rest = lax.associative_scan(then, (kept, new * sums))
        moved = jnp.zeros_like(rest).at[order].set(rest, unique_indices=True)
        return first_order_only(straight_through(perturbed, moved), name="PlackettLuce.condition")

    def support(self) -> Float[Array, "states k k"]:
        """All k! permutation matrices, along a new first axis, in lexicographic order.

        Gradient:
          None: they are constants.

        Raises:
          ValueError: if there are more than 2 ** 20.
        """
        num_items = self.logits.shape[-1]
        if math.factorial(min(num_items, 20)) > MAXIMAL_NUM_STATES:  # that of many has thousands of digits
            raise ValueError(
                f"PlackettLuce.support: the number of states must be at most 2**20 to list them; got {num_items}!"
            )
        orders = jnp.array(list(itertools.permutations(range(num_items))), jnp.int32)
        return jax.nn.one_hot(orders, num_items, dtype=self.logits.dtype)

    def _in_order(self, value: Float[Array, "k k"]) -> Float[Array, "k"]:
        """The logits in the order of ``value``."""
        return jnp.sum(weighted(widen(value), bounded(self.logits)[None]), -1)

    def _check_matrix(self, function: str, value: Float[Array, "k k"]) -> None:
        """Raises unless ``value`` is a square matrix that fits the logits."""
        square = jax.ShapeDtypeStruct((self.logits.shape[-1],) * 2, self.logits.dtype)
        _check.same_shape(function, value=value, squared_logits=square)
