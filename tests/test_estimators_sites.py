"""Several stochastic layers, each with an estimator of its own: each score sees the cost downstream of it alone."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replicates import FAR, agrees, expected_over_bits, largest_z, replicate

from jaxlab import estimators
from jaxlab.distributions import Bernoulli, Categorical

NUM_REPLICATES = 100_000
A = jnp.array([[1.0, -2.0], [0.5, 1.5]])
B = jnp.array([[0.5, -1.0, 0.25], [1.5, 0.0, -0.75]])
PHI, PSI = jnp.array([0.3, -0.6]), jnp.array([0.7, -1.0])
ROWS = jnp.array([[0.2, -0.3, 0.5], [1.0, 0.0, -0.5]])


def cost(y, theta):
    return jnp.exp(theta * (y[0] - y[1])) + y[0] * y[1]


def upstream(x):
    """A cost of the first layer alone: a constant to the second one."""
    return 20 * x[0] - 5 * x[1]


OUTER = {
    "leave_one_out": estimators.leave_one_out,
    "disarm": estimators.disarm,
    "arms": estimators.arms,
    "rebar": functools.partial(estimators.rebar, scale=0.5),
    "tied rebar": functools.partial(estimators.rebar, scale=0.5, tied=True),
    "double_control_variate": functools.partial(estimators.double_control_variate, scale=-0.2),
    "discrete_stein": functools.partial(estimators.discrete_stein, baseline_scale=0.3, score_scale=0.2),
    "muprop": estimators.muprop,
    "local_expectation": estimators.local_expectation,
    "unordered_set": estimators.unordered_set,
}
INNER = {
    "leave_one_out": estimators.leave_one_out,
    "disarm": estimators.disarm,
    "rebar": estimators.rebar,
    "local_expectation": estimators.local_expectation,
    "exact": estimators.exact,
}
# All inner ones under one outer one, and all outer ones over one inner one.
PAIRS = [("leave_one_out", inner) for inner in INNER] + [(outer, "disarm") for outer in OUTER] + [("rebar", "rebar")]


def two_layers(outer, inner, phi, psi, theta, key):
    outer_key, inner_key = jax.random.split(key)

    def downstream(x):
        # The inner key is the same for all draws of the outer layer.
        hidden = Bernoulli(jnp.dot(A, x) + psi)
        return upstream(x) + inner(jax.random.clone(inner_key), hidden, lambda y: cost(y, theta))

    return outer(outer_key, Bernoulli(phi), downstream)


def expected_of_two_layers(phi, psi, theta):
    def downstream(x):
        return upstream(x) + expected_over_bits(Bernoulli(jnp.dot(A, x) + psi), lambda y: cost(y, theta))

    return expected_over_bits(Bernoulli(phi), downstream)


@pytest.mark.parametrize(("outer", "inner"), PAIRS)
def test_two_layers_of_bits_with_an_estimator_each(outer, inner):
    def estimates(key):
        def loss(phi, psi, theta):
            return two_layers(OUTER[outer], INNER[inner], phi, psi, theta, key)

        return jax.value_and_grad(loss, argnums=(0, 1, 2))(PHI, PSI, jnp.array(0.8))

    samples = replicate(estimates, num_replicates=NUM_REPLICATES)
    expected = jax.jit(jax.value_and_grad(expected_of_two_layers, argnums=(0, 1, 2)))(PHI, PSI, jnp.array(0.8))
    assert agrees(samples, expected)


def test_a_temperature_is_not_tuned_through_a_layer_without_a_second_derivative():
    """The gradient of the squared gradient for it needs that of f twice: a loud error, and no wrong number."""

    def loss(temperature):
        outer = functools.partial(estimators.rebar, temperature=temperature)
        return two_layers(outer, estimators.disarm, PHI, PSI, 0.8, jax.random.key(0))

    assert np.isfinite(loss(0.5))
    with pytest.raises(TypeError, match="disarm: only its first derivative is defined"):
        jax.grad(loss)(0.5)


def second_layer_gradient(key, cost_of_score):
    """The score function of the second layer by hand, with the cost that its score multiplies."""
    x_key, y_key = jax.random.split(key)
    x = Bernoulli(PHI).sample(x_key)
    hidden = Bernoulli(jnp.dot(A, x) + PSI)
    y = hidden.sample(y_key)
    return cost_of_score(x, y) * (y - hidden.mean())


def test_a_score_that_saw_the_cost_upstream_would_be_unbiased_too_and_vary_more():
    downstream = replicate(
        lambda key: second_layer_gradient(key, lambda x, y: cost(y, 0.8)), num_replicates=NUM_REPLICATES
    )
    everything = replicate(
        lambda key: second_layer_gradient(key, lambda x, y: cost(y, 0.8) + upstream(x)), num_replicates=NUM_REPLICATES
    )
    ours = replicate(
        lambda key: jax.grad(lambda psi: two_layers(estimators.reinforce, estimators.reinforce, PHI, psi, 0.8, key))(
            PSI
        ),
        num_replicates=NUM_REPLICATES,
    )
    expected = jax.grad(expected_of_two_layers, argnums=1)(PHI, PSI, 0.8)
    assert agrees(downstream, expected)
    assert agrees(everything, expected)
    assert agrees(ours, expected)
    # As much as by hand with the cost downstream, and not as with all of it.
    np.testing.assert_allclose(ours.var(0), downstream.var(0), rtol=0.05)
    assert (everything.var(0) > 10 * downstream.var(0)).all()


def test_the_first_layer_that_did_not_see_the_second_cost_is_biased():
    def wrong(key):
        x_key, y_key = jax.random.split(key)
        x = Bernoulli(PHI).sample(x_key)
        del y_key
        return upstream(x) * (x - Bernoulli(PHI).mean())

    expected = jax.grad(expected_of_two_layers)(PHI, PSI, 0.8)
    assert largest_z(replicate(wrong, num_replicates=NUM_REPLICATES), expected) > FAR


@pytest.mark.parametrize("inner", ["disarm_stick_breaking", "disarm_tree", "arsm", "leave_one_out", "rebar"])
def test_bits_over_categories(inner):
    def loss(phi, rows, key):
        outer_key, inner_key = jax.random.split(key)

        def downstream(x):
            category = Categorical(rows + jnp.dot(x, B)[None])
            return estimators.ESTIMATORS[inner].estimate(
                jax.random.clone(inner_key),
                category,
                lambda z: jnp.exp(jnp.sum(z * jnp.sin(3 * rows + 1))) + x[0] * z[0, 1],
            )

        return estimators.disarm(outer_key, Bernoulli(phi), downstream)

    def expectation(phi, rows):
        def downstream(x):
            probabilities = jax.nn.softmax(rows + jnp.dot(x, B)[None], -1)
            total = 0.0
            for first, second in itertools.product(range(3), repeat=2):
                z = jnp.eye(3)[jnp.array([first, second])]
                value = jnp.exp(jnp.sum(z * jnp.sin(3 * rows + 1))) + x[0] * z[0, 1]
                total += probabilities[0, first] * probabilities[1, second] * value
            return total

        return expected_over_bits(Bernoulli(phi), downstream)

    samples = replicate(
        lambda key: jax.value_and_grad(loss, argnums=(0, 1))(PHI, ROWS, key), num_replicates=NUM_REPLICATES
    )
    assert agrees(samples, jax.jit(jax.value_and_grad(expectation, argnums=(0, 1)))(PHI, ROWS))
