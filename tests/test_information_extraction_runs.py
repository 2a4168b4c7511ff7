"""Runs of information extraction: a small model learns and goes on, models are read again, seeds are compared.

Violations planted for these tests, each of which failed: triples that end a character early, a key that depends on
where a run went on, and exchanged pairs drawn anew from there (learned by heart).
"""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.information_extraction import (
    collect,
    compare,
    model,
    predict,
    train,
)
from experiments.information_extraction.config import Config
from experiments.information_extraction.data import DataError

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
    "dgcnn, pointer": {"prior": True, "gates": True, "unit_dropout": 0.01, "num_epochs": 80},
    "bert, pointer": {"encoder": "bert", "condition": "norm", "swap": 0.2, "dropout": 0.01},
    "bert+dgcnn, pointer": {"encoder": "bert+dgcnn", "condition": "norm"},
    "bert, global": {"encoder": "bert", "decoder": "global", "prior": True},
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


def mistakes(wrong, other):
    missed = {"nothing like it": 5} | ({"another object": other} if other else {})
    return {"test": {"errors": {"wrong": {"nothing like it": wrong}, "missed": missed}}}


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
    lines = (out / "tiny.md").read_text().splitlines()
    assert [line.count("|") for line in lines[:5]] == [9] * 5
    assert lines[4].startswith("| tiny | mean | 1.0000 ± 0.0000 | 1.0000 ± 0.0000 |")
    assert collect.mistakes_of({"a": [mistakes(3, 1), mistakes(1, 0)]}) == [
        "| mistakes on the test, means over seeds | all | nothing like it | another object |",
        "|---|---|---|---|",
        "| a, wrong | 2 | 2 | 0 |",
        "| a, missed | 6 | 5 | 0 |",
    ]
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
        ({"num_epochs": 0}, "num_epochs must be at least 1; got 0"),
        ({"object_power": -1.0}, r"object_power must be above 0; got -1\.0"),
        ({"ema": 1.0}, r"ema must be in \[0, 1\); got 1\.0"),
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
        known = {"f1": 0.3}
        part = {
            "string": {"all": {"f1": value}, "look_up": known, "unseen": {"f1": value / 2}},
            "f1_at_half": value / 4,
        }
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
    lines = (tmp_path / "f1.md").read_text().splitlines()
    assert (lines[2], lines[-1]) == ("| look-up table | 0.3000 ± 0.0000 | | 0 |", row)
