"""Problems whose gradient is known exactly, from one bit to a variational auto-encoder on images.

Every problem is an expectation over a distribution, the parameters it is differentiated for, and its exact value and
gradient: in closed form, or by :func:`jaxlab.estimators.exact`.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from benchmarks import vae
from experiments.images import Name, load
from jaxlab import estimators
from jaxlab.distributions import Bernoulli, Categorical, Normal

#: ``loss(key, parameters, constants, estimate)`` gives the mean over examples of what ``estimate(key, dist, f)`` gives:
#: a scalar, or with a stateful estimator the pair of a scalar and a state.
Loss: TypeAlias = Callable[[PRNGKeyArray, Any, Any, Callable], Any]


@dataclass(frozen=True)
class Problem:
    """An expectation and its exact gradient. Problems of one ``loss`` share their compiled programs."""

    name: str
    title: str
    loss: Loss
    parameters: Any  # what the gradient is for
    constants: Any  # what else the loss depends on
    dist: Any  # the distribution of one example, which tells the estimators that fit
    num_states: int | None  # of one example, where they can be listed
    value: float
    gradient: Any  # of the shape of parameters


@dataclass(frozen=True)
class Source:
    """What problems are made of: data and seed."""

    data: Name = "digits"
    data_directory: Path | None = None
    seed: int = 0
    num_images: int = 32  # in the minibatch of the auto-encoder
    training_calls: int = 20
    steps_a_call: int = 100

    @functools.cached_property
    def images(self) -> Float[Array, "n pixels"]:
        """Black and white images, in random order."""
        images = jnp.array(vae.binarised(load(self.data, self.data_directory)))
        return jax.random.permutation(jax.random.key(self.seed), images)

    @functools.cached_property
    def autoencoders(self) -> list[vae.Autoencoder]:
        """The model at its start, early in training, and trained."""
        return vae.stages(
            jax.random.key(self.seed + 1), self.images, num_calls=self.training_calls, steps_a_call=self.steps_a_call
        )


# Bits with a quadratic cost.


def bits_loss(key: PRNGKeyArray, logits: Float[Array, "d"], target: Float[Array, ""], estimate: Callable) -> Any:
    """The mean of (b - target) ** 2 over independent bits."""
    return estimate(key, Bernoulli(logits), lambda bits: jnp.mean((bits - target) ** 2))


def bits_problem(name: str, num_bits: int, target: float, logit: float, source: Source) -> Problem:
    r"""The toy problem of the field, :math:`\nabla = \theta (1 - \theta) (1 - 2 t) / d`: small beside its noise."""
    probability = 1 / (1 + math.exp(-logit))
    derivative = probability * (1 - probability) * (1 - 2 * target) / num_bits
    logits = jnp.full(num_bits, logit)
    return Problem(
        name=name,
        title=f"{num_bits} bit{'s' * (num_bits > 1)} of probability {probability:.2g}, cost (b - {target:g})²",
        loss=bits_loss,
        parameters=logits,
        constants=jnp.array(target),
        dist=Bernoulli(logits),
        num_states=2**num_bits if num_bits <= 20 else None,
        value=probability * (1 - target) ** 2 + (1 - probability) * target**2,
        gradient=jnp.full(num_bits, derivative),
    )


# Categories with a smooth cost.


class CategoriesCost(NamedTuple):
    """A small random network, from two rows of three categories to a scalar."""

    weights: Float[Array, "inputs hidden"]
    readout: Float[Array, "hidden"]
    offset: Float[Array, ""]


def categories_loss(key: PRNGKeyArray, logits: Float[Array, "m k"], cost: CategoriesCost, estimate: Callable) -> Any:
    """A smooth non-linear function of two one-hot rows."""

    def f(rows: Float[Array, "m k"]) -> Float[Array, ""]:
        return jnp.tanh(rows.reshape(-1) @ cost.weights) @ cost.readout + cost.offset

    return estimate(key, Categorical(logits), f)


def categories_problem(name: str, source: Source) -> Problem:
    """Two variables of three categories; exact by enumeration."""
    logits_key, weights_key, readout_key = jax.random.split(jax.random.key(source.seed + 2), 3)
    logits = jax.random.normal(logits_key, (2, 3))
    cost = CategoriesCost(
        jax.random.normal(weights_key, (6, 8)), 2 * jax.random.normal(readout_key, (8,)), jnp.array(2.0)
    )
    value, gradient = exact_by_enumeration(categories_loss, logits, cost)
    return Problem(
        name=name,
        title="2 variables of 3 categories, a small random network as cost",
        loss=categories_loss,
        parameters=logits,
        constants=cost,
        dist=Categorical(logits),
        num_states=9,
        value=value,
        gradient=gradient,
    )


def exact_by_enumeration(loss: Loss, parameters: Any, constants: Any) -> tuple[float, Any]:
    """Value and gradient of a loss whose distribution can be listed."""
    value, gradient = enumerate_states(loss, parameters, constants)
    return float(value), gradient


@functools.partial(jax.jit, static_argnames=("loss",), compiler_options=vae.COMPILE_FAST)
def enumerate_states(loss: Loss, parameters: Any, constants: Any) -> tuple[Any, Any]:
    """The compiled part of :func:`exact_by_enumeration`."""
    return jax.value_and_grad(lambda p: loss(jax.random.key(0), p, constants, estimators.exact))(parameters)


# A normal variable with costs whose expectation is known.


class NormalParameters(NamedTuple):
    """Location and log-scale of one normal variable: both unconstrained."""

    loc: Float[Array, ""]
    log_scale: Float[Array, ""]

    def dist(self) -> Normal:
        """The distribution they stand for."""
        return Normal(self.loc, jnp.exp(self.log_scale))


@dataclass(frozen=True)
class NormalCost:
    """A cost of a normal variable, and by location and scale its expectation and the derivatives of that."""

    formula: str
    cost: Callable[[Array], Array]
    expectation: Callable[[float, float], float]
    by_loc: Callable[[float, float], float]
    by_scale: Callable[[float, float], float]


#: With closed forms by location m and scale s.
NORMAL_COSTS = (
    NormalCost("x²", lambda x: x**2, lambda m, s: m**2 + s**2, lambda m, s: 2 * m, lambda m, s: 2 * s),
    NormalCost(
        "x³",
        lambda x: x**3,
        lambda m, s: m**3 + 3 * m * s**2,
        lambda m, s: 3 * m**2 + 3 * s**2,
        lambda m, s: 6 * m * s,
    ),
    NormalCost(
        "cos x",
        jnp.cos,
        lambda m, s: math.cos(m) * math.exp(-(s**2) / 2),
        lambda m, s: -math.sin(m) * math.exp(-(s**2) / 2),
        lambda m, s: -s * math.cos(m) * math.exp(-(s**2) / 2),
    ),
    NormalCost(
        "exp x",
        jnp.exp,
        lambda m, s: math.exp(m + s**2 / 2),
        lambda m, s: math.exp(m + s**2 / 2),
        lambda m, s: s * math.exp(m + s**2 / 2),
    ),
)


def normal_loss(key: PRNGKeyArray, parameters: NormalParameters, which: Int[Array, ""], estimate: Callable) -> Any:
    """The expectation of one of the costs of a normal variable; chosen by a number, so that one program serves all."""
    return estimate(key, parameters.dist(), lambda x: lax.switch(which, [row.cost for row in NORMAL_COSTS], x))


def normal_problem(name: str, which: int, source: Source) -> Problem:
    """One normal variable; exact in closed form."""
    loc, scale = 0.7, 0.3  # not wider, lest rare large costs rule the variance of the score estimators
    cost = NORMAL_COSTS[which]
    parameters = NormalParameters(jnp.array(loc), jnp.log(jnp.array(scale)))
    # By the log-scale, so once more times the scale.
    gradient = NormalParameters(jnp.array(cost.by_loc(loc, scale)), jnp.array(scale * cost.by_scale(loc, scale)))
    return Problem(
        name=name,
        title=f"a normal variable (mean {loc}, deviation {scale}), cost {cost.formula}",
        loss=normal_loss,
        parameters=parameters,
        constants=jnp.array(which),
        dist=parameters.dist(),
        num_states=None,
        value=cost.expectation(loc, scale),
        gradient=gradient,
    )


# The real one.


def vae_problem(name: str, stage: int, source: Source) -> Problem:
    """The encoder of a Bernoulli auto-encoder on a fixed minibatch; exact over its 1,024 latent states an image."""
    model = source.autoencoders[stage]
    steps = [0, source.steps_a_call, source.steps_a_call * source.training_calls][stage]
    batch = vae.Batch(model.decoder, source.images[: source.num_images])
    value, gradient = exact_by_enumeration(vae.loss, model.encoder, batch)
    images = {"digits": "digits", "fashion_mnist": "Fashion-MNIST"}[source.data]
    return Problem(
        name=name,
        title=f"auto-encoder with {vae.NUM_LATENTS} bits on {images}, after {steps:,} training steps",
        loss=vae.loss,
        parameters=model.encoder,
        constants=batch,
        dist=Bernoulli(jnp.zeros(vae.NUM_LATENTS)),
        num_states=2**vae.NUM_LATENTS,
        value=value,
        gradient=gradient,
    )


#: Every problem by name: what makes it from its source.
PROBLEMS: dict[str, Callable[[Source], Problem]] = {
    name: functools.partial(make, name, *arguments)
    for name, make, *arguments in (
        ("bit_049", bits_problem, 1, 0.49, 0.0),
        ("bit_0499", bits_problem, 1, 0.499, 0.0),
        ("bit_0499_off_centre", bits_problem, 1, 0.499, math.log(3)),
        ("bits_049", bits_problem, 200, 0.49, 0.0),
        ("bits_0499", bits_problem, 200, 0.499, 0.0),
        ("bits_0499_off_centre", bits_problem, 200, 0.499, 1.0),
        ("categories", categories_problem),
        ("normal_square", normal_problem, 0),
        ("normal_cube", normal_problem, 1),
        ("normal_cosine", normal_problem, 2),
        ("normal_exponential", normal_problem, 3),
        ("vae_initial", vae_problem, 0),
        ("vae_early", vae_problem, 1),
        ("vae_trained", vae_problem, 2),
    )
}
