"""Random variables with a density whose draws are a location and a scale applied to standard noise."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.distributions.capabilities import WeakDerivative

__all__ = ["Exponential", "Gumbel", "Laplace", "Logistic", "MultivariateNormal", "Normal"]

LOG_TWO_PI = math.log(2 * math.pi)
EULER_MASCHERONI = 0.5772156649015329


def shifted_noise(family: str, noise, key: PRNGKeyArray, loc: Array, scale: Array) -> Array:
    """``loc + scale * noise``: the noise is drawn, and the sum is taken, in float32 at least."""
    _check.same_shape(family, loc=loc, scale=scale)
    wide_loc, wide_scale = widen(loc), widen(scale)
    return (wide_loc + wide_scale * noise(key, wide_loc.shape, wide_loc.dtype)).astype(loc.dtype)


def opposite(function: str, value: Array, loc: Array) -> Array:
    """The mirror image of ``value`` in the centre ``loc`` of a symmetric density."""
    _check.same_shape(function, value=value, loc=loc)
    return 2 * loc - value


def opposite_waiting_time(time: Array) -> Array:
    r"""Of a standard exponential variable, the value at the opposite quantile: :math:`-\log(1 - e^{-t})`."""
    time = jnp.maximum(time, jnp.finfo(time.dtype).tiny)
    # Each form is exact where it is used, and has no overflow in its derivative where it is not.
    small = time < math.log(2)
    by_expm1 = -jnp.log(-jnp.expm1(-jnp.where(small, time, 1)))
    by_log1p = -jnp.log1p(-jnp.exp(-jnp.where(small, 1, time)))
    return jnp.where(small, by_expm1, by_log1p)


def standardised(family: str, value: Array, loc: Array, scale: Array) -> tuple[Array, Array]:
    """``(value - loc) / scale`` and ``log(scale)``, in float32 at least."""
    _check.same_shape(family, value=value, loc=loc, scale=scale)
    return (widen(value) - widen(loc)) / widen(scale), jnp.log(widen(scale))


class Normal(NamedTuple):
    r"""Independent normal variables :math:`\mathcal N(\mu_i, \sigma_i^2)`: a vector with a diagonal covariance.

    ``loc`` and ``scale`` (the standard deviation, positive) have one shape. Scored, Reparameterizable, MeanValued.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> normal = Normal(jnp.zeros(2), jnp.ones(2))
      >>> round(float(normal.log_prob(jnp.zeros(2))), 4)  # -log(2 pi)
      -1.8379
      >>> path = jax.grad(lambda d: d.reparameterize(jax.random.key(0)).sum())(normal)
      >>> path.loc.tolist()
      [1.0, 1.0]
    """

    loc: Float[Array, "*shape"]
    scale: Float[Array, "*shape"]

    @jit()
    def reparameterize(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        r"""One draw, :math:`\mu + \sigma \epsilon`. Gradient: exact along the path (1 and :math:`\epsilon`)."""
        return shifted_noise("Normal", jax.random.normal, key, self.loc, self.scale)

    @jit()
    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        """One draw. Gradient: none, a constant; ``reparameterize`` is the draw with a path."""
        return lax.stop_gradient(self.reparameterize(key))

    @jit()
    def log_prob(self, value: Float[Array, "*shape"]) -> Float[Array, ""]:
        r"""Log-density in nats, :math:`-\sum_i x_i^2 / 2 + \log\sigma_i + \log(2\pi) / 2` of the standardised x.

        Gradient: exact. Raises: ValueError if the shapes differ.
        """
        x, log_scale = standardised("Normal.log_prob", value, self.loc, self.scale)
        return jnp.sum(-0.5 * x**2 - log_scale - 0.5 * LOG_TWO_PI).astype(self.loc.dtype)

    @jit()
    def mean(self) -> Float[Array, "*shape"]:
        """The location. Gradient: exact."""
        return self.loc

    @jit()
    def antithetic(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""The value at the opposite quantile, :math:`2 \mu - x`. Gradient: exact."""
        return opposite("Normal.antithetic", value, self.loc)

    @jit()
    def weak_derivatives(
        self, key: PRNGKeyArray
    ) -> tuple[Float[Array, "*shape"], tuple[WeakDerivative[Float[Array, "*shape"]], ...]]:
        r"""One draw, and the derivatives of the density for ``loc`` and ``scale`` as differences of densities.

        .. math:: \partial_\mu p = \frac{1}{\sigma \sqrt{2 \pi}} (p_{\mu + \sigma W} - p_{\mu - \sigma W}), \qquad
                  \partial_\sigma p = \frac1\sigma (p_{\mu + \sigma M} - p_{\mu + \sigma U M})

        with W Weibull (of shape 2 and scale :math:`\sqrt 2`), M a double-sided Maxwell variable and U uniform, so that
        U M is normal: the two sides of each difference are coupled.

        Gradient: none, they are constants.
        """
        _check.same_shape("Normal.weak_derivatives", loc=self.loc, scale=self.scale)
        loc, scale = lax.stop_gradient((widen(self.loc), widen(self.scale)))
        draw_key, loc_key, sign_key, radius_key, share_key = jax.random.split(key, 5)
        weibull = jnp.sqrt(2 * jax.random.exponential(loc_key, loc.shape, loc.dtype))
        # The length of three standard normal variables, with a sign.
        lengths = jnp.linalg.norm(jax.random.normal(radius_key, (*loc.shape, 3), loc.dtype), axis=-1)
        maxwell = lengths * jax.random.rademacher(sign_key, loc.shape, loc.dtype)
        normal = maxwell * jax.random.uniform(share_key, loc.shape, loc.dtype)

        def at(noise: Array) -> Array:
            return (loc + scale * noise).astype(self.loc.dtype)

        to_loc, to_scale = 1 / (scale * math.sqrt(2 * math.pi)), 1 / scale
        return self.sample(draw_key), (
            (to_loc.astype(self.loc.dtype), at(weibull), at(-weibull)),
            (to_scale.astype(self.loc.dtype), at(maxwell), at(normal)),
        )


class MultivariateNormal(NamedTuple):
    r"""A normal vector :math:`\mathcal N(\mu, L L^\top)`.

    ``scale`` is L: a lower triangular [d, d] with a positive diagonal (``jnp.linalg.cholesky`` of a covariance; what is
    above its diagonal is not looked at), or [d], the diagonal of a diagonal one. Scored, Reparameterizable,
    MeanValued.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> covariance = jnp.array([[4.0, 2.0], [2.0, 2.0]])
      >>> normal = MultivariateNormal(jnp.zeros(2), jnp.linalg.cholesky(covariance))
      >>> round(float(normal.log_prob(jnp.zeros(2))), 4)  # -log(2 pi) - log(det) / 2, det = 4
      -2.531
    """

    loc: Float[Array, "d"]
    scale: Float[Array, "..."]  # [d] or [d, d]

    def _checked_scale(self) -> Float[Array, "..."]:
        """``scale`` in at least float32, lower triangular; raises unless it fits ``loc``. Gradient: exact."""
        dim = self.loc.shape[-1]
        if self.loc.ndim != 1 or self.scale.shape not in ((dim,), (dim, dim)):
            raise ValueError(
                f"MultivariateNormal: loc must be [d] and scale [d] or [d, d];"
                f" got loc {list(self.loc.shape)}, scale {list(self.scale.shape)}"
            )
        return widen(self.scale) if self.scale.ndim == 1 else jnp.tril(widen(self.scale))

    @jit()
    def reparameterize(self, key: PRNGKeyArray) -> Float[Array, "d"]:
        r"""One draw, :math:`\mu + L \epsilon`. Gradient: exact along the path."""
        scale = self._checked_scale()
        noise = jax.random.normal(key, self.loc.shape, scale.dtype)
        deviation = scale * noise if scale.ndim == 1 else jnp.matmul(scale, noise, precision=lax.Precision.HIGHEST)
        return (widen(self.loc) + deviation).astype(self.loc.dtype)

    @jit()
    def sample(self, key: PRNGKeyArray) -> Float[Array, "d"]:
        """One draw. Gradient: none, a constant; ``reparameterize`` is the draw with a path."""
        return lax.stop_gradient(self.reparameterize(key))

    @jit()
    def log_prob(self, value: Float[Array, "d"]) -> Float[Array, ""]:
        r"""Log-density in nats, :math:`-\tfrac12 \|L^{-1}(x - \mu)\|^2 - \sum_i \log L_{ii} - \tfrac d2 \log 2\pi`.

        Gradient: exact. Raises: ValueError if the shapes do not fit.
        """
        scale = self._checked_scale()
        _check.same_shape("MultivariateNormal.log_prob", value=value, loc=self.loc)
        deviation = widen(value) - widen(self.loc)
        if scale.ndim == 1:
            x, log_diagonal = deviation / scale, jnp.log(scale)
        else:
            x = jax.scipy.linalg.solve_triangular(scale, deviation, lower=True)
            log_diagonal = jnp.log(jnp.diagonal(scale))
        return jnp.sum(-0.5 * x**2 - log_diagonal - 0.5 * LOG_TWO_PI).astype(self.loc.dtype)

    @jit()
    def mean(self) -> Float[Array, "d"]:
        """The location. Gradient: exact."""
        return self.loc

    @jit()
    def antithetic(self, value: Float[Array, "d"]) -> Float[Array, "d"]:
        r"""The value mirrored in the centre, :math:`2 \mu - x`. Gradient: exact."""
        return opposite("MultivariateNormal.antithetic", value, self.loc)


class Logistic(NamedTuple):
    """Independent logistic variables: the noise whose sign, shifted by log-odds, is a Bernoulli draw.

    ``loc`` and ``scale`` (positive; the standard deviation is pi / sqrt(3) times it) have one shape. Scored,
    Reparameterizable, MeanValued.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(jnp.exp(Logistic(jnp.array(0.0), jnp.array(1.0)).log_prob(jnp.array(0.0)))), 4)
      0.25
    """

    loc: Float[Array, "*shape"]
    scale: Float[Array, "*shape"]

    @jit()
    def reparameterize(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        r"""One draw, :math:`\mu + s \log(u / (1 - u))`. Gradient: exact along the path."""
        return shifted_noise("Logistic", jax.random.logistic, key, self.loc, self.scale)

    @jit()
    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        """One draw. Gradient: none, a constant; ``reparameterize`` is the draw with a path."""
        return lax.stop_gradient(self.reparameterize(key))

    @jit()
    def log_prob(self, value: Float[Array, "*shape"]) -> Float[Array, ""]:
        r"""Log-density in nats, :math:`\sum_i \log\sigma(x_i) + \log\sigma(-x_i) - \log s_i` of the standardised x.

        Gradient: exact. Raises: ValueError if the shapes differ.
        """
        x, log_scale = standardised("Logistic.log_prob", value, self.loc, self.scale)
        return jnp.sum(jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x) - log_scale).astype(self.loc.dtype)

    @jit()
    def mean(self) -> Float[Array, "*shape"]:
        """The location. Gradient: exact."""
        return self.loc

    @jit()
    def antithetic(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""The value at the opposite quantile, :math:`2 \mu - x`. Gradient: exact."""
        return opposite("Logistic.antithetic", value, self.loc)


class Gumbel(NamedTuple):
    """Independent Gumbel variables: the noise whose argmax, shifted by logits, is a categorical draw.

    ``loc`` (the mode) and ``scale`` (positive) have one shape. Scored, Reparameterizable, MeanValued.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(Gumbel(jnp.array(0.0), jnp.array(1.0)).log_prob(jnp.array(0.0)))
      -1.0
    """

    loc: Float[Array, "*shape"]
    scale: Float[Array, "*shape"]

    @jit()
    def reparameterize(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        r"""One draw, :math:`\mu - s \log(-\log u)`. Gradient: exact along the path."""
        return shifted_noise("Gumbel", jax.random.gumbel, key, self.loc, self.scale)

    @jit()
    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        """One draw. Gradient: none, a constant; ``reparameterize`` is the draw with a path."""
        return lax.stop_gradient(self.reparameterize(key))

    @jit()
    def log_prob(self, value: Float[Array, "*shape"]) -> Float[Array, ""]:
        r"""Log-density in nats, :math:`-\sum_i x_i + e^{-x_i} + \log s_i` of the standardised x.

        Gradient: exact. Raises: ValueError if the shapes differ.
        """
        x, log_scale = standardised("Gumbel.log_prob", value, self.loc, self.scale)
        return jnp.sum(-x - jnp.exp(-x) - log_scale).astype(self.loc.dtype)

    @jit()
    def mean(self) -> Float[Array, "*shape"]:
        r"""The mean :math:`\mu + \gamma s` with Euler's constant 0.5772. Gradient: exact."""
        _check.same_shape("Gumbel.mean", loc=self.loc, scale=self.scale)
        return self.loc + EULER_MASCHERONI * self.scale

    @jit()
    def antithetic(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""The value at the opposite quantile, :math:`\mu - s \log(-\log(1 - e^{-e^{-x}}))` of the standardised x.

        Gradient: exact.
        """
        x, _ = standardised("Gumbel.antithetic", value, self.loc, self.scale)
        other = -jnp.log(opposite_waiting_time(jnp.exp(-x)))
        return (widen(self.loc) + widen(self.scale) * other).astype(self.loc.dtype)


class Laplace(NamedTuple):
    """Independent Laplace (double exponential) variables.

    ``loc`` and ``scale`` (positive, the mean absolute deviation) have one shape. Scored, Reparameterizable,
    MeanValued.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(jnp.exp(Laplace(jnp.array(0.0), jnp.array(1.0)).log_prob(jnp.array(0.0)))), 4)
      0.5
    """

    loc: Float[Array, "*shape"]
    scale: Float[Array, "*shape"]

    @jit()
    def reparameterize(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        """One draw, location plus scale times Laplace noise. Gradient: exact along the path."""
        return shifted_noise("Laplace", jax.random.laplace, key, self.loc, self.scale)

    @jit()
    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        """One draw. Gradient: none, a constant; ``reparameterize`` is the draw with a path."""
        return lax.stop_gradient(self.reparameterize(key))

    @jit()
    def log_prob(self, value: Float[Array, "*shape"]) -> Float[Array, ""]:
        r"""Log-density in nats, :math:`-\sum_i |x_i| + \log 2 s_i` of the standardised x.

        Gradient: exact, 0 at the kink. Raises: ValueError if the shapes differ.
        """
        x, log_scale = standardised("Laplace.log_prob", value, self.loc, self.scale)
        return jnp.sum(-jnp.abs(x) - log_scale - math.log(2)).astype(self.loc.dtype)

    @jit()
    def mean(self) -> Float[Array, "*shape"]:
        """The location. Gradient: exact."""
        return self.loc

    @jit()
    def antithetic(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""The value at the opposite quantile, :math:`2 \mu - x`. Gradient: exact."""
        return opposite("Laplace.antithetic", value, self.loc)


class Exponential(NamedTuple):
    """Independent exponential waiting times.

    ``rate`` is positive, in events per unit; the mean is 1 / rate. Scored, Reparameterizable, MeanValued.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(Exponential(jnp.array(1.0)).log_prob(jnp.array(3.0)))
      -3.0
    """

    rate: Float[Array, "*shape"]

    @jit()
    def reparameterize(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        r"""One draw, :math:`-\log(1 - u) / \lambda`. Gradient: exact along the path."""
        rate = widen(self.rate)
        return (jax.random.exponential(key, rate.shape, rate.dtype) / rate).astype(self.rate.dtype)

    @jit()
    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        """One draw, at least 0. Gradient: none, a constant; ``reparameterize`` is the draw with a path."""
        return lax.stop_gradient(self.reparameterize(key))

    @jit()
    def log_prob(self, value: Float[Array, "*shape"]) -> Float[Array, ""]:
        r"""Log-density in nats, :math:`\sum_i \log\lambda_i - \lambda_i x_i`; minus infinity below 0.

        Gradient: exact. Raises: ValueError if the shapes differ.
        """
        _check.same_shape("Exponential.log_prob", value=value, rate=self.rate)
        rate, value = widen(self.rate), widen(value)
        return jnp.sum(jnp.where(value < 0, -jnp.inf, jnp.log(rate) - rate * value)).astype(self.rate.dtype)

    @jit()
    def mean(self) -> Float[Array, "*shape"]:
        """One over the rate. Gradient: exact."""
        return 1 / self.rate

    @jit()
    def antithetic(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""The value at the opposite quantile, :math:`-\log(1 - e^{-\lambda x}) / \lambda`. Gradient: exact."""
        _check.same_shape("Exponential.antithetic", value=value, rate=self.rate)
        rate = widen(self.rate)
        return (opposite_waiting_time(rate * widen(value)) / rate).astype(self.rate.dtype)
