"""Random variables that count."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.distributions.capabilities import WeakDerivative

__all__ = ["Poisson"]


class Poisson(NamedTuple):
    r"""Independent counts: :math:`p(n) = \prod_i \lambda_i^{n_i} e^{-\lambda_i} / n_i!`.

    ``rate`` is the mean count, at least 0. Scored and MeanValued only: counts have no path, no finite support, and no
    relaxation of one temperature.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> round(float(jnp.exp(Poisson(jnp.array(2.0)).log_prob(jnp.array(0.0)))), 4)  # exp(-2)
      0.1353
    """

    rate: Float[Array, "*shape"]

    @jit()
    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        """Draws counts 0, 1, ... in the dtype of ``rate`` (needs keys of JAX's default generator, threefry).

        Gradient:
          None: a constant to ``jax.grad`` (as ``jax.random.poisson`` is, in silence). For a gradient, use an
          estimator.
        """
        return jax.random.poisson(key, lax.stop_gradient(widen(self.rate))).astype(self.rate.dtype)

    @jit()
    def log_prob(self, value: Float[Array, "*shape"]) -> Float[Array, ""]:
        r"""Log-probability in nats of all counts together: :math:`\sum_i n_i \log\lambda_i - \lambda_i - \log n_i!`.

        Gradient:
          Exact: :math:`n / \lambda - 1` for the rate.

        Raises:
          ValueError: if ``value`` has not the shape of ``rate``.
        """
        _check.same_shape("Poisson.log_prob", value=value, rate=self.rate)
        rate, value = widen(self.rate), widen(value)
        # At rate 0 the only count is 0, and xlogy(0, 0) is 0 with a derivative of NaN.
        log_powers = jax.scipy.special.xlogy(value, jnp.where((value == 0) & (rate == 0), 1, rate))
        return jnp.sum(log_powers - rate - lax.lgamma(value + 1)).astype(self.rate.dtype)

    @jit()
    def mean(self) -> Float[Array, "*shape"]:
        r"""The rate, at least 0. Gradient: exact."""
        return self.rate

    @jit()
    def weak_derivatives(
        self, key: PRNGKeyArray
    ) -> tuple[Float[Array, "*shape"], tuple[WeakDerivative[Float[Array, "*shape"]], ...]]:
        r"""One draw n, and the derivative of its law for ``rate``, :math:`\partial_\lambda p = p_{n + 1} - p_n`.

        The difference is coupled with the draw itself: one event more, against none.

        Gradient: none, they are constants.
        """
        value = self.sample(key)
        return value, ((jnp.ones_like(lax.stop_gradient(self.rate)), value + 1, None),)
