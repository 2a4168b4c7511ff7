"""The estimators that train the auto-encoder: how each is called, and what of it is trained beside the model."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxlab import estimators
from jaxlab.distributions import Bernoulli
from jaxlab.estimators import ESTIMATORS

#: Of the relaxations that have one to choose. ReinMax has its own, 1, at which it is exact for a quadratic f.
TEMPERATURE = 0.5
CONTROL_HIDDEN_DIM = 137  # of RELAX's network, as published
SURROGATE_HIDDEN_DIM = 100  # of RODEO's


@dataclass(frozen=True)
class Trained:
    """One estimator of the comparison."""

    estimate: Callable[..., Any]  # of key, distribution, f, num_samples, tunables
    options: str = ""  # in words, for the table
    least_evaluations: int = 1
    initial_tunables: Callable[[PRNGKeyArray, int], Any] = lambda key, num_latents: ()
    optimizer: Callable[[float], optax.GradientTransformation] = lambda learning_rate: optax.identity()
    shown: Callable[[Any], dict[str, Any]] = lambda tunables: {}  # numbers for the metrics


def plain(name: str, **options: Any) -> Callable[..., Any]:
    """An estimator with nothing to be trained, with these options."""

    def estimate(key: PRNGKeyArray, dist: Bernoulli, f: Callable, num_samples: int, tunables: Any) -> Any:
        return ESTIMATORS[name].estimate(key, dist, f, num_samples=num_samples, **options)

    return estimate


def double_control_variate(key: PRNGKeyArray, dist: Bernoulli, f: Callable, num_samples: int, tunables: Any) -> Any:
    """With its scale learned."""
    return estimators.double_control_variate(key, dist, f, num_samples=num_samples, scale=tunables)


def initial_control(key: PRNGKeyArray, num_latents: int) -> dict[str, Any]:
    """RELAX's temperature, scale and network before training."""
    glorot = jax.nn.initializers.glorot_uniform()
    hidden_key, output_key = jax.random.split(key)
    return {
        "log_temperature": jnp.log(0.1),
        "scale": jnp.float32(1),
        "network": (
            glorot(hidden_key, (num_latents, CONTROL_HIDDEN_DIM)),
            jnp.zeros(CONTROL_HIDDEN_DIM),
            glorot(output_key, (CONTROL_HIDDEN_DIM, 1))[:, 0],
        ),
    }


def control(network: Any, perturbed: Float[Array, "latents"]) -> Float[Array, ""]:
    """RELAX's learned function of the perturbed logits (a constant added to it would cancel)."""
    weights, biases, outputs = network
    return jax.nn.leaky_relu(perturbed @ weights + biases, 0.3) @ outputs


def relax(key: PRNGKeyArray, dist: Any, f: Callable, num_samples: int, tunables: Any) -> Any:
    """With temperature, scale and network learned."""
    return estimators.relax(
        key,
        dist,
        f,
        num_samples=num_samples,
        network=control,
        parameters=tunables["network"],
        temperature=jnp.exp(tunables["log_temperature"]),
        scale=tunables["scale"],
    )


def initial_surrogates(key: PRNGKeyArray, num_latents: int) -> dict[str, Any]:
    """RODEO's scales and network before training."""
    glorot = jax.nn.initializers.glorot_uniform()
    hidden_key, output_key = jax.random.split(key)
    network = (
        glorot(hidden_key, (2, SURROGATE_HIDDEN_DIM)),
        jnp.zeros(SURROGATE_HIDDEN_DIM),
        glorot(output_key, (SURROGATE_HIDDEN_DIM, 2)),
        jnp.zeros(2),
    )
    return {"baseline_scale": jnp.float32(0), "score_scale": jnp.float32(0), "network": network}


def surrogates(network: Any, value: Float[Array, ""], change: Float[Array, ""]) -> tuple[Any, Any]:
    """RODEO's two learned functions of f at another draw and of its linear change from there."""
    weights, biases, output_weights, output_biases = network
    hidden = jax.nn.leaky_relu(value * weights[0] + change * weights[1] + biases, 0.3)
    outputs = hidden @ output_weights + output_biases
    return outputs[0], outputs[1]


def discrete_stein(key: PRNGKeyArray, dist: Any, f: Callable, num_samples: int, tunables: Any) -> Any:
    """With scales and network learned."""
    return estimators.discrete_stein(
        key,
        dist,
        f,
        num_samples=num_samples,
        surrogates=surrogates,
        parameters=tunables["network"],
        baseline_scale=tunables["baseline_scale"],
        score_scale=tunables["score_scale"],
    )


#: In the order of the table.
TRAINED: dict[str, Trained] = {
    "leave_one_out": Trained(plain("leave_one_out")),
    "disarm": Trained(plain("disarm")),
    "arms": Trained(plain("arms"), least_evaluations=3),  # with two draws it is DisARM
    "relax": Trained(
        relax,
        "temperature, scale and network learned",
        initial_tunables=initial_control,
        optimizer=lambda learning_rate: optax.adam(learning_rate, b1=0.999),
        shown=lambda tunables: {"temperature": jnp.exp(tunables["log_temperature"]), "scale": tunables["scale"]},
    ),
    "double_control_variate": Trained(
        double_control_variate,
        "scale learned",
        initial_tunables=lambda key, num_latents: jnp.float32(0),
        optimizer=lambda learning_rate: optax.adam(1e-3),
        shown=lambda tunables: {"scale": tunables},
    ),
    "discrete_stein": Trained(
        discrete_stein,
        "scales and network learned",
        initial_tunables=initial_surrogates,
        optimizer=lambda learning_rate: optax.adam(1e-3),
        shown=lambda tunables: {name: tunables[name] for name in ("baseline_scale", "score_scale")},
    ),
    "straight_through_gumbel": Trained(
        plain("straight_through_gumbel", temperature=TEMPERATURE), f"temperature {TEMPERATURE}"
    ),
    "gumbel_rao": Trained(
        plain("gumbel_rao", temperature=TEMPERATURE, num_relaxations=10), f"temperature {TEMPERATURE}, 10 relaxations"
    ),
    "reinmax": Trained(plain("reinmax"), "temperature 1"),
    "gumbel_softmax": Trained(plain("gumbel_softmax", temperature=TEMPERATURE), f"temperature {TEMPERATURE}"),
}


@functools.cache
def num_samples_of(name: str, evaluations: int) -> int:
    """The ``num_samples`` with which an estimator evaluates f so many times; 0 if there is none."""
    row = ESTIMATORS[name]
    bits = Bernoulli(jax.ShapeDtypeStruct((1,), jnp.float32))  # pyright: ignore[reportArgumentType]
    if evaluations < TRAINED[name].least_evaluations:
        return 0
    for n in range(max(1, row.minimal_num_samples), evaluations + 1):
        if n % row.samples_in_groups_of == 0 and row.evaluations(n, bits) == evaluations:
            return n
    return 0


def trainings(names: tuple[str, ...], evaluations: tuple[int, ...]) -> list[tuple[str, int]]:
    """Estimators with their evaluations of f: each that can do with so many, or with the fewest that it can do with."""
    chosen: dict[tuple[str, int], None] = {}
    for wanted in evaluations:
        for name in names:
            fewest = next(n for n in range(1, 1000) if num_samples_of(name, n))
            if num_samples_of(name, max(wanted, fewest)):
                chosen[name, max(wanted, fewest)] = None
    return list(chosen)
