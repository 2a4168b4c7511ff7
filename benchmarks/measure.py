"""Bias, variance and time of one gradient estimator on one problem.

The bias of a gradient is a vector; its test should have power in every direction, and be a plain z score when there is
no bias. So the draws are split: the first half finds the direction in which the mean leaves the exact gradient; the
second half, which knows nothing of the first, is projected on it. Without bias the projections have mean zero whatever
the direction is, and their mean over its standard error is N(0, 1). With bias the direction turns towards it.
"""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from benchmarks.problems import Loss, Problem
from benchmarks.vae import COMPILE_FAST
from benchmarks.variants import BEST, Variant
from jaxlab.estimators import Estimator
from jaxlab.moments import Moments, moments_of

#: Numbers that the gradients of one chunk of draws hold at once: 4 MiB of float32, which stay in the cache.
CHUNK_NUMBERS = 2**20
#: Draws from which the best scale of a control variate is found.
TUNING_DRAWS = 512
#: Gradient steps in one timed call, so that the call itself does not count.
TIMED_STEPS = 64
#: Upper bound for the timing of one estimator.
SECONDS_OF_TIMING = 0.5

#: One gradient for each key: ``gradients_at(keys [n]) -> [n, d]``.
GradientsAt: TypeAlias = Callable[[PRNGKeyArray], Float[Array, "n d"]]


class Sums(NamedTuple):
    """Statistics of gradients that merge."""

    gradient: Moments  # by coordinate
    projection: Moments  # of the error on a given direction
    squared_error: Moments
    cosine: Moments  # with the exact gradient


class Summary(NamedTuple):
    """The statistics of all draws, and of the second half on the direction that the first one found; all scalars."""

    num_draws: Array
    variance: Array  # the trace
    mean_square: Array  # of the length
    mean_squared_error: Array
    mean_squared_error_standard_error: Array
    cosine: Array
    bias: Array
    bias_standard_error: Array


class Bias(NamedTuple):
    """The mean error along the direction that the other half of the draws found.

    It is the length of the bias once that direction is known well, and less (in expectation) as long as it is not.
    """

    bias: float
    standard_error: float
    z: float


def unit(vector: Float[Array, "d"]) -> Float[Array, "d"]:
    """The vector at length one; zero stays zero."""
    # At its largest entry 1 first: the squares of small gradients would underflow.
    largest = jnp.max(jnp.abs(vector))
    scaled = vector / jnp.where(largest > 0, largest, 1)
    return scaled / jnp.where(largest > 0, jnp.linalg.norm(scaled), 1)


def no_sums(size: int) -> Sums:
    """The statistics of no gradients."""
    zero: Any = np.float32(0)  # numpy, for which nothing has to be compiled
    zeros: Any = np.zeros(size, np.float32)
    no_samples: Any = np.int32(0)
    nothing = Moments(no_samples, zero, zero)
    return Sums(Moments(no_samples, zeros, zeros), nothing, nothing, nothing)


def merged(sums: Sums, other: Sums) -> Sums:
    """The statistics of both sets of gradients."""
    return Sums(*(a.merge(b) for a, b in zip(sums, other, strict=True)))


@functools.partial(jax.jit, compiler_options=COMPILE_FAST)
def accumulated(
    sums: Sums, gradients: Float[Array, "n d"], exact: Float[Array, "d"], direction: Float[Array, "d"]
) -> Sums:
    """The statistics with some more gradients in them."""
    errors = gradients - exact[None]
    # Products and sums, for a matrix product is rounded harder on some devices.
    new = Sums(
        moments_of(gradients),
        moments_of(jnp.sum(errors * direction[None], -1)),
        moments_of(jnp.sum(errors**2, -1)),
        moments_of(jnp.sum(jax.vmap(unit)(gradients) * unit(exact)[None], -1)),
    )
    return merged(sums, new)


@functools.partial(jax.jit, compiler_options=COMPILE_FAST)
def direction_of_bias(sums: Sums, exact: Float[Array, "d"]) -> Float[Array, "d"]:
    """The direction in which the mean leaves the exact gradient."""
    return unit(sums.gradient.mean - exact)


@functools.partial(jax.jit, compiler_options=COMPILE_FAST)
def summary_of(first: Sums, second: Sums) -> Summary:
    """The scalars that are told."""
    both = merged(first, second)
    return Summary(
        num_draws=both.squared_error.num_samples,
        variance=jnp.sum(both.gradient.variance()),
        mean_square=jnp.sum(both.gradient.variance(unbiased=False) + both.gradient.mean**2),
        mean_squared_error=both.squared_error.mean,
        mean_squared_error_standard_error=both.squared_error.standard_error(),
        cosine=both.cosine.mean,
        bias=second.projection.mean,
        bias_standard_error=second.projection.standard_error(),
    )


def summarised(gradients_at: GradientsAt, key: PRNGKeyArray, exact: Float[Array, "d"], num_draws: int) -> Summary:
    """Draws gradients in two halves and summarises them."""
    chunk = max(1, min(num_draws // 2, CHUNK_NUMBERS // exact.size))
    num_chunks = math.ceil(num_draws / 2 / chunk)
    halves, direction = [], jnp.zeros(exact.size)
    for keys_of_half in jax.random.split(key, (2, num_chunks, chunk)):
        sums = no_sums(exact.size)
        for keys_of_chunk in keys_of_half:  # no more than one chunk of gradients is in memory
            sums = accumulated(sums, gradients_at(keys_of_chunk), exact, direction)
        halves.append(sums)
        direction = direction_of_bias(sums, exact)
    return summary_of(*halves)


def bias_of(summary: Summary, rounding: float) -> Bias:
    """The bias along the direction that the first half of the draws found, by the second half.

    Args:
      summary: of the draws.
      rounding: size of the rounding errors of a gradient. An estimator without noise (``exact``, or a baseline that
        happens to be perfect) has a standard error of zero or of rounding, and its distance from the exact gradient is
        rounding too: one over the other would be nonsense. So rounding counts as an error beside the standard one.

    Returns:
      Bias and standard error in the unit of the gradient, and z.
    """
    bias, standard_error = float(summary.bias), math.hypot(float(summary.bias_standard_error), rounding)
    return Bias(bias, standard_error, bias / standard_error if standard_error != 0 else 0.0)


def rounding_of(reference: Summary) -> float:
    """The size of rounding errors: twice the float32 epsilon of what a gradient is the sum of.

    That is f times the score, the gradient of plain ``reinforce`` (root mean square), and not the exact gradient, which
    is what remains when these terms have cancelled: with bits of cost (b - 0.499)² the terms are 250 times as large.
    """
    return 2 * float(np.finfo(np.float32).eps) * math.sqrt(float(reference.mean_square))


# An estimator on a problem, compiled.


@dataclass(frozen=True)
class Program:
    """What is compiled in; two problems with the same loss, or two temperatures, share it."""

    loss: Loss
    row: Estimator
    static: tuple[tuple[str, int], ...]


class Inputs(NamedTuple):
    """What a compiled program gets."""

    parameters: Any
    constants: Any
    options: dict[str, Array]


def program_and_inputs(variant: Variant, problem: Problem) -> tuple[Program, Inputs]:
    """A variant on a problem, in what is compiled and what is given to it."""
    options = {name: jnp.array(number, jnp.float32) for name, number in variant.numbers(problem).items()}
    inputs = Inputs(problem.parameters, problem.constants, options)
    return Program(problem.loss, variant.row, variant.static), inputs


def value_and_state(program: Program, key: PRNGKeyArray, inputs: Inputs, state: Any) -> tuple[Array, Any]:
    """The loss, and the next state of an estimator that has one."""
    settings = dict(program.static) | inputs.options
    if program.row.initial_state is None:
        estimate = functools.partial(program.row.estimate, **settings)
        return program.loss(key, inputs.parameters, inputs.constants, estimate), None

    def estimate_with_state(key: PRNGKeyArray, dist: Any, f: Callable) -> Any:
        return program.row.estimate(key, dist, f, state, **settings)

    # The loss takes the mean over examples of states as of values: one baseline for the minibatch.
    return program.loss(key, inputs.parameters, inputs.constants, estimate_with_state)


def gradient_and_state(program: Program, key: PRNGKeyArray, inputs: Inputs, state: Any) -> tuple[Any, Any]:
    """The estimated gradient, and the next state."""

    def of_parameters(parameters: Any) -> tuple[Array, Any]:
        return value_and_state(program, key, inputs._replace(parameters=parameters), state)

    return jax.grad(of_parameters, has_aux=True)(inputs.parameters)


def initial_state(program: Program) -> Any:
    """The state before the first step; None for an estimator without one."""
    return None if program.row.initial_state is None else program.row.initial_state()


@functools.partial(jax.jit, static_argnames=("program", "warm_up"), compiler_options=COMPILE_FAST)
def gradients(program: Program, inputs: Inputs, keys: PRNGKeyArray, *, warm_up: int) -> Float[Array, "n d"]:
    """The estimator's gradients, one for each key.

    For an estimator with a state, each key is a training run of its own at frozen parameters: ``warm_up`` steps that
    only move the state, then the gradient that counts. Runs are independent; steps of one run would not be.
    """

    def gradient_at(key: PRNGKeyArray) -> Float[Array, "d"]:
        state = initial_state(program)
        if state is not None:
            key, warm_up_key = jax.random.split(key)

            def step(state: Any, i: Array) -> tuple[Any, None]:
                # Keys as the scan's input would do, but for JAX's check of key reuse, which they alarm under a vmap.
                return value_and_state(program, jax.random.fold_in(warm_up_key, i), inputs, state)[1], None

            state, _ = lax.scan(step, state, jnp.arange(warm_up))
        return ravel_pytree(gradient_and_state(program, key, inputs, state)[0])[0]

    return jax.vmap(gradient_at)(keys)


def training_steps(program: Program, inputs: Inputs, keys: PRNGKeyArray, rate: Float[Array, ""]) -> Any:
    """Gradient descent as a training loop does it, one step a key; the last parameters and state."""

    def step(carry: tuple[Any, Any], key: PRNGKeyArray) -> tuple[tuple[Any, Any], None]:
        parameters, state = carry
        gradient, state = gradient_and_state(program, key, inputs._replace(parameters=parameters), state)
        return (jax.tree.map(lambda p, g: p - rate * g, parameters, gradient), state), None

    return lax.scan(step, (inputs.parameters, initial_state(program)), keys)[0]


# What is timed is compiled as users compile it; when times do not matter, faster.
TIMED = jax.jit(training_steps, static_argnames=("program",))
TIMED_ROUGHLY = jax.jit(training_steps, static_argnames=("program",), compiler_options=COMPILE_FAST)


def best_scale(program: Program, inputs: Inputs, key: PRNGKeyArray) -> Float[Array, ""]:
    """The scale of a control variate at which the gradient varies least: -cov(G0, G1) / var(G1) for G0 + scale G1."""
    at_zero, at_one = (
        gradients(
            program,
            inputs._replace(options=inputs.options | {"scale": jnp.float32(scale)}),
            jax.random.split(jax.random.clone(key), TUNING_DRAWS),
            warm_up=0,
        )
        for scale in (0.0, 1.0)
    )
    constant = at_zero - at_zero.mean(0)[None]
    control = at_one - at_zero
    control = control - control.mean(0)[None]
    return -jnp.sum(constant * control) / jnp.sum(control**2)


def summary_of_variant(variant: Variant, problem: Problem, key: PRNGKeyArray, num_draws: int, warm_up: int) -> Summary:
    """The summary of a variant's gradients on a problem."""
    program, inputs = program_and_inputs(variant, problem)
    if ("scale", BEST) in variant.options:
        key, tuning_key = jax.random.split(key)
        scale = best_scale(program, inputs, tuning_key)
        inputs = inputs._replace(options=inputs.options | {"scale": scale})
    gradients_at = functools.partial(gradients, program, inputs, warm_up=warm_up)
    # Nothing is random where nothing is sampled: a few draws will do.
    num_draws = num_draws if variant.row.minimal_num_samples > 0 else 8
    return summarised(gradients_at, key, ravel_pytree(problem.gradient)[0], num_draws)


def quantities(summary: Summary, size: int, length: float, rounding: float) -> dict[str, Any]:
    """Everything that is measured of a gradient but its time.

    Args:
      summary: of the draws.
      size: number of coordinates.
      length: of the exact gradient.
      rounding: size of rounding errors.

    Returns:
      Biases in the unit of the gradient (or, relative ones, of the exact one's length), variances in that unit squared.
    """
    variance, bias = float(summary.variance), bias_of(summary, rounding)
    return {
        "draws": int(summary.num_draws),
        "bias": bias.bias,
        "bias_standard_error": bias.standard_error,
        "relative_bias": bias.bias / length,
        "relative_bias_standard_error": bias.standard_error / length,
        "z": bias.z,
        "variance": variance,
        "variance_per_coordinate": variance / size,
        "relative_variance": variance / length**2,
        "mean_squared_error": float(summary.mean_squared_error),
        "mean_squared_error_standard_error": float(summary.mean_squared_error_standard_error),
        "cosine": float(summary.cosine),
        "signal_to_noise": length / math.sqrt(variance) if variance > 0 else math.inf,
    }


def timed_call(variant: Variant, problem: Problem, rough: bool) -> Callable[[], Any]:
    """Training steps of a variant on a problem, of the same work at each call."""
    program = TIMED_ROUGHLY if rough else TIMED
    keys = jax.random.split(jax.random.key(0), TIMED_STEPS)
    call = functools.partial(program, *program_and_inputs(variant, problem))
    return lambda: jax.block_until_ready(call(keys=jax.random.clone(keys), rate=np.float32(0)))


def seconds_a_step(
    variant: Variant, reference: Variant, problem: Problem, rounds: int, rough: bool
) -> tuple[float, float]:
    """Seconds of one training step, and how many times that of ``reference`` it is: medians over turns of the two."""
    calls = [timed_call(one, problem, rough) for one in (variant, reference)]

    def seconds(call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    for call in calls:
        seconds(call)
    times = []
    started = time.perf_counter()
    # What takes long is timed less often, but never less than three times.
    while len(times) < rounds and (len(times) < 3 or time.perf_counter() - started < SECONDS_OF_TIMING):
        turn = [0.0, 0.0]
        # Whoever comes second finds the caches of the first: they take turns at that.
        for i in (0, 1) if len(times) % 2 == 0 else (1, 0):
            turn[i] = seconds(calls[i])
        times.append(turn)
    ours, others = np.array(times).T
    return float(np.median(ours)) / TIMED_STEPS, float(np.median(ours / others))
