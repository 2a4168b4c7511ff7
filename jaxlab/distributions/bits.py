"""Random bits."""

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
from jaxlab.gumbel.relaxed import sigmoid_at

__all__ = ["Bernoulli"]


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
    def neighbours(
        self, value: Float[Array, "*shape"], *, numbers: Int[Array, "m"] | None = None
    ) -> Float[Array, "m *shape"]:
        """The values that differ from ``value`` in one bit, along a new first axis: that of each number, or of all.

        Gradient: exact.
        """
        places = jnp.arange(value.size)
        numbers = places if numbers is None else numbers
        flips = numbers[:, None] == places[None]
        return jnp.where(flips.reshape(len(numbers), *value.shape), 1 - value[None], value[None])

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
