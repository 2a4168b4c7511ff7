"""Second derivatives of estimators: unbiased where they are claimed to be, and refused where they are not."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fitting import BITS, DIST_OF, LOGITS, ROWS, THETA, named
from jax import lax
from replicates import (
    FAR,
    FairBits,
    agrees,
    estimate,
    expected_over_bits,
    largest_z,
    mean_and_variance,
    over_all_draws,
    replicate,
    smooth,
)

from jaxlab import estimators
from jaxlab.distributions import Bernoulli, Normal, Scored

FIRST_ORDER = [row for row in ROWS if row.derivative_order == 1]
SCORE = [row for row in ROWS if row.needs is Scored and row.derivative_order == math.inf]
ANY_ORDER = [row for row in ROWS if row.unbiased_gradient and row.derivative_order == math.inf and row not in SCORE]


def expectation_of_smooth(logits):
    return expected_over_bits(Bernoulli(logits), lambda b: smooth(b, THETA.astype(logits.dtype)))


@pytest.mark.parametrize("row", SCORE, ids=named)
def test_the_mean_hessian_over_all_draws_is_the_exact_one(row):
    with jax.enable_x64(True):
        logits, theta, num_samples = jnp.float64(LOGITS), jnp.float64(THETA), row.minimal_num_samples

        def f_at(logits):  # it depends on the logits itself too
            return lambda b: smooth(b, theta) * jnp.exp(jnp.sum(b * logits))

        def hessian(key):
            def loss(logits):
                f = f_at(logits)
                return estimate(row, key, FairBits(logits), lambda b: (f(b), b), has_aux=True)

            return jax.jacfwd(jax.grad(loss, has_aux=True), has_aux=True)(logits)

        results, combinations = over_all_draws(hessian, 3 * num_samples)
        exact = jax.hessian(lambda logits: expected_over_bits(Bernoulli(logits), f_at(logits)))(logits)
        np.testing.assert_allclose(mean_and_variance(results, combinations, logits)[0], exact, rtol=1e-8)


def test_the_usual_surrogate_has_a_right_gradient_and_a_wrong_hessian():
    with jax.enable_x64(True):
        logits, theta = jnp.float64(LOGITS), jnp.float64(THETA)

        def surrogate(logits, key):
            dist = FairBits(logits)
            b = dist.sample(key)
            return lax.stop_gradient(smooth(b, theta)) * dist.log_prob(b), b

        for derivative, is_right in [(jax.grad, True), (jax.hessian, False)]:
            results, combinations = over_all_draws(lambda key, d=derivative: d(surrogate, has_aux=True)(logits, key), 3)
            mean, exact = mean_and_variance(results, combinations, logits)[0], derivative(expectation_of_smooth)(logits)
            assert np.allclose(mean, exact, rtol=1e-8) == is_right
        assert np.all(mean[~np.eye(3, dtype=bool)] == 0)  # it knows of no two bits together
        assert np.abs(exact[~np.eye(3, dtype=bool)]).min() > 0.01


def test_the_hessian_of_sampled_bits_is_unbiased():
    def loss(logits, key):
        return estimators.leave_one_out(key, Bernoulli(logits), lambda b: smooth(b, THETA))

    hessians = replicate(lambda key: jax.hessian(loss)(LOGITS, key))
    assert largest_z(hessians, jax.hessian(expectation_of_smooth)(LOGITS)) < FAR


@pytest.mark.parametrize("row", [row for row in ANY_ORDER if isinstance(BITS, row.needs)], ids=named)
def test_the_hessian_is_unbiased_where_every_order_is_claimed(row):
    def loss(logits, key):
        return estimate(row, key, Bernoulli(logits), lambda b: smooth(b, THETA), **options)

    options = {"scale": -0.5} if "scale" in row.tunable else {}
    hessians = replicate(lambda key: jax.hessian(loss)(LOGITS, key))
    assert agrees(hessians, jax.hessian(expectation_of_smooth)(LOGITS))


def test_the_hessian_along_the_path_is_unbiased():
    # E[x^2 + cos x] = m^2 + s^2 + cos(m) exp(-s^2 / 2) has its whole Hessian in (m, s).
    def loss(parameters, key):
        dist = Normal(parameters[0], parameters[1])
        return estimators.reparameterized(key, dist, lambda x: x**2 + jnp.cos(x))

    def expectation(parameters):
        m, s = parameters
        return m**2 + s**2 + jnp.cos(m) * jnp.exp(-(s**2) / 2)

    at = jnp.array([0.4, 0.8])
    assert agrees(replicate(lambda key: jax.hessian(loss)(at, key)), jax.hessian(expectation)(at))


def test_the_hessian_of_the_exact_expectation_is_exact():
    def loss(logits):
        return estimators.exact(jax.random.key(0), Bernoulli(logits), lambda b: smooth(b, THETA))

    expected = jax.hessian(expectation_of_smooth)(LOGITS)
    np.testing.assert_allclose(jax.hessian(loss)(LOGITS), expected, rtol=1e-4, atol=1e-5)


def test_the_hessian_of_the_relaxed_expectation_is_that_of_its_draw():
    with jax.enable_x64(True):

        @jax.jit
        def gradient(logits):
            def loss(logits):
                dist, theta = Bernoulli(logits), jnp.float64(THETA)
                return estimators.gumbel_softmax(jax.random.key(0), dist, lambda b: smooth(b, theta), temperature=0.7)

            return jax.grad(loss)(logits)

        logits, step = jnp.float64(LOGITS), 1e-5
        steps = step * jnp.eye(3)
        differences = [(gradient(logits + row) - gradient(logits - row)) / (2 * step) for row in steps]
        np.testing.assert_allclose(jax.jacfwd(gradient)(logits), jnp.stack(differences, -1), rtol=1e-6, atol=1e-8)


SECOND = {"hessian": jax.hessian, "gradient of gradient": lambda f: jax.grad(lambda x: jnp.sum(jax.grad(f)(x) ** 2))}


@pytest.mark.parametrize(
    ("second", "around"),
    [
        ("hessian", "directly"),
        ("hessian", "in a scan"),
        ("gradient of gradient", "in a scan"),
        ("gradient of gradient", "under vmap"),
    ],
)
@pytest.mark.parametrize("row", FIRST_ORDER, ids=named)
def test_a_second_derivative_through_a_first_order_draw_raises(row, second, around):
    def loss(first):
        dist = type(DIST_OF[row.name])(first, *DIST_OF[row.name][1:])
        return estimate(row, jax.random.key(0), dist, lambda x: smooth(x, THETA))

    def scanned(x):
        return lax.scan(lambda total, _: (total + loss(x + total), None), jnp.zeros(()), length=2)[0]

    function = SECOND[second](scanned if around == "in a scan" else loss)
    if around == "under vmap":
        function, at = jax.vmap(function), LOGITS[None]
    else:
        at = LOGITS
    with pytest.raises(TypeError, match=f"{row.name}: only its first derivative is defined"):
        jax.eval_shape(function, at)  # refused where it is traced: nothing needs to be compiled or run


@pytest.mark.parametrize("row", FIRST_ORDER, ids=named)
def test_what_f_closes_over_has_a_hessian_also_with_a_first_order_draw(row):
    def loss(theta, dist):
        return estimate(row, jax.random.key(0), dist, lambda x: smooth(x, theta))

    drawn = jax.jit(lambda dist: estimate(row, jax.random.key(0), dist, lambda x: (x.sum(), x), has_aux=True))
    _, draws = drawn(DIST_OF[row.name])
    mean = jax.jit(jax.hessian(lambda theta: jnp.mean(jax.vmap(lambda b: smooth(b, theta))(draws))))
    expected = mean(THETA)
    np.testing.assert_allclose(jax.jit(jax.hessian(loss))(THETA, DIST_OF[row.name]), expected, rtol=1e-5, atol=1e-6)
