"""NVIL and discrete Stein control variates: unbiased for every setting, and trained out of the same pass."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import (
    BITS,
    EXPECTATIONS,
    NUM_REPLICATES,
    THETA,
    exact,
    replicates,
    total_variance,
    tuned,
    value_and_gradients,
)
from replicates import FAR, agrees, largest_z, replicate, smooth

from jaxlab import estimators
from jaxlab.distributions import Bernoulli
from jaxlab.estimators.stein import expected_change, expected_change_of_score
from jaxlab.moments import MovingAverage


def network(parameters, value, change):
    """Two surrogates that are no function of f worth mentioning: the gradient is unbiased all the same."""
    hidden = jnp.tanh(parameters["hidden"] @ jnp.stack([value, change]))
    return hidden @ parameters["first"] + change, hidden @ parameters["second"]


PARAMETERS = {
    "hidden": jnp.array([[0.5, -1.0], [0.25, 2.0], [-1.0, 0.5]]),
    "first": jnp.array([1.0, -2.0, 0.5]),
    "second": jnp.array([-1.0, 0.5, 2.0]),
}


@pytest.mark.parametrize("name", EXPECTATIONS)
@pytest.mark.parametrize("num_samples", [2, 3])
def test_discrete_stein_is_unbiased_for_every_surrogate(name, num_samples):
    def estimate(key, dist, f):
        return estimators.discrete_stein(
            key,
            dist,
            f,
            num_samples=num_samples,
            surrogates=network,
            parameters=PARAMETERS,
            baseline_scale=0.7,
            score_scale=-1.3,
        )

    assert agrees(replicates(estimate, name), exact(name))


@pytest.mark.parametrize("name", EXPECTATIONS)
def test_a_surrogate_made_of_the_draw_itself_is_biased(name):
    dist, _ = EXPECTATIONS[name]

    def wrong(key):
        x = dist.sample(key)
        f = smooth(x, THETA)
        slope = jax.grad(smooth)(x, THETA)
        changes = dist.neighbour_changes(slope, x)
        control = expected_change_of_score(dist, x, f, f + changes)
        return f * (x - dist.mean()) + control

    (_, (expected, _)) = exact(name)
    assert largest_z(replicate(wrong, num_replicates=NUM_REPLICATES), expected.logits) > FAR


@pytest.mark.parametrize("name", EXPECTATIONS)
def test_the_stein_operator_is_the_mean_change_by_one_site_drawn_anew(name):
    dist, _ = EXPECTATIONS[name]
    x = dist.sample(jax.random.key(3))
    probabilities = np.asarray(dist.mean())

    def h(x):
        return smooth(x, THETA)

    def h_score(x):
        return h(x) * (x - dist.mean())

    def by_hand(function):
        total = 0 * function(x)
        if name == "bits":
            for i in range(3):
                flipped = x.at[i].set(1 - x[i])
                chance = probabilities[i] if x[i] == 0 else 1 - probabilities[i]
                total += chance * (function(flipped) - function(x))
            return total / 3
        for row, code in itertools.product(range(2), range(3)):
            total += probabilities[row, code] * (function(x.at[row].set(jnp.eye(3)[code])) - function(x))
        return total / 2

    around = jax.vmap(h)(dist.neighbours(x))
    np.testing.assert_allclose(expected_change(dist, x, h(x), around), by_hand(h), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(expected_change_of_score(dist, x, h(x), around), by_hand(h_score), rtol=1e-4, atol=1e-6)
    slope = jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
    np.testing.assert_allclose(
        dist.neighbour_changes(slope, x),
        jax.vmap(lambda y: jnp.sum(slope * (y - x)))(dist.neighbours(x)),
        atol=1e-6,
    )


def test_the_tuning_gradient_of_discrete_stein_is_that_of_its_total_variance():
    scales = jnp.array([0.4, -0.6])

    def loss(key, logits, scales):
        return estimators.discrete_stein(
            key,
            Bernoulli(logits),
            lambda b: smooth(b, THETA),
            surrogates=network,
            parameters=PARAMETERS,
            baseline_scale=scales[0],
            score_scale=scales[1],
        )

    logits = BITS.logits
    slopes = replicate(lambda key: jax.grad(loss, argnums=2)(key, logits, scales), num_replicates=NUM_REPLICATES)

    # The same keys on either side of the scales: the difference has little noise of its own.
    def difference(key):
        def square(scales):
            return jnp.sum(jax.grad(loss, argnums=1)(jax.random.clone(key), logits, scales) ** 2)

        steps = 0.05 * jnp.eye(2)
        return jnp.stack([(square(scales + step) - square(scales - step)) / 0.1 for step in steps])

    differences = replicate(difference, num_replicates=NUM_REPLICATES)
    # The square is a quadratic function of the scales: central differences are exact, draw by draw.
    np.testing.assert_allclose(slopes, differences, rtol=1e-2, atol=2e-3 * float(np.abs(slopes).max()))


def test_tuned_scales_lower_the_variance_of_discrete_stein():
    logits = jnp.linspace(-1.0, 1.0, 6)

    def loss(key, logits, scales):
        return estimators.discrete_stein(
            key, Bernoulli(logits), lambda b: smooth(b, THETA), baseline_scale=scales[0], score_scale=scales[1]
        )

    scales = tuned(loss, jnp.zeros(2), logits, rate=0.3)
    before = total_variance(lambda key, phi: loss(key, phi, jnp.zeros(2)), logits)
    after = total_variance(lambda key, phi: loss(key, phi, scales), logits)
    assert after < 0.8 * before


def test_discrete_stein_with_scales_of_zero_is_leave_one_out():
    key = jax.random.key(5)
    ours = value_and_gradients(lambda key, d, f: estimators.discrete_stein(key, d, f, num_samples=3), BITS, key)
    theirs = value_and_gradients(
        lambda key, d, f: estimators.leave_one_out(key, d, f, num_samples=3), BITS, jax.random.clone(key)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


def test_chunks_of_discrete_stein_leave_its_numbers_and_bound_its_memory():
    dim, hidden = 64, 256
    logits = jnp.linspace(-1.0, 1.0, dim)
    weights = jax.random.normal(jax.random.key(1), (hidden, 2)) / 8
    target = jnp.cos(jnp.arange(dim, dtype=jnp.float32))

    def surrogates(weights, value, change):
        units = jnp.tanh(weights @ jnp.stack([value, change]))
        return jnp.sum(units), jnp.mean(units)

    def loss(logits, weights, key, chunk_size):
        return estimators.discrete_stein(
            key,
            Bernoulli(logits),
            lambda b: jnp.sum(jnp.sin(b * target)) ** 2,
            num_samples=4,
            surrogates=surrogates,
            parameters=weights,
            baseline_scale=0.5,
            score_scale=0.5,
            chunk_size=chunk_size,
        )

    def compiled(chunk_size):
        gradient = jax.grad(lambda *x: loss(*x, chunk_size), argnums=(0, 1))
        return jax.jit(gradient).lower(logits, weights, jax.random.key(0)).compile()

    whole, chunked = compiled(None), compiled(10)
    for a, b in zip(
        whole(logits, weights, jax.random.key(0)), chunked(logits, weights, jax.random.key(0)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(np.abs(a).max()))
    used = [program.memory_analysis().temp_size_in_bytes for program in (whole, chunked)]
    assert used[1] < used[0] / 2


@pytest.mark.parametrize("chunk_size", [None, 16])
def test_discrete_stein_never_writes_out_the_neighbours(chunk_size):
    batch, dim, num_samples = 10, 200, 2
    logits = jnp.zeros((batch, dim))

    def loss(logits, keys):
        def one(key, logits):
            return estimators.discrete_stein(
                key,
                Bernoulli(logits),
                lambda b: jnp.sum(jnp.sin(b)) ** 2,
                num_samples=num_samples,
                baseline_scale=0.5,
                score_scale=0.5,
                chunk_size=chunk_size,
            )

        return jnp.sum(jax.vmap(one)(keys, logits))

    program = jax.jit(jax.grad(loss)).lower(logits, jax.random.split(jax.random.key(0), batch)).compile()
    # All neighbours of all draws would be num_samples * batch * dim * dim numbers of four bytes.
    assert program.memory_analysis().temp_size_in_bytes < num_samples * batch * dim * dim * 4 / 8


# NVIL.

BEFORE = estimators.LearningSignal(
    MovingAverage(jnp.array(0.5), jnp.array(1.0)), MovingAverage(jnp.array(9.0), jnp.array(1.0))
)


@pytest.mark.parametrize("name", EXPECTATIONS)
@pytest.mark.parametrize("state", [estimators.learning_signal(), BEFORE], ids=["first step", "later"])
def test_nvil_is_unbiased(name, state):
    def estimate(key, dist, f):
        return estimators.nvil(key, dist, f, state, baseline=0.75)[0]

    assert agrees(replicates(estimate, name), exact(name))


def test_nvil_normalised_has_the_gradient_over_the_past_standard_deviation():
    def estimate(key, dist, f):
        return estimators.nvil(key, dist, f, BEFORE, baseline=0.75, normalise=True)[0]

    value, (to_dist, to_theta) = replicates(estimate, "bits")
    expected, (expected_to_dist, expected_to_theta) = exact("bits")
    assert agrees(value, expected)
    assert agrees(3 * to_dist.logits, expected_to_dist.logits)  # the square root of 9
    assert not agrees(to_dist.logits, expected_to_dist.logits)
    assert agrees(to_theta, expected_to_theta)  # what f closes over is not scaled


@pytest.mark.parametrize("which", ["mean", "variance"])
def test_nvil_that_updates_before_it_uses_is_biased(which):
    """As the published algorithm does: then the centre, or the scale, knows this very draw."""
    before = BEFORE._replace(variance=MovingAverage(jnp.array(1.0), jnp.array(1.0)))

    def wrong(key):
        def signal(b):
            return smooth(b, THETA) - 0.75

        b = BITS.sample(key)
        center, scale = before.mean.mean(), 1.0
        if which == "mean":
            center = before.mean.update(signal(b), decay=0.9).mean()
        else:
            variance = before.variance.update((signal(b) - center) ** 2, decay=0.5).mean()
            scale = jnp.maximum(1, jnp.sqrt(variance))
        return (signal(b) - center) / scale * (b - BITS.mean())

    gradients = replicate(wrong, num_replicates=NUM_REPLICATES)
    _, (expected, _) = exact("bits")
    if which == "mean":
        assert not agrees(gradients, expected.logits)
    else:  # a scale is unknown: but not even the direction is right
        mean = jnp.mean(gradients, 0)
        share = jnp.vdot(mean, expected.logits) / jnp.vdot(expected.logits, expected.logits)
        assert not agrees(gradients / share, expected.logits)


def test_the_baseline_of_nvil_is_trained_on_the_squared_error():
    state = BEFORE

    def loss(baseline, key):
        (_, value), _ = estimators.nvil(
            key, BITS, lambda b: (smooth(b, THETA), smooth(b, THETA)), state, baseline=baseline, has_aux=True
        )
        return value[0]

    def trained(baseline, key):
        return estimators.nvil(key, BITS, lambda b: smooth(b, THETA), state, baseline=baseline)[0]

    slope = jax.grad(trained)(0.75, jax.random.key(1))
    f = loss(0.75, jax.random.key(1))
    np.testing.assert_allclose(slope, -2 * (f - 0.75 - 0.5), rtol=1e-5)


def test_the_baseline_learns_what_differs_between_examples_and_the_state_what_is_left():
    """The mean of f depends on the example: what one number for all leaves over, a network of the example does not."""
    offsets = jnp.array([-20.0, 0.0, 30.0])

    def loss(weights, keys, state):
        def one(key, offset):
            return estimators.nvil(
                key, BITS, lambda b: smooth(b, THETA) + offset, state, baseline=weights[0] * offset + weights[1]
            )

        values, states = jax.vmap(one)(keys, offsets)
        return values.mean(), jax.tree.map(lambda leaf: leaf.mean(0), states)

    def step(carry, key):
        weights, state = carry
        keys = jax.random.split(key, 3)
        slope, state = jax.grad(loss, has_aux=True)(weights, keys, state)
        return (weights - 1e-4 * slope, state), None

    keys = jax.random.split(jax.random.key(0), 10_000)
    start = (jnp.zeros(2), estimators.learning_signal())
    weights, state = jax.jit(lambda keys: jax.lax.scan(step, start, keys)[0])(keys)
    np.testing.assert_allclose(weights[0], 1, atol=0.02)
    value, _ = exact("bits")
    np.testing.assert_allclose(weights[1] + state.mean.mean(), value, atol=0.3)
    assert 0 < float(state.variance.mean()) < 10


def test_the_mean_state_of_a_batch_is_the_state_after_the_batch_mean():
    values = jnp.array([1.0, 2.0, 6.0])

    def one(value):
        return estimators.nvil(jax.random.key(0), BITS, lambda b: value + 0 * b.sum(), BEFORE, decay=0.75)[1]

    mean_state = jax.tree.map(lambda leaf: leaf.mean(0), jax.vmap(one)(values))
    np.testing.assert_allclose(mean_state.mean.mean(), 0.75 * 0.5 + 0.25 * 3, rtol=1e-6)
    np.testing.assert_allclose(
        mean_state.variance.mean(), 0.75 * 9 + 0.25 * np.mean((np.array(values) - 0.5) ** 2), rtol=1e-6
    )
