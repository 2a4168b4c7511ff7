"""Gumbel noise: each law of a sampler against enumeration, and against a sampler that is known to be wrong."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from replicates import FAR, largest_z, replicate

from jaxlab import gumbel
from jaxlab.gradients import straight_through

LOGITS = np.array([0.5, -1.0, 1.5, 0.0], np.float32)
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum()
EULER = 0.5772156649015329


def one_hot(codes):
    return jax.nn.one_hot(codes, len(LOGITS))


def chi_square_p_value(codes, probabilities=PROBABILITIES):
    counts = np.bincount(np.asarray(codes), minlength=len(probabilities))
    return scipy.stats.chisquare(
        counts, np.float64(probabilities) / np.sum(probabilities, dtype=float) * len(codes)
    ).pvalue


def test_noise_of_few_bits_would_favour_the_first_of_many_equal_classes():
    logits = jnp.zeros(1000, jnp.bfloat16)

    def among_the_first(draw):
        return replicate(lambda key: (draw(key) < 100).astype(jnp.float32), num_replicates=20_000, chunk_size=1000)

    def in_bfloat16(key):
        return jnp.argmax(logits + jax.random.gumbel(key, logits.shape, logits.dtype))

    assert largest_z(among_the_first(lambda key: gumbel.gumbel_max(key, logits)), 0.1) < FAR
    # bfloat16 has 128 different Gumbel values: most maxima are ties, and the first of them wins.
    trap = among_the_first(in_bfloat16)
    assert 0.5 < float(trap.mean()) < 0.6
    assert largest_z(trap, 0.1) > 100


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_gumbel_max_draws_from_the_softmax(dtype):
    logits = jnp.asarray(LOGITS, dtype)
    codes = replicate(lambda key: gumbel.gumbel_max(key, logits), num_replicates=200_000)
    assert largest_z(one_hot(codes), PROBABILITIES) < FAR
    assert chi_square_p_value(codes) > 1e-6


def test_the_frequencies_would_show_noise_that_is_not_gumbel():
    codes = replicate(lambda key: jnp.argmax(LOGITS + jax.random.normal(key, LOGITS.shape)), num_replicates=200_000)
    assert chi_square_p_value(codes) < 1e-6


def test_gumbel_max_along_another_axis_and_with_impossible_and_certain_categories():
    logits = jnp.array([[-jnp.inf, 0.0, jnp.inf], [0.0, 0.0, 0.0], [-jnp.inf, 0.0, 0.0]])

    def both(key):
        return gumbel.gumbel_max(key, logits), gumbel.gumbel_max(jax.random.fold_in(key, 1), logits.T, axis=0)

    by_row, by_column = replicate(both, num_replicates=2000)
    for codes in (by_row, by_column):
        assert set(np.unique(codes[:, 0])) == {2}
        assert set(np.unique(codes[:, 1])) == {0, 1, 2}
        assert set(np.unique(codes[:, 2])) == {1, 2}


def test_perturbed_logits_have_gumbel_moments_and_a_gumbel_maximum():
    perturbed = replicate(lambda key: gumbel.perturb(key, jnp.asarray(LOGITS)), num_replicates=200_000)
    mean = LOGITS + EULER
    assert largest_z(perturbed, mean) < FAR
    assert largest_z((perturbed - mean[None]) ** 2, np.full(4, np.pi**2 / 6)) < FAR
    location = np.log(np.exp(LOGITS).sum())
    assert largest_z(perturbed.max(-1), location + EULER) < FAR
    # The maximum is independent of where it lies: its mean is the same wherever that is.
    where = one_hot(perturbed.argmax(-1))
    assert largest_z((perturbed.max(-1) - location - EULER)[:, None] * where, np.zeros(4)) < FAR


def test_binary_perturbed_logits_are_differences_of_two():
    logits = jnp.array(0.7)
    direct = replicate(lambda key: gumbel.perturb_binary(key, logits))
    pairs = replicate(lambda key: gumbel.perturb(key, jnp.stack([logits, jnp.zeros(())])), seed=1)
    assert scipy.stats.ks_2samp(direct, pairs[:, 0] - pairs[:, 1]).pvalue > 1e-6
    assert scipy.stats.ks_2samp(direct, pairs[:, 0]).pvalue < 1e-6
    assert largest_z((direct > 0).astype(jnp.float32), 1 / (1 + np.exp(-0.7))) < FAR


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_the_largest_component_of_a_concrete_draw_is_a_categorical_draw(temperature):
    draws = replicate(lambda key: gumbel.concrete(key, jnp.asarray(LOGITS), temperature=temperature))
    assert largest_z(one_hot(draws.argmax(-1)), PROBABILITIES) < FAR
    np.testing.assert_allclose(draws.sum(-1), np.ones(len(draws)), rtol=1e-5)
    # The draw itself has not the mean of the discrete one: that is the bias of the relaxation.
    assert (largest_z(draws, PROBABILITIES) > FAR) == (temperature > 0.1)


def test_the_temperature_is_no_part_of_the_choice():
    logits = jnp.asarray(LOGITS)

    def choices(key):
        # The same noise, by the same bits of the key.
        keys = [jax.random.clone(key) for _ in range(3)]
        cold, warm = (gumbel.concrete(keys[i], logits, temperature=t).argmax() for i, t in ((0, 0.05), (1, 20.0)))
        return gumbel.gumbel_max(keys[2], logits), cold, warm

    hard, cold, warm = replicate(choices, num_replicates=2000)
    assert np.array_equal(hard, cold)
    assert np.array_equal(hard, warm)


def test_logarithms_survive_where_probabilities_underflow():
    logits = jnp.zeros(10)

    def all_of_one(key):
        keys = [jax.random.clone(key) for _ in range(3)]
        log_draw = gumbel.log_concrete(keys[0], logits, temperature=0.01)
        gradient = jax.grad(lambda x: gumbel.log_concrete(keys[1], x, temperature=0.01).sum())(logits)
        return log_draw, gradient, gumbel.concrete(keys[2], logits, temperature=0.01)

    log_draws, gradients, draws = replicate(all_of_one, num_replicates=1000)
    assert np.isfinite(log_draws).all()
    assert np.isfinite(gradients).all()
    assert (np.asarray(draws) == 0).mean() > 0.5
    np.testing.assert_allclose(np.exp(log_draws), draws, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_binary_concrete_is_the_first_of_two_components(temperature):
    logits = jnp.array(-0.4)
    direct = replicate(lambda key: gumbel.binary_concrete(key, logits, temperature=temperature))
    pairs = jnp.stack([logits, jnp.zeros(())])
    first = replicate(lambda key: gumbel.concrete(key, pairs, temperature=temperature)[0], seed=1)
    assert scipy.stats.ks_2samp(direct, first).pvalue > 1e-6
    assert scipy.stats.ks_2samp(direct, 1 - first).pvalue < 1e-6
    assert largest_z((direct > 0.5).astype(jnp.float32), 1 / (1 + np.exp(0.4))) < FAR


@pytest.mark.parametrize("code", range(4))
def test_conditional_gumbel_always_has_its_largest_component_at_the_code(code):
    logits = jnp.asarray(LOGITS)
    draws = replicate(lambda key: gumbel.conditional_gumbel(key, logits, jnp.array(code)), num_replicates=50_000)
    assert np.all(np.asarray(draws.argmax(-1)) == code)


def draw_codes_then_perturbed(draw_codes):
    """Perturbed logits by way of the codes: the law of `perturb`, if the codes have the law of the categorical."""

    def draw(key):
        codes_key, key = jax.random.split(key)
        return gumbel.conditional_gumbel(key, jnp.asarray(LOGITS), draw_codes(codes_key))

    return replicate(draw, num_replicates=200_000)


def test_codes_and_then_conditional_gumbels_have_the_law_of_perturbed_logits():
    perturbed = draw_codes_then_perturbed(lambda key: gumbel.gumbel_max(key, jnp.asarray(LOGITS)))
    centred = perturbed - (LOGITS + EULER)[None]
    # Independent Gumbels: no mean, no covariance, variance pi^2 / 6.
    covariances = centred[:, :, None] * centred[:, None, :]
    assert largest_z(centred, np.zeros(4)) < FAR
    assert largest_z(covariances, np.eye(4) * np.pi**2 / 6) < FAR
    direct = replicate(lambda key: gumbel.perturb(key, jnp.asarray(LOGITS)), num_replicates=200_000, seed=1)
    for i in range(4):
        assert scipy.stats.ks_2samp(perturbed[:, i], direct[:, i]).pvalue > 1e-6


def test_codes_of_another_law_give_another_law():
    perturbed = draw_codes_then_perturbed(lambda key: jax.random.randint(key, (), 0, 4))
    assert largest_z(perturbed, LOGITS + EULER) > 100
    direct = replicate(lambda key: gumbel.perturb(key, jnp.asarray(LOGITS)), num_replicates=20_000, seed=1)
    assert min(scipy.stats.ks_2samp(perturbed[:20_000, i], direct[:, i]).pvalue for i in range(4)) < 1e-6


@pytest.mark.parametrize("logits", [[0.0, jnp.inf, 1.0], [0.0, -jnp.inf, 1.0], [1e4, -1e4, 0.0]])
def test_conditional_gumbel_at_infinite_logits_is_no_nan(logits):
    logits = jnp.array(logits)
    code = jnp.argmax(logits)

    def value_and_gradient(key):
        def weighted_sum(logits):
            draw = gumbel.conditional_gumbel(key, logits, code)
            return jnp.sum(jnp.where(jnp.isfinite(draw), draw, 0) / 1e4), draw

        return jax.grad(weighted_sum, has_aux=True)(logits)

    gradient, draws = replicate(value_and_gradient, num_replicates=1000)
    assert np.isfinite(gradient).all()
    assert not np.isnan(draws).any()
    assert np.all(np.asarray(draws.argmax(-1)) == int(code))


def plackett_luce(logits, order):
    """Log-probabilities of each of the codes in ``order`` given the earlier ones, drawn without replacement."""
    weights = np.exp(np.float64(logits))
    log_probs = []
    for j, code in enumerate(order):
        left = weights.sum() - weights[list(order[:j])].sum()
        log_probs.append(np.log(weights[code] / left))
    return np.array(log_probs)


def test_gumbel_top_k_draws_ordered_pairs_without_replacement():
    subsets = replicate(
        lambda key: gumbel.gumbel_top_k(key, jnp.asarray(LOGITS), num_samples=2), num_replicates=200_000
    )
    orders = list(itertools.permutations(range(4), 2))
    indicators = np.array([np.all(np.asarray(subsets.codes) == order, -1) for order in orders]).T
    log_probs = np.array([plackett_luce(LOGITS, order) for order in orders])
    probabilities = np.exp(log_probs.sum(-1))
    assert largest_z(jnp.asarray(indicators, jnp.float32), probabilities) < FAR
    # Drawing with replacement gives other frequencies, and the test sees it.
    independent = np.array([PROBABILITIES[i] * PROBABILITIES[j] for i, j in orders])
    assert largest_z(jnp.asarray(indicators, jnp.float32), independent) > 100

    first = indicators.argmax(0)  # one replicate for each ordered pair
    np.testing.assert_allclose(subsets.log_probs[first], log_probs, rtol=1e-5)
    np.testing.assert_allclose(np.exp(np.asarray(subsets.log_probs)[first].sum(-1)).sum(), 1.0, rtol=1e-5)
    assert np.all(np.diff(subsets.perturbed, axis=-1) <= 0)


@pytest.mark.parametrize("num_samples", [1, 3, 4])
def test_log_probs_of_a_subset_and_their_gradient_are_those_of_enumeration(num_samples):
    def log_prob(logits, key):
        subset = gumbel.gumbel_top_k(key, logits, num_samples=num_samples)
        return subset.log_probs.sum(), subset

    gradients, subsets = replicate(
        lambda key: jax.grad(log_prob, has_aux=True)(jnp.asarray(LOGITS), key), num_replicates=50
    )
    for gradient, codes, log_probs in zip(gradients, np.asarray(subsets.codes), subsets.log_probs, strict=True):
        assert len(set(codes)) == num_samples
        np.testing.assert_allclose(log_probs, plackett_luce(LOGITS, codes), atol=1e-5)
        # Each draw raises its own logit, and lowers those that were left by their probabilities.
        by_hand, left = np.zeros(4), np.exp(LOGITS)
        for code in codes:
            by_hand += np.eye(4)[code] - left / left.sum()
            left[code] = 0
        np.testing.assert_allclose(gradient, by_hand, atol=1e-5)


def test_impossible_categories_come_last_and_with_probability_zero():
    logits = jnp.array([0.0, -jnp.inf, 1.0, -jnp.inf])

    def draw(logits, key):
        subset = gumbel.gumbel_top_k(key, logits, num_samples=3)
        return jnp.sum(subset.log_probs[:2]), subset

    gradients, subsets = replicate(lambda key: jax.grad(draw, has_aux=True)(logits, key), num_replicates=2000)
    assert np.all(np.sort(subsets.codes[:, :2], axis=-1) == np.array([[0, 2]]))
    assert np.all(np.asarray(subsets.log_probs[:, 2]) == -np.inf)
    assert np.all(np.asarray(subsets.log_probs[:, 1]) == 0)
    assert np.isfinite(gradients).all()


def test_sinkhorn_columns_sum_to_one_and_rows_converge_geometrically():
    logits = 3 * jax.random.normal(jax.random.key(0), (5, 5))
    errors = []
    for num_iterations in (1, 5, 20, 80):
        matrix = np.exp(gumbel.log_sinkhorn(logits, num_iterations=num_iterations))
        np.testing.assert_allclose(matrix.sum(0), np.ones(5), rtol=1e-5)
        errors.append(np.abs(matrix.sum(1) - 1).max())
    assert errors[0] > 0.05
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2
    assert errors[3] < 1e-4


def normalised(logits, num_iterations):
    """Sinkhorn's iterations as they are written."""
    for axis in (-1, -2) * num_iterations:
        logits = jax.nn.log_softmax(logits, axis)
    return logits


@pytest.mark.parametrize("num_iterations", [1, 4])
def test_sinkhorn_and_its_gradient_are_those_of_normalising_rows_and_columns_in_turn(num_iterations):
    logits, weights = jax.random.normal(jax.random.key(0), (2, 2, 5, 5)) * jnp.array([4.0, 1.0])[:, None, None, None]

    def value_and_gradient(sinkhorn):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.exp(sinkhorn(x)) * weights)))(logits)

    def ours(x):
        return gumbel.log_sinkhorn(x, num_iterations=num_iterations)

    expected = value_and_gradient(lambda x: normalised(x, num_iterations))
    for one, other in zip(value_and_gradient(ours), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_derivative_of_sinkhorn_keeps_no_matrix_of_an_iteration():
    """What 30 more iterations take is less than one matrix; kept matrices, which was tried, took 60."""

    def temporary_bytes(num_iterations):
        def loss(logits):
            return jnp.sum(jnp.exp(gumbel.log_sinkhorn(logits, num_iterations=num_iterations)) ** 2)

        program = jax.jit(jax.grad(loss)).lower(jax.ShapeDtypeStruct((64, 64), jnp.float32)).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(40) - temporary_bytes(10) < 64 * 64 * 4


def nearest_permutation(scores):
    """The permutation matrix that maximises the sum of the scores it picks."""
    rows, columns = optax.assignment.hungarian_algorithm(-scores)
    return jnp.zeros(scores.shape, int).at[rows, columns].set(1)


def test_the_limit_of_gumbel_sinkhorn_is_the_best_assignment():
    logits = jax.random.normal(jax.random.key(0), (4, 4))

    def cold_and_perturbed(key):
        same_key = jax.random.clone(key)
        matrix = gumbel.gumbel_sinkhorn(key, logits, temperature=0.01, num_iterations=500)
        return matrix, gumbel.perturb(same_key, logits)

    matrices, perturbed = replicate(cold_and_perturbed, num_replicates=50)
    rows, columns = zip(*(scipy.optimize.linear_sum_assignment(-np.asarray(z)) for z in perturbed), strict=True)
    best = np.zeros((50, 4, 4))
    best[np.arange(50)[:, None], rows, columns] = 1
    # Where the two best assignments are nearly equal, the limit is not reached yet at any one temperature.
    reached = np.abs(np.asarray(matrices) - best).max((1, 2)) < 0.01
    assert reached.mean() > 0.8
    assert len(np.unique(best.argmax(-1), axis=0)) > 5


def test_a_hard_permutation_with_the_gradient_of_sinkhorn_as_the_docstring_advises():
    target = jnp.arange(16.0).reshape(4, 4) ** 2

    @jax.jit
    def hard_and_gradients(logits):
        def soft(logits):
            return gumbel.gumbel_sinkhorn(jax.random.key(1), logits, temperature=0.5, num_iterations=50)

        def hard(logits):
            return straight_through(nearest_permutation(jax.lax.stop_gradient(soft(logits))), soft(logits))

        return hard(logits), [jax.grad(lambda x, y=y: jnp.sum(y(x) * target))(logits) for y in (hard, soft)]

    hard, (gradient, soft_gradient) = hard_and_gradients(jax.random.normal(jax.random.key(0), (4, 4)))
    assert np.array_equal(np.unique(hard), [0.0, 1.0])
    assert hard.sum(0).tolist() == hard.sum(1).tolist() == [1.0] * 4
    np.testing.assert_allclose(gradient, soft_gradient, rtol=1e-5)
    assert np.abs(gradient).max() > 0.01
