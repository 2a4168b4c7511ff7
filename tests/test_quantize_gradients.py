"""The gradients of quantizers: factors, the rotation, operators that are interchangeable, losses in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quantizers import DTYPES, ROWS, applied, bits_of, made, over, vectors

from jaxlab import gradients, quantize


def jacobian_product(row, x, upstream):
    quantizer, params, state = made(row)

    def values(x):
        return quantizer.apply(jax.random.key(2), params, state, x)[0].values

    return jax.jit(lambda x: jax.vjp(values, x)[1](upstream)[0])(x)


@over(ROWS)
def test_gradient_passes_with_factor_one_where_that_is_claimed(row):
    """At any depth, too: stages that each copy the gradient give factor 3 here.

    Planted and found: a gradient copied once for each stage.
    """
    upstream = vectors(seed=5)
    if made(row)[0].decode(*made(row)[1:], applied(row, vectors())[0].codes).shape != upstream.shape:
        assert not row.straight_through
        return
    passed = bits_of(jacobian_product(row, vectors(), upstream)) == bits_of(upstream)
    assert passed == row.straight_through


def rotation(x, q):
    """The rotation in the plane of two vectors from one onto the other, by its angle, in float64."""
    x, q = np.asarray(x, np.float64), np.asarray(q, np.float64)
    u = x / np.linalg.norm(x)
    w = q - (q @ u) * u
    w /= np.linalg.norm(w)
    angle = np.arctan2(q @ w, q @ u)
    plane = np.stack([u, w])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.eye(len(x)) - plane.T @ plane + plane.T @ turn @ plane


def test_rotation_trick_is_the_rotation_onto_the_code():
    """Planted and found: a rotation that does not stretch."""
    x, q = vectors((7, 4)), vectors((7, 4), seed=1)
    for one, other in zip(x, q, strict=True):
        jacobian = jax.jacobian(lambda x, q=other: gradients.rotation_trick(q, x))(one)
        scale = np.linalg.norm(other) / np.linalg.norm(one)
        np.testing.assert_allclose(jacobian, scale * rotation(one, other), atol=2e-6 * scale)
        np.testing.assert_allclose(jacobian @ one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotation_trick_has_the_bits_of_the_code_and_no_nan(dtype):
    q = jnp.concatenate([vectors((4, 4)), jnp.zeros((1, 4)), -vectors((1, 4)), jnp.full((1, 4), 1e-4)]).astype(dtype)
    x = jnp.concatenate([vectors((3, 4), seed=1), jnp.zeros((2, 4)), vectors((1, 4)), jnp.ones((1, 4))]).astype(dtype)
    value, pull_back = jax.vjp(gradients.rotation_trick, q, x)
    assert bits_of(value) == bits_of(q)
    to_hard, to_soft = pull_back(jnp.ones_like(q))
    assert not to_hard.any()
    assert bool(jnp.isfinite(to_soft).all())
    assert to_soft[3:5].tolist() == [[1.0] * 4] * 2  # no rotation of or onto zero


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_diveq_has_its_closed_form_derivatives_and_an_error_relative_to_the_quantization(noise):
    """Planted and found: noise that is not relative to the error."""
    q, x = vectors((1000, 4)), vectors((1000, 4), seed=1)

    def move(q, x):
        return gradients.diveq(jax.random.key(0), q, x, noise=noise)

    z = move(q, x)
    length = jnp.linalg.norm(q - x, axis=1)
    np.testing.assert_allclose(jnp.linalg.norm(z - x, axis=1), length, rtol=1e-5)
    if noise == 0:
        assert bits_of(z) == bits_of(q)
    off = np.mean(np.linalg.norm(z - q, axis=1) / length)
    assert noise / 3 <= off <= noise
    for size in (1e-3, 1e3):  # relative: an absolute noise would drown a small error
        scaled = move(x + size * (q - x), x) - x
        np.testing.assert_allclose(scaled, size * (z - x), atol=3e-4 * size)
    by_q, by_x = jax.jacobian(lambda q, x: move(q[None], x[None])[0], (0, 1))(q[0], x[0])
    u = (q[0] - x[0]) / jnp.linalg.norm(q[0] - x[0])
    v = move(q[:1], x[:1])[0] - x[0]
    v = v / jnp.linalg.norm(v)
    np.testing.assert_allclose(by_q, jnp.outer(v, u), atol=1e-6)
    np.testing.assert_allclose(by_x, jnp.eye(4) - jnp.outer(v, u), atol=1e-6)


OPERATORS = {
    "straight-through": (quantize.by_straight_through, True, False),
    "rotation": (quantize.by_rotation, True, False),
    "diveq": (functools.partial(gradients.diveq, noise=0.0), True, True),
    "derivative": (quantize.by_derivative, False, True),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("wrap", ["alone", "residual"])
def test_gradient_operators_are_interchangeable(name, wrap):
    """The same values; the gradient reaches the encoder, the codebook, or both."""
    operator, to_encoder, to_codebook = OPERATORS[name]
    options = {"num_codes": 8, "codebook_weight": 0.0, "commitment_weight": 0.0}
    if wrap == "residual":
        quantizer = quantize.residual(quantize.vector_quantizer(**options), depth=2, gradient=operator)
    else:
        quantizer = quantize.vector_quantizer(**options, gradient=operator)
    x = vectors()
    params, state = quantizer.init(jax.random.key(0), x)

    def total(params, x):
        out, _ = quantizer.apply(jax.random.key(1), params, state, x)
        return jnp.sum(out.values**2), out

    (to_params, to_x), out = jax.grad(total, (0, 1), has_aux=True)(params, x)
    assert bits_of(out.values) == bits_of(quantizer.decode(params, state, out.codes))
    assert bool(jnp.any(to_x != 0)) == to_encoder
    assert bool(jnp.any(to_params != 0)) == to_codebook


def test_losses_have_their_closed_forms():
    """Planted and found: the weight of one loss in front of both."""
    x = vectors((20, 4))
    quantizer = quantize.vector_quantizer(num_codes=8, codebook_weight=3.0, commitment_weight=0.5)
    codebook, _ = quantizer.init(jax.random.key(0), x)

    def loss(codebook, x):
        return quantizer.apply(jax.random.key(1), codebook, (), x)[0].loss

    value, (to_codebook, to_x) = jax.value_and_grad(loss, (0, 1))(codebook, x)
    error = x - codebook[quantizer.encode(codebook, (), x)]
    np.testing.assert_allclose(value, 3.5 * jnp.mean(error**2), rtol=1e-6)
    np.testing.assert_allclose(to_x, 0.5 * 2 * error / error.size, rtol=1e-6)
    expected = np.zeros_like(codebook)
    np.add.at(expected, np.asarray(quantizer.encode(codebook, (), x)), -3 * 2 * np.asarray(error) / error.size)
    np.testing.assert_allclose(to_codebook, expected, rtol=1e-5, atol=1e-8)
