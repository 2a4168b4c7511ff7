"""An extractor: encoder and decoder by name, as functions of one parameter pytree, and its files.

hidden = features(parameters, batch, sizes)             # [b, t, d]; with a key, dropout is on
losses(parameters, batch, key, sizes)                   # [b]
for row, found in candidates(parameters, batch, sizes)  # triples at any threshold, without the model
"""

import dataclasses
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from experiments import checkpoints
from experiments.bert import model as bert
from experiments.bert import tokens
from experiments.files import write_atomically
from experiments.information_extraction import dgcnn, global_pointer, pointer, settings, units
from experiments.information_extraction.candidates import Candidates
from experiments.information_extraction.data import DataError
from experiments.information_extraction.prior import Table
from experiments.information_extraction.units import Encode, Vocabulary

#: What is read of a batch; "triples" are to be found.
INPUTS = ("ids", "pieces", "words", "mask", "tokens", "token_mask", "spans", "prior")
#: Below this probability no candidates are kept.
LOW = 0.1


@dataclass(frozen=True)
class Sizes:
    """What the weights do not tell; hashable."""

    num_predicates: int
    encoder: Literal["dgcnn", "bert", "bert+dgcnn"] = "dgcnn"
    decoder: Literal["pointer", "global"] = "pointer"
    options: pointer.Options = field(default_factory=pointer.Options)
    dim: int = 128
    num_layers: int = len(dgcnn.DILATIONS)
    num_units: int = 2
    num_words: int = 2
    dropout: float = 0.25
    unit_dropout: float = 0.0
    """Share of units that are taken for unknown ones in training; for the convolutional encoder."""
    pretrained: bert.Config | None = None

    def __post_init__(self):
        if self.options.selection == "straight_through" and self.options.condition != "norm":
            raise ValueError("Sizes: selection 'straight_through' needs condition 'norm', which has features of ends")
        if (self.encoder != "dgcnn") != (self.pretrained is not None):
            raise ValueError("Sizes: pretrained must be given for the encoders 'bert' and 'bert+dgcnn' alone")
        of_pointer = self.options.gates, self.options.powers, self.options.selection
        if self.decoder == "global" and of_pointer != (False, (1.0, 1.0), "teacher"):
            raise ValueError("Sizes: gates, powers and selection are the pointer's; the decoder 'global' has none")
        if not 1 <= self.num_layers <= len(dgcnn.DILATIONS):
            raise ValueError(f"Sizes: num_layers must be 1 to {len(dgcnn.DILATIONS)}; got {self.num_layers}")
        for name in ("dropout", "unit_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Sizes: {name} must be in [0, 1); got {getattr(self, name)}")

    @property
    def max_length(self) -> int:
        """The most units of a text."""
        most = [] if self.encoder == "bert" else [dgcnn.NUM_POSITIONS]
        return min(most + ([] if self.pretrained is None else [self.pretrained.max_length]))


def initial(key: jax.Array, sizes: Sizes, pretrained: bert.Encoder | None = None) -> dict[str, Any]:
    """Random weights; those of the pretrained encoder may be given.

    Where both encoders are used, "encoder" is the pretrained one, "convolutions" the other, and "join" leads from the
    features of the first to the input of the second; the features are those of both.
    """
    encoder_key, decoder_key = jax.random.split(key)
    both: dict[str, Any] = {}
    dim = sizes.dim
    if sizes.pretrained is not None:
        encoder: Any = bert.initial(encoder_key, sizes.pretrained).encoder if pretrained is None else pretrained
        if sizes.encoder == "bert":
            dim = sizes.pretrained.hidden_dim
        else:
            convolutions_key, join_key = jax.random.split(jax.random.fold_in(encoder_key, 1))
            join = dgcnn.dense(join_key, sizes.pretrained.hidden_dim, dim)
            both = {"convolutions": convolutions(convolutions_key, sizes), "join": join}
            dim += sizes.pretrained.hidden_dim
    else:
        encoder = convolutions(encoder_key, sizes)
    if sizes.decoder == "global":
        decoder = global_pointer.initial(decoder_key, dim, sizes.num_predicates, sizes.options.prior)
    else:
        decoder = pointer.initial(decoder_key, dim, sizes.num_predicates, sizes.options)
    return {"encoder": encoder, "decoder": decoder} | both


def convolutions(key: jax.Array, sizes: Sizes) -> dgcnn.Encoder:
    """Random weights of the convolutional encoder."""
    return dgcnn.initial(
        key,
        dim=sizes.dim,
        num_units=sizes.num_units,
        num_words=sizes.num_words,
        num_pieces=units.NUM_BUCKETS,
        num_layers=sizes.num_layers,
    )


def mean_of_tokens(features: jax.Array, spans: jax.Array) -> jax.Array:
    """The mean of the features [b, n, d] of each unit's tokens, from first to last [b, t, 2], as [b, t, d]."""
    place = jnp.arange(features.shape[1]).reshape(1, 1, -1)
    own = ((place >= spans[..., :1]) & (place <= spans[..., 1:])).astype(features.dtype)
    return (own / own.sum(-1, keepdims=True)) @ features


def features(
    parameters: dict[str, Any], batch: dict[str, jax.Array], sizes: Sizes, key: jax.Array | None = None
) -> jax.Array:
    """The encoder's features of a batch, [b, t, d]; with dropout if there is a key."""
    if sizes.encoder == "bert":
        return bert.encode(parameters["encoder"], batch["ids"], batch["mask"], config=pretrained_of(sizes), key=key)
    if sizes.encoder == "dgcnn":
        return convolved(parameters["encoder"], batch, None, sizes, key)
    own_key, bert_key = (None, None) if key is None else jax.random.split(key)
    of_tokens = bert.encode(
        parameters["encoder"], batch["tokens"], batch["token_mask"], config=pretrained_of(sizes), key=bert_key
    )
    # Straight to the decoder too: it learns from these states long before the convolutions pass them on.
    of_words = jnp.where(batch["mask"][..., None], mean_of_tokens(of_tokens, batch["spans"]), 0)
    read = dgcnn.linear(parameters["join"], of_words)
    return jnp.concatenate([of_words, convolved(parameters["convolutions"], batch, read, sizes, own_key)], -1)


def convolved(
    encoder: dgcnn.Encoder,
    batch: dict[str, jax.Array],
    read: jax.Array | None,
    sizes: Sizes,
    key: jax.Array | None,
) -> jax.Array:
    """Features of the convolutional encoder, in training with some units taken for unknown ones."""
    if key is None:
        return dgcnn.encode(encoder, batch, read)
    unit_key, key = jax.random.split(key)
    if sizes.unit_dropout:
        lost = jax.random.bernoulli(unit_key, sizes.unit_dropout, batch["ids"].shape)
        batch = batch | {"ids": jnp.where(lost, units.UNKNOWN, batch["ids"])}
    return dgcnn.encode(encoder, batch, read, key=key, rate=sizes.dropout)


def pretrained_of(sizes: Sizes) -> bert.Config:
    """The sizes of the pretrained encoder, where there is one."""
    if sizes.pretrained is None:
        raise ValueError(f"the encoder {sizes.encoder!r} is not pretrained")
    return sizes.pretrained


def losses(parameters: dict[str, Any], batch: dict[str, jax.Array], key: jax.Array, sizes: Sizes) -> jax.Array:
    """The loss of each text, summed over its units."""
    dropout_key, draw_key = jax.random.split(key)
    hidden = features(parameters, batch, sizes, dropout_key)
    if sizes.decoder == "global":
        return global_pointer.losses(parameters["decoder"], hidden, batch, sizes.num_predicates)
    return pointer.losses(parameters["decoder"], hidden, batch, draw_key, sizes.num_predicates, sizes.options)


@functools.partial(jax.jit, static_argnames="sizes")
def first_stage(parameters: dict[str, Any], batch: dict[str, jax.Array], *, sizes: Sizes) -> Any:
    """Features, and probabilities of the bounds of subjects; or all scores of the global pointer."""
    hidden = features(parameters, batch, sizes)
    if sizes.decoder == "global":
        return {
            part: global_pointer.logits(parameters["decoder"], hidden, batch, part) for part in global_pointer.PARTS
        }
    logits = pointer.subject_logits(parameters["decoder"], hidden, batch, sizes.options)
    return hidden, jax.nn.sigmoid(logits)


@functools.partial(jax.jit, static_argnames="sizes")
def second_stage(
    parameters: dict[str, Any], hidden: jax.Array, batch: dict[str, jax.Array], subjects: jax.Array, *, sizes: Sizes
) -> jax.Array:
    """Probabilities of the bounds of objects of some subjects [b, k, 2], [b, k, t, predicates, 2]."""
    logits = pointer.object_logits(parameters["decoder"], hidden, batch, subjects, sizes.options)
    return jax.nn.sigmoid(logits)


def candidates(
    parameters: dict[str, Any], batch: dict[str, np.ndarray], sizes: Sizes, low: float = LOW
) -> Iterator[Candidates]:
    """The triples that each text of a batch may have; two compiled programs for a whole batch.

    Args:
      parameters: of ``initial``.
      batch: as for ``losses``, and "inside".
      sizes: of the model.
      low: the lowest threshold that will be asked for.
    """
    inside = batch["inside"]
    arrays = {name: jnp.asarray(value) for name, value in batch.items() if name in INPUTS}
    first = first_stage(parameters, arrays, sizes=sizes)
    if sizes.decoder == "global":
        scores = {part: np.asarray(value) for part, value in first.items()}
        for row in range(len(inside)):
            yield global_pointer.candidates({part: value[row] for part, value in scores.items()}, inside[row], low)
        return
    hidden, probabilities = first[0], np.asarray(first[1])
    spans = [pointer.subject_candidates(p, i, low) for p, i in zip(probabilities, inside, strict=True)]
    found: list[list[np.ndarray]] = [[] for _ in spans]
    for start in range(0, max(map(len, spans)), pointer.AT_ONCE):
        subjects = np.zeros((len(spans), pointer.AT_ONCE, 2), np.int32)
        for row, of_row in enumerate(spans):
            for place, (begin, end, _) in enumerate(of_row[start : start + pointer.AT_ONCE]):
                subjects[row, place] = begin, end
        objects = np.asarray(second_stage(parameters, hidden, arrays, jnp.asarray(subjects), sizes=sizes))
        for row, of_row in enumerate(spans):
            found[row] += [*objects[row, : max(0, min(pointer.AT_ONCE, len(of_row) - start))]]
    for row, of_row in enumerate(spans):
        stacked = np.array(found[row]) if of_row else np.zeros((0, *inside.shape[1:], sizes.num_predicates, 2))
        yield pointer.object_candidates(of_row, stacked, inside[row], low)


class Extractor(NamedTuple):
    """A trained model with all that it needs to read texts."""

    sizes: Sizes
    parameters: dict[str, Any]
    predicates: tuple[str, ...]
    vocabulary: Vocabulary | None
    """Of the convolutional encoder."""
    tokenizer: tokens.Tokenizer | None
    """Of the pretrained one."""
    prior: Table | None
    open_predicates: bool
    """Whether triples are made of pairs (``data.PAIRS``)."""
    thresholds: tuple[float, float]
    """Of subjects and of objects."""
    max_length: int

    def encoder(self) -> Encode:
        """What makes rows of texts."""
        if self.vocabulary is not None and self.tokenizer is not None:
            return units.joint_encoder(self.vocabulary, self.tokenizer, self.max_length)
        if self.vocabulary is not None:
            return self.vocabulary.encoder(self.max_length)
        if self.tokenizer is not None:
            return units.bert_encoder(self.tokenizer, self.max_length)
        raise ValueError("Extractor: needs a vocabulary, a tokenizer, or both")


def flat(parameters: Any) -> dict[str, np.ndarray]:
    """Arrays by the path to them."""
    leaves = jax.tree_util.tree_leaves_with_path(parameters)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def save(directory: Path, extractor: Extractor) -> None:
    """Writes ``extractor.json``, ``weights.safetensors``, the vocabulary or tokenizer, and the prior."""
    weights = flat(extractor.parameters)
    write_atomically(directory / "weights.safetensors", lambda file: save_file(weights, file))
    checkpoints.seal(directory / "weights.safetensors")
    written = {
        "sizes": dataclasses.asdict(extractor.sizes) | {"options": extractor.sizes.options._asdict()},
        "predicates": extractor.predicates,
        "open_predicates": extractor.open_predicates,
        "thresholds": extractor.thresholds,
        "max_length": extractor.max_length,
    }
    if extractor.vocabulary is not None:
        extractor.vocabulary.save(directory / "vocabulary.json")
    if extractor.tokenizer is not None:
        extractor.tokenizer.save(directory)
    if extractor.prior is not None:
        entries = [[*pair, counts] for pair, counts in extractor.prior.counts.items()]
        write_atomically(directory / "prior.json", (json.dumps(entries, ensure_ascii=False) + "\n").encode())
    write_atomically(directory / settings.FILE, (json.dumps(written, indent=1, ensure_ascii=False) + "\n").encode())


def load(directory: Path) -> Extractor:
    """Reads what ``save`` wrote.

    Raises:
      DataError: if a file is missing, or they do not belong together.
    """
    try:
        checkpoints.check(directory / "weights.safetensors")
        arrays = load_file(directory / "weights.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        hint = checkpoints.model_within(directory)
        raise DataError(f"{directory} has no extractor{hint}: {error}") from error
    found, shapes = sized(directory, sum(array.size for array in arrays.values()), len(arrays))
    sizes = found.sizes
    wanted, names = flat_shapes(shapes), {name: value.shape for name, value in arrays.items()}
    if wanted != names:
        wrong = sorted(name for name in wanted | names if wanted.get(name) != names.get(name))
        raise DataError(
            f"{directory}: weights.safetensors does not fit extractor.json: {', '.join(wrong)}; the command that"
            " trained the model writes both again"
        )
    leaves, structure = jax.tree_util.tree_flatten(shapes)
    parameters = jax.tree_util.tree_unflatten(structure, [jnp.asarray(arrays[name]) for name in wanted])
    del leaves
    prior = read_prior(directory / "prior.json") if sizes.options.prior else None
    return Extractor(
        sizes,
        parameters,
        found.predicates,
        *readers(directory, sizes),
        prior,
        found.open_predicates,
        found.thresholds,
        found.max_length,
    )


def sized(directory: Path, num_numbers: int, num_arrays: int) -> tuple[settings.Settings, Any]:
    """The settings of so many weights, and the shapes of these."""
    found = settings.read(directory, Sizes, num_numbers, num_arrays)
    try:
        return found, jax.eval_shape(lambda: initial(jax.random.key(0), found.sizes))
    except (ValueError, TypeError, ArithmeticError) as error:
        raise DataError(f"{directory}: no weights have the sizes of extractor.json: {str(error)[:300]}") from error


def read_prior(path: Path) -> Table:
    """How often the texts of training had each triple."""
    try:
        counts = {
            (str(subject), str(thing)): {str(name): int(count) for name, count in found.items()}
            for subject, thing, found in json.loads(path.read_text(encoding="utf-8"))
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise DataError(f"{path}: no counts of triples: {str(error)[:300]}") from error
    return Table(counts, frozenset(name for pair in counts for name in pair))


def readers(directory: Path, sizes: Sizes) -> tuple[Vocabulary | None, tokens.Tokenizer | None]:
    """The vocabulary and the tokenizer that the encoder needs, of a saved model."""
    vocabulary = tokenizer = None
    if sizes.encoder != "bert":
        vocabulary = Vocabulary.load(directory / "vocabulary.json")
        for name, size, rows in (
            ("units", len(vocabulary.units), sizes.num_units),
            ("words", len(vocabulary.words), sizes.num_words),
        ):
            if size + 2 != rows:
                raise DataError(f"{directory}: vocabulary.json has {size} {name}; the weights are for {rows - 2}")
    if sizes.pretrained is not None:
        tokenizer = tokens.load(directory)
        if tokenizer.size > sizes.pretrained.vocabulary_size:
            raise DataError(
                f"{directory}: the tokenizer has {tokenizer.size} tokens; the weights"
                f" {sizes.pretrained.vocabulary_size}"
            )
    return vocabulary, tokenizer


def flat_shapes(shapes: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by path, in the order of the leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape for path, leaf in leaves}
