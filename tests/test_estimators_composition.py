"""Estimators under JAX's transformations and inside each other: layers, batches, limits."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fitting import BITS, FITTING, LOGITS, THETA, named
from jax import lax
from packaging.version import Version
from replicates import (
    agrees,
    default_num_samples,
    estimate,
    expected_over_bits,
    replicate,
    smooth,
)

from jaxlab import estimators, moments
from jaxlab.distributions import Bernoulli, Categorical, Enumerable, Normal


@pytest.mark.parametrize(("row", "dist"), FITTING, ids=named)
def test_forward_mode_value_and_grad_and_aux_agree(row, dist):
    leaves, tree = jax.tree.flatten(dist)

    def loss(leaves, theta):
        def f(x):
            return (smooth(x, theta), {"draw": x, "three": jnp.ones(3)})

        return estimate(row, jax.random.key(0), jax.tree.unflatten(tree, leaves), f, has_aux=True)

    @jax.jit
    def both_modes(leaves, theta):
        inputs = (leaves, theta)
        directions = jax.tree.map(lambda leaf: jnp.sin(10 * leaf), inputs)
        (value, aux), gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(*inputs)
        forward_value, tangent, forward_aux = jax.jvp(loss, inputs, directions, has_aux=True)
        along = sum(jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(directions), strict=True))
        return (value, aux, along), (forward_value, forward_aux, tangent)

    reverse, forward = both_modes(leaves, THETA)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), reverse, forward)
    value, aux, _ = reverse
    # Auxiliary values for each sample, or for each of the eight values.
    num_draws = row.evaluations(1, dist) if row.name == "arsm" else default_num_samples(row) or 8
    assert (aux["draw"].shape, aux["three"].shape) == ((num_draws, 3), (num_draws, 3))
    if row.needs is not Enumerable:  # whose draws have weights
        np.testing.assert_allclose(value, np.mean([smooth(x, THETA) for x in aux["draw"]]), rtol=1e-5)


def test_auxiliary_values_of_an_estimator_with_a_state():
    (value, aux), state = estimators.reinforce_moving_average(
        jax.random.key(0), BITS, lambda b: (b.sum(), b), moments.moving_average(), num_samples=5, has_aux=True
    )
    assert aux.shape == (5, 3)
    np.testing.assert_allclose([value, state.mean()], [aux.sum(-1).mean()] * 2, rtol=1e-6)


# Estimators inside estimators: x ~ p(x; phi), y ~ p(y; A x + psi), and a cost of y alone.

A = jnp.array([[1.0, -2.0], [0.5, 1.5]])


def cost(y):
    return jnp.exp(y[0] - y[1])


def two_layers(outer, inner, dist, psi, key):
    outer_key, inner_key = jax.random.split(key)

    def downstream(x):
        return inner(inner_key, Bernoulli(jnp.dot(A, x) + psi), cost)

    return outer(outer_key, dist, downstream)


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (estimators.reinforce, estimators.leave_one_out),
        (estimators.leave_one_out, estimators.exact),
        (estimators.exact, estimators.reinforce),
        (estimators.leave_one_out, estimators.leave_one_out),
        (estimators.leave_one_out, estimators.straight_through_mean),
    ],
)
def test_two_layers_of_bits_have_the_gradient_of_both_sums(outer, inner):
    phi, psi = jnp.array([0.3, -0.6]), jnp.array([0.7, -1.0])

    def expectation(phi, psi):
        return expected_over_bits(Bernoulli(phi), lambda x: expected_over_bits(Bernoulli(jnp.dot(A, x) + psi), cost))

    def estimates(key):
        def loss(phi, psi):
            return two_layers(outer, inner, Bernoulli(phi), psi, key)

        return jax.value_and_grad(loss, argnums=(0, 1))(phi, psi)

    value, (to_phi, to_psi) = replicate(estimates)
    expected, (expected_to_phi, expected_to_psi) = jax.jit(jax.value_and_grad(expectation, argnums=(0, 1)))(phi, psi)
    assert np.abs(expected_to_phi).min() > 0.01  # all of it credit for what happens downstream
    assert agrees(value, expected)
    assert agrees(to_phi, expected_to_phi)
    # The bias of a layer is its own: the layer before is credited with the right cost.
    assert agrees(to_psi, expected_to_psi) == (inner is not estimators.straight_through_mean)


def test_a_path_through_a_score():
    # E over x ~ N(m, s) of E[b] with b ~ Bernoulli(x): by quadrature.
    def estimates(key):
        def loss(m, s):
            outer_key, inner_key = jax.random.split(key)

            def inner(x):
                return estimators.leave_one_out(inner_key, Bernoulli(x), lambda b: 3 * b)

            return estimators.reparameterized(outer_key, Normal(m, s), inner)

        return jax.value_and_grad(loss, argnums=(0, 1))(jnp.array(0.5), jnp.array(2.0))

    def expectation(m, s):
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        return jnp.sum(3 * jax.nn.sigmoid(m + s * jnp.float32(nodes)) * jnp.float32(weights)) / np.sqrt(2 * np.pi)

    assert agrees(replicate(estimates), jax.value_and_grad(expectation, argnums=(0, 1))(0.5, 2.0))


# Batches, loops, limits, memory.


@pytest.mark.parametrize(("row", "dist"), FITTING, ids=named)
def test_a_batch_and_a_scan_are_a_loop(row, dist):
    theta = jnp.stack([THETA, 2 * THETA, -THETA])

    @jax.jit  # traced once for the loop and the scan
    def gradient(theta, key):
        return jax.grad(lambda d: estimate(row, key, d, lambda x: smooth(x, theta)))(dist)

    @jax.jit
    def two_ways(keys):
        _, scanned = lax.scan(lambda carry, x: (carry, gradient(*x)), 0, (theta, jax.random.clone(keys)))
        return jax.vmap(gradient)(theta, keys), scanned

    keys = jax.random.split(jax.random.key(0), 3)
    loop = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[gradient(theta[i], keys[i]) for i in range(3)])
    for other in two_ways(jax.random.clone(keys)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), loop, other)


def test_a_state_is_carried_by_a_scan():
    def step(state, key):
        def loss(logits):
            return estimators.reinforce_moving_average(key, Bernoulli(logits), lambda b: b.sum() + 10, state, decay=0.9)

        gradient, state = jax.grad(loss, has_aux=True)(LOGITS)
        return state, gradient

    keys = jax.random.split(jax.random.key(0), 200)
    state, gradients = jax.jit(lambda keys: lax.scan(step, moments.moving_average(), keys))(keys)
    expected = 10 + float(jax.nn.sigmoid(LOGITS).sum())
    assert abs(float(state.mean()) - expected) < 1
    # The first step has no baseline; later ones subtract nearly all of the ten.
    assert np.abs(gradients[0]).max() > 3 * np.abs(gradients[50:]).mean()


def matrix_products(program):
    """How many matrix products a compiled program has, how many of them are batched, and all its operations."""
    dots = re.findall(r"= \S+ dot\(.*", program.as_text())
    return len(dots), sum("lhs_batch_dims" in dot for dot in dots), program.cost_analysis()["flops"]


@pytest.mark.parametrize(("row", "num_samples"), [(estimators.reinforce, 1), (estimators.leave_one_out, 4)])
def test_a_minibatch_compiles_to_the_matrix_products_of_one_written_by_hand(row, num_samples):
    batch, inputs, latents, hidden = 32, 196, 32, 128
    x = jax.random.normal(jax.random.key(0), (batch, inputs))
    parameters = tuple(
        0.1 * jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(inputs, latents), (latents, hidden), (hidden, inputs)], 1)
    )

    def by_vmap(parameters, key):
        encoder, first, second = parameters

        def example(key, x):
            def f(b):
                return jnp.sum((jnp.tanh(b @ first) @ second - x) ** 2)

            return row(key, Bernoulli(x @ encoder), f, num_samples=num_samples)

        return jax.vmap(example)(jax.random.split(key, batch), x).mean()

    def by_hand(parameters, key):
        encoder, first, second = parameters
        logits = x @ encoder

        def draw(key, logits):
            keys = jax.random.split(key, num_samples) if num_samples > 1 else key[None]
            return jax.vmap(Bernoulli(logits).sample)(keys)

        b = lax.stop_gradient(jax.vmap(draw)(jax.random.split(key, batch), logits)).reshape(-1, latents)
        decoded = (jnp.tanh(b @ first) @ second).reshape(batch, num_samples, inputs)
        cost = jnp.sum((decoded - x[:, None]) ** 2, -1)
        baseline = (cost.sum(-1, keepdims=True) - cost) / (num_samples - 1) if num_samples > 1 else 0 * cost
        bits = b.reshape(batch, num_samples, latents)
        log_prob = jax.vmap(lambda logits, bits: jax.vmap(Bernoulli(logits).log_prob)(bits))(logits, bits)
        return jnp.mean(cost + lax.stop_gradient(cost - baseline) * log_prob)

    key = jax.random.key(1)
    ours, theirs = (jax.jit(jax.grad(f)).lower(parameters, key).compile() for f in (by_vmap, by_hand))
    for a, b in zip(ours(parameters, jax.random.clone(key)), theirs(parameters, key), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    dots, batched, operations = matrix_products(ours)
    dots_by_hand, _, operations_by_hand = matrix_products(theirs)
    assert dots == dots_by_hand == 7  # three forward, their weights, and through the second layer
    assert batched == 0
    assert abs(operations / operations_by_hand - 1) < 0.02


CERTAIN = {"bits": jnp.array([jnp.inf, -jnp.inf, 0.3]), "categories": jnp.array([[jnp.inf, 0.0], [-jnp.inf, 0.5]])}


@pytest.mark.parametrize("row", [row for row, dist in FITTING if dist is BITS], ids=named)
def test_gradients_at_infinite_logits_are_finite(row):
    families = {"bits": Bernoulli, "categories": Categorical}
    fitting = {name: family for name, family in families.items() if isinstance(family(CERTAIN[name]), row.needs)}

    def gradients(key):
        def loss(logits):
            values = [
                estimate(row, jax.random.fold_in(key, number), family(logits[name]), lambda b: smooth(b, THETA))
                for number, (name, family) in enumerate(fitting.items())
            ]
            return sum(values), values

        return jax.grad(loss, has_aux=True)({name: CERTAIN[name] for name in fitting})

    gradient, values = replicate(gradients, num_replicates=100)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, values)))
    # What is certain has no gradient (or that of a probability that stands for 0), and what is not has one; but ARM
    # multiplies the costs with the noise of certain bits too, for nothing.
    assert (np.abs(gradient["bits"])[:, :2].max() < 1e-25) == (row.name != "arm")
    assert np.abs(gradient["bits"])[:, 2].max() > 0.01
    if "categories" in fitting:
        assert np.abs(gradient["categories"]).max() < 1e-25


def test_chunks_bound_the_memory_of_the_exact_expectation_and_leave_its_value():
    weights = jax.random.normal(jax.random.key(0), (10, 256))
    logits = jnp.linspace(-1.0, 1.0, 10)

    def loss(logits, weights, chunk_size):
        def f(b):
            return jnp.sum(jnp.tanh(b @ weights) ** 2)

        return estimators.exact(jax.random.key(0), Bernoulli(logits), f, chunk_size=chunk_size)

    def compiled(chunk_size):
        both = jax.value_and_grad(lambda *x: loss(*x, chunk_size), argnums=(0, 1))
        return jax.jit(both).lower(logits, weights).compile()

    whole, chunked = compiled(None), compiled(60)  # 1,024 values are no multiple of 60
    for a, b in zip(*(jax.tree.leaves(program(logits, weights)) for program in (whole, chunked)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    used = [program.memory_analysis().temp_size_in_bytes for program in (whole, chunked)]
    assert used[1] < used[0] / 4  # also for the gradient of what f closes over


def bits_and_neighbours(phi, f, **options):
    return estimators.local_expectation(jax.random.key(0), Bernoulli(phi), f, **options)


def rows_and_neighbours(phi, f, **options):
    rows = Categorical(phi.reshape(-1, 4))
    return estimators.local_expectation(jax.random.key(0), rows, lambda z: f(z.reshape(-1)), **options)


def normals_and_components(phi, f, **options):
    return estimators.measure_valued(jax.random.key(0), Normal(phi, 1 + phi**2), f, **options)


@pytest.mark.parametrize("estimate", [bits_and_neighbours, rows_and_neighbours, normals_and_components])
def test_chunks_of_neighbours_leave_the_gradient_and_take_less_memory(estimate):
    """Planted and found: chunks as large as all."""
    phi, weights = jnp.linspace(-1.0, 1.0, 64), jax.random.normal(jax.random.key(0), (64, 512)) / 8

    def compiled(chunk_size):
        def loss(phi, weights):
            def f(z):
                return jnp.sum(jnp.sin(jnp.sort(z @ weights) * jnp.arange(512.0)))  # which is not fused

            return estimate(phi, f, num_samples=2, chunk_size=chunk_size)

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(phi, weights).compile()

    whole, chunked = compiled(None), compiled(5)  # of which 64 and 48 are no multiples
    for a, b in zip(*(jax.tree.leaves(program(phi, weights)) for program in (whole, chunked)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    used = [program.memory_analysis().temp_size_in_bytes for program in (whole, chunked)]
    assert used[1] < used[0] / 2


def test_neighbours_of_many_sites_are_not_all_written_out():
    """Those of 4,096 bits take 64 MiB, a chunk of them 8 MiB. Planted and found: all at once."""
    num_chunks = 1 if Version(jax.__version__) < Version("0.12") else 3  # which are kept at a time

    def gradient(phi):
        return jax.grad(lambda phi: bits_and_neighbours(phi, lambda z: jnp.sum(jnp.sin(z)) ** 2))(phi)

    program = jax.jit(gradient).lower(jax.ShapeDtypeStruct((4096,), jnp.float32)).compile()
    assert program.memory_analysis().temp_size_in_bytes < (num_chunks + 1) * 8 * 2**20
