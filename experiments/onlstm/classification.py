"""Training and testing of sentence encoders on a task, run after run: what logical inference and ListOps share.

Each encoder is trained with each seed in a directory of its own, which goes on where it was killed. All of them are
trained for a few epochs, then all for more, and so on (``rounds``); after each run a table and a figure of accuracy by
bin are written of those that have had as many epochs.
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import rich
import tyro
from jax.sharding import Mesh
from rich.table import Table

from experiments import devices
from experiments.devices import BATCH
from experiments.files import save_figure, write_atomically, write_json
from experiments.onlstm import sentences
from experiments.onlstm.model import Classifier, Encoder
from experiments.onlstm.sentences import Examples, Packed, Split
from experiments.runs import Run, progress

ENCODERS = ("lstm", "ordered", "inclusive", "input_only", "transformer")


@dataclass(frozen=True)
class Config:
    """Settings of one run; the defaults are those of the literature on logical inference."""

    encoder: str = "ordered"
    """lstm, ordered (the paper's), inclusive, input_only, or transformer."""
    seed: int = 0
    """Of the initial weights, the order of the examples and dropout."""
    data: Path | None = None
    """Directory of the data; generated without it."""
    num_draws: int = 500_000
    """Examples that are drawn where they are generated, before repetitions are left out."""
    num_epochs: int = 50
    """Passes through the training examples."""
    maximal_bin: int = 6
    """Training examples are of bins up to this: of so many operators, or so deep."""
    batch_size: int = 128
    """Examples in a step."""
    learning_rate: float = 1e-3
    """Of Adam, with decays 0 and 0.999."""
    embedding_dim: int = 128
    """Features of a token."""
    hidden_dim: int = 400
    """Units of the encoder."""
    chunk_size: int = 10
    """Units in a level."""
    dropout: float = 0.2
    """Of the features of an example."""
    save_every: int = 500
    """Steps between checkpoints."""


@dataclass(frozen=True)
class Arguments:
    """Which runs to make."""

    out: Path
    """Directory of the runs, the tables and the figures."""
    encoders: tuple[str, ...] = ENCODERS
    """Encoders to compare."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each."""
    rounds: tuple[int, ...] = (50,)
    """Epochs that all runs are trained to, one number after the other: a table comes after each."""
    tiny: bool = False
    """Settings so small that they show only that it works."""
    config: tyro.conf.OmitSubcommandPrefixes[Config] = dataclasses.field(default_factory=Config)
    """Settings of all runs."""


@dataclass(frozen=True)
class Task:
    """What sentences are labelled with."""

    name: str
    """For files."""
    tokens: tuple[str, ...]
    """The vocabulary; the first one is padding."""
    num_labels: int
    """Of an example."""
    num_sentences: int
    """In an example: one or two."""
    load: Callable[[Config], Split]
    """The examples."""
    bin_name: str
    """What the bins count, for tables and figures."""
    tiny: Config
    """Settings to see that it works."""


class TrainState(NamedTuple):
    """What a step depends on, with the number of the step."""

    parameters: Any
    optimizer: Any
    key: jax.Array  # as data, for checkpoints


def make_model(task: Task, config: Config) -> Classifier:
    """The classifier of this configuration."""
    encoder = Encoder(config.encoder, len(task.tokens), config.embedding_dim, config.hidden_dim, config.chunk_size)
    return Classifier(encoder, task.num_sentences, task.num_labels, config.dropout)


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """Adam as in the programs of Shen et al., on gradients of at most norm 1."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate, b1=0.0, b2=0.999))


def loss_fn(model: Classifier, parameters: Any, key: jax.Array, packed: Packed, labels: jax.Array) -> jax.Array:
    """Cross-entropy in nats."""
    logits: Any = model.apply(parameters, packed, key=key)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@functools.partial(jax.jit, static_argnames=("task", "config"), donate_argnames="state")
def train_step(
    state: TrainState, packed: Packed, labels: jax.Array, *, task: Task, config: Config
) -> tuple[TrainState, jax.Array]:
    """One step of the optimizer, and the loss before it."""
    next_key, key = jax.random.split(jax.random.wrap_key_data(state.key))
    model = make_model(task, config)
    loss, gradient = jax.value_and_grad(loss_fn, 1)(model, state.parameters, key, packed, labels)
    updates, optimizer = make_optimizer(config).update(gradient, state.optimizer, state.parameters)
    parameters = optax.apply_updates(state.parameters, updates)
    return TrainState(parameters, optimizer, jax.random.key_data(next_key)), loss


@functools.partial(jax.jit, static_argnames=("task", "config"))
def predict(parameters: Any, packed: Packed, *, task: Task, config: Config) -> jax.Array:
    """The most probable labels."""
    logits: Any = make_model(task, config).apply(parameters, packed)
    return logits.argmax(-1)


def accuracies(parameters: Any, data: Examples, task: Task, config: Config) -> dict[int, float]:
    """The share of right answers by bin."""
    right, num_steps = np.zeros(len(data.bins), bool), sentences.steps_for(data)
    mesh = devices.mesh(config.batch_size)
    for rows in sentences.batches(data, config.batch_size, None):
        packed, labels = spread_batch(mesh, data, rows, num_steps)
        found, labels = devices.on_host((predict(parameters, packed, task=task, config=config), labels))
        right[rows] = found == labels
    return {int(number): float(right[data.bins == number].mean()) for number in np.unique(data.bins)}


def spread_batch(mesh: Mesh, data: Examples, rows: np.ndarray, num_steps: int) -> tuple[Packed, jax.Array]:
    """The packed sentences of some examples and their labels: rows, and examples, are shared by the devices."""
    packed, labels = sentences.packed_batch(data, rows, num_steps, multiple=mesh.shape[BATCH])
    tokens, numbers, positions = devices.spread(mesh, packed[:3], axis=1)
    ends, labels = devices.spread(mesh, (packed.ends, labels))
    return Packed(tokens, numbers, positions, ends), labels


def initial_state(task: Task, config: Config) -> TrainState:
    """Weights and optimizer before the first step."""
    init_key, key = jax.random.split(jax.random.key(config.seed))
    example = np.ones((task.num_sentences, 1), np.int8)
    packed = sentences.pack(example, np.ones(task.num_sentences, np.int32), 8)
    parameters = jax.jit(make_model(task, config).init)(init_key, packed)
    return TrainState(parameters, make_optimizer(config).init(parameters), jax.random.key_data(key))


def result_file(directory: Path, num_epochs: int) -> Path:
    """Where the result of a run stands."""
    return directory / f"result-{num_epochs}.json"


def main(task: Task, config: Config, directory: Path) -> dict[str, Any]:
    """Trains one encoder with one seed, and tests it: accuracy by bin, of the last weights."""
    file = result_file(directory, config.num_epochs)
    data = task.load(config)
    # What compiled programs depend on, and nothing else.
    shape = dataclasses.replace(config, seed=0, num_epochs=0, data=None, save_every=0, num_draws=0, maximal_bin=0)
    num_steps = sentences.steps_for(data.train)
    steps_in_epoch = len(sentences.batches(data.train, config.batch_size, (config.seed, 0)))
    last = config.num_epochs * steps_in_epoch
    mesh = devices.mesh(config.batch_size)
    with Run(directory, config, changeable=("num_epochs", "save_every")) as run:
        if file.exists():
            return json.loads(file.read_text(), object_hook=numbered)
        step, state = run.restore(devices.everywhere(mesh, initial_state(task, config)))
        if step > last:
            raise ValueError(f"{directory} has been trained for more than {config.num_epochs} epochs already")
        label = f"{config.encoder}, seed {config.seed}"
        with progress(label, last, step) as advance:
            while step < last:
                epoch, first = divmod(step, steps_in_epoch)
                for rows in sentences.batches(data.train, config.batch_size, (config.seed, epoch))[first:]:
                    packed, labels = spread_batch(mesh, data.train, rows, num_steps)
                    state, loss = train_step(state, packed, labels, task=task, config=shape)
                    step += 1
                    if step % 50 == 0:
                        run.log(step, loss=loss)
                        advance(step, loss=float(loss), epoch=epoch)
                    if step % steps_in_epoch == 0:
                        run.log(step, valid_accuracy=mean_accuracy(state.parameters, data.valid, task, shape))
                    if step % config.save_every == 0 or step == last:
                        run.save(step, state)
        by_bin = accuracies(state.parameters, data.test, task, shape)
        result = {"encoder": config.encoder, "seed": config.seed, "epochs": config.num_epochs, "accuracy": by_bin}
        write_json(file, result)
    return result


def numbered(values: dict[str, Any]) -> dict[Any, Any]:
    """A dictionary of a JSON file, whose keys are numbers again where they were."""
    return {int(key) if key.isdigit() else key: value for key, value in values.items()}


def mean_accuracy(parameters: Any, data: Examples, task: Task, config: Config) -> float:
    """The share of right answers."""
    by_bin = accuracies(parameters, data, task, config)
    return sum(float((data.bins == number).mean()) * value for number, value in by_bin.items())


def majority(data: Examples) -> dict[int, float]:
    """The share of the most frequent label, by bin."""
    return {
        int(number): float(np.bincount(labels).max() / len(labels))
        for number in np.unique(data.bins)
        for labels in [data.labels[data.bins == number]]
    }


class Row(NamedTuple):
    """An encoder in a table: accuracies in % by bin, means over seeds and standard deviations."""

    encoder: str
    num_seeds: int
    mean: np.ndarray
    spread: np.ndarray

    def cells(self) -> list[str]:
        """As they stand in tables; of one seed there is no spread."""
        if self.num_seeds == 1:
            return [f"{mean:.0f}" for mean in self.mean]
        return [f"{mean:.0f} ± {spread:.0f}" for mean, spread in zip(self.mean, self.spread, strict=True)]


def bins_of(summary: dict[str, Any]) -> list[int]:
    """The bins of a table, that of sentences without any operator left out."""
    return [number for number in sorted(summary["most_frequent"]) if number > 0]


def rows_of(summary: dict[str, Any]) -> list[Row]:
    """The rows of a table, in the order in which the encoders were trained."""
    rows, numbers = [], bins_of(summary)
    for encoder in dict.fromkeys(run["encoder"] for run in summary["runs"]):
        runs = [run["accuracy"] for run in summary["runs"] if run["encoder"] == encoder]
        values = 100 * np.array([[accuracy[number] for number in numbers] for accuracy in runs])
        spread = values.std(0, ddof=1) if len(runs) > 1 else np.zeros(len(numbers))
        rows.append(Row(encoder, len(runs), values.mean(0), spread))
    return rows


def shares_of(summary: dict[str, Any]) -> list[float]:
    """The share of the most frequent label in each bin, in %."""
    return [100 * summary["most_frequent"][number] for number in bins_of(summary)]


def differences(summary: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """What each encoder has over the LSTM of the same seed in the bins that were not trained on, in %.

    The mean of those bins, then mean and standard error over the seeds that both have, where these are two or more:
    a seed fixes the order of the examples, so that the difference varies less than either of the two.
    """
    beyond = [number for number in bins_of(summary) if number > summary["trained_to"]]
    means: dict[str, dict[int, float]] = {}
    for run in summary["runs"]:
        mean = 100 * float(np.mean([run["accuracy"][number] for number in beyond]))
        means.setdefault(run["encoder"], {})[run["seed"]] = mean
    base, found = means.pop("lstm", {}), {}
    for encoder, of_seed in means.items():
        values = [of_seed[seed] - base[seed] for seed in of_seed if seed in base]
        if len(values) > 1:
            found[encoder] = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return found


def circumstances(summary: dict[str, Any]) -> str:
    """How the numbers came about, in a sentence."""
    return (
        f"Test accuracy in % by {summary['bin_name']}, mean and standard deviation over seeds; last, the mean"
        f" beyond {summary['trained_to']} less that of the LSTM of the same seed, with its standard error:"
        f" {summary['num_train']:,}"
        f" training examples of at most {summary['trained_to']}, {summary['epochs']} epochs, {summary['hidden_dim']}"
        f" units ({summary['hidden_dim'] // summary['chunk_size']} levels), batches of {summary['batch_size']}."
    )


def markdown_of(summary: dict[str, Any]) -> str:
    """The results as a table for a README."""
    numbers = bins_of(summary)
    heads = ["encoder", "seeds", *map(str, numbers), f"beyond {summary['trained_to']}, over lstm"]
    lines, over = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"], differences(summary)
    for row in rows_of(summary):
        last = ""
        if row.encoder in over:
            mean, error = over[row.encoder]
            last = f"{mean:+.1f} ± {error:.1f}"
        lines.append("| " + " | ".join([row.encoder, str(row.num_seeds), *row.cells(), last]) + " |")
    shares = [f"{share:.0f}" for share in shares_of(summary)]
    lines.append("| " + " | ".join(["most frequent label", "", *shares, ""]) + " |")
    return "\n".join(lines) + "\n"


def figure_of(summary: dict[str, Any]) -> Any:
    """Accuracy against the bin."""
    from matplotlib.figure import Figure

    numbers, rows = bins_of(summary), rows_of(summary)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        # Beside each other, so that no error bar hides another.
        beside = np.array(numbers) + 0.12 * (place - (len(rows) - 1) / 2)
        bars = row.spread if row.num_seeds > 1 else None
        label = row.encoder.replace("_", " ")
        axes.errorbar(beside, row.mean, bars, marker="o", markersize=4, label=label, capsize=2)
    axes.plot(numbers, shares_of(summary), color="gray", linestyle=":", label="most frequent label")
    if summary["trained_to"] < numbers[-1]:
        axes.axvline(summary["trained_to"] + 0.5, color="lightgray", linewidth=1, zorder=0)
        where = axes.get_xaxis_transform()
        axes.text(summary["trained_to"] + 0.6, 0.02, "not seen in training", transform=where, color="gray")
    axes.set(xlabel=summary["bin_name"], ylabel="test accuracy, %", xticks=numbers)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def load_summary(file: Path) -> dict[str, Any]:
    """What :func:`compare` has written."""
    return json.loads(file.read_text(), object_hook=numbered)


def report(summary: dict[str, Any], out: Path) -> None:
    """Writes numbers, table and figure: ``NAME-EPOCHS-epochs`` with suffixes json, md and png."""
    name = f"{summary['task']}-{summary['epochs']}-epochs"
    write_json(out / f"{name}.json", summary)
    write_atomically(out / f"{name}.md", markdown_of(summary).encode())
    save_figure(out / f"{name}.png", figure_of(summary))


def compare(task: Task, arguments: Arguments) -> dict[str, Any]:
    """Makes all runs, round by round, and reports after each of them; returns the numbers of the last round."""
    base = task.tiny if arguments.tiny else arguments.config
    summary: dict[str, Any] = {}
    for num_epochs in (task.tiny.num_epochs,) if arguments.tiny else arguments.rounds:
        summary = {"task": task.name, "bin_name": task.bin_name, "epochs": num_epochs, "runs": []}
        summary |= {name: getattr(base, name) for name in ("hidden_dim", "chunk_size", "embedding_dim", "batch_size")}
        for seed, encoder in itertools.product(arguments.seeds, arguments.encoders):
            config = dataclasses.replace(base, encoder=encoder, seed=seed, num_epochs=num_epochs)
            summary["runs"].append(main(task, config, arguments.out / f"{encoder}-{seed}"))
            data = task.load(config)
            summary |= {"trained_to": config.maximal_bin, "num_train": len(data.train.bins)}
            summary["most_frequent"] = majority(data.test)
            report(summary, arguments.out)
        numbers = bins_of(summary)
        table = Table("encoder", *map(str, numbers), title=f"accuracy in %, by {task.bin_name}, {num_epochs} epochs")
        for row in rows_of(summary):
            table.add_row(row.encoder, *row.cells())
        table.add_row("most frequent label", *[f"{share:.0f}" for share in shares_of(summary)])
        rich.print(table)
    return summary
