"""What may be tuned: its gradient is that of the variance, out of the same pass; and tied noise for REBAR and RELAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import BITS, EXPECTATIONS, NUM_REPLICATES, THETA, exact, replicates, total_variance, tuned
from replicates import FAR, agrees, largest_z, replicate, smooth

from jaxlab import estimators
from jaxlab.distributions import Bernoulli, Categorical, Normal


def double(key, logits, scale, **options):
    dist = Bernoulli(logits)
    return estimators.double_control_variate(key, dist, lambda b: smooth(b, THETA), scale=scale, **options)


@pytest.mark.parametrize("num_samples", [2, 4])
def test_the_gradient_for_the_scale_of_the_double_control_variate_is_that_of_the_squared_gradient(num_samples):
    logits, scale = BITS.logits, jnp.array(-0.3)

    def both(key):
        def square(scale):
            gradient = jax.grad(double, argnums=1)(jax.random.clone(key), logits, scale, num_samples=num_samples)
            return jnp.sum(gradient**2)

        slope = jax.grad(double, argnums=2)(jax.random.clone(key), logits, scale, num_samples=num_samples)
        # The square is a quadratic function of the scale, so this is its derivative.
        return slope, (square(scale + 0.5) - square(scale - 0.5))

    slopes, differences = replicate(both, num_replicates=1000)
    np.testing.assert_allclose(slopes, differences, rtol=1e-3, atol=1e-4)
    assert np.abs(slopes).max() > 0.1


def test_the_double_control_variate_of_a_normal_is_tuned_for_all_its_parameters():
    loc, spread = jnp.array([0.5, -1.0]), jnp.array([0.7, 1.2])

    def loss(key, parameters, scale):
        dist = Normal(*parameters)
        return estimators.double_control_variate(key, dist, lambda x: jnp.sum(jnp.cos(x)), scale=scale)

    def both(key):
        def square(scale):
            return jnp.sum(jax.grad(loss, argnums=1)(jax.random.clone(key), jnp.stack([loc, spread]), scale) ** 2)

        slope = jax.grad(loss, argnums=2)(jax.random.clone(key), jnp.stack([loc, spread]), jnp.array(-0.3))
        return slope, square(0.2) - square(-0.8)

    slopes, differences = replicate(both, num_replicates=1000)
    np.testing.assert_allclose(slopes, differences, rtol=1e-3, atol=1e-3)


def test_the_scale_of_the_double_control_variate_is_learned_by_optax_beside_the_rest():
    """On the problem of 200 bits the good scale is about -0.004, and -1 is worse than no control variate at all."""
    target, dim = 0.499, 200
    logits = jnp.ones(dim)
    optimizer = optax.adam(1e-4)

    def loss(key, logits, scale):
        return estimators.double_control_variate(
            key, Bernoulli(logits), lambda b: dim * jnp.mean((b - target) ** 2), scale=scale
        )

    def step(carry, key):
        scale, state = carry
        slopes = jax.vmap(lambda key: jax.grad(loss, argnums=2)(key, logits, scale))(jax.random.split(key, 10))
        updates, state = optimizer.update(slopes.mean(), state)
        return (optax.apply_updates(scale, updates), state), None

    start = jnp.array(0.0), optimizer.init(jnp.array(0.0))
    keys = jax.random.split(jax.random.key(0), 500)
    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in integers
        (scale, _), _ = jax.jit(lambda keys: jax.lax.scan(step, start, keys))(keys)
    variances = [
        total_variance(lambda key, phi, s=s: loss(key, phi, s), logits, num_replicates=500) for s in (scale, 0.0, -1.0)
    ]
    np.testing.assert_allclose(scale, -0.0042, atol=0.001)
    assert variances[0] < variances[1] / 20
    assert variances[2] > variances[1] * 1000


def test_the_hessian_of_the_double_control_variate_is_unbiased_also_where_its_scale_is_traced():
    def expectation(logits):
        return EXPECTATIONS["bits"][1](Bernoulli(logits), lambda b: smooth(b, THETA))

    hessians = replicate(
        lambda key: jax.hessian(double, argnums=1)(key, BITS.logits, jnp.array(-0.5)), num_replicates=50_000
    )
    assert agrees(hessians, jax.hessian(expectation)(BITS.logits))
    with pytest.raises(TypeError, match="double_control_variate: only its first derivative is defined"):
        jax.hessian(double, argnums=2)(jax.random.key(0), BITS.logits, jnp.array(-0.5))


# Tied noise.


def network(parameters, perturbed):
    return jnp.sum(jnp.tanh(parameters * perturbed))


CONTROLLED = {
    "rebar": functools.partial(estimators.rebar, temperature=0.4, scale=0.7),
    "relax": functools.partial(
        estimators.relax, network=network, parameters=jnp.array(0.6), temperature=0.4, scale=0.7
    ),
}


@pytest.mark.parametrize("problem", EXPECTATIONS)
@pytest.mark.parametrize("name", CONTROLLED)
@pytest.mark.parametrize("tied", [False, True])
def test_relaxed_control_variates_are_unbiased_with_free_and_with_tied_noise(name, problem, tied):
    estimate = functools.partial(CONTROLLED[name], tied=tied)
    assert agrees(replicates(estimate, problem), exact(problem))


@pytest.mark.parametrize("problem", EXPECTATIONS)
def test_tied_noise_with_a_constant_path_is_biased(problem):
    """Were the variable given its draw taken as a constant, the tied control variate's path would not cancel."""
    dist, _ = EXPECTATIONS[problem]

    def wrong(key):
        noise = dist._replace(logits=0 * dist.logits).perturb(key)
        z = dist.logits + noise

        def control(z):
            return smooth(dist.soften(z, temperature=0.4), THETA)

        draw = dist.harden(z)
        return (smooth(draw, THETA) - control(z)) * (draw - dist.mean()) + jax.grad(control)(z)

    assert largest_z(replicate(wrong, num_replicates=NUM_REPLICATES), exact(problem)[1][0].logits) > FAR


@pytest.mark.parametrize("problem", EXPECTATIONS)
def test_a_conditioned_draw_moves_as_if_its_own_noise_had_been_drawn(problem):
    """Along the path with the draw and the noise held fixed, by finite differences of that noise's inverse."""
    dist, _ = EXPECTATIONS[problem]
    with jax.enable_x64(True):
        logits = jnp.float64(dist.logits)
        dist = dist._replace(logits=logits)
        key = jax.random.key(1)
        draw = dist.sample(jax.random.key(0))
        z = dist.perturb_given(key, draw)
        direction = jnp.cos(jnp.arange(logits.size, dtype=jnp.float64)).reshape(logits.shape)

        def given(logits):
            return dist._replace(logits=logits).perturb_given(jax.random.clone(key), draw)

        def conditioned(logits):
            return dist._replace(logits=logits).condition(z)

        (value, along), (other, other_along) = (jax.jvp(f, (logits,), (direction,)) for f in (given, conditioned))
        np.testing.assert_array_equal(value, other)
        np.testing.assert_allclose(along, other_along, rtol=1e-9)
        with pytest.raises(TypeError, match=r"condition: only its first derivative"):
            jax.hessian(lambda logits: conditioned(logits).sum())(logits)


@pytest.mark.parametrize("tied", [False, True])
def test_tuning_rebar_and_relax_lowers_the_variance(tied):
    def loss(key, logits, tunables):
        return estimators.relax(
            key,
            Bernoulli(logits),
            lambda b: smooth(b, THETA),
            network=network,
            parameters=tunables["parameters"],
            temperature=jnp.exp(tunables["log_temperature"]),
            scale=tunables["scale"],
            tied=tied,
        )

    start = {"parameters": jnp.array(0.1), "log_temperature": jnp.array(1.0), "scale": jnp.array(0.0)}
    tunables = tuned(loss, start, BITS.logits, rate=0.01)
    before, after = (total_variance(lambda key, phi, t=t: loss(key, phi, t), BITS.logits) for t in (start, tunables))
    assert after < 0.7 * before


def test_infinite_logits_have_a_finite_tied_gradient():
    def loss(bits, categories):
        options = {"tied": True, "temperature": 0.5}
        return estimators.rebar(jax.random.key(0), Bernoulli(bits), lambda b: smooth(b, THETA), **options) + (
            estimators.rebar(jax.random.key(1), Categorical(categories), lambda z: smooth(z, THETA), **options)
        )

    bits, categories = jnp.array([jnp.inf, -jnp.inf, 0.3]), jnp.array([[jnp.inf, 0.0, 1.0], [-jnp.inf, 0.5, 0.0]])
    to_bits, to_categories = jax.grad(loss, argnums=(0, 1))(bits, categories)
    assert np.isfinite(to_bits).all()
    assert np.isfinite(to_categories).all()
