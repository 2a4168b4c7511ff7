"""A language model of LSTM or ordered-LSTM layers, whose gates imply trees that nobody told it of.

    python -m experiments.onlstm.language --out runs/language                       # generated formulas, minutes
    python -m experiments.onlstm.language --out runs/gum --data directory           # a treebank or three text files
    python -m experiments.onlstm.language --out runs/tiny --tiny                    # to see that it works
    python -m experiments.onlstm.parse --data directory --runs runs/gum             # F1 of the trees

Killed at any moment, the same command goes on and ends in the same bits. What is printed at the end: perplexity (bits
per character with ``--characters``) of validation and test, a sample, and F1 where the corpus has trees. Published on
the Penn Treebank with 25 million parameters and 1,000 epochs: test perplexity 56.2, F1 47.7 for layer 2.

Reference: Shen, Tan, Sordoni, Courville, "Ordered Neurons", 2019, https://arxiv.org/abs/1810.09536; regularisation as
in Merity, Keskar, Socher, "Regularizing and Optimizing LSTM Language Models", 2017, https://arxiv.org/abs/1708.02182.
"""

import dataclasses
import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich
from flax import linen as nn

from experiments import devices
from experiments.files import errors_told, write_atomically, write_json
from experiments.onlstm import corpus, parse
from experiments.onlstm.model import RecurrentLayer, zero_carry
from experiments.runs import Run, progress


@dataclass(frozen=True)
class Config:
    """Settings of a run."""

    out: Path = Path("runs/language")
    """Directory of the run."""
    data: Path | None = None
    """A treebank, or a directory of text files; formulas are generated without it."""
    characters: bool = False
    """Whether text is taken character by character."""
    cell: str = "ordered"
    """ordered (the paper's), inclusive, input_only, or lstm."""
    embedding_dim: int = 200
    """Features of a word, and units of the last layer."""
    hidden_dim: int = 400
    """Units of the layers before the last."""
    num_layers: int = 2
    """Recurrent layers."""
    chunk_size: int = 10
    """Units in a level."""
    temperature: float = 1.0
    """Of the master gates."""
    master_bias: float = 0.0
    """How much the forget gate's initial master bias rises over the levels."""
    batch_size: int = 20
    """Columns of text."""
    window: int = 70
    """Steps of a window, on average."""
    num_epochs: int = 20
    """Passes through the text."""
    averaged_sgd: bool = False
    """SGD, averaged once validation stops to improve, in place of AdamW."""
    learning_rate: float = 2e-3
    """Of AdamW; 30 is usual for SGD."""
    weight_decay: float = 1.2e-6
    """Of all weights."""
    clip: float = 0.25
    """Largest norm of a gradient."""
    patience: int = 5
    """Epochs without a better validation after which averaging begins."""
    word_dropout: float = 0.1
    """Share of words whose embedding is 0 for a window."""
    input_dropout: float = 0.4
    """Of embeddings."""
    hidden_dropout: float = 0.25
    """Between layers."""
    output_dropout: float = 0.4
    """Of the last layer."""
    connection_dropout: float = 0.45
    """Of recurrent weights, one mask a window."""
    activation: float = 2.0
    """Weight of the penalty on the size of the last layer (AR)."""
    change: float = 1.0
    """Weight of the penalty on its change from step to step (TAR)."""
    seed: int = 0
    """Of weights, dropout and windows."""
    save_every: int = 200
    """Steps between checkpoints."""
    tiny: bool = False
    """Settings so small that they show only that it works."""


TINY = Config(
    embedding_dim=16, hidden_dim=24, chunk_size=4, num_epochs=2, window=20, batch_size=8, num_layers=2, save_every=20
)


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, and the embedding again."""

    config: Config
    vocabulary_size: int

    def setup(self):
        config = self.config
        uniform = functools.partial(jax.random.uniform, minval=-0.1, maxval=0.1)
        self.embedding = self.param("embedding", lambda key: uniform(key, (self.vocabulary_size, config.embedding_dim)))
        self.bias = self.param("bias", nn.initializers.zeros, (self.vocabulary_size,))
        self.layers = [
            RecurrentLayer(config.cell, dim, config.chunk_size, config.temperature, config.master_bias)
            for dim in layer_dims(config)
        ]

    def __call__(self, words: jax.Array, carries: list[Any], key: jax.Array | None = None):
        """From words [t, b] to logits, new carries, the last layer without and with dropout, distances [layer, t, b].

        Dropout masks are one for the whole window. Without a key nothing is dropped, and recurrent weights are scaled
        by the share that is kept in training, as in the program of the paper (they are not scaled there).
        """
        config = self.config
        keys = iter(() if key is None else jax.random.split(key, 3 + 2 * len(self.layers)))

        def locked(hidden: jax.Array, rate: float) -> jax.Array:
            if key is None or rate == 0:
                return hidden
            kept = jax.random.bernoulli(next(keys), 1 - rate, hidden.shape[1:])
            return jnp.where(kept[None], hidden / (1 - rate), 0)

        def connections(shape: tuple[int, ...]) -> jax.Array:
            rate = config.connection_dropout
            if key is None:
                return jnp.array(1 - rate)
            return jax.random.bernoulli(next(keys), 1 - rate, shape).astype(jnp.float32)

        table = self.embedding
        if key is not None and config.word_dropout:
            kept = jax.random.bernoulli(next(keys), 1 - config.word_dropout, (self.vocabulary_size, 1))
            table = jnp.where(kept, table / (1 - config.word_dropout), 0)
        hidden = locked(table[words], config.input_dropout)
        after, distances, raw = [], [], hidden
        for number, (layer, carry) in enumerate(zip(self.layers, carries, strict=True)):
            last = number == len(self.layers) - 1
            carry, outputs = layer(hidden, carry, recurrent_mask=connections)
            raw = outputs.hidden
            hidden = locked(raw, config.output_dropout if last else config.hidden_dropout)
            after.append(carry)
            distances.append(outputs.forget_distance)
        logits = hidden @ self.embedding.T + self.bias[None, None]
        return logits, after, raw, hidden, jnp.stack(distances)


def layer_dims(config: Config) -> list[int]:
    """Units of each layer: the last is of the size of the embedding, with which it is multiplied."""
    return [config.hidden_dim] * (config.num_layers - 1) + [config.embedding_dim]


def empty_carries(config: Config, batch_size: int) -> list[Any]:
    """The states of the layers before the first word."""
    return [zero_carry(batch_size, dim) for dim in layer_dims(config)]


class TrainState(NamedTuple):
    """What the next window depends on."""

    parameters: Any
    optimizer: Any
    carries: Any
    average: Any  # of the weights since averaging began
    num_averaged: jax.Array  # 0 before that
    validations: jax.Array  # losses, by epoch
    position: jax.Array  # in the text


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """AdamW or plain SGD, on clipped gradients; the step of a window is in proportion to its length."""
    if config.averaged_sgd:
        inner = optax.chain(optax.add_decayed_weights(config.weight_decay), optax.sgd(config.learning_rate))
    else:
        inner = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
    return optax.chain(optax.clip_by_global_norm(config.clip), inner)


def loss_fn(parameters, model: LanguageModel, carries, key, words, targets):
    """Cross-entropy in nats a word with the two penalties, and beside it the cross-entropy and the new carries."""
    outputs: Any = model.apply(parameters, words, carries, key)
    logits, carries, raw, hidden, _ = outputs
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
    penalty = model.config.activation * jnp.mean(hidden**2) + model.config.change * jnp.mean((raw[1:] - raw[:-1]) ** 2)
    return entropy + penalty, (entropy, carries)


@functools.partial(jax.jit, static_argnames="model", donate_argnames="state")
def train_step(state: TrainState, key, words, targets, *, model: LanguageModel) -> tuple[TrainState, jax.Array]:
    """One window."""
    config = model.config
    carries = jax.lax.stop_gradient(state.carries)
    gradient, (entropy, carries) = jax.grad(loss_fn, has_aux=True)(
        state.parameters, model, carries, key, words, targets
    )
    updates, optimizer = make_optimizer(config).update(gradient, state.optimizer, state.parameters)
    updates = jax.tree.map(lambda update: update * (words.shape[0] / config.window), updates)
    parameters = optax.apply_updates(state.parameters, updates)
    # The mean so far; it is the parameters themselves until averaging begins.
    count = jnp.maximum(state.num_averaged, 1).astype(jnp.float32)
    average = jax.tree.map(lambda mean, new: mean + (new - mean) / count, state.average, parameters)
    num_averaged = jnp.where(state.num_averaged > 0, state.num_averaged + 1, 0)
    state = state._replace(
        parameters=parameters, optimizer=optimizer, carries=carries, average=average, num_averaged=num_averaged
    )
    return state._replace(position=state.position + words.shape[0]), entropy


@functools.partial(jax.jit, static_argnames="model")
def evaluate_window(parameters, carries, words, targets, *, model: LanguageModel):
    """The summed cross-entropy of a window, and the carries after it."""
    logits, carries, *_ = model.apply(parameters, words, carries)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).sum(), carries


def evaluate(parameters: Any, text: np.ndarray, model: LanguageModel) -> float:
    """Nats a word over a text [t, b], in windows, with the state carried on."""
    mesh, total, window = devices.mesh(text.shape[1]), 0.0, 4 * model.config.window
    carries = devices.spread(mesh, empty_carries(model.config, text.shape[1]))
    for start in range(0, len(text) - 1, window):
        end = min(start + window, len(text) - 1)
        words, targets = devices.spread(mesh, (text[start:end], text[start + 1 : end + 1]), axis=1)
        loss, carries = evaluate_window(parameters, carries, words, targets, model=model)
        total += float(loss)
    return total / ((len(text) - 1) * text.shape[1])


def windows(config: Config, num_steps: int, epoch: int) -> list[tuple[int, int]]:
    """Where each window of an epoch begins and ends.

    Their lengths are random multiples of 10, so that few programs are compiled. For that also the last one is of such
    a length, and up to 9 steps at the end of the text are left out (all of it is one window where it is so short).
    """
    source = np.random.default_rng((config.seed, epoch))
    found, start = [], 0
    while num_steps - 1 - start >= 10:
        mean = config.window if source.random() < 0.95 else config.window / 2
        length = max(10, 10 * round(source.normal(mean, 5) / 10))
        end = min(start + length, start + (num_steps - 1 - start) // 10 * 10)
        found.append((start, end))
        start = end
    return found or [(0, num_steps - 1)]


def initial_state(model: LanguageModel, seed: int) -> TrainState:
    """Weights, drawn from the seed, and everything else before the first window."""
    config = model.config
    mesh = devices.mesh(config.batch_size)
    carries = empty_carries(config, config.batch_size)
    words = jnp.zeros((1, config.batch_size), jnp.int32)
    parameters = jax.jit(model.init)(jax.random.key(seed), words, carries)
    zero = jnp.zeros((), jnp.int32)
    validations = jnp.full((1000,), jnp.inf)
    state = TrainState(
        parameters, make_optimizer(config).init(parameters), carries, parameters, zero, validations, zero
    )
    state = jax.tree.map(jnp.copy, state)  # so that no two parts share memory, which a step gives up
    return devices.everywhere(mesh, state._replace(carries=devices.spread(mesh, state.carries)))


def after_epoch(state: TrainState, epoch: int, valid: float, config: Config) -> TrainState:
    """Records the validation; begins to average if it is no better than ``patience`` epochs ago (non-monotone)."""
    validations = state.validations.at[epoch].set(valid)
    before = np.asarray(validations)[: max(epoch - config.patience, 0)]
    begin = config.averaged_sgd and len(before) > 0 and valid > before.min() and int(state.num_averaged) == 0
    carries = jax.tree.map(jnp.zeros_like, state.carries)
    num_averaged = jnp.ones_like(state.num_averaged) if begin else state.num_averaged
    zero = jnp.zeros_like(state.position)
    return state._replace(validations=validations, num_averaged=num_averaged, carries=carries, position=zero)


def main(config: Config) -> dict[str, Any]:
    """Trains, evaluates, samples, parses."""
    if config.tiny:
        keep = {name: getattr(config, name) for name in ("out", "data", "cell", "seed", "characters")}
        config = dataclasses.replace(TINY, **keep)
    data = corpus.load(config.data, characters=config.characters)
    texts = [corpus.stream(part, data.vocabulary, config.batch_size) for part in data[:3]]
    train, valid, test = texts
    # Neither where it is written, how long it runs nor its seed is part of the compiled program.
    model = LanguageModel(dataclasses.replace(config, out=Path(), num_epochs=0, seed=0), len(data.vocabulary))
    plan = [(epoch, *window) for epoch in range(config.num_epochs) for window in windows(config, len(train), epoch)]
    with Run(config.out, config, changeable=("num_epochs",)) as run:
        write_atomically(config.out / "vocabulary.json", json.dumps(data.vocabulary).encode())
        step, state = run.restore(initial_state(model, config.seed))
        mesh = devices.mesh(config.batch_size)
        root = devices.everywhere(mesh, jax.random.key(config.seed + 1))
        with progress(f"{config.cell}, seed {config.seed}", len(plan), step) as advance:
            while step < len(plan):
                epoch, start, end = plan[step]
                words, targets = devices.spread(mesh, (train[start:end], train[start + 1 : end + 1]), axis=1)
                state, loss = train_step(state, jax.random.fold_in(root, step), words, targets, model=model)
                step += 1
                if step % 20 == 0:
                    run.log(step, loss=loss)
                    advance(step, perplexity=math.exp(float(loss)), epoch=epoch)
                if step == len(plan) or plan[step][0] > epoch:
                    loss = evaluate(state.average, valid, model)
                    run.log(step, valid=loss, valid_perplexity=math.exp(min(loss, 50)))
                    state = after_epoch(state, epoch, loss, config)
                if step % config.save_every == 0 or step == len(plan):
                    run.save(step, state)
        result = {"epochs": config.num_epochs} | summary(state, model, data, valid, test)
        write_json(config.out / "result.json", result)
    rich.print(result)
    return result


def summary(state: TrainState, model: LanguageModel, data: corpus.Corpus, valid, test) -> dict[str, Any]:
    """The numbers of a finished run."""
    nats = {"valid": evaluate(state.average, valid, model), "test": evaluate(state.average, test, model)}
    result: dict[str, Any] = {f"{name}_perplexity": math.exp(value) for name, value in nats.items()}
    if model.config.characters:
        result |= {f"{name}_bits_per_character": value / math.log(2) for name, value in nats.items()}
    trained = Trained(model, devices.alone(state.average), data.vocabulary)
    result["sample"] = " ".join(trained.sample(jax.random.key(0), 30))
    if any(sentence.spans for sentence in data.test):
        result["f1"] = parse.model_scores(data.test, data.vocabulary, trained.distances)
        result["distances"] = parse.distance_quantiles(data.test, data.vocabulary, trained.distances)
    return result


class Trained(NamedTuple):
    """A trained model, to parse and to sample with."""

    model: LanguageModel
    parameters: Any
    vocabulary: tuple[str, ...]

    def distances(self, words: jax.Array, lengths: jax.Array) -> jax.Array:
        """Distances [layer, b, t] of sentences [b, t], read from the empty state after one end of sentence."""
        del lengths  # what comes after a sentence changes nothing before it
        return sentence_distances(self.parameters, words, model=self.model)

    def sample(self, key: jax.Array, num_words: int) -> list[str]:
        """Words drawn from the model, from the empty state on."""
        numbers = sample_words(self.parameters, key, model=self.model, num_words=num_words)
        return [self.vocabulary[number] for number in np.asarray(numbers)]


@functools.partial(jax.jit, static_argnames="model")
def sentence_distances(parameters, words: jax.Array, *, model: LanguageModel) -> jax.Array:
    """See :meth:`Trained.distances`."""
    begun = jnp.concatenate([jnp.zeros((1, words.shape[0]), words.dtype), words.T])
    outputs: Any = model.apply(parameters, begun, empty_carries(model.config, words.shape[0]))
    return outputs[-1][:, 1:].swapaxes(1, 2)


@functools.partial(jax.jit, static_argnames=("model", "num_words"))
def sample_words(parameters, key: jax.Array, *, model: LanguageModel, num_words: int) -> jax.Array:
    """See :meth:`Trained.sample`."""

    def step(state, key):
        word, carries = state
        logits, carries, *_ = model.apply(parameters, word[None, None], carries)
        word = jax.random.categorical(key, logits[0, 0]).astype(word.dtype)
        return (word, carries), word

    start = jnp.zeros((), jnp.int32), empty_carries(model.config, 1)
    return jax.lax.scan(step, start, jax.random.split(key, num_words))[1]


def load_model(directory: Path) -> Trained:
    """The model of a finished (or unfinished) run."""
    fields = {field.name: field.type for field in dataclasses.fields(Config)}
    stored = json.loads((directory / "config.json").read_text())
    values = {name: value for name, value in stored.items() if name in fields and name not in ("out", "data")}
    vocabulary = tuple(json.loads((directory / "vocabulary.json").read_text()))
    original = Config(**values, out=Path(stored["out"]), data=None if stored["data"] is None else Path(stored["data"]))
    model = LanguageModel(dataclasses.replace(original, out=Path(), num_epochs=0, seed=0), len(vocabulary))
    with Run(directory, original) as run:
        _, state = run.restore(initial_state(model, original.seed))
    return Trained(model, devices.alone(state.average), vocabulary)


if __name__ == "__main__":
    with errors_told():
        main(devices.command_line(Config, __doc__))
