"""Random categories, as one-hot vectors."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, ScalarLike

from jaxlab import _check, gumbel
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.distributions.discrete import product_states, weighted
from jaxlab.gradients import first_order_only, straight_through
from jaxlab.gumbel.relaxed import log_softmax_at

__all__ = ["Categorical"]


class Categorical(NamedTuple):
    r"""Independent categories, drawn one-hot: :math:`p(z) = \prod_i \mathrm{softmax}(\phi_i)_{z_i}`.

    ``logits`` [..., k] are unnormalised log-probabilities in nats along the last axis; [m, k] make one draw of m
    one-hot rows. ``-inf`` is an impossible category, one ``+inf`` in a row a certain one. Capable of everything but
    reparameterisation: Scored, Relaxable, Enumerable (up to 2 ** 20 states), MeanValued.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> category = Categorical(jnp.log(jnp.array([0.25, 0.75])))
      >>> round(float(jnp.exp(category.log_prob(jnp.array([0.0, 1.0])))), 4)
      0.75
    """

    logits: Float[Array, "*shape k"]

    @jit()
    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape k"]:
        """Draws one-hot rows in the dtype of ``logits``, by the Gumbel-max trick in float32.

        Gradient:
          None: a constant to ``jax.grad`` (as the codes of ``jax.random.categorical`` are, in silence). For a gradient
          through the draw, use an estimator.
        """
        return self.harden(self.perturb(key))

    @jit()
    def log_prob(self, value: Float[Array, "*shape k"]) -> Float[Array, ""]:
        r"""Log-probability in nats of all rows together.

        .. math:: \log p(z) = \sum_{i, c} z_{ic} \log\mathrm{softmax}(\phi_i)_c

        On the simplex between the one-hot vectors this is the extension that is linear in z.

        Gradient:
          Exact, in both arguments: :math:`z - \mathrm{softmax}(\phi)` for the logits of a one-hot z.

        Raises:
          ValueError: if ``value`` has not the shape of ``logits``, or there is no category.
        """
        self._check("log_prob", value=value)
        return jnp.sum(weighted(widen(value), self.log_probabilities())).astype(self.logits.dtype)

    @jit()
    def log_probabilities(self) -> Float[Array, "*shape k"]:
        """Normalised log-probabilities in nats, at most 0, in float32 at least. Gradient: exact."""
        logits = widen(self.logits)
        return jax.nn.log_softmax(jnp.minimum(logits, jnp.finfo(logits.dtype).max), -1)

    @jit()
    def mean(self) -> Float[Array, "*shape k"]:
        r"""The probabilities, :math:`\mathrm{softmax}(\phi)`, each in [0, 1]. Gradient: exact."""
        return jnp.exp(self.log_probabilities()).astype(self.logits.dtype)

    @jit()
    def perturb(self, key: PRNGKeyArray) -> Float[Array, "*shape k"]:
        """Logits plus Gumbel noise, in float32; the draw is the argmax of each row. Gradient: exact."""
        return gumbel.perturb(key, self.logits)

    @jit(positive=("temperature",))
    def soften(self, perturbed: Float[Array, "*shape k"], *, temperature: ScalarLike = 1.0) -> Float[Array, "*shape k"]:
        r"""The Gumbel-softmax draw :math:`\mathrm{softmax}(z / \lambda)`, rows summing to 1. Gradient: exact."""
        self._check("soften", perturbed=perturbed)
        log_soft = log_softmax_at(perturbed, temperature=temperature, axis=-1)
        return jnp.exp(log_soft).astype(self.logits.dtype)

    @jit()
    def harden(self, perturbed: Float[Array, "*shape k"]) -> Float[Array, "*shape k"]:
        """The one-hot argmax of each row, the first one on ties. Gradient: none, a constant."""
        self._check("harden", perturbed=perturbed)
        return jax.nn.one_hot(jnp.argmax(perturbed, -1), perturbed.shape[-1], dtype=self.logits.dtype)

    @jit()
    def perturb_given(self, key: PRNGKeyArray, value: Float[Array, "*shape k"]) -> Float[Array, "*shape k"]:
        """Perturbed logits in float32 given their argmax (:func:`jaxlab.gumbel.conditional_gumbel`).

        Gradient:
          Exact along this path, with the categories held fixed; none reaches ``value``.

        Raises:
          ValueError: if ``value`` has not the shape of ``logits``, or there is no category.
        """
        self._check("perturb_given", value=value)
        return gumbel.conditional_gumbel(key, self.logits, jnp.argmax(value, -1))

    @jit()
    def condition(self, perturbed: Float[Array, "*shape k"]) -> Float[Array, "*shape k"]:
        r"""The same perturbed logits, which move with the logits as :meth:`perturb_given` of their own argmax does.

        .. math:: \mathrm d z_i = (1 - r_i)\, \mathrm d\phi_i + r_i \sum_j p_j\, \mathrm d\phi_j, \qquad
                  r_i = e^{z_i - \max_j z_j}

        Gradient:
          As above, to first order (a second derivative raises TypeError); none reaches ``perturbed``.

        Raises:
          ValueError: if ``perturbed`` has not the shape of ``logits``, or there is no category.
        """
        self._check("condition", perturbed=perturbed)
        logits, perturbed = widen(self.logits), lax.stop_gradient(perturbed)
        bounded = jnp.minimum(perturbed, jnp.finfo(perturbed.dtype).max)
        ratios = jnp.exp(bounded - jnp.max(bounded, -1, keepdims=True))
        probabilities = lax.stop_gradient(jnp.exp(self.log_probabilities()))
        finite = jnp.where(jnp.isfinite(logits), logits, 0)
        moved = (1 - ratios) * finite + ratios * jnp.sum(probabilities * finite, -1, keepdims=True)
        return first_order_only(straight_through(perturbed, moved), name="Categorical.condition")

    @jit()
    def covariance_product(
        self, probabilities: Float[Array, "*shape k"], direction: Float[Array, "*shape k"]
    ) -> Float[Array, "*shape k"]:
        r"""The covariance of one-hot rows with these probabilities, times ``direction``: :math:`q (v - q^\top v)`.

        Gradient: exact.
        """
        return probabilities * (direction - jnp.sum(probabilities * direction, -1, keepdims=True))

    @jit()
    def neighbours(
        self, value: Float[Array, "*shape k"], *, numbers: Int[Array, "m"] | None = None
    ) -> Float[Array, "m *shape k"]:
        """The values that differ from ``value`` in one row: row by row, its category moved on by 1 ... k - 1.

        They lie along a new first axis: those of these numbers, or all. Gradient: exact.
        """
        self._check("neighbours")
        num_categories = value.shape[-1]
        rows = value.reshape(-1, num_categories)
        if numbers is None:
            numbers = jnp.arange(len(rows) * (num_categories - 1))
        if not len(rows):  # from which none can be taken
            return jnp.zeros((len(numbers), *value.shape), value.dtype)
        changed, step = jnp.divmod(numbers, max(1, num_categories - 1))
        moved = jax.vmap(jnp.roll)(rows[changed], step + 1)
        here = changed[:, None, None] == jnp.arange(len(rows))[None, :, None]
        return jnp.where(here, moved[:, None], rows[None]).reshape(len(numbers), *value.shape)

    @jit()
    def neighbour_changes(self, slope: Float[Array, "*shape k"], value: Float[Array, "*shape k"]) -> Float[Array, "m"]:
        """What a linear function with this slope gains from ``value`` to each neighbour. Gradient: exact."""
        self._check("neighbour_changes")
        num_categories = value.shape[-1]
        rows, slopes = value.reshape(-1, num_categories), slope.reshape(-1, num_categories)
        ahead = jax.vmap(jnp.roll)(slopes, -1 - jnp.argmax(rows, -1))[:, : num_categories - 1]
        return jnp.ravel(ahead - jnp.sum(slopes * rows, -1, keepdims=True))

    @jit()
    def site_costs(
        self, cost: Float[Array, ""], neighbour_costs: Float[Array, "m"], value: Float[Array, "*shape k"]
    ) -> Float[Array, "*shape k"]:
        """The cost with each row in each category, the other rows as in ``value``. Gradient: exact."""
        self._check("site_costs")
        num_categories = value.shape[-1]
        moved = neighbour_costs.reshape(math.prod(value.shape[:-1]), num_categories - 1)
        by_step = jnp.concatenate([jnp.broadcast_to(cost, (len(moved), 1)), moved], 1)
        current = jnp.argmax(value.reshape(-1, num_categories), -1)
        return jax.vmap(jnp.roll)(by_step, current).reshape(value.shape)

    def support(self) -> Float[Array, "states *shape k"]:
        """All values, along a new first axis, the last row's category changing fastest.

        Gradient:
          None: they are constants.

        Raises:
          ValueError: if there are more than 2 ** 20, or there is no category.
        """
        *shape, num_categories = self.logits.shape
        self._check("support")
        states = product_states("Categorical.support", num_categories, math.prod(shape))
        return jax.nn.one_hot(states.reshape(len(states), *shape), num_categories, dtype=self.logits.dtype)

    def _check(self, method: str, **values: Array) -> None:
        """Raises if there is nothing to choose from, or a value has not the shape of the logits."""
        _check.axis_of(f"Categorical.{method}", "logits", self.logits, -1)
        _check.same_shape(f"Categorical.{method}", **values, logits=self.logits)
