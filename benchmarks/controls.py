"""Estimators that are known to be wrong, each the way published code was or easily is: certification must refuse them.

They have the interface of the estimators whose mistakes they are. ``relax_resampled`` is the exception that no test of
bias finds: it stays unbiased, and only its variance tells.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxlab import estimators
from jaxlab.distributions import Bernoulli
from jaxlab.gradients import magic_box, with_gradient
from jaxlab.moments import moving_average


class Control(NamedTuple):
    """A wrong estimator: what is wrong with it, the right one, and on which small problem the two are compared."""

    mistake: str
    estimate: Callable
    right: Callable
    problem: str
    is_biased: bool = True


def disarm_signed(key: PRNGKeyArray, dist: Bernoulli, f: Callable[[Any], Any]) -> Float[Array, ""]:
    """DisARM with the factor sigma(phi) in place of sigma(|phi|)."""
    noise = jax.random.logistic(key, dist.logits.shape)
    b, partner = ((lax.stop_gradient(dist.logits) + side * noise > 0).astype(noise.dtype) for side in (1, -1))
    value, partner_value = f(b), f(partner)
    gradient = 0.5 * (value - partner_value) * (b - partner) * jax.nn.sigmoid(dist.logits)
    return with_gradient((value + partner_value) / 2, dist.logits, gradient, name="disarm_signed")


class ConstantConditional(Bernoulli):
    """Bits whose conditional noise is taken as a constant."""

    def perturb_given(self, key: PRNGKeyArray, value: Array) -> Array:
        """The right draw without its path."""
        return lax.stop_gradient(super().perturb_given(key, value))


class UnconditionalNoise(Bernoulli):
    """Bits whose noise is drawn anew without regard to the draw."""

    def perturb_given(self, key: PRNGKeyArray, value: Array) -> Array:
        """An independent draw of the noise."""
        return self.perturb(key)


def relax_constant(key: PRNGKeyArray, dist: Bernoulli, f: Callable[[Any], Any]) -> Float[Array, ""]:
    """RELAX in which the derivative of the conditional noise by the logits is forgotten."""
    wrong: Any = ConstantConditional(dist.logits)
    return estimators.relax(key, wrong, f)


def relax_resampled(key: PRNGKeyArray, dist: Bernoulli, f: Callable[[Any], Any]) -> Float[Array, ""]:
    """RELAX with independent noise where the conditional one belongs."""
    wrong: Any = UnconditionalNoise(dist.logits)
    return estimators.relax(key, wrong, f)


def moving_average_with_own(key: PRNGKeyArray, dist: Any, f: Callable[[Any], Any]) -> Float[Array, ""]:
    """A moving average at its steady state, with this step's own value in it (decay 0.9)."""
    draw = lax.stop_gradient(dist.sample(key))
    value = f(draw)
    steady = moving_average().update(lax.stop_gradient(estimators.exact(key, dist, f)), decay=0.0)
    box = magic_box(dist.log_prob(draw))
    return value * box + (1 - box) * steady.update(lax.stop_gradient(value), decay=0.9).mean()


def leave_one_out_with_own(key: PRNGKeyArray, dist: Any, f: Callable[[Any], Any]) -> Float[Array, ""]:
    """Two draws with the mean over both, and not over the other one, as the baseline."""
    draws = lax.stop_gradient(jax.vmap(dist.sample)(jax.random.split(key)))
    values, boxes = jax.vmap(f)(draws), magic_box(jax.vmap(dist.log_prob)(draws))
    return jnp.mean(values * boxes + (1 - boxes) * lax.stop_gradient(values.mean()))


def vimco_without_explicit_term(
    key: PRNGKeyArray, dist: Any, log_joint: Callable[[Any], Any], *, num_samples: int
) -> Float[Array, ""]:
    """VIMCO without the derivative of the weights themselves."""
    draws = lax.stop_gradient(jax.vmap(dist.sample)(jax.random.split(key, num_samples)))
    log_probs = jax.vmap(dist.log_prob)(draws)
    log_weights = jax.vmap(log_joint)(draws) - lax.stop_gradient(log_probs)
    bound = jax.nn.logsumexp(log_weights) - math.log(num_samples)
    return bound * magic_box(jnp.sum(log_probs))


def unweighted_doubly_reparameterized(
    key: PRNGKeyArray, dist: Any, log_joint: Callable[[Any], Any], *, num_samples: int
) -> Float[Array, ""]:
    """STL, claimed unbiased for several samples."""
    return estimators.stl(key, dist, log_joint, num_samples=num_samples)


#: By name.
CONTROLS = {
    "disarm_signed": Control("factor sigma(logit), not sigma(|logit|)", disarm_signed, estimators.disarm, "bits"),
    "relax_constant": Control("conditional noise taken as a constant", relax_constant, estimators.relax, "bits"),
    "relax_resampled": Control(
        "noise resampled without regard to the draw", relax_resampled, estimators.relax, "bits", is_biased=False
    ),
    "moving_average_with_own": Control(
        "baseline that contains its own sample", moving_average_with_own, estimators.reinforce, "bits"
    ),
    "leave_one_out_with_own": Control(
        "mean over all samples as baseline", leave_one_out_with_own, estimators.leave_one_out, "bits"
    ),
    "vimco_without_explicit_term": Control(
        "derivative of the weights forgotten", vimco_without_explicit_term, estimators.vimco, "bits_bound"
    ),
    "stl_claimed_unbiased": Control(
        "sticking the landing with several samples", unweighted_doubly_reparameterized, estimators.dreg, "normal_bound"
    ),
}
