"""Information extraction: spans, decoders and protocols by hand.

Violations planted for these tests, each of which failed: the gate of a convolution for its complement, positions one
place on (the stack of convolutions); a span that ends beyond the first end above the threshold, of a subject or of an
object (candidates); unseen triples with the seen ones among them (protocols).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.bert import model as bert
from experiments.information_extraction import (
    candidates,
    dgcnn,
    global_pointer,
    model,
    pointer,
    protocols,
    report,
    soft_f1,
    units,
)
from experiments.information_extraction.data import Example, Mention
from experiments.information_extraction.pointer import Options


def stack_of_convolutions(encoder, batch):
    words = jnp.where(batch["words"][..., None] > 0, encoder.words[batch["words"]], 0)
    x = encoder.units[batch["ids"]] + encoder.pieces[1][None, None] + words + encoder.positions[None, :6]
    for number, dilation in enumerate((1, 2, 5, 1, 2, 5, 1, 2, 5, 1, 1, 1)):
        kernel, dims = encoder.convolutions.weight[number].reshape(3, 4, 8), ("NWC", "WIO", "NWC")
        around = [(dilation, dilation)]
        both = lax.conv_general_dilated(x, kernel, (1,), around, rhs_dilation=(dilation,), dimension_numbers=dims)
        gate = jax.nn.sigmoid(both[..., :4])
        x = gate * x + (1 - gate) * both[..., 4:]
    return x


def test_the_encoder_is_the_stack_of_convolutions_and_padding_changes_nothing():
    encoder = dgcnn.initial(jax.random.key(0), num_units=9, num_pieces=units.NUM_BUCKETS, num_words=3, dim=4)
    # They begin at 0, where one for another would not be seen.
    encoder = encoder._replace(positions=jax.random.normal(jax.random.key(1), encoder.positions.shape))
    ids, pieces = jnp.array([[2, 3, 4, 5, 8, 1]]), jnp.ones((1, 6, units.NUM_PIECES), jnp.int32)
    batch = {"ids": ids, "pieces": pieces, "words": jnp.array([[0, 1, 2, 0, 0, 0]]), "mask": jnp.ones((1, 6), bool)}
    # Twice, filled up by one unit and by another: one program for both.
    longer = {name: jnp.pad(value, [(0, 0), (0, 4)] + [(0, 0)] * (value.ndim - 2)) for name, value in batch.items()}
    longer = {name: jnp.concatenate([value, value]) for name, value in longer.items()}
    longer["ids"] = longer["ids"].at[1, 6:].set(7)
    for found in jax.jit(dgcnn.encode)(encoder, longer):
        np.testing.assert_allclose(found[None, :6], stack_of_convolutions(encoder, batch), atol=1e-6)
    with pytest.raises(ValueError, match="a text has at most 512 units; got 513"):
        dgcnn.embed(encoder, {"ids": jnp.zeros((1, 513), jnp.int32)})


def test_the_convolutions_read_the_mean_of_the_tokens_of_each_word():
    """By hand; what is no token changes nothing, and both what is read and what stands there count."""
    tokens = jax.random.normal(jax.random.key(0), (1, 5, 4))
    found = jax.jit(model.mean_of_tokens)(tokens, jnp.array([[[1, 3], [4, 4], [0, 0]]]))
    np.testing.assert_allclose(found[0], [tokens[0, 1:4].mean(0), tokens[0, 4], tokens[0, 0]], rtol=1e-6)
    small = bert.Config(9, hidden_dim=4, num_layers=1, num_heads=1, mlp_dim=4, num_positions=16)
    sizes = model.Sizes(2, "bert+dgcnn", dim=6, num_layers=2, num_units=9, num_words=2, pretrained=small)
    parameters = model.initial(jax.random.key(1), sizes)
    batch = {
        "ids": jnp.array([[2, 3, 4, 0, 0, 0]] * 3),
        "pieces": jnp.ones((3, 6, units.NUM_PIECES), jnp.int32),
        "words": jnp.zeros((3, 6), jnp.int32),
        "mask": jnp.array([[True] * 3 + [False] * 3] * 3),
        "tokens": jnp.array([[2, 5, 6, 7, 3, 0]] * 3).at[1, 5].set(8).at[2, 2].set(8),
        "token_mask": jnp.array([[True] * 5 + [False]] * 3),
        "spans": jnp.array([[[1, 1], [2, 3], [3, 3], [0, 0], [0, 0], [0, 0]]] * 3),
    }
    encode = jax.jit(model.features, static_argnums=2)
    found = encode(parameters, batch, sizes)
    np.testing.assert_array_equal(found[0], found[1])  # a token that is no token
    assert jnp.all(found[:, 3:] == 0)
    for part in (slice(0, 4), slice(4, 10)):  # of the tokens, and of the convolutions
        assert jnp.abs(found[0, :3, part] - found[2, :3, part]).max() > 1e-3
    other = encode(parameters, batch | {"ids": batch["ids"].at[0, 1].set(8)}, sizes)
    np.testing.assert_array_equal(found[0, :, :4], other[0, :, :4])
    assert jnp.abs(found[0, :3, 4:] - other[0, :3, 4:]).max() > 1e-3
    for encoder, pretrained in (("bert+dgcnn", None), ("dgcnn", small)):
        with pytest.raises(ValueError, match=r"for the encoders 'bert' and 'bert\+dgcnn' alone"):
            model.Sizes(2, encoder, pretrained=pretrained)


TRIPLES = jnp.array([[[0, 1, 2, 3, 4], [0, 1, 0, 3, 3], [2, 2, 1, 0, 0], [-1] * 5]])


def test_targets_and_draws_by_hand():
    bounds = jax.jit(pointer.triples_to_subjects, static_argnums=1)(TRIPLES, 6)
    assert np.argwhere(bounds[0]).tolist() == [[0, 0], [1, 1], [2, 0], [2, 1]]
    targets = jax.jit(pointer.triples_to_objects, static_argnums=(2, 3))
    objects = targets(TRIPLES, jnp.array([[[0, 1], [0, 2]]]), 6, 3)
    assert np.argwhere(objects[0]).tolist() == [[0, 3, 0, 0], [0, 3, 0, 1], [0, 3, 2, 0], [0, 4, 2, 1]]
    drawn = jax.jit(pointer.drawn_subjects, static_argnums=2)(jax.random.key(0), bounds, 64)
    assert {tuple(pair) for pair in np.array(drawn[0]).tolist()} == {(0, 1), (0, 2), (2, 2)}  # a false one among them


def test_powers_and_gates_multiply_probabilities():
    logits, gate = jnp.array([[0.5, -1.0]]), jnp.array([[2.0, 0.0]])
    found = jax.nn.sigmoid(pointer.combined(logits, 4.0, gate))
    np.testing.assert_allclose(found, jax.nn.sigmoid(logits) ** 4 * jax.nn.sigmoid(gate), rtol=1e-5)
    assert pointer.combined(logits, 1.0) is logits
    extreme = pointer.combined(jnp.array([1e4, -1e4]), 2.0, jnp.array([1e4, 0.0]))
    assert np.isfinite(np.array(extreme)).all()


def test_candidates_give_the_triples_of_every_threshold():
    """Against the rule by loops: the first end above the threshold, of subjects and of objects alike."""
    source = np.random.default_rng(0)
    probabilities = source.random((7, 2)) ** 2
    found = [entry for start in range(7) for entry in candidates.first_ends(probabilities, start, 0.1)]
    one = [0.9, 0.9, 0.0]
    places = np.array([[a, b, 0, a, b] for a, b, _ in found])
    spans, things = (
        candidates.Candidates(places, np.array([c + one if of_subject else one + c for *_, c in found]))
        for of_subject in (True, False)
    )
    for threshold in (0.1, 0.3, 0.5, 0.8):
        expected = []
        for start in np.nonzero(probabilities[:, 0] > threshold)[0]:
            ends = [end for end in range(start, 7) if probabilities[end, 1] > threshold]
            expected += [(start, ends[0])] if ends else []
        for taken in (spans.taken(threshold, 0.5), things.taken(0.5, threshold)):
            assert [tuple(row[:2]) for row in places[taken]] == expected
    np.testing.assert_allclose(spans.scores()[0], found[0][2][0] * found[0][2][1] * 0.81)


def test_the_global_pointer_by_hand():
    logits = jnp.array([[1.0, -2.0], [3.0, 9.0]])
    found = global_pointer.multilabel_loss(
        logits, jnp.array([[True, False], [False, True]]), jnp.array([[True, True], [True, False]])
    )
    np.testing.assert_allclose(found, math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2) + math.exp(3)), rtol=1e-6)
    pairs = jax.jit(global_pointer.pairs_of, static_argnums=(1, 2, 3))
    entities, firsts = (np.argwhere(pairs(TRIPLES, part, n, 6)[0]) for part, n in (("entities", 2), ("firsts", 3)))
    assert entities.tolist() == [[0, 0, 1], [0, 2, 2], [1, 0, 0], [1, 3, 3], [1, 3, 4]]
    assert firsts.tolist() == [[0, 0, 3], [1, 2, 0], [2, 0, 3]]
    weights = global_pointer.initial(jax.random.key(0), 5, 3)
    hidden = jax.random.normal(jax.random.key(1), (1, 4, 5))
    scores = jax.jit(global_pointer.scores, static_argnums=2)(weights, hidden, "lasts")
    first, second = weights["lasts"]
    both = hidden[0] @ first.weight
    bias = (both @ second.weight + second.bias[None]) / 2
    value = both[1, :64] @ both[2, 64:] / 8 + bias[1, 2] + bias[2, 3 + 2]
    np.testing.assert_allclose(scores[0, 2, 1, 2], value, rtol=1e-5)
    knowing = global_pointer.initial(jax.random.key(0), 5, 3, prior=True)
    knowing["known"]["lasts"] = jnp.array([10.0, 20.0, 30.0])
    batch = {"prior": jnp.array([[[0, 1, 1, 3, 2], [-1] * 5]])}
    logits_of = jax.jit(global_pointer.logits, static_argnums=3)
    added = logits_of(knowing, hidden, batch, "lasts") - logits_of(weights, hidden, batch, "lasts")
    assert np.argwhere(added > 1).tolist() == [[0, 1, 1, 2]]
    np.testing.assert_allclose(added[0, 1, 1, 2], 20, rtol=1e-5)
    # Rotations leave what is equally far apart equal.
    q = global_pointer.rotated(jnp.broadcast_to(jnp.arange(64.0), (1, 4, 64)))[0]
    np.testing.assert_allclose(q[0] @ q[2], q[1] @ q[3], rtol=1e-5)
    sure = {part: np.full((2 if part == "entities" else 3, 6, 6), -5.0) for part in global_pointer.PARTS}
    for part in sure:
        sure[part][np.array(pairs(TRIPLES, part, len(sure[part]), 6)[0])] = 5.0
    decoded = global_pointer.candidates(sure, np.ones(6, bool), 0.1)
    assert sorted(decoded.triples[decoded.taken(0.5, 0.5)].tolist()) == sorted(TRIPLES[0, :3].tolist())


def test_straight_through_subjects_carry_a_gradient_and_drawn_ones_none():
    batch = {"mask": jnp.ones((1, 6), bool), "triples": TRIPLES, "prior": TRIPLES}
    features = jax.random.normal(jax.random.key(1), (1, 6, 8))
    for selection in ("teacher", "straight_through"):
        options = Options("norm", selection)
        weights = pointer.initial(jax.random.key(0), 8, 3, options)
        weights["scale"] = weights["scale"]._replace(weight=jnp.full((16, 8), 0.1))

        def of_objects(subject, weights=weights, options=options):
            changed = weights | {"subject": weights["subject"]._replace(weight=subject)}
            whole = pointer.losses(changed, features, batch, jax.random.key(2), 3, options)
            logits = pointer.subject_logits(changed, features, batch, options)
            bounds = pointer.triples_to_subjects(TRIPLES, 6)
            alone = -jnp.sum(bounds * jax.nn.log_sigmoid(logits) + (1 - bounds) * jax.nn.log_sigmoid(-logits))
            return whole.sum() - alone

        slope = float(jnp.abs(jax.jit(jax.grad(of_objects))(weights["subject"].weight)).max())
        assert (slope > 1e-4) == (selection == "straight_through"), (selection, slope)
    with pytest.raises(ValueError, match="the decoder 'global' has none"):
        model.Sizes(3, decoder="global", options=Options(gates=True))
    with pytest.raises(ValueError, match="needs condition 'norm'"):
        model.Sizes(3, options=Options("gru", "straight_through"))


def test_expected_counts_are_those_of_a_decoder_that_draws():
    """Drawn 20,000 times and decoded by loops: triples found, and those of them that are true."""
    options = Options("norm")
    weights = pointer.initial(jax.random.key(0), 8, 2, options)
    weights["object"] = weights["object"]._replace(bias=jnp.full((4,), -1.0))
    features = jax.random.normal(jax.random.key(1), (1, 4, 8))
    triples = jnp.array([[[0, 1, 1, 1, 2], [0, 1, 0, 3, 3], [-1] * 5]])
    batch = {"mask": jnp.array([[True, True, True, True]]), "triples": triples}
    found = jax.jit(soft_f1.expected_counts, static_argnums=(3, 4))(weights, features, batch, 2, options)
    logits = pointer.object_logits(weights, features, batch, triples[:, :1, :2], options)[0, 0]
    drawn = np.random.default_rng(0).random((20_000, *logits.shape)) < np.array(jax.nn.sigmoid(logits))
    both = decided = 0
    for start in range(4):
        for end in range(start, 4):
            taken = drawn[:, start, :, 0] & drawn[:, end, :, 1] & ~drawn[:, start:end, :, 1].any(1)
            decided += taken.sum()
            both += taken[:, 1].sum() * ((start, end) == (1, 2)) + taken[:, 0].sum() * ((start, end) == (3, 3))
    np.testing.assert_allclose(found["decided"], [decided / 20_000], rtol=0.03)
    np.testing.assert_allclose(found["both"], [both / 20_000], rtol=0.06)
    assert found["true"].tolist() == [2]
    # Around its own means the loss is F1, and so is its gradient.
    used = batch | {"counts": jnp.ones(1)}
    means = {name: value[0] for name, value in found.items()}
    value, mixed = jax.jit(soft_f1.loss, static_argnums=(4, 5))(weights, features, used, means, 2, options)
    bounds = pointer.triples_to_subjects(triples, 4)
    logits = pointer.subject_logits(weights, features, batch, options)
    entropy = -jnp.sum(bounds * jax.nn.log_sigmoid(logits) + (1 - bounds) * jax.nn.log_sigmoid(-logits)) / 4
    f1 = 2 * means["both"] / (means["decided"] + means["true"])
    np.testing.assert_allclose(value, 1 - f1 + entropy, rtol=1e-5)
    assert mixed.keys() == means.keys()


def test_protocols_by_hand():
    text = "Ada Lovelace wed Bob Ray and Bob Ray"
    truth = protocols.Truth(
        Example(1, text, (("Ada Lovelace", "wed", "Bob Ray"), ("Ray", "wed", "Eve")), ()),
        (Mention((0, 12), "wed", (17, 24), ("P", "P")),),
    )
    exact, elsewhere = Mention((0, 12), "wed", (17, 24)), Mention((0, 12), "wed", (29, 36))
    shorter = Mention((0, 12), "wed", (17, 20))

    def right(protocol, *found):
        return protocols.counted([truth], [found], protocol, {"wed": ("P", "P")})

    assert [int(n[0]) for n in right("string", elsewhere)] == [1, 1, 2]
    assert [int(n[0]) for n in right("span", elsewhere)] == [0, 1, 2]
    assert [int(n[0]) for n in right("span", exact, elsewhere)] == [1, 2, 2]
    assert [int(n[0]) for n in right("string", exact, elsewhere)] == [1, 1, 2]  # once, though in two places
    assert [int(n[0]) for n in right("partial", shorter)] == [1, 1, 2]
    assert [int(n[0]) for n in right("strict", exact)] == [1, 1, 2]
    assert [int(n[0]) for n in protocols.counted([truth], [[exact]], "strict", {"wed": ("P", "Q")})] == [0, 1, 2]
    assert protocols.first_words(("\x1c", "wed", "Bob Ray")) == ("\x1c", "wed", "Bob")
    with pytest.raises(ValueError, match="protocol must be one of string, partial, span, strict; got 'exact'"):
        right("exact")
    training = [protocols.Truth(Example(1, "", (("Ada Lovelace", "wed", "Bob Ray"),), ()), ())]
    found = protocols.report([truth], [[exact]], [[exact, shorter]], training, "string")
    assert found["all"]["f1"] == pytest.approx(2 / 3)
    assert found["look_up"]["f1"] == pytest.approx(0.5)
    assert (found["unseen"]["true"], found["unseen"]["found"], found["unseen"]["f1"]) == (1, 0, 0)
    wrong = report.errors([truth], [[shorter, Mention((17, 24), "wed", (0, 12))]])
    assert wrong["wrong"] == {"object's bounds": 1, "subject and object exchanged": 1}
    assert wrong["missed"] == {"subject and object exchanged": 1, "nothing like it": 1}


def test_f1_is_that_of_all_texts_together():
    counts = protocols.Counts(np.array([1, 0, 2]), np.array([1, 1, 2]), np.array([2, 0, 3]))
    found = protocols.scores(counts, num_resamples=50)
    assert found["f1"] == pytest.approx(2 * 3 / (4 + 5))
    assert 0 <= found["low"] <= found["f1"] <= found["high"] <= 1
    assert protocols.scores(protocols.Counts(*np.zeros((3, 2), int)), num_resamples=50)["f1"] == 0
