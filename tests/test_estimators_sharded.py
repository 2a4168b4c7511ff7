"""Leave-one-out over draws that are spread over devices: the same numbers whatever their number."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from problems import BITS, THETA, exact
from replicates import FAR, agrees, largest_z, replicate, smooth

from jaxlab import estimators
from jaxlab.distributions import Bernoulli, Normal

NUM_SAMPLES = 8
LOGITS = jnp.linspace(-1.0, 1.5, 12)
WEIGHTS = jnp.sin(jnp.arange(12.0 * 5)).reshape(12, 5)


def cost(b, weights):
    # Sums of products in the order of the program, whatever the batch: one draw after the other.
    return jnp.sum(jnp.tanh(jnp.sum(b[:, None] * weights, 0)) * jnp.arange(1.0, 6.0))


def spread(num_devices, logits, weights, key, *, check=True):
    mesh = Mesh(jax.devices()[:num_devices], ("samples",))

    def loss(logits, weights, key):
        dist = Bernoulli(logits)
        return estimators.leave_one_out(
            key, dist, lambda b: cost(b, weights), num_samples=NUM_SAMPLES, axis_name="samples"
        )

    everywhere = PartitionSpec()
    mapped = jax.shard_map(
        loss, mesh=mesh, in_specs=(everywhere, everywhere, everywhere), out_specs=everywhere, check_vma=check
    )
    return mapped(logits, weights, key)


def gradients(num_devices, **options):
    both = jax.value_and_grad(functools.partial(spread, num_devices, **options), argnums=(0, 1))
    return jax.jit(both)(LOGITS, WEIGHTS, jax.random.key(3))


def alone(logits, weights, key):
    return estimators.leave_one_out(key, Bernoulli(logits), lambda b: cost(b, weights), num_samples=NUM_SAMPLES)


@pytest.mark.parametrize("num_devices", [1, 2, 4])
def test_spread_draws_give_the_same_bits_on_any_number_of_devices(num_devices):
    value, (to_logits, to_weights) = gradients(num_devices)
    one_value, (one_to_logits, one_to_weights) = gradients(1)
    assert float(value) == float(one_value)
    np.testing.assert_array_equal(to_logits, one_to_logits)
    np.testing.assert_allclose(to_weights, one_to_weights, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("check", [True, False])
def test_spread_draws_are_those_of_one_device(check):
    expected = jax.jit(jax.value_and_grad(alone, argnums=(0, 1)))(LOGITS, WEIGHTS, jax.random.key(3))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), gradients(4, check=check), expected
    )


def test_each_device_evaluates_its_own_draws_alone():
    def lowered(num_devices):
        program = jax.jit(functools.partial(spread, num_devices))
        return program.lower(LOGITS, WEIGHTS, jax.random.key(3)).compile().cost_analysis()

    # Five hyperbolic tangents for each of eight draws: three quarters of them are left to other devices.
    assert lowered(1)["transcendentals"] - lowered(4)["transcendentals"] == 5 * NUM_SAMPLES * 3 / 4


def test_under_vmap_the_axis_is_one_of_members():
    def loss(logits, key, member):
        return estimators.leave_one_out(
            key, Bernoulli(logits), lambda b: cost(b, WEIGHTS), num_samples=NUM_SAMPLES, axis_name="members"
        )

    def mean(logits, key):
        return jnp.mean(jax.vmap(loss, (None, None, 0), axis_name="members")(logits, key, jnp.arange(4)))

    value, gradient = jax.value_and_grad(mean)(LOGITS, jax.random.key(3))
    expected = jax.value_and_grad(alone)(LOGITS, WEIGHTS, jax.random.key(3))
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=2e-5, atol=1e-6)


def members(estimate):
    """The gradient of the mean of ``estimate(key, logits)`` over four members, many times, on the problem of bits."""

    def gradient(key):
        def loss(logits):
            return jnp.mean(
                jax.vmap(lambda _: estimate(key, logits), axis_name="members")(jnp.arange(4, dtype=jnp.float32))
            )

        return jax.grad(loss)(BITS.logits)

    return replicate(gradient, num_replicates=50_000)


def test_the_gradient_over_members_is_unbiased_and_with_the_own_costs_in_the_mean_it_shrinks():
    def right(key, logits):
        return estimators.leave_one_out(
            key, Bernoulli(logits), lambda b: smooth(b, THETA), num_samples=4, axis_name="members"
        )

    def wrong(key, logits):
        b = Bernoulli(logits).sample(jax.random.fold_in(key, jax.lax.axis_index("members")))
        f = smooth(b, THETA)
        return jax.lax.stop_gradient(f - jax.lax.pmean(f, "members")) * Bernoulli(logits).log_prob(b)

    expected = exact("bits")[1][0].logits
    assert agrees(members(right), expected)
    shrunken = members(wrong)
    assert largest_z(shrunken, expected) > FAR
    assert agrees(shrunken, 0.75 * expected)


def test_auxiliary_values_are_the_own_ones():
    def loss(key, member):
        _, draws = estimators.leave_one_out(
            key, Normal(jnp.zeros(3), jnp.ones(3)), lambda x: (x.sum(), x), num_samples=8, axis_name="m", has_aux=True
        )
        return draws

    key = jax.random.key(0)
    own = jax.vmap(loss, (None, 0), axis_name="m")(key, jnp.arange(4))
    _, every = estimators.leave_one_out(
        jax.random.clone(key), Normal(jnp.zeros(3), jnp.ones(3)), lambda x: (x.sum(), x), num_samples=8, has_aux=True
    )
    assert own.shape == (4, 2, 3)
    np.testing.assert_array_equal(own.reshape(8, 3), every)


def test_a_number_of_samples_that_cannot_be_shared_out_is_refused():
    def loss(member):
        return estimators.leave_one_out(jax.random.key(0), BITS, lambda b: b.sum(), num_samples=6, axis_name="members")

    with pytest.raises(ValueError, match=r"^leave_one_out: num_samples must be a multiple of 4; got 6"):
        jax.vmap(loss, axis_name="members")(jnp.arange(4))
