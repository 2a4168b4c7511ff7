"""Random variables of finitely many values: bits and categories."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, ScalarLike

from jaxlab import _check, gumbel
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.gradients import first_order_only, straight_through
from jaxlab.gumbel.relaxed import log_softmax_at, sigmoid_at

__all__ = ["Bernoulli", "Categorical"]

MAXIMAL_NUM_STATES = 2**20


def weighted(weight: Float[Array, "..."], value: Float[Array, "..."]) -> Float[Array, "..."]:
    """``weight * value`` with 0 for a weight of 0 and an infinite value; differentiable in both also there."""
    return weight * jnp.where((weight == 0) & jnp.isinf(value), 0, value)


def product_states(function: str, num_values: int, num_variables: int) -> Int[Array, "states variables"]:
    """All combinations of ``num_variables`` variables with ``num_values`` values, the last one counting fastest."""
    num_states = num_values**num_variables
    if num_states > MAXIMAL_NUM_STATES:
        raise ValueError(
            f"{function}: the number of states must be at most 2**20 to list them;"
            f" got {num_values}**{num_variables} = {num_states}"
        )
    places = num_values ** jnp.arange(num_variables - 1, -1, -1)
    return jnp.arange(num_states)[:, None] // places[None, :] % num_values


def _perturbed_given(
    logits: Float[Array, "*shape"], value: Float[Array, "*shape"], uniform: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Logistic variables at ``logits`` whose signs are bits, from uniform numbers in (0, 1)."""
    sign = 2 * widen(lax.stop_gradient(value)) - 1
    logits = sign * logits
    return sign * (jax.nn.softplus(logits) + jnp.log((1 - uniform * jax.nn.sigmoid(logits)) / uniform))


class Bernoulli(NamedTuple):
    r"""Independent bits: :math:`p(b) = \prod_i \sigma(\phi_i)^{b_i} (1 - \sigma(\phi_i))^{1 - b_i}`.

    ``logits`` are log-odds in nats; of shape [d] they make one draw of d bits. Infinite logits are certain bits.
    Capable of everything but reparameterisation: Scored, Relaxable, Enumerable (up to 20 bits), MeanValued.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> bits = Bernoulli(jnp.array([-jnp.inf, 0.0, jnp.inf]))
      >>> float(bits.log_prob(jnp.array([0.0, 1.0, 1.0])))  # log(1/2)
      -0.6931471824645996
    """

    logits: Float[Array, "*shape"]

    @jit()
    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        r"""Draws zeros and ones in the dtype of ``logits``, comparing in float32: :math:`b = 1[u < \sigma(\phi)]`.

        Probabilities are resolved to 6e-8 (2 ** -24, half a step of a float32 uniform).

        Gradient:
          None: a constant to ``jax.grad``. For a gradient through the draw, use an estimator.
        """
        probabilities = jax.nn.sigmoid(widen(self.logits))
        # Uniform at the middle of its steps: never 0, so that what is all but impossible is not drawn too often.
        half_step = jnp.finfo(probabilities.dtype).eps / 2
        uniform = jax.random.uniform(key, probabilities.shape, probabilities.dtype) + half_step
        return lax.stop_gradient(uniform < probabilities).astype(self.logits.dtype)

    @jit()
    def log_prob(self, value: Float[Array, "*shape"]) -> Float[Array, ""]:
        r"""Log-probability in nats of all bits together.

        .. math:: \log p(b) = \sum_i b_i \log\sigma(\phi_i) + (1 - b_i) \log\sigma(-\phi_i)

        Between 0 and 1 this is the extension that is linear in b, equal to :math:`b \phi - \mathrm{softplus}(\phi)`.

        Gradient:
          Exact, in both arguments: :math:`b - \sigma(\phi)` for the logits.

        Raises:
          ValueError: if ``value`` has not the shape of ``logits``.
        """
        _check.same_shape("Bernoulli.log_prob", value=value, logits=self.logits)
        logits, value = widen(self.logits), widen(value)
        # log sigma(x) = min(x, 0) - log(1 + exp(-|x|)): one logarithm serves both terms, and none of them cancels.
        # The parts are chosen by ``where``, whose derivatives of every order are right at 0 (those of abs are not).
        negative, positive = jnp.where(logits < 0, logits, 0), jnp.where(logits < 0, 0, logits)
        log_normaliser = jnp.log1p(jnp.exp(negative - positive))
        log_probs = weighted(value, negative) - weighted(1 - value, positive) - log_normaliser
        return jnp.sum(log_probs).astype(self.logits.dtype)

    @jit()
    def mean(self) -> Float[Array, "*shape"]:
        r"""The probabilities of a one, :math:`\sigma(\phi)`, in [0, 1]. Gradient: exact."""
        return jax.nn.sigmoid(self.logits)

    @jit()
    def perturb(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        r"""Logits plus logistic noise, in float32; the draw is a one where this is above 0. Gradient: exact."""
        return gumbel.perturb_binary(key, self.logits)

    @jit(positive=("temperature",))
    def soften(self, perturbed: Float[Array, "*shape"], *, temperature: ScalarLike = 1.0) -> Float[Array, "*shape"]:
        r"""The binary Concrete draw :math:`\sigma(z / \lambda)` in [0, 1]. Gradient: exact."""
        _check.same_shape("Bernoulli.soften", perturbed=perturbed, logits=self.logits)
        return sigmoid_at(perturbed, temperature=temperature).astype(self.logits.dtype)

    @jit()
    def harden(self, perturbed: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The bits that belong to perturbed logits: 1 where they are above 0. Gradient: none, a constant."""
        _check.same_shape("Bernoulli.harden", perturbed=perturbed, logits=self.logits)
        return (perturbed > 0).astype(self.logits.dtype)

    @jit()
    def perturb_given(self, key: PRNGKeyArray, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""Perturbed logits in float32 given their bits: above 0 for a one, below for a zero.

        .. math:: z = s \big(\mathrm{softplus}(s\phi) - \log w + \log(1 - w\,\sigma(s\phi))\big), \qquad s = 2 b - 1,
                  \quad w \sim \mathrm{Uniform}(0, 1)

        Gradient:
          Exact along this path, with the bits held fixed; none reaches ``value``.

        Raises:
          ValueError: if ``value`` has not the shape of ``logits``.
        """
        _check.same_shape("Bernoulli.perturb_given", value=value, logits=self.logits)
        logits = widen(self.logits)
        uniform = jax.random.uniform(key, logits.shape, logits.dtype, minval=jnp.finfo(logits.dtype).tiny)
        return _perturbed_given(logits, value, uniform)

    @jit(static=("num",))
    def perturb_given_evenly(
        self, key: PRNGKeyArray, value: Float[Array, "*shape"], *, num: int
    ) -> Float[Array, "..."]:
        r"""``num`` perturbed logits along a new first axis, given their bits, spread evenly over :meth:`perturb_given`.

        As :meth:`perturb_given`, at one number u in each of m strata, turned round in every other one (slopes cancel):

        .. math:: w_j = \begin{cases} (j + u) / m & j\ \text{even} \\ (j + 1 - u) / m & j\ \text{odd} \end{cases}
                  \qquad j = 0, \ldots, m - 1, \quad u \sim \mathrm{Uniform}(0, 1)

        Their mean of any function is unbiased for its mean under :meth:`perturb_given`; one alone has another law.

        Gradient:
          Exact along this path, with the bits held fixed; none reaches ``value``.

        Raises:
          ValueError: if ``value`` has not the shape of ``logits``, or ``num`` is below 1.

        Reference:
          Systematic sampling: Madow and Madow, "On the Theory of Systematic Sampling", 1944.
        """
        _check.same_shape("Bernoulli.perturb_given_evenly", value=value, logits=self.logits)
        _check.at_least("Bernoulli.perturb_given_evenly", "num", num, 1)
        logits = widen(self.logits)
        within = jax.random.uniform(key, logits.shape, logits.dtype)
        limits = jnp.finfo(logits.dtype)

        def in_stratum(stratum: Float[Array, ""]) -> Float[Array, "*shape"]:
            place = jnp.where(stratum % 2 == 0, within, 1 - within)
            # Divided, the largest number may be rounded to 1, and the smallest to 0.
            uniform = jnp.clip((stratum + place) / num, limits.tiny, 1 - limits.epsneg)
            return _perturbed_given(logits, value, uniform)

        return jax.vmap(in_stratum)(jnp.arange(num, dtype=logits.dtype))

    @jit()
    def condition(self, perturbed: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""The same perturbed logits, which move with the logits as :meth:`perturb_given` of their own bits does.

        .. math:: \partial_\phi z = \sigma(s\phi)\, (1 - e^{-|z|}), \qquad s = \mathrm{sign}\, z

        Gradient:
          As above, to first order (a second derivative raises TypeError); none reaches ``perturbed``.

        Raises:
          ValueError: if ``perturbed`` has not the shape of ``logits``.
        """
        _check.same_shape("Bernoulli.condition", perturbed=perturbed, logits=self.logits)
        logits, perturbed = widen(self.logits), lax.stop_gradient(perturbed)
        sign = jnp.where(perturbed > 0, 1, -1).astype(logits.dtype)
        slope = jax.nn.sigmoid(sign * lax.stop_gradient(logits)) * -jnp.expm1(-jnp.abs(perturbed))
        moved = slope * jnp.where(jnp.isfinite(logits), logits, 0)
        return first_order_only(straight_through(perturbed, moved), name="Bernoulli.condition")

    @jit()
    def covariance_product(
        self, probabilities: Float[Array, "*shape"], direction: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        r"""The covariance of bits with these probabilities, times ``direction``: :math:`q (1 - q) v`.

        Gradient: exact.
        """
        return probabilities * (1 - probabilities) * direction

    @jit()
    def neighbours(self, value: Float[Array, "*shape"]) -> Float[Array, "d *shape"]:
        """The d values that differ from ``value`` in one bit, along a new first axis. Gradient: exact."""
        flips = jnp.eye(value.size, dtype=bool).reshape(value.size, *value.shape)
        return jnp.where(flips, 1 - value[None], value[None])

    @jit()
    def neighbour_changes(self, slope: Float[Array, "*shape"], value: Float[Array, "*shape"]) -> Float[Array, "d"]:
        """What a linear function with this slope gains from ``value`` to each neighbour. Gradient: exact."""
        return jnp.ravel(slope * (1 - 2 * value))

    @jit()
    def site_costs(
        self, cost: Float[Array, ""], neighbour_costs: Float[Array, "d"], value: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """The cost with each bit one less the cost with it zero, the other bits as in ``value``. Gradient: exact."""
        differences = (cost - neighbour_costs).reshape(value.shape)
        return (2 * value - 1).astype(differences.dtype) * differences

    def support(self) -> Float[Array, "states *shape"]:
        """All 2 ** d values, along a new first axis, the last bit changing fastest.

        Gradient:
          None: they are constants.

        Raises:
          ValueError: if there are more than 2 ** 20.
        """
        logits = jnp.asarray(self.logits)
        states = product_states("Bernoulli.support", 2, logits.size)
        return states.reshape(len(states), *logits.shape).astype(logits.dtype)


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
    def neighbours(self, value: Float[Array, "*shape k"]) -> Float[Array, "m *shape k"]:
        """The values that differ from ``value`` in one row: row by row, its category moved on by 1 ... k - 1.

        Gradient: exact.
        """
        self._check("neighbours")
        num_categories = value.shape[-1]
        rows = value.reshape(-1, num_categories)
        rolled = [jnp.roll(rows, step, -1)[:, None] for step in range(1, num_categories)]
        moved = jnp.concatenate([rows[:, None][:, :0], *rolled], 1)  # [rows, k - 1, k]
        here = jnp.eye(len(rows), dtype=bool)[:, None, :, None]  # [changed row, 1, row, 1]
        return jnp.where(here, moved[:, :, None, :], rows[None, None]).reshape(
            len(rows) * (num_categories - 1), *value.shape
        )

    @jit()
    def neighbour_changes(self, slope: Float[Array, "*shape k"], value: Float[Array, "*shape k"]) -> Float[Array, "m"]:
        """What a linear function with this slope gains from ``value`` to each neighbour. Gradient: exact."""
        self._check("neighbour_changes")
        num_categories = value.shape[-1]
        rows, slopes = value.reshape(-1, num_categories), slope.reshape(-1, num_categories)
        current = jnp.argmax(rows, -1)
        steps = (current[:, None] + jnp.arange(1, num_categories)[None]) % num_categories
        return jnp.ravel(jnp.take_along_axis(slopes, steps, -1) - jnp.sum(slopes * rows, -1, keepdims=True))

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
        steps = (jnp.arange(num_categories)[None] - current[:, None]) % num_categories
        return jnp.take_along_axis(by_step, steps, -1).reshape(value.shape)

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
