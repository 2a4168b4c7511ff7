"""The order that CPUs find by integers is that of ``jnp.argsort``, ties and all that is not finite included.

Planted: keys of floats without their sign turned, places left out, -0 before 0. Each failed.
"""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab._sorting import argsort

#: Padded to one shape: one program.
SIZE = 12
COMPILED = {descending: jax.jit(lambda x, d=descending: argsort(x, descending=d)) for descending in (False, True)}
numbers = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, -np.nan, 3e38, -3e38, 1e-38]),
    st.floats(width=32),
)


@pytest.mark.parametrize("descending", [False, True])
@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(values=st.lists(numbers, min_size=SIZE, max_size=SIZE))
def test_it_is_the_order_of_numpy(descending, values):
    x = np.asarray(values, np.float32)
    # XLA takes numbers below the smallest normal one for 0.
    x = np.where((x != 0) & (np.abs(x) < np.finfo(np.float32).tiny), np.float32(0), x)
    expected = np.argsort(np.where(np.isnan(x), np.nan, x), kind="stable")
    if descending:  # stable too: the first of ties first, and NaN the largest
        expected = (SIZE - 1 - np.argsort(x[::-1], kind="stable"))[::-1]
    np.testing.assert_array_equal(COMPILED[descending](x), expected)


def test_it_sorts_the_last_axis_in_every_dtype_and_under_vmap():
    for dtype in (jnp.float32, jnp.bfloat16):
        x = jax.random.normal(jax.random.key(0), (2, 3, 50)).astype(dtype)
        np.testing.assert_array_equal(argsort(x), jnp.argsort(x, -1))
        np.testing.assert_array_equal(jax.vmap(argsort)(x), jnp.argsort(x, -1))
        assert argsort(x).dtype == jnp.int32
    with jax.enable_x64(True):
        x = jnp.array([1.0, 1.0 - 1e-12, 1.0 + 1e-12])
        np.testing.assert_array_equal(argsort(x), [1, 0, 2])
    np.testing.assert_array_equal(
        jax.grad(lambda x: jnp.sum(x[argsort(x)] * jnp.arange(3.0)))(jnp.arange(3.0)), [0, 1, 2]
    )
