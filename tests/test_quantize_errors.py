"""Bad input to quantizers, and input whose behaviour is stated: what is refused says what it got and what is allowed.

In a process of its own, as users run it: in this one jaxtyping's hook speaks first where shapes do not fit.
"""

import json
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab import quantize

PROGRAM = """
import json
import jax, jax.numpy as jnp
from jaxlab import gradients, quantize as q

key, x = jax.random.key(0), jnp.ones((5, 3))
vq = q.vector_quantizer(num_codes=2)

def features(row):
    quantizer = row.small()
    params, state = quantizer.init(key, jnp.ones((3, 4)))
    quantizer.apply(key, params, state, jnp.ones((3, 10)))

def mask(row, mask):
    quantizer = row.small()
    params, state = quantizer.init(key, jnp.ones((3, 4)))
    q.masked(quantizer, mask).apply(key, params, state, jnp.ones((3, 4)))

calls = {
    "search features": lambda: q.nearest_code(x, jnp.ones((4, 2))),
    "search nothing": lambda: q.nearest_code(x, jnp.ones((0, 3))),
    "search chunk": lambda: q.nearest_code(x, x, chunk_size=0),
    "no codes": lambda: q.vector_quantizer(num_codes=0),
    "weight": lambda: q.vector_quantizer(num_codes=2, commitment_weight=-1),
    "decay": lambda: q.ema_vector_quantizer(num_codes=2, decay=1.0),
    "threshold": lambda: q.ema_vector_quantizer(num_codes=2, restart_threshold=-0.1),
    "chunk of logits": lambda: q.gumbel_quantizer(num_codes=2, chunk_size=0),
    "levels": lambda: q.finite_scalar_quantizer(levels=(3, 1)),
    "levels in a list": lambda: q.finite_scalar_quantizer(levels=[3, 3]),
    "many levels": lambda: q.finite_scalar_quantizer(levels=(2,) * 32),
    "many bits": lambda: q.lookup_free_quantizer(num_bits=32),
    "group": lambda: q.lookup_free_quantizer(num_bits=4, group_size=3),
    "temperature": lambda: q.stochastic(vq, temperature=0.0),
    "no codebook": lambda: q.stochastic(q.finite_scalar_quantizer(levels=(3, 3)), temperature=1.0),
    "depth": lambda: q.residual(vq, depth=0),
    "k-means": lambda: q.kmeans(key, x, num_codes=6),
    "rows": lambda: q.random_rows(key, x, num_codes=6),
    "groups": lambda: q.product(vq, groups=2).init(key, x),
    "digits": lambda: q.ravel_codes(jnp.zeros((2, 3), int), levels=(2, 2)),
    "usage": lambda: q.code_usage(x, x[:4], jnp.zeros(5, int), num_codes=2),
    "usage codes": lambda: q.code_usage(x, x, jnp.zeros(4, int), num_codes=2),
    "usage mask": lambda: q.code_usage(x, x, jnp.zeros(5, int), num_codes=2, mask=jnp.ones(4, bool)),
    "haiku": lambda: q.ema_state_from_haiku({"linear": {"w": x}}, decay=0.99),
    "torch": lambda: q.ema_state_from_vector_quantize_pytorch({"weight": x}),
    "rotation": lambda: gradients.rotation_trick(x, x[:1]),
    "diveq": lambda: gradients.diveq(key, x, x.astype(jnp.bfloat16)),
}
for name, row in q.QUANTIZERS.items():
    calls["features of " + name] = lambda row=row: features(row)
    for number, wrong in enumerate((jnp.ones(4, bool), jnp.ones((3, 4), bool), jnp.ones((), bool), jnp.ones(3))):
        calls[f"mask {number} of " + name] = lambda row=row, wrong=wrong: mask(row, wrong)

found = {}
for name, call in calls.items():
    try:
        call()
    except (ValueError, TypeError) as error:
        found[name] = f"{type(error).__name__} {error}"
print(json.dumps({name: found.get(name, "") for name in calls}))
"""
MESSAGES = {
    "search features": "nearest_code: x [..., d] and codebook [k, d] must have the same number of features; got x",
    "search nothing": "nearest_code: codebook must have at least one code",
    "search chunk": "nearest_code: chunk_size must be at least 1; got 0",
    "no codes": "vector_quantizer: num_codes must be at least 1; got 0",
    "weight": "vector_quantizer: commitment_weight must be at least 0; got -1",
    "decay": "ema_vector_quantizer: decay must be at least 0 and less than 1; got 1.0",
    "threshold": "ema_vector_quantizer: restart_threshold must be at least 0; got -0.1",
    "chunk of logits": "gumbel_quantizer: chunk_size must be at least 1; got 0",
    "levels": "finite_scalar_quantizer: levels must be at least 2; got 1",
    "levels in a list": "finite_scalar_quantizer: levels must be a tuple of Python integers, one for each feature; got",
    "many levels": "finite_scalar_quantizer: levels must have a product of at most 2**31",
    "many bits": "lookup_free_quantizer: levels must have a product of at most 2**31",
    "group": "lookup_free_quantizer: group_size must divide the 4 bits; got 3",
    "temperature": "stochastic: temperature must be greater than 0; got 0.0",
    "no codebook": "stochastic: quantizer must have a codebook to draw from",
    "depth": "residual: depth must be at least 1; got 0",
    "k-means": "kmeans: sample must have at least as many vectors as there are codes, 6; got 5",
    "rows": "random_rows: sample must have at least as many vectors as there are codes, 6; got 5",
    "groups": "product: groups must divide the number of features, 3; got 2",
    "digits": "ravel_codes: digits must have 2 along the last axis; got digits [2, 3]",
    "usage": "code_usage: x and values must have the same shape; got x [5, 3], values [4, 3]",
    "usage codes": "code_usage: codes must be of shape [5, '...']; got [4]",
    "usage mask": "code_usage: mask must be of shape [5]; got [4]",
    "haiku": "ema_state_from_haiku: state must have one module *ema_cluster_size",
    "torch": "ema_state_from_vector_quantize_pytorch: state must be the state_dict of a VectorQuantize",
    "rotation": "rotation_trick: hard and soft must have the same shape; got hard [5, 3], soft [1, 3]",
    "diveq": "diveq: hard must have the dtype of soft, bfloat16; got float32",
}
# Combinators leave it to what they are made of.
INNER = {"product": "vector_quantizer", "stochastic": "vector_quantizer"}
MASK = "mask must be boolean of shape [3], that of x without its features; got "
MASKS = ("bool[4]", "bool[3, 4]", "bool[]", "float32[3]")


@pytest.fixture(scope="module")
def found():
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", MESSAGES)
def test_bad_input_is_refused(found, name):
    kind, _, message = found[name].partition(" ")
    assert message.startswith(MESSAGES[name])
    assert kind == ("TypeError" if name in ("no codebook", "levels in a list") else "ValueError")


@pytest.mark.parametrize("name", quantize.QUANTIZERS)
def test_other_shapes_are_refused_by_every_quantizer(found, name):
    inner = INNER.get(name, name)
    if name != "residual":  # whose stages say it
        assert found[f"features of {name}"].startswith(f"ValueError {inner}: x must have ")
    assert "features along its last axis; got x [3, " in found[f"features of {name}"]
    for number, got in enumerate(MASKS):
        assert found[f"mask {number} of {name}"] in {
            f"ValueError {said}: {MASK}{got}" for said in (name, inner, "masked")
        }


def test_codebook_of_another_dtype_gives_values_in_that_of_the_vectors():
    quantizer = quantize.vector_quantizer(num_codes=4)
    codebook = jax.random.normal(jax.random.key(0), (4, 3))
    x = jax.random.normal(jax.random.key(1), (7, 3)).astype(jnp.bfloat16)
    out, _ = quantizer.apply(jax.random.key(2), codebook, (), x)
    assert out.values.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out.values, codebook.astype(jnp.bfloat16)[out.codes])


def test_zero_vectors_move_no_code_of_directions():
    quantizer = quantize.ema_vector_quantizer(num_codes=3, cosine=True, decay=0.5)
    params, state = quantizer.init(jax.random.key(0), jax.random.normal(jax.random.key(1), (9, 2)))
    out, after = quantizer.apply(jax.random.key(2), params, state, jnp.zeros((4, 2)))
    assert out.codes.tolist() == [0, 0, 0, 0]
    assert bool(jnp.isfinite(out.loss))
    np.testing.assert_array_equal(after.codebook, state.codebook)


@pytest.mark.parametrize("dtypes", [("float32", "bfloat16"), ("float16", "float32"), ("bfloat16", "float16")])
def test_codes_of_a_codebook_of_another_dtype_are_those_of_the_same_numbers_in_float64(dtypes):
    x, codebook = (jax.random.normal(jax.random.key(n), (200, 5)).astype(d) for n, d in enumerate(dtypes))
    a, b = np.asarray(x, np.float64), np.asarray(codebook, np.float64)
    expected = ((a[:, None] - b[None]) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(quantize.nearest_code(x, codebook), expected)


def test_vectors_of_low_precision_leave_the_state_its_own():
    quantizer = quantize.ema_vector_quantizer(num_codes=3, decay=0.5, restart_threshold=0.5)
    x = jax.random.normal(jax.random.key(1), (9, 2))
    params, state = quantizer.init(jax.random.key(0), x)
    _, after = quantizer.apply(jax.random.key(2), params, state, x.astype(jnp.bfloat16))
    assert {leaf.dtype for leaf in after} == {jnp.dtype("float32")}


@pytest.mark.parametrize("make", [quantize.vector_quantizer, quantize.ema_vector_quantizer])
def test_zero_vectors_have_code_zero_and_no_gradient_that_is_not_finite(make):
    quantizer = make(num_codes=3, cosine=True)
    params, state = quantizer.init(jax.random.key(0), jax.random.normal(jax.random.key(1), (9, 2)))

    def total(x):
        out, _ = quantizer.apply(jax.random.key(2), params, state, x)
        return out.loss + jnp.sum(out.values), out.codes

    gradient, codes = jax.grad(total, has_aux=True)(jnp.zeros((4, 2)))
    assert codes.tolist() == [0] * 4
    assert quantizer.encode(params, state, jnp.zeros((4, 2))).tolist() == [0] * 4
    assert bool(jnp.isfinite(gradient).all())


def test_lengths_as_they_are_rounded_choose_no_code_of_a_zero_vector():
    """The unit codes of 64 codebooks: in some of them a later one is the shortest, by rounding."""
    quantizer = quantize.vector_quantizer(num_codes=3, cosine=True)
    codebooks = jax.random.normal(jax.random.key(1), (64, 3, 5))
    assert not jax.vmap(lambda params: quantizer.encode(params, (), jnp.zeros((1, 5))))(codebooks).any()


def test_vectors_of_nan_move_no_code_and_are_counted():
    quantizer = quantize.ema_vector_quantizer(num_codes=3, decay=0.5, restart_threshold=0.5)
    x = jax.random.normal(jax.random.key(1), (9, 2))
    params, state = quantizer.init(jax.random.key(0), x)
    bad = x.at[:, 1].set(jnp.nan)
    out, after = quantizer.apply(jax.random.key(2), params, state, bad)
    np.testing.assert_array_equal(after.codebook, state.codebook)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in after)
    usage = quantize.code_usage(bad, out.values, out.codes, num_codes=3)
    assert (int(usage.num_vectors), int(usage.num_not_finite), usage.counts.tolist()) == (9, 9, [0, 0, 0])
    some = quantize.code_usage(x.at[0, 0].set(jnp.inf), x, out.codes, num_codes=3)
    assert (int(some.num_not_finite), int(some.counts.sum()), float(some.noise)) == (1, 8, 0.0)


@pytest.mark.parametrize("make", [quantize.kmeans, quantize.random_rows])
def test_codes_repeat_where_a_mask_leaves_fewer_vectors_than_codes(make):
    x = jax.random.normal(jax.random.key(1), (10, 2)).at[5:].set(jnp.nan)
    codebook = make(jax.random.key(0), x, num_codes=4, mask=jnp.arange(10) < 2)
    assert {tuple(row) for row in codebook.tolist()} == {tuple(row) for row in x[:2].tolist()}
