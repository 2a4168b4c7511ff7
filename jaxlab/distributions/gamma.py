r"""The Gamma family, reparameterised implicitly.

A Gamma draw has no closed form in its concentration, but a derivative: with the distribution function F,
:math:`\mathrm{d}z / \mathrm{d}\alpha = -(\partial F / \partial\alpha) / (\partial F / \partial z)` (Figurnov, Mohamed,
Mnih, "Implicit Reparameterization Gradients", 2018, https://arxiv.org/abs/1805.08498). JAX's sampler carries that
derivative; here draws are made from its logarithm, which does not underflow for small concentrations.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import gammaln, xlog1py, xlogy
from jaxtyping import Array, Float, PRNGKeyArray

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen

__all__ = ["Beta", "Dirichlet", "Gamma"]


def inside_unit_interval(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """``x`` moved off 0 and 1 by the least step, where rounding has put it and the density may be infinite."""
    info = jnp.finfo(x.dtype)
    return jnp.clip(x, jnp.asarray(info.tiny, x.dtype), jnp.asarray(1 - info.epsneg, x.dtype))


class Gamma(NamedTuple):
    r"""Independent Gamma variables: :math:`p(x) \propto x^{\alpha - 1} e^{-\beta x}`.

    ``concentration`` and ``rate`` (both positive) have one shape. Scored, Reparameterizable (implicitly), MeanValued.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> round(float(Gamma(jnp.array(1.0), jnp.array(1.0)).log_prob(jnp.array(3.0))), 4)
      -3.0
    """

    concentration: Float[Array, "*shape"]
    rate: Float[Array, "*shape"]

    @jit()
    def reparameterize(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        """One draw, above 0. Gradient: exact along the implicit path."""
        _check.same_shape("Gamma", concentration=self.concentration, rate=self.rate)
        concentration, rate = widen(self.concentration), widen(self.rate)
        log_draw = jax.random.loggamma(key, concentration, dtype=concentration.dtype) - jnp.log(rate)
        draw = jnp.exp(log_draw).astype(self.concentration.dtype)
        return jnp.maximum(draw, jnp.finfo(draw.dtype).tiny)

    @jit()
    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        """One draw, above 0. Gradient: none, a constant; ``reparameterize`` is the draw with a path."""
        return lax.stop_gradient(self.reparameterize(key))

    @jit()
    def log_prob(self, value: Float[Array, "*shape"]) -> Float[Array, ""]:
        r"""Log-density in nats, :math:`\sum \alpha\log\beta - \log\Gamma(\alpha) + (\alpha - 1)\log x - \beta x`.

        Gradient: exact. Raises: ValueError if the shapes differ.
        """
        _check.same_shape("Gamma.log_prob", value=value, concentration=self.concentration, rate=self.rate)
        concentration, rate, value = widen(self.concentration), widen(self.rate), widen(value)
        log_constant = xlogy(concentration, rate) - gammaln(concentration)
        density = log_constant + xlogy(concentration - 1, value) - rate * value
        return jnp.sum(density).astype(self.concentration.dtype)

    @jit()
    def mean(self) -> Float[Array, "*shape"]:
        """Concentration over rate. Gradient: exact."""
        _check.same_shape("Gamma.mean", concentration=self.concentration, rate=self.rate)
        return self.concentration / self.rate


class Beta(NamedTuple):
    r"""Independent Beta variables: :math:`p(x) \propto x^{\alpha - 1} (1 - x)^{\beta - 1}`.

    ``concentration1`` (alpha, of the ones) and ``concentration0`` (beta, of the zeros), both positive, have one
    shape. Scored, Reparameterizable (implicitly), MeanValued.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> round(float(Beta(jnp.array(2.0), jnp.array(1.0)).log_prob(jnp.array(0.25))), 4)  # log(2 x)
      -0.6931
    """

    concentration1: Float[Array, "*shape"]
    concentration0: Float[Array, "*shape"]

    @jit()
    def reparameterize(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        """One draw, inside (0, 1): X / (X + Y) of two Gamma draws. Gradient: exact along the implicit path."""
        _check.same_shape("Beta", concentration1=self.concentration1, concentration0=self.concentration0)
        concentrations = jnp.stack([widen(self.concentration1), widen(self.concentration0)])
        log_ones, log_zeros = jax.random.loggamma(key, concentrations, dtype=concentrations.dtype)
        return inside_unit_interval(jax.nn.sigmoid(log_ones - log_zeros).astype(self.concentration1.dtype))

    @jit()
    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        """One draw, inside (0, 1). Gradient: none, a constant; ``reparameterize`` is the draw with a path."""
        return lax.stop_gradient(self.reparameterize(key))

    @jit()
    def log_prob(self, value: Float[Array, "*shape"]) -> Float[Array, ""]:
        r"""Log-density in nats, :math:`\sum (\alpha - 1) \log x + (\beta - 1) \log(1 - x) - \log B(\alpha, \beta)`.

        Gradient: exact. Raises: ValueError if the shapes differ.
        """
        _check.same_shape(
            "Beta.log_prob", value=value, concentration1=self.concentration1, concentration0=self.concentration0
        )
        ones, zeros, value = widen(self.concentration1), widen(self.concentration0), widen(value)
        log_beta = gammaln(ones) + gammaln(zeros) - gammaln(ones + zeros)
        density = xlogy(ones - 1, value) + xlog1py(zeros - 1, -value) - log_beta
        return jnp.sum(density).astype(self.concentration1.dtype)

    @jit()
    def mean(self) -> Float[Array, "*shape"]:
        r"""The share of the ones, :math:`\alpha / (\alpha + \beta)`. Gradient: exact."""
        _check.same_shape("Beta.mean", concentration1=self.concentration1, concentration0=self.concentration0)
        return self.concentration1 / (self.concentration1 + self.concentration0)


class Dirichlet(NamedTuple):
    r"""Independent random points of the simplex: :math:`p(x) \propto \prod_c x_c^{\alpha_c - 1}`.

    ``concentration`` [..., k] is positive. Scored, Reparameterizable (implicitly), MeanValued. The density is with
    respect to the first k - 1 components.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> flat = Dirichlet(jnp.ones(3))
      >>> round(float(flat.log_prob(jnp.array([0.2, 0.3, 0.5]))), 4)  # log(2)
      0.6931
    """

    concentration: Float[Array, "*shape k"]

    @jit()
    def reparameterize(self, key: PRNGKeyArray) -> Float[Array, "*shape k"]:
        """One draw: Gamma draws, normalised. Gradient: exact along the implicit path."""
        concentration = widen(self.concentration)
        log_draws = jax.random.loggamma(key, concentration, dtype=concentration.dtype)
        return inside_unit_interval(jax.nn.softmax(log_draws, -1).astype(self.concentration.dtype))

    @jit()
    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape k"]:
        """One draw. Gradient: none, a constant; ``reparameterize`` is the draw with a path."""
        return lax.stop_gradient(self.reparameterize(key))

    @jit()
    def log_prob(self, value: Float[Array, "*shape k"]) -> Float[Array, ""]:
        r"""Log-density in nats, :math:`\sum_c (\alpha_c - 1) \log x_c - \log B(\alpha)`, over all rows.

        Gradient: exact. Raises: ValueError if the shapes differ.
        """
        _check.same_shape("Dirichlet.log_prob", value=value, concentration=self.concentration)
        concentration, value = widen(self.concentration), widen(value)
        log_beta = jnp.sum(gammaln(concentration), -1) - gammaln(jnp.sum(concentration, -1))
        density = jnp.sum(xlogy(concentration - 1, value), -1) - log_beta
        return jnp.sum(density).astype(self.concentration.dtype)

    @jit()
    def mean(self) -> Float[Array, "*shape k"]:
        """The shares of the concentrations. Gradient: exact."""
        return self.concentration / jnp.sum(self.concentration, -1, keepdims=True)
