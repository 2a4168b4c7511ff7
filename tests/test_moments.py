"""Moments that merge: the same in any split and order, right where the textbook formula is not, calibrated."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replicates import FAR, largest_z, replicate

from jaxlab.moments import Moments, moments_of, moving_average


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(
    sizes=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
    shift=st.sampled_from([0.0, -7.0, 1e4]),
)
def test_moments_merged_in_any_split_and_order_are_those_of_all_at_once(sizes, order, shift):
    values = np.random.default_rng(len(sizes)).normal(size=(sum(sizes), 2)).astype(np.float32) + np.float32(shift)
    parts = [jnp.asarray(part) for part in np.split(values, np.cumsum(sizes)[:-1])]
    states = [moments_of(part) for part in parts]
    order.shuffle(states)
    while len(states) > 1:  # any grouping: two random neighbours at a time
        i = order.randrange(len(states) - 1)
        states[i : i + 2] = [states[i].merge(states[i + 1])]
    merged = states[0]
    assert int(merged.num_samples) == len(values)
    if len(values) > 0:
        values = values.astype(np.float64)
        np.testing.assert_allclose(merged.mean, values.mean(0), rtol=1e-6, atol=1e-6)
        # Each mean near 1e4 is known to half a float32 step, 5e-4, and enters squared.
        np.testing.assert_allclose(merged.sum_of_squares, values.var(0) * len(values), rtol=1e-4, atol=1e-2)


def test_merge_is_exact_arithmetic_on_small_integers():
    left, right = moments_of(jnp.array([1.0, 3.0])), moments_of(jnp.array([5.0, 7.0]))
    merged = left.merge(right)  # means 2 and 6; squares 2 + 2 + 4^2 * 2 * 2 / 4
    assert (int(merged.num_samples), float(merged.mean), float(merged.sum_of_squares)) == (4, 4.0, 20.0)
    empty = moments_of(jnp.zeros(0))
    for same in (merged.merge(empty), empty.merge(merged)):
        assert [float(x) for x in same] == [4.0, 4.0, 20.0]


def test_a_large_mean_does_not_drown_the_variance():
    samples = 1e4 + jax.random.normal(jax.random.key(0), (100_000,))
    whole = moments_of(samples)
    parts = functools.reduce(Moments.merge, [moments_of(part) for part in jnp.split(samples, 100)])
    # The standard error of the variance is sqrt(2 / n) = 0.0045; rounding of samples near 1e4 adds 1e-3 ** 2 / 12.
    for state in (whole, parts):
        assert abs(float(state.variance()) - 1) < FAR * 0.0045
    textbook = jnp.mean(samples**2) - jnp.mean(samples) ** 2
    assert abs(float(textbook) - 1) > 1


def test_the_mean_is_right_to_the_last_bit_or_so():
    samples = 1e4 + jax.random.normal(jax.random.key(0), (1000, 3))
    exact = np.asarray(samples, np.float64).mean(0)
    half_step = 2.0**-11  # of float32 between 2 ** 13 and 2 ** 14
    assert np.abs(np.float64(moments_of(samples).mean) - exact).max() < 1.3 * half_step
    # A plain sum, which adds up to 1e7 in steps of 1, is not.
    assert np.abs(np.float64(jax.jit(lambda x: x.sum(0) / 1000)(samples)) - exact).max() > 2 * half_step


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_few_bits_are_widened_and_many_are_kept(dtype):
    with jax.enable_x64(dtype == "float64"):
        state = moments_of(jnp.full((4096,), 16.0, dtype).at[0].set(17.0))
        assert state.mean.dtype == ("float64" if dtype == "float64" else "float32")
        # A sum in bfloat16 would stop at 16 * 256.
        np.testing.assert_allclose(state.mean, 16 + 1 / 4096, rtol=1e-7)


def test_variance_and_standard_error_by_hand():
    state = moments_of(jnp.array([[1.0, 0.0], [2.0, 0.0], [6.0, 0.0]]))
    assert state.mean.tolist() == [3.0, 0.0]
    assert state.variance().tolist() == [7.0, 0.0]  # (4 + 1 + 9) / 2
    np.testing.assert_allclose(state.variance(unbiased=False), [14 / 3, 0.0], rtol=1e-6)
    np.testing.assert_allclose(state.standard_error(), [np.sqrt(7 / 3), 0.0], rtol=1e-6)


def test_the_unbiased_variance_is_unbiased_and_the_other_is_not():
    def variances(key):
        state = moments_of(jax.random.normal(key, (4,)))
        return state.variance(), state.variance(unbiased=False)

    unbiased, biased = replicate(variances)
    assert largest_z(unbiased, 1.0) < FAR
    assert largest_z(biased, 0.75) < FAR
    assert largest_z(biased, 1.0) > FAR


def test_z_scores_of_standard_normals_are_standard_normal():
    scores = replicate(lambda key: moments_of(jax.random.normal(key, (200,))).z_score(jnp.zeros(())))
    assert largest_z(scores, 0.0) < FAR
    # Student's t with 199 degrees of freedom has the variance 199 / 197.
    assert largest_z(scores**2, 199 / 197) < FAR


def test_z_score_conventions():
    constant = moments_of(jnp.array([[2.0, 2.0, 2.0]] * 3))
    assert constant.z_score(jnp.array([2.0, 1.0, 3.0])).tolist() == [0.0, np.inf, -np.inf]
    assert float(moments_of(jnp.array([1.0, 3.0])).z_score(jnp.array(4.0))) == -2.0


@pytest.mark.parametrize("num_samples", [0, 1])
def test_too_few_samples_say_so(num_samples):
    state = moments_of(jnp.full((num_samples, 2), 3.0))
    assert int(state.num_samples) == num_samples
    assert state.mean.tolist() == [3.0 * num_samples] * 2
    assert state.sum_of_squares.tolist() == [0.0, 0.0]
    assert np.isnan(state.variance()).all()
    assert np.isnan(state.standard_error()).all()
    biased = state.variance(unbiased=False)
    assert np.isnan(biased).all() if num_samples == 0 else biased.tolist() == [0.0, 0.0]


def test_moments_gathered_in_a_scan():
    chunks = jax.random.normal(jax.random.key(0), (10, 50, 3))

    def step(state, chunk):
        return state.merge(moments_of(chunk)), None

    state, _ = jax.lax.scan(step, moments_of(jnp.zeros((0, 3))), chunks)
    whole = moments_of(chunks.reshape(500, 3))
    assert int(state.num_samples) == 500
    np.testing.assert_allclose(state.mean, whole.mean, atol=1e-6)
    np.testing.assert_allclose(state.variance(), whole.variance(), rtol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_moving_average_of_a_constant_is_the_constant_from_the_first_step_on(decay):
    state = moving_average()
    assert float(state.mean()) == 0.0
    for _ in range(20):
        state = state.update(jnp.array(3.25), decay=decay)
        np.testing.assert_allclose(state.mean(), 3.25, rtol=1e-6)


def test_the_moving_average_weighs_values_by_age():
    values = [4.0, 1.0, 6.0]
    state = moving_average(shape=(1,))
    for value in values:
        state = state.update(jnp.array([value]), decay=0.5)
    # Weights 1/8, 1/4, 1/2.
    np.testing.assert_allclose(state.mean(), [(4 / 8 + 1 / 4 + 6 / 2) / (7 / 8)], rtol=1e-6)
    np.testing.assert_allclose(state.weight, 7 / 8, rtol=1e-6)


def test_correcting_twice_as_another_library_did_is_seen():
    # optax kept the corrected average and corrected it again (with a decay that is small at first): an average of ones
    # that rises above one.
    stored = 0.0
    state = moving_average()
    for step, expected in enumerate([1.0, 1 / (1 - (2 / 11) ** 2)]):
        decay = min(0.99, (1 + step) / (10 + step))
        stored = (decay * stored + (1 - decay) * 1.0) / (1 - decay ** (step + 1))
        np.testing.assert_allclose(stored, expected, rtol=1e-6)
        state = state.update(jnp.array(1.0), decay=decay)
        np.testing.assert_allclose(state.mean(), 1.0, rtol=1e-6)
    assert stored > 1.03
