"""Numbers and shapes that are rare, over the rows of ``cases``, and whole steps under the checks that JAX has.

What is infinite, huge or tied is in the rows themselves and in ``test_transforms.py``, as are types of 16 and 32 bits.

Violations planted for these laws, each of which failed: a callback that takes the mean of a batch (NaN in one example);
an inverse of what is not 0 (next to 0); a sum over the first axis in place of the last (letters); a result in float32
(float64); a logarithm of negative numbers, and a tracer that is kept (steps). The laws of sizes found by themselves a
quotient of 0 by 0 without a site, and a dozen functions that failed in silence or with another's words where an array
is empty or has a single category.
"""

import contextlib
import dataclasses
import functools
import gc
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, Case
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import (
    BATCH,
    batch,
    compiled,
    compiled_batch,
    example,
    is_float,
    keys,
    leaf_names,
    operations,
    over,
    program,
    spread_over_devices,
    value_and_gradient,
)
from sizes import Sizes, allowed, drawn, fits, free_letters, resized, result_letters, smallest

from jaxlab import estimators, metrics, ordered, quantize, recurrent, smooth
from jaxlab.distributions import Bernoulli


@over(case for case in CASES if leaf_names(example(case)))
def test_nan_in_one_example_reaches_no_other(case: Case):
    """Value and gradient, to the bit; the other examples lie on other devices, and in the same loops.

    A GPU adds what is scattered to one place in no fixed order (:func:`moments.bootstrap`): there, to rounding.
    """

    def damaged(leaf):
        second = (np.arange(BATCH) == 1).reshape(-1, *[1] * (leaf.ndim - 1))
        return jnp.asarray(np.where(second, leaf.dtype.type(np.nan), leaf)) if is_float(leaf) else leaf

    clean = batch(case, BATCH)
    results = [
        jax.device_get(compiled_batch(case)(*spread_over_devices(keys(), data)))
        for data in (clean, jax.tree.map(damaged, clean))
    ]
    others = np.arange(BATCH) != 1
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        rounding = 0 if jax.default_backend() == "cpu" else 1e-5
        np.testing.assert_allclose(one[others], other[others], rtol=rounding, atol=rounding)


def near_zero(leaf: np.ndarray) -> np.ndarray:
    """Numbers next to 0: every second one is denormal, which some devices take for 0, and some do not."""
    places = np.arange(np.size(leaf))
    return (np.where(places % 2, 1e-40, 2e-38) * np.cos(places)).reshape(np.shape(leaf)).astype(np.float32)


def zeros_among_extremes(case: Case):
    """Arguments that may be 0 throughout: they may be next to 0 as well."""
    for extreme in case.extremes:
        leaves = jax.tree.leaves(extreme)
        if all(isinstance(leaf, np.ndarray) and is_float(leaf) and not leaf.any() for leaf in leaves):
            yield extreme


@over(case for case in CASES if any(zeros_among_extremes(case)))
def test_value_and_gradient_are_finite_next_to_0(case: Case):
    for extreme in zeros_among_extremes(case):
        arguments = {**case.arguments, **jax.tree.map(near_zero, extreme)}
        returned = compiled(case)(keys()[0], example(dataclasses.replace(case, arguments=arguments)))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(returned)))


@over(case for case in CASES if leaf_names(example(case)))
def test_float64_comes_out_as_it_went_in(case: Case):
    with jax.enable_x64(True):
        results = jax.eval_shape(program(case), keys()[0], example(case, jnp.float64))
    for rule, leaf in zip(case.results, jax.tree.leaves(results), strict=True):
        assert leaf.dtype == jnp.float64 or rule not in ("same", "wide")


ADDING = {"dot_general", "reduce_sum", "reduce_prod", "cumsum", "cumprod", "cumlogsumexp", "scatter-add"}
# The derivatives that these take themselves are with respect to parameters of as few bits, and added over the draws.
DERIVED = {f"estimators.{name}" for name in ("double_control_variate", "rebar", "relax", "reparameterized_delta")}
# A product of the cells follows jax.default_matmul_precision; those of the trees are of ones and zeros.
AS_CONFIGURED = {"recurrent.scan_affine", "recurrent.scan_plain"}
AS_CONFIGURED |= {f"ordered.{name}" for name in ("distance_to_tree", "spans_to_chart", "balanced_tree", "random_tree")}


@over(case for case in CASES if leaf_names(example(case)))
def test_sums_and_products_of_few_bits_are_made_in_float32(case: Case):
    """On every platform: a TPU rounds the operands of other products to bfloat16, which counts to 256.

    Planted and found: a product of matrices at the default precision, and a ``cumsum`` of what came in.
    """
    with jax.default_matmul_precision("default"):  # on other platforms than CPU, conftest.py asks for more
        traced = jax.make_jaxpr(program(case))(keys()[0], example(case, jnp.bfloat16))
    for operation in operations(traced.jaxpr):
        if operation.primitive.name not in ADDING:
            continue
        dtype = operation.outvars[0].aval.dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            continue
        assert jnp.finfo(dtype).bits >= 32 or case.name in DERIVED, operation
        if operation.primitive.name == "dot_general" and case.name not in AS_CONFIGURED:
            assert set(operation.params["precision"] or [None]) == {jax.lax.Precision.HIGHEST}, operation


@over(case for case in CASES if case.data or case.random)
def test_a_batch_may_be_empty(case: Case):
    data = jax.tree.map(lambda leaf: leaf[:0], batch(case, 1))
    whole = jax.eval_shape(program(case), keys()[0], example(case))
    with jax.debug_key_reuse(False):  # jax 0.9 takes the parts of no keys for one key, used again
        empty = jax.eval_shape(jax.vmap(program(case)), keys()[:0], data)
    assert [leaf.shape for leaf in jax.tree.leaves(empty)] == [(0, *leaf.shape) for leaf in jax.tree.leaves(whole)]


few = settings(deadline=None, max_examples=2, derandomize=True)


@over(case for case in CASES if free_letters(case))
def test_value_and_gradient_are_finite_in_the_smallest_size(case: Case):
    """Empty, where the mathematics allows it, or else of one example, one class or as many as the function needs."""
    returned = jax.jit(functools.partial(value_and_gradient, case))(keys()[0], resized(case, smallest(case)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(returned)))


@over(case for case in CASES if free_letters(case))
@few
@given(data=st.data())
def test_shapes_follow_the_letters_of_the_annotations(case: Case, data):
    sizes = data.draw(drawn(case))
    results = jax.eval_shape(program(case), keys()[0], resized(case, sizes))
    for letters, leaf in zip(result_letters(case, results), jax.tree.leaves(results), strict=True):
        assert fits(letters, leaf.shape, sizes), (letters, leaf.shape, sizes)


def too_small(case: Case):
    """The smallest sizes, but for one letter, which is one less than that."""
    for letter in free_letters(case):
        least = allowed(case, letter)[0]
        # What another library makes, it refuses in its own words.
        if least and not letter.startswith("*") and not case.name.startswith("distributions.Adapted"):
            yield smallest(case) | {letter: (least - 1,)}


def refusal(case: Case, sizes: Sizes) -> str:
    """What a function says of data in these sizes; nothing if it takes them."""
    try:
        jax.eval_shape(program(case), keys()[0], resized(case, sizes))
    except ValueError as error:
        return str(error)
    return ""


@over(case for case in CASES if any(too_small(case)))
def test_sizes_that_are_too_small_are_refused_in_words(case: Case):
    """Or they are not: some functions have a value there, which says nothing, such as a mean of no numbers."""
    for sizes in too_small(case):
        assert re.match(r"$|[\w.]+( of \w+)?: .+; got ", refusal(case, sizes))


@settings(few, max_examples=12)
@given(st.integers(0, 4), st.integers(1, 3), st.integers(1, 3))
def test_nearest_codes_of_any_number_of_vectors(num_vectors, num_codes, dim):
    generator = np.random.default_rng((num_vectors, num_codes, dim))
    x, codebook = generator.normal(size=(num_vectors, dim)), generator.normal(size=(num_codes, dim))
    expected = ((x[:, None] - codebook) ** 2).sum(-1).argmin(-1)
    found = quantize.nearest_code(jnp.asarray(x, jnp.float32), jnp.asarray(codebook, jnp.float32))
    np.testing.assert_array_equal(found, expected)


SMOOTH = [
    "argmax",
    "boltzmann",
    "entmax",
    "isotonic",
    "maximum",
    "median",
    "mellowmax",
    "minimum",
    "one_hot_argmax",
    "pairwise_rank",
    "rank",
    "sort",
    "sparsemax",
    "trimmed_mean",
]
ALONG_AN_AXIS = {name: getattr(smooth, name) for name in SMOOTH} | {
    "cumax": ordered.cumax,
    "quantile": functools.partial(smooth.quantile, q=0.5),
    "top_k_mask": functools.partial(smooth.top_k_mask, k=1),
    "grad_top_k": functools.partial(smooth.grad_top_k, k=1),
    "threshold": functools.partial(smooth.threshold, k=1),
}


@pytest.mark.parametrize("name", sorted(ALONG_AN_AXIS))
@pytest.mark.parametrize(("rows", "length"), [(0, 2), (1, 1), (3, 4)])
def test_functions_along_an_axis_take_it_first_or_last(name, rows, length):
    """Of any length from 1 on, with any number of rows, none included."""
    function = ALONG_AN_AXIS[name]
    x = jnp.asarray(np.random.default_rng((rows, length)).normal(size=(rows, length)), jnp.float32)
    for last, first in zip(*map(jax.tree.leaves, (function(x, axis=-1), function(x.T, axis=0))), strict=True):
        np.testing.assert_allclose(first, last.T, atol=1e-6)
        assert last.shape[0] == rows
        assert np.isfinite(last).all()


# Steps


def estimator_step(parameters, key):
    def loss(logits):
        return estimators.leave_one_out(key, Bernoulli(logits), lambda bits: jnp.sum((bits - 0.45) ** 2), num_samples=2)

    return jax.value_and_grad(loss)(parameters)


def quantizer_step(parameters, key):
    quantizer = quantize.ema_vector_quantizer(num_codes=4, restart_threshold=0.1)
    x = parameters[None] * jax.random.normal(key, (6, 3))
    init_key, apply_key = jax.random.split(jax.random.fold_in(jax.random.key(1), 0))
    params, state = quantizer.init(init_key, x)

    def loss(x):
        out, after = quantizer.apply(apply_key, params, state, x)
        return jnp.mean(out.values**2) + out.loss, after

    (value, _), gradient = jax.value_and_grad(loss, has_aux=True)(x)
    return value, gradient.sum(0)


def recurrent_step(parameters, key):
    weights = recurrent.uniform_affine(key, input_dim=3, hidden_dim=4, num_preactivations=20)
    cell = functools.partial(ordered.ordered_lstm, chunk_size=2)
    carry = recurrent.LSTMCarry(*[jnp.zeros((2, 4))] * 2)
    lengths = jnp.array([5, 0])

    def loss(parameters):
        inputs = jnp.broadcast_to(parameters, (5, 2, 3))
        return jnp.sum(recurrent.scan_affine(cell, weights, inputs, carry, lengths=lengths)[1].hidden ** 2)

    return jax.value_and_grad(loss)(parameters)


def metric_step(parameters, key):
    f1 = metrics.f_beta(metrics.binary(temperature=1.0))
    targets = jnp.array([1, 0, 0])

    def loss(logits):
        order = smooth.rank(logits, temperature=1.0)
        return 1 - metrics.linearize(f1, metrics.state_of(f1, logits, targets))(logits, targets) + 0.01 * order[0]

    return jax.value_and_grad(loss)(parameters)


STEPS = {step.__name__: step for step in (estimator_step, quantizer_step, recurrent_step, metric_step)}


# Looking for NaN reads all results on the host, which the guard refuses where that is not where they are.
CHECKS = {
    "values and tracers": lambda: (jax.debug_nans(True), jax.checking_leaks()),
    "transfers": lambda: (jax.transfer_guard("disallow"),),
}


@pytest.mark.parametrize("checks", list(CHECKS))
@pytest.mark.parametrize("name", list(STEPS))
def test_steps_pass_the_checks_that_jax_has(name, checks):
    """No NaN on the way, no tracer that outlives its trace, nothing sent between host and device without a word."""
    optimizer = optax.sgd(0.1)

    @jax.jit
    def step(state, key):
        parameters, inner = state
        value, gradient = STEPS[name](parameters, key)
        updates, inner = optimizer.update(gradient, inner)
        return (optax.apply_updates(parameters, updates), inner), value

    parameters = jnp.array([0.5, -1.0, 2.0])
    state, first, second = (parameters, optimizer.init(parameters)), *jax.random.split(jax.random.key(0))
    gc.freeze()  # leaks are looked for by a collection at the end of each trace: not among all that was there before
    try:
        with contextlib.ExitStack() as stack:
            for check in CHECKS[checks]():
                stack.enter_context(check)
            state, _ = step(state, first)
            state, value = step(state, second)
    finally:
        gc.unfreeze()
    assert np.isfinite(value)
    assert np.isfinite(state[0]).all()
    assert np.any(state[0] != parameters)
