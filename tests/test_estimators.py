"""What each estimator claims, against expectations that are known: by enumeration, or in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from replicates import (
    FAR,
    FairBits,
    agrees,
    derivative_and_draws,
    estimate,
    expected_over_bits,
    largest_z,
    mean_and_variance,
    over_all_draws,
    replicate,
    smooth,
)

from benchmarks.small_problems import SMALL_PROBLEMS
from jaxlab import estimators
from jaxlab.distributions import Bernoulli
from jaxlab.estimators import ESTIMATORS
from jaxlab.moments import MovingAverage, moving_average

LOGITS = jnp.array([-1.2, 0.3, 0.9])


FITTING = [
    (row, name)
    for row in ESTIMATORS.values()
    for name, p in SMALL_PROBLEMS.items()
    # Gamma variables are slow to draw: the estimator that has a special rule for them, and one that has not.
    if isinstance(p.dist, row.needs) and (name != "gamma" or row.name in ("reparameterized", "leave_one_out"))
]


@pytest.mark.parametrize(("row", "name"), FITTING, ids=lambda x: x if isinstance(x, str) else x.name)
def test_value_and_gradient_are_as_unbiased_as_claimed(row, name):
    problem = SMALL_PROBLEMS[name]
    options = {"temperature": 1.0} if "temperature" in row.tunable else {}  # at lower ones biases are hard to see

    def loss(dist, theta, key):
        return estimate(row, key, dist, lambda x: problem.cost(x, theta), **options)

    def value_and_gradients(key):
        return jax.value_and_grad(loss, argnums=(0, 1))(problem.dist, problem.theta, key)

    num_replicates = 20_000 if name == "gamma" else 50_000  # its sampler is slow
    values, (to_dist, to_theta) = replicate(value_and_gradients, num_replicates=num_replicates)
    expected, (expected_to_dist, expected_to_theta) = jax.jit(jax.value_and_grad(problem.expectation, argnums=(0, 1)))(
        problem.dist, problem.theta
    )
    assert agrees(values, expected) == row.unbiased_value
    assert agrees(to_dist, expected_to_dist) == row.unbiased_gradient
    # What f closes over gets the gradient of the value, whatever the way through the draw.
    assert agrees(to_theta, expected_to_theta) == row.unbiased_value


@pytest.mark.parametrize(
    ("row", "name"),
    [(row, name) for row, name in FITTING if row.unbiased_gradient and name in ("bits", "normal")],
    ids=lambda x: x if isinstance(x, str) else x.name,
)
def test_parameters_that_f_sees_too_are_counted_exactly_once(row, name):
    # f(x) + log p(x) + sum(phi^2 x): the expectation changes by the law of x and by f's own dependence on phi.
    problem = SMALL_PROBLEMS[name]

    def cost(dist, x, phi):
        return problem.cost(x, problem.theta) + dist.log_prob(x) + jnp.sum(phi**2 * x)

    def expectation(dist):
        phi = jax.tree.leaves(dist)[0]
        if name == "bits":
            return expected_over_bits(dist, lambda b: cost(dist, b, phi))
        entropy = jnp.sum(jnp.log(dist.scale) + 0.5 * np.log(2 * np.pi * np.e))
        return problem.expectation(dist, problem.theta) - entropy + jnp.sum(phi**2 * dist.loc)

    def gradient(key, of_f):
        def loss(dist):
            return estimate(row, key, dist, lambda x: cost(dist, x, of_f(jax.tree.leaves(dist)[0])))

        return jax.grad(loss)(problem.dist)

    ways = [lambda phi: phi]
    if row.name in ("reinforce", "reparameterized"):  # the test can fail: forgotten, or counted twice
        ways += [lax.stop_gradient, lambda phi: 2 * phi - lax.stop_gradient(phi)]
    once, *wrong = replicate(lambda key: [gradient(jax.random.clone(key), of_f) for of_f in ways])
    expected = jax.jit(jax.grad(expectation))(problem.dist)
    assert agrees(once, expected)
    assert not any(agrees(gradients, expected) for gradients in wrong)


# t, theta, the gradient and the variances of REINFORCE and of leave-one-out with two samples, to the digits given.
GOLDEN = [
    (0.45, 0.5, 2.500e-2, 1.594e-2, 6.250e-4),
    (0.45, 0.1, 9.000e-3, 7.700e-3, 3.690e-4),
    (0.49, 0.5, 5.000e-3, 1.564e-2, 2.500e-5),
    (0.499, 0.5, 5.000e-4, 1.563e-2, 2.500e-7),
    (0.499, 0.75, 3.750e-4, 1.167e-2, 2.344e-7),
    (0.499, 0.1, 1.800e-4, 5.661e-3, 1.476e-7),
    (0.499, 0.01, 1.980e-5, 6.236e-4, 1.941e-8),
]


@pytest.mark.parametrize(("name", "num_samples"), [("reinforce", 1), ("leave_one_out", 2)])
def test_mean_and_variance_on_the_one_bit_problem_are_the_golden_ones(name, num_samples):
    t, p, gradient, *golden = np.array(GOLDEN).T
    golden = dict(zip(("reinforce", "leave_one_out"), golden, strict=True))
    q = 1 - p
    exact = p * q * (1 - 2 * t)
    by_hand = {
        # f(b) (b - p), with f(1) = (1 - t)^2 and f(0) = t^2.
        "reinforce": p * q * (q * (1 - t) ** 4 + p * t**4) - exact**2,
        # (f(b) - f(b')) (b - b') / 2 = (1 - 2 t) / 2, with probability 2 p q, or else 0.
        "leave_one_out": ((1 - 2 * t) / 2) ** 2 * 2 * p * q * (1 - 2 * p * q),
    }
    np.testing.assert_allclose(exact, gradient, rtol=1e-6)
    with jax.enable_x64(True):

        def all_rows(key):
            def one_row(t, logit):
                return derivative_and_draws(ESTIMATORS[name], lambda b: (b - t) ** 2, logit, key)

            gradients, draws = jax.vmap(one_row)(jnp.array(t), jnp.log(p / q))
            return gradients, draws[0]

        results, combinations = over_all_draws(all_rows, num_samples)
        for i, logit in enumerate(np.log(p / q)):
            mean, variance = mean_and_variance(results[:, i], combinations, logit)
            np.testing.assert_allclose(mean, exact[i], rtol=1e-9)
            np.testing.assert_allclose(variance, by_hand[name][i], rtol=1e-9)
            np.testing.assert_allclose(variance, golden[name][i], rtol=6e-4)


@pytest.mark.parametrize(("phi", "golden"), [(0.0, (1.56e-2, 1.25e-9)), (1.0, (1.23e-2, 7.7e-10))])
def test_variance_on_the_problem_of_200_bits(phi, golden):
    # f = mean_i (b_i - t)^2 = t^2 + (c / D) sum b, with c = 1 - 2 t.
    t, dim = 0.499, 200
    c, p = 1 - 2 * t, 1 / (1 + np.exp(-phi))
    pq = p * (1 - p)
    exact = c * pq / dim
    # d_i = b_i - b'_i is +-1 with probability 2 p q: the mean of (c / 2 D)^2 d_i^2 (sum d)^2, less the square.
    leave_one_out = (c / (2 * dim)) ** 2 * (2 * pq + (dim - 1) * (2 * pq) ** 2) - exact**2
    # f = b_i c / D + rest, where the rest has mean m and variance v.
    m, v = t**2 + c / dim * (dim - 1) * p, (c / dim) ** 2 * (dim - 1) * pq
    reinforce = p * (1 - p) ** 2 * ((m + c / dim) ** 2 + v) + (1 - p) * p**2 * (m**2 + v) - exact**2
    np.testing.assert_allclose((reinforce, leave_one_out), golden, rtol=1e-2)  # they were measured

    with jax.enable_x64(True):
        logits = jnp.full(dim, phi)
        for name, variance in [("reinforce", reinforce), ("leave_one_out", leave_one_out)]:

            def squared_deviation(key, row=ESTIMATORS[name]):
                def loss(phi):
                    return estimate(row, key, Bernoulli(phi), lambda b: jnp.mean((b - t) ** 2))

                gradient = jax.grad(loss)(logits)
                return jnp.mean((gradient - exact) ** 2), jnp.mean(gradient)

            squares, gradients = replicate(squared_deviation)
            assert largest_z(squares, variance) < FAR
            assert largest_z(gradients, exact) < FAR


@pytest.mark.parametrize(("name", "num_samples"), [("reinforce", 1), ("reinforce", 2), ("leave_one_out", 2)])
def test_the_mean_gradient_over_all_draws_is_the_exact_one(name, num_samples):
    with jax.enable_x64(True):
        logits, theta = jnp.float64(LOGITS), jnp.float64(SMALL_PROBLEMS["bits"].theta)

        def gradient(key):
            return derivative_and_draws(
                ESTIMATORS[name], lambda b: smooth(b, theta), logits, key, num_samples=num_samples
            )

        results, combinations = over_all_draws(gradient, 3 * num_samples)
        exact = jax.grad(lambda phi: expected_over_bits(Bernoulli(phi), lambda b: smooth(b, theta)))(logits)
        np.testing.assert_allclose(mean_and_variance(results, combinations, logits)[0], exact, rtol=1e-9)


def test_leave_one_out_with_the_own_value_in_the_mean_shrinks_by_half():
    with jax.enable_x64(True):
        logits, theta = jnp.float64(LOGITS), jnp.float64(SMALL_PROBLEMS["bits"].theta)

        def wrong(key):
            b = jax.vmap(FairBits(logits).sample)(jax.random.split(key, 2))
            f = jax.vmap(lambda b: smooth(b, theta))(b)
            return jnp.mean((f - f.mean())[:, None] * (b - jax.nn.sigmoid(logits)[None]), 0), b

        results, combinations = over_all_draws(wrong, 6)
        exact = jax.grad(lambda phi: expected_over_bits(Bernoulli(phi), lambda b: smooth(b, theta)))(logits)
        np.testing.assert_allclose(mean_and_variance(results, combinations, logits)[0], exact / 2, rtol=1e-9)


def moving_average_gradient(state, *, decay, update_first):
    """The gradient of one step with one draw, by the estimator or with the average updated before it is used."""
    theta = jnp.float64(SMALL_PROBLEMS["bits"].theta)

    def loss(logits, key):
        def f(b):
            return smooth(b, theta), b

        dist = FairBits(logits)
        if not update_first:
            return estimators.reinforce_moving_average(key, dist, f, state, decay=decay, has_aux=True)[0]
        b = dist.sample(key)
        value = smooth(b, theta)
        return lax.stop_gradient(value - state.update(value, decay=decay).mean()) * dist.log_prob(b), b

    logits = jnp.float64(LOGITS)
    results, combinations = over_all_draws(lambda key: jax.grad(loss, has_aux=True)(logits, key), 3)
    exact_value, exact_gradient = jax.value_and_grad(
        lambda phi: expected_over_bits(Bernoulli(phi), lambda b: smooth(b, theta))
    )(logits)
    return results, mean_and_variance(results, combinations, logits)[0], exact_value, exact_gradient


def test_the_moving_average_is_used_before_it_is_updated():
    with jax.enable_x64(True):
        for state in (moving_average(), moving_average().update(jnp.array(3.0), decay=0.9)):
            results, mean, _, exact = moving_average_gradient(state, decay=0.9, update_first=False)
            assert np.all(results != 0)
            np.testing.assert_allclose(mean, exact, rtol=1e-9)


def test_a_moving_average_updated_first_gives_no_gradient_at_first_and_a_shrunken_one_for_ever():
    with jax.enable_x64(True):
        results, _, value, exact = moving_average_gradient(moving_average(), decay=0.9, update_first=True)
        np.testing.assert_allclose(results, 0, atol=1e-12)
        steady = MovingAverage(weighted_sum=value, weight=jnp.ones(()))
        _, mean, _, _ = moving_average_gradient(steady, decay=0.9, update_first=True)
        np.testing.assert_allclose(mean, 0.9 * exact, rtol=1e-9)  # 1 - (1 - d) / n with one draw


def test_the_moving_average_counts_the_values_so_far():
    state = moving_average()
    for step in range(3):
        value, state = estimators.reinforce_moving_average(
            jax.random.key(step),
            Bernoulli(LOGITS),
            lambda b, step=step: 4.0 * (step + 1) + 0 * b.sum(),
            state,
            decay=0.5,
        )
        assert float(value) == 4.0 * (step + 1)
    np.testing.assert_allclose(state.mean(), (4 / 8 + 8 / 4 + 12 / 2) / (7 / 8), rtol=1e-6)
