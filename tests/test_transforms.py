"""What every function owes to the transformations of JAX, over the rows of ``cases``.

Each law was tried against a violation that was planted for it: a counter outside the program (jit is not eager); a
static ``temperature`` (two traces); a callback that looks at the whole batch (vmap is no loop); a ``custom_jvp`` whose
value is a constant to a batched argument (wrong gradient where that argument alone is batched); a ``stop_gradient``
around one term, an estimator that differentiates the weights twice, a ``sample`` with a path (gradient and promise
differ); a result in float32 for bfloat16, and noise drawn in bfloat16; a softmax without its shift, and ``+inf`` not
bounded (NaN at extremes); a key used twice (everything).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, Case
from programs import (
    BATCH,
    batch,
    compiled,
    compiled_batch,
    example,
    is_float,
    keys,
    leaf_names,
    over,
    program,
    promised,
    split,
    spread_over_devices,
    weighted_sum,
)


@pytest.fixture(scope="module")
def traces():
    """The names of the functions that JAX has traced, as they come."""
    names = []

    def listener(event: str, duration: float, fun_name: str = "", **_):
        if event.endswith("jaxpr_trace_duration"):
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listener)
    return names


@functools.cache
def single(case: Case, number: int = 0):
    return jax.device_get(compiled(case)(keys()[number], example(case, number=number)))


def looped(case: Case):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *[single(case, number) for number in range(BATCH)])


def assert_close(actual, expected, eps: float = 2e-6):
    """Equal shapes and dtypes; integers equal; floats within ``eps`` of the largest one, and infinite alike."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        scale = np.max(np.abs(other), initial=1, where=np.isfinite(other))
        np.testing.assert_allclose(one, other, rtol=0, atol=eps * scale if is_float(other) else 0)


@over(CASES)
def test_jit_is_eager(case: Case):
    eager = case.call(keys()[0], example(case))
    assert_close(eager, single(case)[0])


@over(CASES)
def test_two_calls_of_one_shape_are_traced_once(case: Case, traces: list[str]):
    function = case.call if case.compiled else compiled(case)
    first, second = [(keys()[number], example(case, number=number)) for number in (0, 1)]
    function(*first)
    traces.clear()
    function(*second)
    assert traces == []


@over(case for case in CASES if case.data or case.random)
def test_vmap_is_a_loop_on_one_device_or_four(case: Case):
    """The loop runs on one device; value and gradient of a batch are spread over four of them."""
    assert_close(compiled_batch(case)(*spread_over_devices(keys(), batch(case, BATCH))), looped(case))


@over(case for case in CASES if len(leaf_names(example(case))) + case.random > 1)
def test_gradient_of_a_batch_over_one_argument_alone(case: Case):
    """Only the key, or only one leaf of the data, differs from example to example: the rest is not batched."""
    (alone, merge), (together, _) = split(example(case)), split(batch(case, BATCH))
    others = [split(example(case, number=number))[0] for number in range(BATCH)]
    choices = range(len(alone))

    def gradient(axes, key, floats):
        def total(floats):
            each = jax.vmap(lambda key, floats: weighted_sum(program(case)(key, merge(floats))), axes)
            return jnp.sum(each(key, floats))

        return jax.grad(total)(floats)

    def only(choice, of):
        return [of[position] if position == choice else alone[position] for position in choices]

    def axes(choice):
        return None, [0 if position == choice else None for position in choices]

    @jax.jit
    def gradients(key, keys):
        by_leaf = [gradient(axes(choice), jax.random.clone(key), only(choice, together)) for choice in choices]
        by_key = [gradient((0, None), keys, alone)] if case.random else []
        return by_leaf + by_key

    def expected(choice):
        loop = [
            compiled(case)(keys()[number if choice is None else 0], merge(only(choice, others[number])))[1]
            for number in range(BATCH)
        ]
        stacked = [np.stack(leaves) for leaves in zip(*loop, strict=True)]
        return [leaf if position == choice else leaf.sum(0) for position, leaf in enumerate(stacked)]

    every = [*choices, None] if case.random else choices
    assert_close(gradients(keys()[0], keys()), [expected(choice) for choice in every], eps=1e-5)


@over(case for case in CASES if leaf_names(example(case)))
def test_gradient_is_the_derivative_of_the_value_where_promised(case: Case):
    """In float64, along one direction through all that is promised to be exact; and 0 where nothing is promised."""
    step = 1e-6
    names = leaf_names(example(case))
    with jax.enable_x64(True):
        floats, merge = split(example(case, jnp.float64))
        direction = [
            np.cos(np.arange(np.size(leaf)) + position).reshape(np.shape(leaf)) * promised(name, case.exact)
            for position, (name, leaf) in enumerate(zip(names, floats, strict=True))
        ]

        def at(side):
            """Value and gradient a step to this side."""
            moved = [np.asarray(leaf) + side * step * change for leaf, change in zip(floats, direction, strict=True)]
            numbers = [float(to) if isinstance(leaf, float) else to for leaf, to in zip(floats, moved, strict=True)]
            result, gradient = compiled(case)(jax.random.key(0), merge(numbers))
            return weighted_sum(jax.device_get(result)), jax.device_get(gradient)

        (below, _), (_, gradient), (above, _) = at(-1), at(0), at(1)
    slope = sum(np.sum(leaf * change) for leaf, change in zip(gradient, direction, strict=True))
    np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=1e-6, atol=1e-8)
    for name, leaf in zip(names, gradient, strict=True):
        if not promised(name, case.exact + case.surrogate):
            np.testing.assert_array_equal(leaf, 0, err_msg=f"{case.label} promises no gradient for {name}")


@over(case for case in CASES if case.data)
def test_each_dtype_comes_out_as_promised_and_near_float32(case: Case):
    """bfloat16 and float16; random functions too, for their noise is that of float32."""
    dtypes = (jnp.bfloat16, jnp.float16)
    together = jax.jit(lambda keys, data: [case.call(*arguments) for arguments in zip(keys, data, strict=True)])
    results = together([keys()[0], keys()[0]], [example(case, dtype) for dtype in dtypes])
    for dtype, result in zip(dtypes, map(jax.tree.leaves, results), strict=True):
        floats = {"same": dtype, "wide": jnp.float32}
        eps = 8 * max(float(jnp.finfo(floats.get(rule, jnp.float32)).eps) for rule in case.results)
        for rule, leaf, wide in zip(case.results, result, jax.tree.leaves(single(case)[0]), strict=True):
            assert leaf.dtype == floats.get(rule, wide.dtype)
            assert_close(np.asarray(leaf).astype(wide.dtype), wide, eps=eps)


@over(case for case in CASES if case.extremes)
def test_value_and_gradient_are_finite_at_extremes(case: Case):
    """Finite where the arguments are; never NaN where these are infinite, which may be the right value."""
    for extreme in case.extremes:
        data = example(dataclasses.replace(case, arguments={**case.arguments, **extreme}))
        returned = compiled(case)(keys()[0], data)
        finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(extreme))
        for leaf in jax.tree.leaves(jax.device_get(returned)):
            assert np.isfinite(leaf).all() if finite else not np.isnan(leaf).any(), (extreme, returned)
