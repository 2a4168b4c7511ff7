"""Estimators over permutations and subsets: the score function, relaxations, and relaxed control variates."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from replicates import FAR, agrees, largest_z, replicate

from jaxlab import estimators
from jaxlab.distributions import PlackettLuce

NUM_REPLICATES = 100_000
LOGITS = jnp.array([0.4, -0.7, 1.1, 0.0])
WEIGHTS = jnp.sin(jnp.arange(16.0)).reshape(4, 4)


def of_order(matrix, theta):
    return jnp.sum(jnp.tanh(matrix @ jnp.array([1.0, -0.5, 2.0, 0.3]) * jnp.arange(1.0, 5.0) / 2 + theta))


def of_subset(matrix, theta):
    chosen = matrix[:2].sum(0)  # two of the four
    return chosen @ WEIGHTS @ chosen + jnp.sum(theta[:2]) * chosen[0]


COSTS = {"order": of_order, "subset": of_subset}
THETA = jnp.array([0.1, -0.2, 0.3, 0.0])


def expectation(f, logits, theta):
    """By listing all orders, one after another without replacement, independently of jaxlab."""
    total = 0.0
    for order in itertools.permutations(range(4)):
        left, probability = list(range(4)), 1.0
        for item in order:
            probability *= jnp.exp(logits[item]) / sum(jnp.exp(logits[j]) for j in left)
            left.remove(item)
        total += probability * f(jnp.eye(4)[jnp.array(order)], theta)
    return total


@functools.cache
def exact(name):
    return jax.jit(jax.value_and_grad(functools.partial(expectation, COSTS[name]), argnums=(0, 1)))(LOGITS, THETA)


def replicates(estimate, name):
    def loss(logits, theta, key):
        return estimate(key, PlackettLuce(logits), lambda x: COSTS[name](x, theta))

    return replicate(
        lambda key: jax.value_and_grad(loss, argnums=(0, 1))(LOGITS, THETA, key), num_replicates=NUM_REPLICATES
    )


UNBIASED = {
    "leave_one_out": estimators.leave_one_out,
    "rebar": functools.partial(estimators.rebar, temperature=0.5, scale=0.8),
    "tied rebar": functools.partial(estimators.rebar, temperature=0.5, scale=0.8, tied=True),
    "relax": functools.partial(
        estimators.relax, network=lambda weight, z: jnp.sum(jnp.tanh(weight * z)), parameters=0.7, scale=0.5
    ),
    "unordered_set": estimators.unordered_set,
    "sum_and_sample": estimators.sum_and_sample,
}


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("estimate", UNBIASED.values(), ids=list(UNBIASED))
def test_value_and_gradient_are_unbiased(estimate, name):
    assert agrees(replicates(estimate, name), exact(name))


@pytest.mark.parametrize("name", COSTS)
def test_the_exact_expectation_is_that_of_all_orders(name):
    value = estimators.exact(jax.random.key(0), PlackettLuce(LOGITS), lambda x: COSTS[name](x, THETA))
    np.testing.assert_allclose(value, exact(name)[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("estimate", "unbiased_value"),
    [(estimators.gumbel_softmax, False), (estimators.straight_through_gumbel, True), (estimators.gumbel_rao, True)],
)
def test_relaxations_are_biased(estimate, unbiased_value):
    value, (to_logits, _) = replicates(functools.partial(estimate, temperature=0.5), "subset")
    expected, (expected_to_logits, _) = exact("subset")
    assert agrees(value, expected) == unbiased_value
    assert not agrees(to_logits, expected_to_logits)


def test_rebar_with_a_constant_conditional_path_is_biased():
    dist = PlackettLuce(LOGITS)

    def wrong(key):
        key, other_key = jax.random.split(key)
        noise = PlackettLuce(0 * LOGITS).perturb(key)
        draw = dist.harden(LOGITS + noise)

        def control(z):
            return of_order(dist.soften(z, temperature=0.5), THETA)

        score = jax.grad(lambda logits: PlackettLuce(logits).log_prob(draw))(LOGITS)
        conditional = dist.perturb_given(other_key, draw)
        return (of_order(draw, THETA) - control(conditional)) * score + jax.grad(control)(LOGITS + noise)

    assert largest_z(replicate(wrong, num_replicates=NUM_REPLICATES), exact("order")[1][0]) > FAR


@pytest.mark.parametrize("tied", [False, True])
def test_rebar_varies_less_than_without_its_control_variate(tied):
    variances = [
        float(jnp.var(replicates(functools.partial(estimators.rebar, scale=scale, tied=tied), "order")[1][0], 0).sum())
        for scale in (0.8, 0.0)
    ]
    assert variances[0] < 0.5 * variances[1]


def test_draws_and_conditional_draws_have_the_law_of_the_distribution():
    dist = PlackettLuce(LOGITS)
    support = dist.support()

    def draw(key):
        key, other_key = jax.random.split(key)
        x = dist.sample(key)
        z = dist.perturb_given(other_key, x)
        same = jnp.all(dist.harden(z) == x)
        return jnp.all(support == x[None], (1, 2)).astype(jnp.float32), z, same

    counts, z, same = replicate(draw, num_replicates=20_000)
    assert bool(same.all())
    assert agrees(counts, jnp.exp(jax.vmap(dist.log_prob)(support)))
    # Drawn again given its order, each perturbed logit is Gumbel about its logit, as it was before.
    for item in range(4):
        assert scipy.stats.kstest(np.asarray(z[:, item]), "gumbel_r", (float(LOGITS[item]), 1)).pvalue > 1e-3
    # And they are independent.
    np.testing.assert_allclose(np.corrcoef(np.asarray(z).T), np.eye(4), atol=0.03)


def test_a_conditioned_draw_moves_as_if_its_own_noise_had_been_drawn():
    with jax.enable_x64(True):
        logits, key = jnp.float64(LOGITS), jax.random.key(1)
        draw = PlackettLuce(logits).sample(jax.random.key(0))
        z = PlackettLuce(logits).perturb_given(key, draw)
        direction = jnp.array([1.0, -0.5, 0.25, 2.0])

        def given(logits):
            return PlackettLuce(logits).perturb_given(jax.random.clone(key), draw)

        _, along = jax.jvp(given, (logits,), (direction,))
        value, other = jax.jvp(lambda logits: PlackettLuce(logits).condition(z), (logits,), (direction,))
        np.testing.assert_array_equal(value, z)
        np.testing.assert_allclose(along, other, rtol=1e-9)


def test_a_conditioned_draw_needs_no_matrix_of_all_places():
    """4,096 items: one matrix of them is 64 MiB. Planted and found: the sums as one product."""
    size = 4096

    def gradient(logits, perturbed):
        return jax.grad(lambda logits: jnp.sum(jnp.sin(PlackettLuce(logits).condition(perturbed))))(logits)

    shape = jax.ShapeDtypeStruct((size,), jnp.float32)
    program = jax.jit(gradient).lower(shape, shape).compile()
    assert program.memory_analysis().temp_size_in_bytes < size**2 * 4 / 64


def test_impossible_items_come_last_and_have_no_gradient():
    logits = jnp.array([0.3, -jnp.inf, 1.0, -jnp.inf])

    def loss(logits, key):
        return estimators.leave_one_out(key, PlackettLuce(logits), lambda x: of_order(x, THETA))

    gradients = np.asarray(replicate(lambda key: jax.grad(loss)(logits, key), num_replicates=100))
    assert np.isfinite(gradients).all()
    assert (gradients[:, [1, 3]] == 0).all()
    last = replicate(lambda key: PlackettLuce(logits).sample(key)[2:], num_replicates=100)
    np.testing.assert_array_equal(last, np.tile(np.eye(4)[[1, 3]], (100, 1, 1)))


def test_too_many_permutations_are_not_listed():
    with pytest.raises(ValueError, match=r"^PlackettLuce.support: .* at most 2\*\*20 .*; got 10!"):
        PlackettLuce(jnp.zeros(10)).support()
