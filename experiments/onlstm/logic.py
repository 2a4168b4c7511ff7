"""Logical inference: train on formulas of at most 6 operators, be asked about those of up to 12.

    python -m experiments.onlstm.logic --out runs/logic                         # generated data, all encoders
    python -m experiments.onlstm.logic --out runs/logic --data directory        # the files train0 ... test12
    python -m experiments.onlstm.logic --out runs/quick --tiny                  # a minute, to see that it works

For each encoder and seed one run in a directory of its own, which goes on where it was killed; then a table and a
figure of accuracy by the number of operators, beside the share of the most frequent relation. Published for 7 ... 12
operators (Sparse Universal Transformer, table of its paper): LSTM 88 84 80 78 71 69, Transformer 51 52 51 51 51 48.

Reference: Bowman, Manning, Potts, "Tree-structured composition in neural networks without tree-structured
architectures", 2015, https://arxiv.org/abs/1506.04834; Shen et al., "Ordered Neurons", 2019, section 5.4.
"""

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich
import tyro
from rich.table import Table

from experiments.onlstm import logic_data
from experiments.onlstm.logic_data import MAXIMAL_BIN, RELATIONS, TOKENS, Encoded
from experiments.onlstm.model import Encoder, PairClassifier
from experiments.runs import Run, progress, save_figure, write_atomically


@dataclass(frozen=True)
class Config:
    """Settings of one run; the defaults are those of the literature."""

    encoder: str = "ordered"
    """lstm, ordered (the paper's), inclusive, input_only, or transformer."""
    seed: int = 0
    """Of the initial weights, the order of the pairs and dropout."""
    data: Path | None = None
    """Directory of train0 ... test12; generated without it."""
    num_draws: int = 500_000
    """Pairs that are drawn where they are generated, before repetitions are left out."""
    num_epochs: int = 50
    """Passes through the training pairs."""
    maximal_operators: int = 6
    """Training pairs have at most so many operators."""
    batch_size: int = 128
    """Pairs in a step."""
    learning_rate: float = 1e-3
    """Of Adam, with decays 0 and 0.999."""
    embedding_dim: int = 128
    """Features of a token."""
    hidden_dim: int = 400
    """Units of the encoder."""
    chunk_size: int = 10
    """Units in a level."""
    dropout: float = 0.2
    """Of the features of a pair."""
    save_every: int = 500
    """Steps between checkpoints."""


TINY = Config(num_draws=2_000, num_epochs=2, embedding_dim=16, hidden_dim=32, chunk_size=4, batch_size=64)


@dataclass(frozen=True)
class Arguments:
    """Which runs to make."""

    out: Path = Path("runs/logic")
    """Directory of the runs, the table and the figure."""
    encoders: tuple[str, ...] = ("lstm", "ordered", "inclusive", "input_only", "transformer")
    """Encoders to compare."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each."""
    tiny: bool = False
    """Settings so small that they show only that it works."""
    config: tyro.conf.OmitSubcommandPrefixes[Config] = dataclasses.field(default_factory=Config)
    """Settings of all runs."""


class TrainState(NamedTuple):
    """What a step depends on, with the number of the step."""

    parameters: Any
    optimizer: Any
    key: jax.Array  # as data, for checkpoints


class Split(NamedTuple):
    """Pairs to train on, to choose by, and to test."""

    train: Encoded
    valid: Encoded
    test: Encoded


@functools.cache
def load_data(data: Path | None, num_draws: int, maximal_operators: int) -> Split:
    """Training pairs of few operators, every tenth of them for validation, and test pairs of any number."""
    if data is None:
        rich.print(
            f"[bold yellow]generated pairs ({num_draws} draws), not those of the paper: --config.data gives them"
        )
        train, test = logic_data.generate(0, num_draws)
    else:
        train, test = logic_data.load(data)
    short = logic_data.encode([pair for pair in train if pair.num_operators() <= maximal_operators])
    rows = np.arange(len(short.bins))
    return Split(short.take(rows[rows % 10 != 0]), short.take(rows[rows % 10 == 0]), logic_data.encode(test))


def make_model(config: Config) -> PairClassifier:
    """The classifier of this configuration."""
    encoder = Encoder(config.encoder, len(TOKENS), config.embedding_dim, config.hidden_dim, config.chunk_size)
    return PairClassifier(encoder, len(RELATIONS), config.dropout)


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """Adam as in the programs of Shen et al., on gradients of at most norm 1."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate, b1=0.0, b2=0.999))


def batch_of(data: Encoded, rows: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Tokens, cut to the padded length of this batch, lengths and relations."""
    lengths = data.lengths[rows]
    width = int(logic_data.padded_length(lengths.max()))
    tokens = np.zeros((len(rows), 2, width), np.int32)
    cut = data.tokens[rows][:, :, :width]
    tokens[:, :, : cut.shape[2]] = cut
    return jnp.asarray(tokens), jnp.asarray(lengths), jnp.asarray(data.relations[rows])


def loss_fn(model: PairClassifier, parameters: Any, key: jax.Array, tokens, lengths, relations) -> jax.Array:
    """Cross-entropy in nats."""
    logits: Any = model.apply(parameters, tokens, lengths, key=key)
    return optax.softmax_cross_entropy_with_integer_labels(logits, relations).mean()


@functools.partial(jax.jit, static_argnames="config", donate_argnames="state")
def train_step(state: TrainState, batch, *, config: Config) -> tuple[TrainState, jax.Array]:
    """One step of the optimizer, and the loss before it."""
    next_key, key = jax.random.split(jax.random.wrap_key_data(state.key))
    loss, gradient = jax.value_and_grad(loss_fn, 1)(make_model(config), state.parameters, key, *batch)
    updates, optimizer = make_optimizer(config).update(gradient, state.optimizer, state.parameters)
    parameters = optax.apply_updates(state.parameters, updates)
    return TrainState(parameters, optimizer, jax.random.key_data(next_key)), loss


@functools.partial(jax.jit, static_argnames="config")
def predict(parameters: Any, tokens: jax.Array, lengths: jax.Array, *, config: Config) -> jax.Array:
    """The most probable relations."""
    logits: Any = make_model(config).apply(parameters, tokens, lengths)
    return logits.argmax(-1)


def accuracies(parameters: Any, data: Encoded, config: Config) -> dict[int, float]:
    """The share of right answers by number of operators."""
    right = np.zeros(len(data.bins), bool)
    for rows in logic_data.batches(data, config.batch_size, None):
        tokens, lengths, relations = batch_of(data, rows)
        right[rows] = np.asarray(predict(parameters, tokens, lengths, config=config) == relations)
    return {int(number): float(right[data.bins == number].mean()) for number in np.unique(data.bins)}


def initial_state(config: Config, data: Split) -> TrainState:
    """Weights and optimizer before the first step."""
    init_key, key = jax.random.split(jax.random.key(config.seed))
    tokens, lengths, _ = batch_of(data.train, np.arange(2))
    parameters = jax.jit(make_model(config).init)(init_key, tokens, lengths)
    return TrainState(parameters, make_optimizer(config).init(parameters), jax.random.key_data(key))


def main(config: Config, directory: Path) -> dict[str, Any]:
    """Trains one encoder with one seed, and tests it: accuracy by number of operators, of the last weights."""
    data = load_data(config.data, config.num_draws, config.maximal_operators)
    shape = dataclasses.replace(config, seed=0, num_epochs=0)  # what compiled programs depend on
    steps_in_epoch = len(logic_data.batches(data.train, config.batch_size, (config.seed, 0)))
    num_steps = config.num_epochs * steps_in_epoch
    with Run(directory, config, changeable=("num_epochs",)) as run:
        step, state = run.restore(initial_state(config, data))
        label = f"{config.encoder}, seed {config.seed}"
        with progress(label, num_steps, step) as advance:
            while step < num_steps:
                epoch, first = divmod(step, steps_in_epoch)
                rows_of = logic_data.batches(data.train, config.batch_size, (config.seed, epoch))
                for rows in rows_of[first:]:
                    state, loss = train_step(state, batch_of(data.train, rows), config=shape)
                    step += 1
                    if step % 50 == 0:
                        run.log(step, loss=loss)
                        advance(step, loss=float(loss), epoch=epoch)
                    if step % steps_in_epoch == 0:
                        valid = accuracies(state.parameters, data.valid, shape)
                        weights = [float((data.valid.bins == number).mean()) for number in valid]
                        run.log(step, valid_accuracy=np.dot(weights, list(valid.values())))
                    if step % config.save_every == 0 or step == num_steps:
                        run.save(step, state)
        by_bin = accuracies(state.parameters, data.test, shape)
        result = {"encoder": config.encoder, "seed": config.seed, "epochs": config.num_epochs, "accuracy": by_bin}
        write_atomically(directory / "result.json", (json.dumps(result, indent=1) + "\n").encode())
    return result


def majority(data: Encoded) -> dict[int, float]:
    """The share of the most frequent relation, by number of operators."""
    bins = np.unique(data.bins)
    return {int(number): float(np.bincount(data.relations[data.bins == number]).max() / (data.bins == number).sum())
            for number in bins}  # fmt: skip


def report(results: list[dict[str, Any]], base: dict[int, float], out: Path) -> None:
    """Prints the table, writes it and the figure."""
    from matplotlib.figure import Figure

    numbers = [number for number in range(1, MAXIMAL_BIN + 1) if number in base]
    table = Table("encoder", *map(str, numbers), title="accuracy in %, by number of operators")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    lines = ["| encoder | " + " | ".join(map(str, numbers)) + " |", "|---" * (len(numbers) + 1) + "|"]
    for encoder in dict.fromkeys(result["encoder"] for result in results):
        rows = np.array(
            [[result["accuracy"][number] for number in numbers] for result in results if result["encoder"] == encoder]
        )
        mean, deviation = 100 * rows.mean(0), 100 * rows.std(0)
        cells = [f"{m:.0f} ± {d:.0f}" if len(rows) > 1 else f"{m:.0f}" for m, d in zip(mean, deviation, strict=True)]
        table.add_row(encoder, *cells)
        lines.append(f"| {encoder} | " + " | ".join(cells) + " |")
        axes.errorbar(numbers, mean, deviation if len(rows) > 1 else None, marker="o", label=encoder, capsize=2)
    share = [100 * base[number] for number in numbers]
    table.add_row("most frequent", *[f"{value:.0f}" for value in share])
    lines.append("| most frequent relation | " + " | ".join(f"{value:.0f}" for value in share) + " |")
    axes.plot(numbers, share, color="gray", linestyle=":", label="most frequent relation")
    axes.set(xlabel="operators in the longer formula", ylabel="test accuracy, %", xticks=numbers)
    axes.legend(frameon=False)
    rich.print(table)
    (out / "table.md").write_text("\n".join(lines) + "\n")
    save_figure(out / "accuracy.png", figure)


def compare(arguments: Arguments) -> list[dict[str, Any]]:
    """Makes all runs, one after the other, and reports."""
    base = TINY if arguments.tiny else arguments.config
    results = []
    for encoder in arguments.encoders:
        for seed in arguments.seeds:
            config = dataclasses.replace(base, encoder=encoder, seed=seed)
            results.append(main(config, arguments.out / f"{encoder}-{seed}"))
    test = load_data(base.data, base.num_draws, base.maximal_operators).test
    report(results, majority(test), arguments.out)
    return results


if __name__ == "__main__":
    compare(tyro.cli(Arguments, description=__doc__))
