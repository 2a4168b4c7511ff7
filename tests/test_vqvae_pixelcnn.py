"""The experiment with a VQ-VAE: priors that look back only, however they are run; coding to and fro; the verbs."""

import dataclasses
import functools
import json
from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.vqvae_pixelcnn.coding import by_frequency, by_prior, decoded, encoded
from experiments.vqvae_pixelcnn.convolutions import Conv, UpConv
from experiments.vqvae_pixelcnn.evaluate import Evaluation, evaluate
from experiments.vqvae_pixelcnn.fit_prior import PriorConfig, fit_prior
from experiments.vqvae_pixelcnn.model import Model, QuantizerName, vqvae
from experiments.vqvae_pixelcnn.priors import PRIORS, draw, log_prob
from experiments.vqvae_pixelcnn.sample import Sampling, sample
from experiments.vqvae_pixelcnn.train import TINY, Config, codes_of, images_of, train

CODES, HEIGHT, WIDTH, BATCH = 11, 4, 5, 3
SIZES = {"pixelcnn": {"hidden": 8, "num_layers": 3}, "transformer": {"hidden": 16, "num_layers": 2, "num_heads": 2}}
# Tests of compiled programs, not of the compiler.
cheaply = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(autouse=True)
def promotion():
    """Which optax itself relies on."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module", params=PRIORS)
def prior(request):
    """A prior with random parameters, large enough to tell places and classes apart, and its input."""
    network = PRIORS[request.param](CODES, HEIGHT, WIDTH, **SIZES[request.param])
    codes = jax.random.randint(jax.random.key(0), (BATCH, HEIGHT, WIDTH), 0, CODES)
    labels = jnp.array([0, 3, 9])
    params = jax.jit(network.init)(jax.random.key(1), codes, labels)
    return network, jax.tree.map(lambda leaf: 2 * leaf, params), codes, labels


def test_each_code_depends_on_all_codes_before_it_and_on_no_other(prior):
    """Planted and found: a horizontal stack that sees the code itself."""
    network, params, codes, labels = prior
    length = HEIGHT * WIDTH

    def logits(codes):
        return network.apply(params, codes, labels).reshape(BATCH, length, CODES)

    compiled = jax.jit(logits)
    first = np.asarray(compiled(codes))
    for changed in range(length):
        other = (np.asarray(codes).reshape(BATCH, length) + (np.arange(length) == changed).astype(np.int32)) % CODES
        differs = np.any(np.asarray(compiled(other.reshape(codes.shape))) != first, (0, 2))
        assert not differs[: changed + 1].any()
        if changed + 1 < length:  # its right neighbour, or the place below, sees it at once
            column = changed % WIDTH
            near = {changed + 1} if column + 1 < WIDTH else {changed + 1, changed + WIDTH}
            assert differs[[place for place in near if place < length]].any()
    assert differs.shape == (length,)
    again = jax.jit(lambda labels: network.apply(params, codes, labels))(labels + jnp.array([1, 0, 0]))
    assert np.any(np.asarray(again[0] != first.reshape(BATCH, HEIGHT, WIDTH, CODES)[0]))  # the class matters


def test_a_step_with_cached_activations_is_the_whole_grid_at_one_place(prior):
    """Planted and found: a cache that does not get the row above."""
    network, params, codes, labels = prior
    step = jax.jit(lambda *arguments: network.apply(params, *arguments, method="step"))
    cache, before, found = network.start(BATCH), jnp.zeros(BATCH, jnp.int32), []
    for position in range(HEIGHT * WIDTH):
        logits, cache = step(cache, jnp.asarray(position), before, labels)
        found.append(logits)
        before = codes.reshape(BATCH, -1)[:, position]
    whole = jax.jit(network.apply)(params, codes, labels).reshape(BATCH, -1, CODES)
    np.testing.assert_allclose(np.stack(found, 1), whole, rtol=1e-4, atol=1e-4)


def test_probabilities_sum_to_one_and_draws_follow_them(prior):
    network, params, _, _ = prior
    small = type(network)(2, 2, 2, **{name: getattr(network, name) for name in ("hidden", "num_layers")})
    params = jax.jit(small.init)(jax.random.key(3), jnp.zeros((1, 2, 2), jnp.int32), jnp.zeros(1, jnp.int32))
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    grids = np.array([[code >> bit & 1 for bit in range(4)] for code in range(16)], np.int32).reshape(16, 2, 2)
    log_p = jax.jit(lambda grids: log_prob(small.apply(params, grids, jnp.full(16, 4)), grids))(grids)
    p = np.exp(np.asarray(log_p, np.float64))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-5)
    draws = jax.jit(lambda key: draw(small, params, key, jnp.full(20_000, 4)))(jax.random.key(0))
    numbers = (np.asarray(draws).reshape(-1, 4) * (1 << np.arange(4))).sum(1)
    found = np.bincount(numbers, minlength=16) / len(numbers)
    z = (found - p) / np.sqrt(p * (1 - p) / len(numbers))
    assert np.abs(z).max() < 4.5
    assert np.abs((found - 1 / 16) / np.sqrt(1 / 16 / len(numbers))).max() > 10  # they are not uniform


def test_codes_come_back_from_their_bits(prior):
    network, params, codes, labels = prior
    # Codes that are not too improbable: the coder gives none less than 2**-24.
    params = jax.tree.map(lambda leaf: leaf / 2, params)
    codes, labels = np.asarray(codes), np.asarray(labels)
    words = encoded(codes, by_prior(network, params, labels))
    np.testing.assert_array_equal(decoded(words, codes.shape, by_prior(network, params, labels)), codes)
    log_p = jax.jit(lambda codes: log_prob(network.apply(params, codes, labels), codes).sum())(codes)
    nats = -float(log_p)
    assert nats / np.log(2) - 1 <= 32 * len(words) <= nats / np.log(2) + 96
    wrong_labels = by_prior(network, params, (labels + 1) % 10)
    assert not np.array_equal(decoded(words, codes.shape, wrong_labels), codes)


def test_codes_by_their_frequencies_take_their_entropy():
    codes = np.random.default_rng(0).choice(4, p=[0.7, 0.2, 0.1, 0.0], size=(100, 8, 8))
    counts = np.bincount(codes.ravel(), minlength=4)
    words = encoded(codes, by_frequency(counts, 100))
    np.testing.assert_array_equal(decoded(words, codes.shape, by_frequency(counts, 100)), codes)
    p = counts[:3] / counts.sum()
    assert 32 * len(words) == pytest.approx(-6400 * (p * np.log2(p)).sum(), rel=0.02)


@pytest.mark.parametrize("stride", [1, 2])
def test_products_with_windows_are_the_convolutions_of_the_library(stride):
    x = jax.random.normal(jax.random.key(0), (2, 6, 8, 3))
    ours, theirs = Conv(5, 2 + stride, stride), nn.Conv(5, (2 + stride,) * 2, stride)
    params = theirs.init(jax.random.key(1), x)
    matrix = params["params"]["kernel"].reshape(-1, 5)
    dense = {"params": {"Dense_0": {"kernel": matrix, "bias": params["params"]["bias"]}}}
    np.testing.assert_allclose(ours.apply(dense, x), theirs.apply(params, x), atol=1e-5)


def test_the_convolution_upwards_is_the_transposed_one_of_the_library():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 3))
    theirs = nn.ConvTranspose(5, (4, 4), (2, 2))
    params = theirs.init(jax.random.key(1), x)
    # Place (row, column) of each square of four takes every second row and column of the kernel.
    kernel = params["params"]["kernel"]
    kernels = jnp.stack([kernel[row::2, column::2].reshape(-1, 5) for row in (0, 1) for column in (0, 1)])
    ours = {"params": {"kernels": kernels, "bias": params["params"]["bias"]}}
    np.testing.assert_allclose(UpConv(5).apply(ours, x), theirs.apply(params, x), atol=1e-5)


@pytest.mark.parametrize("name", get_args(QuantizerName))
def test_every_quantizer_trains(name):
    sizes = {"num_codes": 64, "levels": (4, 4, 4), "code_dim": 6, "hidden": 8, "residual_hidden": 4}
    images = np.random.default_rng(0).integers(0, 256, size=(16, 8, 8, 1), dtype=np.uint8)
    functions = vqvae(Model(name, **sizes), (8, 8, 1), 0.1)
    state = cheaply(functions.init)(jax.random.key(0), images)
    step, errors = cheaply(functions.step), []
    for number in range(40):
        state, metrics = step(jax.random.key(number), state, images)
        errors.append(float(metrics["squared_error"]))
    assert np.mean(errors[-5:]) < np.mean(errors[:3])
    _, codes = functions.encode(state, images)
    assert codes.shape == (16, 2, 2, *functions.code_shape)
    grids = codes_of(functions, state, images, size=16)
    assert grids.shape == ((16, 2, 4) if name in ("residual", "product") else (16, 2, 2))
    np.testing.assert_array_equal(images_of(functions, state, grids), functions.decode(state, codes))


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="fsq: num_codes must be 512, what its levels or bits give; got 64"):
        vqvae(Model("fsq", num_codes=64), (8, 8, 1), 0.1)
    with pytest.raises(ValueError, match=r"height and width must be multiples of 4; got \(9, 8, 1\)"):
        vqvae(Model(), (9, 8, 1), 0.1)


def test_all_verbs_one_after_another_and_a_run_that_is_cut_and_goes_on(tmp_path):
    tiny = Config(**TINY, num_steps=6, batch_size=8, save_every=2, log_every=1)
    whole, cut = (dataclasses.replace(tiny, out=tmp_path / name) for name in ("whole", "cut"))
    train(whole)
    train(dataclasses.replace(cut, num_steps=3))
    train(cut)
    lines = [(directory / "metrics.jsonl").read_text() for directory in (whole.out, cut.out)]
    assert lines[0] == lines[1]
    for name in PRIORS:
        prior = PriorConfig(tmp_path / name, whole.out, name, num_steps=3, batch_size=8, save_every=2, log_every=1)
        fit_prior(prior)
    assert sample(Sampling(tmp_path / "transformer", tmp_path / "samples.png"))["different_grids"] > 1
    results = evaluate(Evaluation(tmp_path / "transformer", tmp_path / "evaluation", num_coded=20))
    assert results == json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert results["images"] == 297
    assert {path.name for path in (tmp_path / "evaluation").glob("*.png")} == {
        "reconstructions.png",
        "code_usage.png",
        "codebook.png",
    }
