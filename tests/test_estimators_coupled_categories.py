"""Coupled draws of categories: unbiased, and each known mistake is not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import CATEGORIES, THETA, exact, replicates, total_variance
from replicates import FAR, agrees, largest_z, replicate, smooth

from jaxlab import estimators
from jaxlab.distributions import Bernoulli, Categorical
from jaxlab.estimators import coupled_categories

NUM_REPLICATES = 200_000
ROWS = {name: estimators.ESTIMATORS[name] for name in ("arsm", "disarm_stick_breaking", "disarm_tree")}
PAIRS = ("disarm_stick_breaking", "disarm_tree")


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("groups", [1, 2])
def test_value_and_gradient_are_unbiased(name, groups):
    row = ROWS[name]
    estimate = functools.partial(row.estimate, num_samples=groups * row.minimal_num_samples)
    assert agrees(replicates(estimate, "categories"), exact("categories"))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("mistake", ["sigma of the logit itself", "only what both meet", "one baseline forgotten"])
def test_a_known_mistake_is_biased(name, mistake):
    """In the decisions' own logits: a copy of the formula with one mistake, and one with none."""
    right, wrong = (
        replicate(functools.partial(by_hand, name, m), num_replicates=NUM_REPLICATES) for m in ("", mistake)
    )
    (_, (expected, _)) = exact("categories")
    assert agrees(right, expected.logits)
    assert largest_z(wrong, expected.logits) > FAR


def by_hand(name, mistake, key):
    """One gradient, row by row and walk by walk."""
    logits = CATEGORIES.logits
    if name == "disarm_tree":  # ((0, 1), (2, nothing))
        decision_logits = coupled_categories.branch_logits

        def walk(bits):
            left, first = bits[..., 0], bits[..., 1]
            code = jnp.where(left, jnp.where(first, 0, 1), 2)
            return code, jnp.stack([left | True, left, ~left], -1)
    else:
        order = jnp.array([[2, 0, 1], [1, 0, 2]])  # any order will do; here logits of both signs

        def decision_logits(logits):
            return coupled_categories.stick_logits(jnp.take_along_axis(logits, order, -1))

        def walk(bits):
            place = jnp.where(bits[..., 0], 0, jnp.where(bits[..., 1], 1, 2))
            return order[jnp.arange(2), place], jnp.stack([place >= 0, place >= 1], -1)

    s, pull_back = jax.vjp(decision_logits, logits)
    u = jax.random.uniform(key, s.shape)
    p = jax.nn.sigmoid(s)
    first, second = u > 1 - p, u < p
    (code, met), (other_code, other_met) = walk(first), walk(second)
    difference = smooth(jnp.eye(3)[code], THETA) - smooth(jnp.eye(3)[other_code], THETA)
    factor = p if mistake == "sigma of the logit itself" else jax.nn.sigmoid(jnp.abs(s))
    b, other_b = first.astype(p.dtype), second.astype(p.dtype)
    gradient = jnp.where(met & other_met, (b - other_b) * factor, 0)
    if mistake != "only what both meet":
        gradient += jnp.where(met & ~other_met, b - p, 0)
        if mistake != "one baseline forgotten":
            gradient -= jnp.where(other_met & ~met, other_b - p, 0)
    return pull_back(difference / 2 * gradient)[0]


def permutations_of(num_categories):
    """All swaps of two categories written out, and the number of each."""
    one, other, numbers = coupled_categories.swaps(num_categories)
    places = jnp.arange(len(one))
    unchanged = jnp.tile(jnp.arange(num_categories), (len(one), 1))
    return unchanged.at[places, one].set(other).at[places, other].set(one), numbers


@pytest.mark.parametrize("num_categories", [1, 2, 3, 4, 7])
def test_swapped_codes_are_the_argmax_of_what_is_swapped(num_categories):
    """With ties, as whole numbers have; planted and found: the best alone in place of the best two."""
    permutations, _ = permutations_of(num_categories)
    one, other, _ = coupled_categories.swaps(num_categories)
    keys = jax.random.split(jax.random.key(0))
    logits, noise = (jax.random.randint(key, (500, num_categories), 0, 4).astype(jnp.float32) for key in keys)
    expected = jnp.argmax(logits[:, None] - noise[:, permutations], -1)
    found = jax.vmap(lambda *row: coupled_categories.swapped_codes(*row, one, other))(logits, noise)
    np.testing.assert_array_equal(found, expected)


def test_arsm_with_a_swap_in_one_row_alone_is_biased():
    """The same two categories have to be swapped in all rows, or else a row's swap is not its own."""

    def gradient(key, everywhere):
        logits = CATEGORIES.logits
        exponentials = jax.random.exponential(key, logits.shape)
        permutations, numbers = permutations_of(3)
        swapped = jnp.moveaxis(exponentials[:, permutations], 1, 0)
        if not everywhere:
            swapped = swapped.at[:, 1].set(exponentials[1])
        codes = jnp.argmin(jnp.log(swapped) - logits[None], -1)
        values = jax.vmap(lambda code: smooth(jnp.eye(3)[code], THETA))(codes)[numbers]
        shares = exponentials / exponentials.sum(-1, keepdims=True)
        return jnp.einsum("cj,dj->dc", values - values.mean(0, keepdims=True), 1 / 3 - shares)

    (_, (expected, _)) = exact("categories")
    right, wrong = (
        replicate(lambda key, e=everywhere: gradient(key, e), num_replicates=NUM_REPLICATES)
        for everywhere in (True, False)
    )
    assert agrees(right, expected.logits)
    assert largest_z(wrong, expected.logits) > FAR


@pytest.mark.parametrize("name", PAIRS)
def test_two_categories_at_even_odds_have_no_variance(name):
    # f(1) - f(0) = 1 - 2 t, times p (1 - p): that of one bit, 0.25 (1 - 0.9).
    def loss(logits, key):
        return ROWS[name].estimate(key, Categorical(logits), lambda z: (z[0] - 0.45) ** 2)

    gradients = replicate(lambda key: jax.grad(loss)(jnp.zeros(2), key), num_replicates=100)
    np.testing.assert_allclose(gradients, np.tile([0.025, -0.025], (100, 1)), rtol=1e-5)


@pytest.mark.parametrize(("name", "of_bits"), [("disarm_tree", "disarm"), ("arsm", "arm")])
def test_two_categories_are_a_bit(name, of_bits):
    def f(bit):
        return jnp.exp(bit) + bit**2

    def by_categories(key, logit):
        return ROWS[name].estimate(key, Categorical(jnp.stack([logit, 0 * logit])), lambda z: f(z[0]))

    def by_bits(key, logit):
        return estimators.ESTIMATORS[of_bits].estimate(key, Bernoulli(logit), f)

    logit = jnp.array(0.8)
    variances = [
        total_variance(estimate, logit, num_replicates=NUM_REPLICATES) for estimate in (by_categories, by_bits)
    ]
    np.testing.assert_allclose(*variances, rtol=0.02)


@pytest.mark.parametrize("num_categories", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("name", ROWS)
def test_draws_have_the_law_of_the_distribution(name, num_categories):
    logits = jnp.stack([jnp.linspace(-1.0, 1.5, num_categories), jnp.cos(jnp.arange(num_categories))])
    row = ROWS[name]

    def draws(key):
        # In float32, as f is a differentiable function of its draw.
        _, z = row.estimate(key, Categorical(logits), lambda z: (z.sum(), z), has_aux=True)
        assert len(z) == row.evaluations(row.minimal_num_samples, Categorical(logits))
        return z.mean(0)

    shares = replicate(draws, num_replicates=20_000)
    assert agrees(shares, jax.nn.softmax(logits, -1))


@pytest.mark.parametrize("name", ROWS)
def test_less_variance_than_leave_one_out(name):
    def estimate(row):
        return lambda key, logits: row.estimate(key, Categorical(logits), lambda z: smooth(z, THETA))

    variances = [
        total_variance(estimate(row), CATEGORIES.logits) for row in (ROWS[name], estimators.ESTIMATORS["leave_one_out"])
    ]
    assert variances[0] < 0.95 * variances[1]


@pytest.mark.parametrize("name", ROWS)
def test_what_is_certain_or_impossible_has_no_gradient(name):
    logits = jnp.array([[jnp.inf, 0.0, 1.0], [0.5, -jnp.inf, 0.0], [1.0, -0.5, 0.0]])

    def loss(logits, key):
        return ROWS[name].estimate(key, Categorical(logits), lambda z: jnp.sum(jnp.sin(z * jnp.arange(1.0, 4.0)[None])))

    gradients = np.asarray(replicate(lambda key: jax.grad(loss)(logits, key), num_replicates=1000))
    assert np.isfinite(gradients).all()
    assert (gradients[:, 0] == 0).all()
    assert (gradients[:, 1, 1] == 0).all()
    assert (np.abs(gradients[:, [1, 1, 2], [0, 2, 1]]).max(0) > 0.01).all()
