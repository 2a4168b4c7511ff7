"""Information extraction: files, spans, decoders and protocols by hand, and that a small model learns and goes on.

Violations planted for these tests, each of which failed: the gate of a convolution for its complement, positions one
place on (the stack of convolutions); a span that ends beyond the first end above the threshold, of a subject or of an
object (candidates); unseen triples with the seen ones among them (protocols); triples that end a character early, a key
that depends on where a run went on, and exchanged pairs drawn anew from there (learned by heart).
"""

import dataclasses
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from matplotlib.figure import Figure
from quick import quickly

from experiments.information_extraction import (
    candidates,
    collect,
    compare,
    dgcnn,
    global_pointer,
    model,
    pointer,
    predict,
    protocols,
    report,
    soft_f1,
    train,
    units,
)
from experiments.information_extraction.config import Config
from experiments.information_extraction.data import DataError, Example, Mention
from experiments.information_extraction.pointer import Options

QUICK = {
    (train, "initial_parameters"): quickly(train.initial_parameters, static_argnums=1),
    (train, "train_step"): quickly(train.train_step, static_argnames="setup", donate_argnames="state"),
    (model, "first_stage"): quickly(model.first_stage, static_argnames="sizes"),
    (model, "second_stage"): quickly(model.second_stage, static_argnames="sizes"),
}


@pytest.fixture(autouse=True)
def compiled_with_less_effort(monkeypatch):
    for (module, name), function in QUICK.items():
        monkeypatch.setattr(module, name, function)


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
    logits = jnp.array([[1.0, -2.0, 3.0, 9.0]])
    found = global_pointer.multilabel_loss(
        logits, jnp.array([[True, False, False, True]]), jnp.array([[True] * 3 + [False]])
    )
    np.testing.assert_allclose(
        found, [math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2) + math.exp(3))], rtol=1e-6
    )
    pairs = jax.jit(global_pointer.pairs_of, static_argnums=(1, 2, 3))
    entities, firsts = (np.argwhere(pairs(TRIPLES, part, n, 6)[0]) for part, n in (("entities", 2), ("firsts", 3)))
    assert entities.tolist() == [[0, 0, 1], [0, 2, 2], [1, 0, 0], [1, 3, 3], [1, 3, 4]]
    assert firsts.tolist() == [[0, 0, 3], [1, 2, 0], [2, 0, 3]]
    weights = global_pointer.initial(jax.random.key(0), 5, 3)
    hidden = jax.random.normal(jax.random.key(1), (1, 4, 5))
    scores = jax.jit(global_pointer.scores, static_argnums=2)(weights, hidden, "lasts")
    first, second = weights["lasts"]
    both = hidden[0] @ first.weight
    bias = both @ second.weight / 2
    value = both[1, :64] @ both[2, 64:] / 8 + bias[1, 2] + bias[2, 3 + 2]
    np.testing.assert_allclose(scores[0, 2, 1, 2], value, rtol=1e-5)
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


EIGHT = [
    ("Ada Lovelace was born in New York .", [("Ada Lovelace", "birthplace", "New York")]),
    ("Alan Turing was born in London .", [("Alan Turing", "birthplace", "London")]),
    (
        "Acme is led by Ada Lovelace and Emmy Noether .",
        [("Acme", "leader", "Ada Lovelace"), ("Acme", "leader", "Emmy Noether")],
    ),
    (
        "Kurt founded Harbour Works in Paris .",
        [("Kurt", "founded", "Harbour Works"), ("Harbour Works", "seat", "Paris")],
    ),
    ("Emmy Noether never met Kurt .", []),
    ("Sofia founded Acme in London .", [("Sofia", "founded", "Acme"), ("Acme", "seat", "London")]),
    ("Blue Mills is led by Alan Turing .", [("Blue Mills", "leader", "Alan Turing")]),
    ("Kurt was born in Paris .", [("Kurt", "birthplace", "Paris")]),
]


@pytest.fixture
def eight(tmp_path):
    lines = [json.dumps({"text": text, "spo_list": triples}) for text, triples in EIGHT]
    (tmp_path / "eight.jsonl").write_text("\n".join(lines))
    return tmp_path / "eight.jsonl"


def small(path, out, **changes):
    """Trained, chosen and tested on the same texts."""
    settings = {"num_epochs": 60, "evaluate_every": 20, "batch_size": 8, "max_length": 16, "warmup": 2.0, "tiny": True}
    return Config(out=out, train=path, valid=path, test=path, **settings | changes)


MODELS = {
    "dgcnn, pointer": {"prior": True, "gates": True, "unit_dropout": 0.01},
    "bert, pointer": {"encoder": "bert", "condition": "norm", "swap": 0.2, "dropout": 0.01},
    "bert, global": {"encoder": "bert", "decoder": "global"},
}


class Killed(Exception):  # noqa: N818 (it stands for a signal)
    pass


@pytest.mark.parametrize("name", MODELS)
def test_eight_sentences_are_learned_by_heart_and_read_again(name, eight, tmp_path, monkeypatch, capsys):
    """One of them is also killed, and goes on to the same bits; its test file is a bad one."""
    config = small(eight, tmp_path / "run", **MODELS[name])
    if name == "bert, pointer":
        config = dataclasses.replace(config, test=bad_file(tmp_path / "test.jsonl"))
    result = train.main(config)
    assert result["valid"]["string"]["all"]["f1"] == 1
    assert result["valid"]["span"]["all"]["f1"] == 1
    records = predict.extract(tmp_path / "run" / "model", [text for text, _ in EIGHT])
    for record, (text, triples) in zip(records, EIGHT, strict=True):
        assert record["text"] == text
        found = {(t["subject"], t["predicate"], t["object"]) for t in record["triples"]}
        assert found == set(triples)
        for triple in record["triples"]:
            assert text[slice(*triple["subject_place"])] == triple["subject"]
            assert 0 < triple["probability"] <= 1
    if name == "bert, pointer":
        assert result["test"]["string"]["all"]["true"] == 3
        what_cannot_be_used_is_reported(tmp_path, capsys.readouterr().out)
        a_killed_run_goes_on_to_the_same_bits(config, result, tmp_path, monkeypatch)
    if name == "dgcnn, pointer":
        seeds_are_collected(tmp_path / "run", tmp_path)
        damaged_models_are_refused(tmp_path / "run" / "model")


def seeds_are_collected(run, directory):
    """Two runs that differ in their losses alone: each of them is drawn, and their mean."""
    seeds = tuple(directory / f"tiny-{number}" for number in (0, 1))
    for path in seeds:
        shutil.copytree(run, path)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    changed = [{key: 3 * value if key == "loss" else value for key, value in line.items()} for line in lines]
    (seeds[1] / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
    out = directory / "collected"
    found = collect.collect(collect.Collection(seeds, "tiny", out))
    assert found["tiny"]["valid F1"] == (1, 0)
    training = [result["training"] for result in json.loads((out / "tiny.json").read_text())["tiny"]]
    # A step is an epoch here, of which every twentieth is written and evaluated.
    for name in ("loss", "valid_f1"):
        assert [epoch for epoch, _ in training[0][name]] == [line["step"] for line in lines if name in line]
    figure = Figure()
    collect.curves(figure, {"tiny": training})
    one, two, mean = (line.get_ydata() for line in figure.axes[0].lines)
    np.testing.assert_allclose(two, 3 * one)
    np.testing.assert_allclose(mean, 2 * one)
    assert (out / "tiny-curves.png").stat().st_size > 1000
    assert (out / "tiny.md").read_text().count("| tiny |") == 3
    (seeds[1] / "result.json").unlink()
    with pytest.raises(DataError, match="tiny-1 has no finished run"):
        collect.collect(collect.Collection(seeds, "tiny", out))


def test_losses_of_an_epoch_are_their_mean_and_a_mean_is_of_what_all_seeds_have():
    """Of 5 steps an epoch; planted: an epoch that ends a step early."""
    metrics = [{"step": step, "loss": value} for step, value in ((2, 1.0), (4, 2.0), (5, 3.0), (6, 7.0), (10, 9.0))]
    found = collect.by_epoch([*metrics, {"step": 10, "valid_f1": 0.5}], 5.0)
    assert found == {"loss": [(1, 2), (2, 8)], "valid_f1": [(2, 0.5)]}
    assert collect.mean_curve([[(1, 1.0), (2, 4.0)], [(2, 6.0), (3, 1.0)]]) == [(2, 5)]


def a_killed_run_goes_on_to_the_same_bits(config, result, directory, monkeypatch):
    log = train.Run.log

    def log_or_die(self, step, **values):
        if step >= 30:
            raise Killed
        log(self, step, **values)

    parts = dataclasses.replace(config, out=directory / "parts", save_every=7)
    with monkeypatch.context() as patch:
        patch.setattr(train.Run, "log", log_or_die)
        with pytest.raises(Killed):
            train.main(parts)
    assert train.main(parts) == result
    for file in ("metrics.jsonl", "predictions_test.jsonl", "model/weights.safetensors", "result.json"):
        assert (directory / "parts" / file).read_bytes() == (directory / "run" / file).read_bytes(), file


def bad_file(path):
    """A bad line, a text that is too long, a predicate that is unknown, a span that is not there."""
    long = {"text": "Ada " * 20 + "saw Bob", "spo_list": [["Ada", "leader", "Bob"]]}
    unknown = {"text": "Ada ate Bob", "spo_list": [["Ada", "ate", "Bob"], ["Ada", "leader", "Eve"]]}
    path.write_text("bad\n" + json.dumps(long) + "\n" + json.dumps(unknown))
    return path


def what_cannot_be_used_is_reported(directory, printed):
    """In training and in prediction, where it never ends a run."""
    records = [json.loads(line) for line in (directory / "run" / "problems.jsonl").read_text().splitlines()]
    assert [(r["part"], r["line"], r["reason"].split(":")[0]) for r in records] == [
        ("test", 1, "not JSON"),
        ("test", 2, "cut at 16 units"),
        ("test", 2, "'Bob' of ('Ada', 'leader', 'Bob') is not in the text as whole units"),
        ("test", 3, "'Eve' of ('Ada', 'leader', 'Eve') is not in the text as whole units"),
        ("test", 3, "the predicate 'ate' is not in the training"),
    ]
    assert "test: 5 problems, listed in problems.jsonl" in printed
    (directory / "in.txt").write_bytes(b"Acme is led by Kurt .\r\n\xff\n\n" + b"Ada " * 30)
    trained, out = directory / "run" / "model", directory / "out.jsonl"
    counts = predict.predict(predict.Prediction(trained, input=directory / "in.txt", output=out))
    assert (counts["texts"], counts["errors"], counts["cut"]) == (2, 2, 1)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line.get("error") for line in lines] == [None, "not UTF-8 from byte 0 on", "empty", None]
    with pytest.raises(DataError, match="No such file"):
        predict.predict(predict.Prediction(trained, input=directory / "absent"))


def damaged_models_are_refused(directory):
    vocabulary = json.loads((directory / "vocabulary.json").read_text())
    (directory / "vocabulary.json").write_text(json.dumps(vocabulary | {"units": vocabulary["units"][1:]}))
    with pytest.raises(DataError, match=r"vocabulary\.json has \d+ units; the weights are for \d+"):
        model.load(directory)
    (directory / "vocabulary.json").write_text("{}")
    with pytest.raises(DataError, match="no vocabulary"):
        model.load(directory)
    settings = json.loads((directory / "extractor.json").read_text())
    settings["sizes"]["dim"] = 16
    (directory / "extractor.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=r"weights\.safetensors does not fit extractor\.json: decoder\.back"):
        model.load(directory)
    (directory / "extractor.json").unlink()
    with pytest.raises(DataError, match="has no extractor"):
        model.load(directory)


def test_settings_out_of_range_are_refused(eight, tmp_path):
    for change, message in (
        ({"swap": 2.0}, r"swap must be in \[0, 1\]; got 2\.0"),
        ({"threshold": 1.0}, r"threshold must be in \(0, 1\); got 1\.0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\); got 1\.0"),
        ({"max_length": 600}, "max_length must be at most 512 here; got 600"),
        ({"num_epochs": 0}, "must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            train.Trainer(small(eight, tmp_path, **change))
    (tmp_path / "empty.jsonl").write_text('{"text": "a", "spo_list": []}\n' * 4)
    with pytest.raises(DataError, match="no triples: that is nothing to learn"):
        train.Trainer(Config(train=tmp_path / "empty.jsonl"))


def test_comparison_of_seeds_made_apart(tmp_path, monkeypatch, capsys):
    """Runs are replaced by arithmetic: what is compared here is only how they are called and summed up."""
    made = []

    def run(config):
        made.append(config.out.name)
        value = 0.5 + 0.1 * config.seed + (0.2 + 0.1 * config.seed) * (config.loss == "f1")
        part = {"string": {"all": {"f1": value}, "unseen": {"f1": value / 2}}, "f1_at_half": value / 4}
        assert config.start is None or (config.start.parent.name, config.num_epochs) == (f"begin-{config.seed}", 4)
        config.out.mkdir(parents=True)
        (config.out / "result.json").write_text(json.dumps({"valid": part, "test": part}))

    monkeypatch.setattr(compare, "main", run)
    settings = compare.Comparison(out=tmp_path, name="f1", further_epochs=4, seeds=(1,))
    assert compare.compare(settings) == {}
    assert "no standard error" in capsys.readouterr().out
    result = compare.compare(dataclasses.replace(settings, seeds=(0, 1)))
    assert made == ["begin-1", "entropy-1", "f1-1", "begin-0", "entropy-0", "f1-0"]  # and none of them twice
    assert result["means"]["entropy"]["test_f1"] == pytest.approx((0.55, 0.05))
    assert result["differences"]["f1 - entropy"]["test_unseen_f1"] == pytest.approx((0.125, 0.025))
    row = "| f1 - entropy | +0.2500 ± 0.0500 | +0.0625 ± 0.0125 | +0.1250 ± 0.0250 |"
    assert (tmp_path / "f1.md").read_text().splitlines()[-1] == row
