"""Trees of sentences: distances by any model, both parsers, and what they have to be compared with.

    python -m experiments.onlstm.parse --data directory               # the trivial trees alone
    python -m experiments.onlstm.parse --runs runs/language --figure "a and not ( b or c )"

With ``--runs``, the trees of trained models beside them (``experiments.onlstm.language`` makes these): distances of
each layer, by the unbiased parser and by the paper's; the plain LSTM's go the same way.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.files import errors_told, save_figure, write_json
from experiments.onlstm.corpus import Sentence, padded
from jaxlab import ordered

Scores = dict[str, float]
# Above this many words a sentence is left out: charts grow with the square.
MAXIMAL_WORDS = 128
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def buckets(sentences: list[Sentence], batch_size: int = 64) -> list[list[Sentence]]:
    """The sentences in batches of about one length.

    Those of one word, which have no constituents, and those longer than ``MAXIMAL_WORDS`` are left out.
    """
    kept = sorted((s for s in sentences if 2 <= len(s.words) <= MAXIMAL_WORDS), key=lambda s: (len(s.words), s.words))
    return [kept[start : start + batch_size] for start in range(0, len(kept), batch_size)]


def size_of(batch: list[Sentence]) -> int:
    """Words that a batch is padded to."""
    return -(-max(len(sentence.words) for sentence in batch) // 16) * 16


@jax.jit
def scores_of(predicted: jax.Array, gold: jax.Array, lengths: jax.Array) -> jax.Array:
    """Sum of sentence F1, then the counts of the corpus convention, with the root."""
    sentence = jax.vmap(ordered.count_spans)(predicted, gold, lengths)
    corpus = jax.vmap(lambda *charts: ordered.count_spans(*charts, root=True))(predicted, gold, lengths)
    f1 = jnp.where(lengths > 0, ordered.span_scores(sentence).f1, 0)
    return jnp.array([f1.sum(), *[count.sum().astype(jnp.float32) for count in corpus]])


def score(sentences: list[Sentence], trees: Callable[..., jax.Array], vocabulary=()) -> Scores:
    """Sentence F1 and corpus F1, in percent, of the charts ``trees(number of the batch, words, lengths, gold)``."""
    total, count = np.zeros(4), 0
    for number, batch in enumerate(buckets(sentences)):
        words, lengths, gold = map(jnp.asarray, padded(batch, vocabulary, size_of(batch)))
        total += np.asarray(scores_of(trees(number, words, lengths, gold), gold, lengths), np.float64)
        count += len(batch)
    corpus_f1 = 2 * total[1] / max(total[2] + total[3], 1)
    return {"sentence_f1": float(100 * total[0] / max(count, 1)), "corpus_f1": float(100 * corpus_f1)}


def by_distances(right_biased: bool) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The parser of a padded batch of distances and lengths."""
    return jax.jit(jax.vmap(lambda d, n: ordered.distance_to_tree(d, n, right_biased=right_biased)))


PARSERS = {"unbiased": by_distances(right_biased=False), "right-biased": by_distances(right_biased=True)}


def baselines(sentences: list[Sentence], seed: int = 0) -> dict[str, Scores]:
    """The scores of trees that need no model, and of the best binary trees."""

    def trivial(tree):
        return lambda number, words, lengths, gold: jax.vmap(lambda n: tree(n, size=words.shape[1]))(lengths)

    def random(parser):
        def trees(number, words, lengths, gold):
            key = jax.random.fold_in(jax.random.key(seed), number)
            return PARSERS[parser](jax.random.uniform(key, words.shape), lengths)

        return trees

    rows = {
        "right branching": trivial(ordered.right_branching_tree),
        "left branching": trivial(ordered.left_branching_tree),
        "balanced": trivial(ordered.balanced_tree),
        "random distances, unbiased": random("unbiased"),
        "random distances, right-biased": random("right-biased"),
        "oracle": lambda number, words, lengths, gold: jax.vmap(ordered.binarize)(gold, lengths),
    }
    return {name: score(sentences, trees) for name, trees in rows.items()}


def model_scores(
    sentences: list[Sentence], vocabulary: tuple[str, ...], distances_of: Callable[[jax.Array, jax.Array], jax.Array]
) -> dict[str, Scores]:
    """The scores of a model whose ``distances_of(words, lengths)`` are [layers, b, t], by layer and parser."""
    num_layers = distances_of(jnp.zeros((1, 16), jnp.int32), jnp.ones(1, jnp.int32)).shape[0]

    def trees(layer, parser):
        return lambda number, words, lengths, gold: PARSERS[parser](distances_of(words, lengths)[layer], lengths)

    return {
        f"layer {layer + 1}, {parser}": score(sentences, trees(layer, parser), vocabulary)
        for layer in range(num_layers)
        for parser in PARSERS
    }


def distance_quantiles(
    sentences: list[Sentence], vocabulary: tuple[str, ...], distances_of: Callable[[jax.Array, jax.Array], jax.Array]
) -> dict[str, dict[str, float]]:
    """By layer, how the distances of all words are spread over [0, 1]: five quantiles, and the share above 0.95.

    Where most are near 1 (saturated), a tree hangs on the last digits of the distances.
    """
    found: list[np.ndarray] = []
    for batch in buckets(sentences):
        words, lengths, _ = padded(batch, vocabulary, size_of(batch))
        distances = np.asarray(distances_of(jnp.asarray(words), jnp.asarray(lengths)))
        found.append(distances[:, np.arange(words.shape[1])[None] < lengths[:, None]])
    return {
        f"layer {number + 1}": {f"{q:g}": float(np.quantile(layer, q)) for q in QUANTILES}
        | {"above 0.95": float((layer > 0.95).mean())}
        for number, layer in enumerate(np.concatenate(found, 1))
    }


def draw_tree(axes: Any, words: tuple[str, ...], chart: np.ndarray) -> None:
    """Draws a binary tree over its words."""
    spans = sorted(((int(a), int(b)) for a, b in np.argwhere(chart)), key=lambda span: span[1] - span[0])
    place: dict[tuple[int, int], tuple[float, float]] = {(i, i): (i, 0.0) for i in range(len(words))}
    for first, last in spans:
        # The largest parts of a span tile it: from the left, each time the longest that is inside.
        parts, start = [], first
        while start <= last:
            end = max(e for s, e in place if s == start and (s, e) != (first, last) and e <= last)
            parts.append((start, end))
            start = end + 1
        height = 1 + max(place[part][1] for part in parts)
        middle = float(np.mean([place[part][0] for part in parts]))
        place[first, last] = middle, height
        for part in parts:
            x, y = place[part]
            axes.plot([middle, x], [height, y], color="black", linewidth=1.2, solid_capstyle="round")
    slanted = max(map(len, words)) > 6
    axes.set_xticks(range(len(words)), words, rotation=35 if slanted else 0, ha="right" if slanted else "center")
    axes.tick_params(length=0)
    axes.set(yticks=[], xlim=(-0.6, len(words) - 0.4), ylim=(-0.1, None))
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)


def main() -> None:
    """The command."""
    import argparse

    import rich
    from rich.table import Table

    from experiments.onlstm import corpus, language

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the corpus whose test trees are scored; formulas without it")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="directories of trained models")
    parser.add_argument("--out", type=Path, default=Path("runs/parse"), help="directory for table and figures")
    parser.add_argument("--figure", nargs="*", default=[], help="sentences to draw the trees of")
    arguments = parser.parse_args()
    sentences = corpus.load(arguments.data).test
    rows = baselines(sentences)
    for directory in arguments.runs:
        model = language.load_model(directory)
        found = model_scores(sentences, model.vocabulary, model.distances)
        rows |= {f"{directory.name}, {name}": scores for name, scores in found.items()}
        for number, text in enumerate(arguments.figure):
            draw_sentence(model, tuple(text.split()), arguments.out / f"{directory.name}-{number}.png")
    table = Table("trees", "sentence F1", "corpus F1", title=f"{len(sentences)} sentences, F1 in %")
    for name, scores in rows.items():
        table.add_row(name, f"{scores['sentence_f1']:.1f}", f"{scores['corpus_f1']:.1f}")
    rich.print(table)
    write_json(arguments.out / "scores.json", rows)


def draw_sentence(model: Any, words: tuple[str, ...], path: Path) -> None:
    """The trees of one sentence by both parsers, of the last layer's distances."""
    from matplotlib.figure import Figure

    batch = [Sentence(words, frozenset())]
    numbers, lengths, _ = map(jnp.asarray, padded(batch, model.vocabulary, size_of(batch)))
    distances = model.distances(numbers, lengths)[-1]
    figure = Figure(figsize=(max(5.0, 0.62 * len(words)), 7.5), layout="constrained")
    *trees, bars = figure.subplots(3, 1, height_ratios=[3, 3, 1.2])
    for axes, (name, parser) in zip(trees, PARSERS.items(), strict=True):
        draw_tree(axes, words, np.asarray(parser(distances, lengths)[0]))
        axes.set_title(f"{name} parser", loc="left")
    bars.bar(range(len(words)), np.asarray(distances[0, : len(words)]), 0.5, color="tab:orange")
    bars.set(xticks=[], xlim=(-0.6, len(words) - 0.4))
    bars.set_title("distance of each word in the last layer: the share of levels that it erases", loc="left")
    bars.spines[["top", "right"]].set_visible(False)
    save_figure(path, figure)


if __name__ == "__main__":
    with errors_told():
        main()
