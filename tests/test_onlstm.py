"""The experiments with ordered neurons: a killed run goes on to the same bits; tables, figures, the README.

Violations planted for the killed runs, each of which failed: a language model that goes on at the beginning of the
text; a comparison that goes on with the first batches of the epoch it was killed in.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.onlstm import (
    classification,
    controls,
    corpus,
    language,
    listops,
    logic,
    parse,
    report,
)


@pytest.fixture(autouse=True)
def standard_promotion():
    """The optimizers of optax raise Python numbers to integer powers."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A small text of formulas, as files."""
    directory = tmp_path_factory.mktemp("text")
    lines = [" ".join(sentence.words) for sentence in corpus.generated(300)]
    for name, part in {"train": lines[:200], "valid": lines[200:240], "test": lines[240:280]}.items():
        (directory / f"{name}.txt").write_text("\n".join(part) + "\n")
    return directory


class Killed(Exception):  # noqa: N818 (it stands for a signal)
    pass


def killed_at(monkeypatch, module, step):
    log = module.Run.log

    def log_or_die(self, at, **values):
        if at >= step:
            raise Killed
        log(self, at, **values)

    monkeypatch.setattr(module.Run, "log", log_or_die)


def metrics_of(directory):
    return (directory / "metrics.jsonl").read_bytes()


def kept_states(monkeypatch, module):
    """The last step that each run has saved, and its state: a few accuracies may be the same of other weights."""
    save, kept = module.Run.save, {}

    def save_and_keep(self, step, state):
        kept[self.directory.name] = (step, jax.tree.map(np.array, state))
        save(self, step, state)

    monkeypatch.setattr(module.Run, "save", save_and_keep)
    return kept


@pytest.mark.parametrize("averaged", [False, True])
def test_a_killed_language_model_goes_on_to_the_same_bits(tmp_path, text, monkeypatch, averaged):
    small = dataclasses.replace(
        language.TINY,
        data=text,
        num_epochs=3,
        batch_size=4,
        window=20,
        num_layers=1,
        save_every=7,
        averaged_sgd=averaged,
        patience=0,
    )
    small = dataclasses.replace(small, learning_rate=100.0 if averaged else 1e-2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = language.main(dataclasses.replace(small, out=whole))
    with monkeypatch.context() as patch:
        killed_at(patch, language, 30)
        with pytest.raises(Killed):
            language.main(dataclasses.replace(small, out=parts))
    assert language.main(dataclasses.replace(small, out=parts)) == expected
    assert metrics_of(parts) == metrics_of(whole)
    if not averaged:
        assert expected["test_perplexity"] < 9, "it learns: eleven words are equally frequent"
        model = language.load_model(whole)
        words = jnp.array([[2, 3, 4, 0, 0], [2, 3, 4, 5, 6]])
        distances = model.distances(words, jnp.array([3, 5]))
        assert distances.shape == (1, 2, 5)
        np.testing.assert_allclose(distances[:, 0, :3], distances[:, 1, :3], atol=1e-6)


def test_each_seed_begins_with_weights_of_its_own(tmp_path, text):
    """Planted: all of them with those of seed 0."""
    small = dataclasses.replace(language.TINY, data=text, num_epochs=0, batch_size=4, window=20, num_layers=1)
    found = [language.main(dataclasses.replace(small, out=tmp_path / str(seed), seed=seed)) for seed in (0, 1)]
    assert found[0]["test_perplexity"] != found[1]["test_perplexity"]


@pytest.mark.parametrize("task", [logic.LOGIC, listops.LISTOPS], ids=["logic", "listops"])
def test_a_killed_comparison_goes_on_to_the_same_bits(tmp_path, monkeypatch, task):
    """Planted: the order of the first epoch in all of them."""
    small = dataclasses.replace(task.tiny, num_draws=1_500, num_epochs=2, save_every=4, encoder="inclusive")
    kept = kept_states(monkeypatch, classification)
    orders, batches = {}, classification.sentences.batches

    def kept_batches(data, batch_size, seed):
        rows = batches(data, batch_size, seed)
        orders[seed] = rows
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(classification.sentences, "batches", kept_batches)
        expected = classification.main(task, small, tmp_path / "whole")
    assert not np.array_equal(orders[0, 0], orders[0, 1]), "each epoch has an order of its own"
    with monkeypatch.context() as patch:
        killed_at(patch, classification, 10)
        with pytest.raises(Killed):
            classification.main(task, small, tmp_path / "parts")
    assert classification.main(task, small, tmp_path / "parts") == expected
    assert classification.main(task, small, tmp_path / "parts") == expected, "read again"
    assert metrics_of(tmp_path / "parts") == metrics_of(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, kept["parts"], kept["whole"])
    with pytest.raises(ValueError, match="has been trained for more than 1 epochs already"):
        classification.main(task, dataclasses.replace(small, num_epochs=1), tmp_path / "whole")


SUMMARY = {
    "task": "logic", "bin_name": "operators", "epochs": 2, "trained_to": 1, "num_train": 5, "hidden_dim": 4,
    "chunk_size": 2, "embedding_dim": 4, "batch_size": 4, "most_frequent": {0: 1.0, 1: 0.5, 2: 0.25},
    "runs": [
        {"encoder": "lstm", "seed": 0, "epochs": 2, "accuracy": {0: 0.0, 1: 0.5, 2: 0.25}},
        {"encoder": "lstm", "seed": 1, "epochs": 2, "accuracy": {0: 0.0, 1: 0.7, 2: 0.25}},
        {"encoder": "ordered", "seed": 0, "epochs": 2, "accuracy": {0: 0.0, 1: 0.75, 2: 0.5}},
        {"encoder": "inclusive", "seed": 0, "epochs": 2, "accuracy": {0: 0.0, 1: 0.75, 2: 0.35}},
        {"encoder": "inclusive", "seed": 1, "epochs": 2, "accuracy": {0: 0.0, 1: 0.85, 2: 0.55}},
    ],
}  # fmt: skip


def test_tables_of_accuracies_have_means_and_deviations_over_seeds(tmp_path):
    classification.report(SUMMARY, tmp_path)
    assert classification.load_summary(tmp_path / "logic-2-epochs.json") == SUMMARY
    assert (tmp_path / "logic-2-epochs.md").read_text().splitlines() == [
        "| encoder | seeds | 1 | 2 | beyond 1, over lstm |",
        "|---|---|---|---|---|",
        "| lstm | 2 | 60 ± 14 | 25 ± 0 |  |",  # the deviation of 50 and 70 is the root of 200
        "| ordered | 1 | 75 | 50 |  |",
        "| inclusive | 2 | 80 ± 7 | 45 ± 14 | +20.0 ± 10.0 |",  # of 10 and 30, with no part in it of the first bin
        "| most frequent label |  | 50 | 25 |  |",
    ]
    assert (tmp_path / "logic-2-epochs.png").stat().st_size > 1000


def test_a_tree_is_drawn():
    figure = Figure()
    chart = np.zeros((3, 3), bool)
    chart[0, 2] = chart[1, 2] = True
    axes = figure.subplots()
    parse.draw_tree(axes, ("a", "b", "c"), chart)
    assert len(axes.lines) == 4, "two nodes of two children"


def test_the_readme_is_what_the_results_say(tmp_path):
    assert report.main(report.Settings(check=True)) == 0
    results, readme = tmp_path / "results", tmp_path / "README.md"
    results.mkdir()
    (results / "logic.json").write_text(json.dumps(SUMMARY))
    readme.write_text("# Title\n\n<!-- table:logic -->\nold\n<!-- end -->\n<!-- table:listops -->\n<!-- end -->\n")
    settings = report.Settings(readme=readme, results=results)
    assert report.main(dataclasses.replace(settings, check=True)) == 1
    assert report.main(settings) == 0
    text = readme.read_text()
    assert "old" not in text
    assert "| lstm | 2 | 60 ± 14 | 25 ± 0 |" in text
    assert "there is no `results/listops.json`" in text
    assert (results / "logic.png").exists()
    assert report.main(dataclasses.replace(settings, check=True)) == 0


def scores_of_control(f1: float, distance: float) -> dict:
    layers = {"layer 1": f1, "layer 2": f1 + 5}
    return {
        "test_perplexity": 100.0,
        "f1": {
            f"{layer}, {parser}": {"sentence_f1": value, "corpus_f1": value}
            for layer, value in layers.items()
            for parser in parse.PARSERS
        },
        "distances": {layer: {f"{q:g}": distance for q in parse.QUANTILES} | {"above 0.95": 0.5} for layer in layers},
    }


def test_controls_are_in_one_table(tmp_path):
    trivial = {"sentence_f1": 20.0, "corpus_f1": 21.0}
    summary = {
        "settings": {"num_layers": 2, "hidden_dim": 4, "embedding_dim": 4, "num_epochs": 1},
        "baselines": dict.fromkeys(parse.baselines(corpus.generated(10)), trivial),
        "runs": {
            "ordered": [scores_of_control(10, 0.2), scores_of_control(12, 0.4)],
            "lstm": [scores_of_control(9, 1)],
        },
    }
    controls.report(summary, tmp_path)
    lines = (tmp_path / "controls.md").read_text().splitlines()
    assert lines[2].startswith("| ordered | 2 | 100 ± 0 | 11.0 ± 1.4 | 11.0 ± 1.4 | 16.0 ± 1.4 |")
    assert "| 0.30 ± 0.14 |" in lines[2]
    assert lines[3].startswith("| lstm | 1 | 100 | 9.0 |")
    assert "| right branching | 20.0 | 21.0 |" in lines
    assert (tmp_path / "controls.png").stat().st_size > 1000


def test_finished_controls_are_reported_and_no_other_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(language, "main", lambda config: pytest.fail(f"{config.out} is trained"))
    monkeypatch.setattr(controls, "report", lambda summary, out: None)
    monkeypatch.setattr(parse, "baselines", lambda sentences: {})
    epochs = language.TINY.num_epochs
    for name, trained_for in (("ordered-0", epochs), ("ordered-2", epochs + 1), ("lstm-1", epochs), ("untrained-0", 0)):
        (tmp_path / name).mkdir()
        result = scores_of_control(10, 0.2) | {"epochs": trained_for}
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    summary = controls.main(controls.Arguments(out=tmp_path, tiny=True, finished=True))
    found = {name: [run["seed"] for run in runs] for name, runs in summary["runs"].items()}
    assert found == {"ordered": [0], "lstm": [1], "untrained": [0]}
    with pytest.raises(ValueError, match="no trained model of these controls and seeds"):
        controls.main(controls.Arguments(out=tmp_path, tiny=True, finished=True, controls=("inclusive",)))


def test_quantiles_of_distances_are_of_words_and_not_of_padding():
    text = [corpus.Sentence(tuple("a" * length), frozenset()) for length in (2, 3, 20)]

    def distances_of(words, lengths):
        inside = jnp.arange(words.shape[1])[None] < lengths[:, None]
        return jnp.stack([jnp.where(inside, 0.25, 1.0), jnp.where(inside, 0.96, 0.0)])

    first, second = parse.distance_quantiles(text, (corpus.END, corpus.UNKNOWN, "a"), distances_of).values()
    assert set(first.values()) == {0.25, 0.0}
    assert second["0.05"] == pytest.approx(0.96)
    assert second["above 0.95"] == 1
