"""Information extraction: what the losses, the conditioning on a subject and the look-up must not see, and must.

Violations planted for these tests, each of which failed: padding that counts in the loss of the pointer, and of the
global pointer; rows that fill up a batch and count, of extraction and of fine-tuning; a normalisation that looks at
nothing, or at the subject's first unit alone; a subject read forwards by both networks; a mean of weights whose decay
is the same from the first step on; a look-up that sees, in training, what the text alone has.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bert import model as bert
from experiments.bert import train as bert_train
from experiments.bert.fitting import averaged
from experiments.information_extraction import global_pointer, pointer, train
from experiments.information_extraction.config import Config
from experiments.information_extraction.model import Sizes
from experiments.information_extraction.pointer import Options

# One subject, so that whatever is drawn it is the one; its object begins and ends at other units.
TRIPLES = np.array([[[1, 2, 1, 3, 4], [-1] * 5]])


def features_of(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("decoder", ["gru", "norm", "global"])
def test_padding_counts_in_no_loss(decoder):
    """A text of 5 units that is filled up to 7 with this or that."""
    options = Options("norm" if decoder == "norm" else "gru")
    if decoder == "global":
        weights = global_pointer.initial(jax.random.key(0), 8, 2)
        losses = jax.jit(lambda x, batch: global_pointer.losses(weights, x, batch, 2))
    else:
        weights = pointer.initial(jax.random.key(0), 8, 2, options)
        losses = jax.jit(lambda x, batch: pointer.losses(weights, x, batch, jax.random.key(1), 2, options))
    batch = {"mask": jnp.arange(7)[None] < 5, "triples": jnp.asarray(TRIPLES)}
    features = features_of(1, 7, 8)
    found = losses(features, batch)
    np.testing.assert_allclose(losses(features.at[:, 5:].set(9.0), batch), found, rtol=1e-6)
    assert losses(features.at[:, 4].set(9.0), batch) != found


def test_conditional_normalisation_by_hand():
    """Scale and offset are functions of the subject's first and last unit."""
    options = Options("norm")
    weights, features = pointer.initial(jax.random.key(0), 4, 2, options), features_of(1, 6, 4)
    source = np.random.default_rng(1)
    drawn = {name: source.normal(size=(8, 4)).astype(np.float32) for name in ("scale", "offset")}
    weights |= {name: weights[name]._replace(weight=jnp.asarray(value)) for name, value in drawn.items()}
    subjects = jnp.array([[[1, 3], [4, 4]]])
    logits = jax.jit(pointer.object_logits, static_argnums=4)(weights, features, {}, subjects, options)
    x = np.asarray(features[0], np.float64)
    normal = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    for number, (first, last) in enumerate(((1, 3), (4, 4))):
        ends = np.concatenate([x[first], x[last]])
        conditioned = normal * (1 + ends @ drawn["scale"]) + ends @ drawn["offset"]
        expected = conditioned @ np.asarray(weights["object"].weight) + np.asarray(weights["object"].bias)
        np.testing.assert_allclose(logits[0, number].reshape(6, 4), expected, atol=1e-4)


def test_a_subject_is_read_from_both_sides():
    """With equal weights, reading the text backwards exchanges the two networks; a subject alone decides."""
    weights = pointer.initial(jax.random.key(0), 4, 2, Options("gru"))
    weights["backwards"] = weights["forwards"]
    read, features = jax.jit(pointer.read_subjects), features_of(1, 9, 4)
    found = read(weights, features, jnp.array([[[2, 5]]]))
    mirrored = read(weights, features[:, ::-1], jnp.array([[[3, 6]]]))
    np.testing.assert_allclose(mirrored, jnp.roll(found, pointer.WIDTH, -1), atol=1e-6)
    assert jnp.abs(mirrored - found).max() > 1e-3
    outside = features.at[:, :2].set(9.0).at[:, 6:].set(9.0)
    np.testing.assert_array_equal(read(weights, outside, jnp.array([[[2, 5]]])), found)


def test_rows_that_fill_up_a_batch_count_in_no_loss():
    """Of extraction and of fine-tuning: another row that does not count changes nothing, one that does, does."""
    sizes = Sizes(2, dim=4, num_layers=1, num_units=9, dropout=0.0, options=Options("norm"))
    setup = train.Setup(sizes, (1e-3, 1.0, 0.0, 1.0, 0.9), "entropy", (1, 2))
    weights, length = train.initial_parameters(jax.random.key(0), sizes), 6
    batch = {
        "ids": jnp.array([[2, 3, 4, 5, 6, 7]] * 2), "pieces": jnp.ones((2, length, 8), jnp.int32),
        "words": jnp.zeros((2, length), jnp.int32), "mask": jnp.ones((2, length), bool),
        "triples": jnp.repeat(jnp.asarray(TRIPLES), 2, 0),
    }  # fmt: skip
    other = batch | {"ids": batch["ids"].at[1].set(8), "triples": batch["triples"].at[1].set(-1)}

    @jax.jit
    def loss(batch, counts):
        return train.loss_fn(weights, batch | {"counts": counts}, jax.random.key(3), {}, setup)[0]

    alone = jnp.array([1.0, 0.0])
    assert loss(batch, alone) == loss(other, alone)
    assert loss(batch, jnp.ones(2)) != loss(other, jnp.ones(2))
    small = bert.Config(9, 4, 1, 2, 8, 8, dropout=0.0, attention_dropout=0.0)
    parameters = bert.initial(jax.random.key(0), small)
    parameters = parameters._replace(head=bert.initial_head(jax.random.key(1), small, 2))
    of_bert = bert_train.Setup(bert_train.Config(task="tokens", dropout=0.0), small, 2, -1)
    batch = {"ids": batch["ids"], "mask": batch["mask"], "types": batch["words"], "targets": batch["words"]}
    other = batch | {"ids": batch["ids"].at[1].set(8), "targets": batch["targets"] + 1}
    other["targets"] = other["targets"].at[0].set(0)

    @jax.jit
    def loss_of_bert(batch, counts):
        return bert_train.loss_fn(parameters, batch | {"counts": counts}, of_bert, jax.random.key(3))

    assert loss_of_bert(batch, alone) == loss_of_bert(other, alone)
    assert loss_of_bert(batch, jnp.ones(2)) != loss_of_bert(other, jnp.ones(2))


def test_the_mean_of_weights_is_not_held_back_by_those_of_the_beginning():
    """By hand: of 1, 2, 3 after 0, with decays 1/10, 2/11, 3/12; and after many steps the decay that was asked for."""
    mean = jnp.array(0.0)
    for step, expected in enumerate((0.9, 1.8, 2.7)):
        mean = averaged(mean, jnp.array(step + 1.0), jnp.array(step), 0.99)
        np.testing.assert_allclose(mean, expected, rtol=1e-6)
    np.testing.assert_allclose(averaged(jnp.array(0.0), jnp.array(1.0), jnp.array(10**6), 0.99), 0.01, rtol=1e-5)


def test_a_training_text_does_not_see_what_it_alone_has(tmp_path):
    """The look-up of the same text, in training and in validation."""
    texts = [("Ada wed Bob", [["Ada", "wed", "Bob"]]), ("Eve saw Bob", [["Eve", "saw", "Bob"]])]
    texts.append(("Eve saw Bob again", [["Eve", "saw", "Bob"]]))
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(json.dumps({"text": text, "spo_list": triples}) for text, triples in texts))
    config = Config(out=tmp_path, train=path, valid=path, test=path, prior=True, tiny=True)
    trainer = train.Trainer(dataclasses.replace(config, num_epochs=1))
    assert [len(entries) for entries in trainer.train.prior] == [0, 1, 1]
    assert [len(entries) for entries in trainer.valid.prior] == [1, 1, 1]
