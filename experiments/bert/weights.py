"""Weights from and to the files of other libraries.

    config, parameters = load(directory)      # Hugging Face: config.json, model.safetensors
    config, parameters = load(directory)      # Google: bert_config.json, *.ckpt.index, *.ckpt.data-00000-of-00001
    save(directory, config, parameters)       # Hugging Face's again
    save_google(directory, config, parameters)

Every tensor must have a place and every place a tensor: what is missing, left over or of another shape is named in one
error. Tensors that are no weights of this model (numbers of positions, the optimizer's moments, the head for the next
sentence) are left out; the product with the table of words may be stored, if it is the same table.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from experiments import checkpoints
from experiments.bert import bundle
from experiments.bert.bundle import Bundle, CheckpointError
from experiments.bert.model import Config, Encoder, Layer, Linear, MaskedHead, Norm, Parameters, parts
from experiments.files import write_atomically

#: The name of each part of a layer in Hugging Face's files.
LAYER_NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}
TABLES = ("words", "positions", "types")
TABLE_NAMES = {"words": "word", "positions": "position", "types": "token_type"}
#: RoBERTa's names of what BERT has, too.
ROBERTA_NAMES = {
    "lm_head.dense.": "cls.predictions.transform.dense.",
    "lm_head.layer_norm.": "cls.predictions.transform.LayerNorm.",
    "lm_head.decoder.": "cls.predictions.decoder.",
    "lm_head.bias": "cls.predictions.bias",
    "classifier.dense.": "pooler.dense.",
    "classifier.out_proj.": "classifier.",
}
MODEL_TYPES = {"bert": 0, "roberta": 1, "xlm-roberta": 1}
#: What Google's files do not say, for its model has no other.
GOOGLE_EPSILON = 1e-12
#: No weights of this model.
IGNORED = ("position_ids", "cls.seq_relationship", "global_step", ".adam_m", ".adam_v", "cls.predictions.decoder")


class Place(NamedTuple):
    """Where a tensor goes: the fields to it, the layer, and whether the file has it transposed."""

    path: tuple[str, ...]
    layer: int | None
    transposed: bool


class Source(NamedTuple):
    """Tensors of a file, by the names of this module: their shapes, and how to read one."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    transposed: bool
    """Whether matrices are stored with outputs first."""


def load(directory: Path, *, num_outputs: int | None = None) -> tuple[Config, Parameters]:
    """Sizes and weights of a model.

    Args:
      directory: of Hugging Face's files or Google's.
      num_outputs: of the task's head, where it is wanted to be checked; the head is None if the file has none.

    Raises:
      CheckpointError: if files are missing or damaged, or tensors are missing, left over or of another shape.
    """
    config = load_config(directory)
    source = google_source(directory) if (directory / "bert_config.json").is_file() else hugging_face_source(directory)
    return config, assemble(source, config, num_outputs)


def load_config(directory: Path) -> Config:
    """Sizes from ``config.json`` or ``bert_config.json``."""
    for name in ("bert_config.json", "config.json"):
        path = directory / name
        if path.is_file():
            break
    else:
        raise CheckpointError(f"{directory} has neither config.json nor bert_config.json")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kind = found.get("model_type", "bert")
        if kind not in MODEL_TYPES:
            raise CheckpointError(f"{path}: model_type must be one of {', '.join(MODEL_TYPES)}; got {kind!r}")
        if found.get("position_embedding_type", "absolute") != "absolute":
            raise CheckpointError(f"{path}: positions must be absolute; got {found['position_embedding_type']!r}")
        return Config(
            vocabulary_size=int(found["vocab_size"]),
            hidden_dim=int(found["hidden_size"]),
            num_layers=int(found["num_hidden_layers"]),
            num_heads=int(found["num_attention_heads"]),
            mlp_dim=int(found["intermediate_size"]),
            num_positions=int(found["max_position_embeddings"]),
            first_position=found.get("pad_token_id", 1) + 1 if MODEL_TYPES[kind] else 0,
            num_types=int(found.get("type_vocab_size", 2)),
            epsilon=float(found.get("layer_norm_eps", 1e-12)),
            activation=found.get("hidden_act", "gelu"),
            dropout=float(found.get("hidden_dropout_prob", 0.1)),
            attention_dropout=float(found.get("attention_probs_dropout_prob", 0.1)),
        )
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"{path} has no {error}") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def hugging_face_source(directory: Path) -> Source:
    """The tensors of ``model.safetensors``, or of the files that ``model.safetensors.index.json`` names."""
    index, path = directory / "model.safetensors.index.json", directory / "model.safetensors"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            outside = [name for name in names if Path(name).name != name or not (directory / name).is_file()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{index}: no list of files: {error}") from error
    else:
        names, outside = [path.name], [] if path.is_file() else [path.name]
    if outside:
        pickles = ", ".join(
            sorted(file.name for pattern in ("*.bin", "*.pt", "*.pkl") for file in directory.glob(pattern))
        )
        hint = (
            f" (it has {pickles}, which could run any program and is not read: save it as safetensors)"
            if pickles
            else ""
        )
        raise CheckpointError(f"{directory} has no file {outside[0][:80]}{hint}")
    places: dict[str, tuple[Path, str]] = {}
    shapes = {}
    for name in names:
        try:
            checkpoints.check(directory / name)
            with safe_open(directory / name, framework="flax") as file:
                for key in file.keys():  # noqa: SIM118 (it is no dictionary)
                    places[plain_name(key)] = directory / name, key
                    shapes[plain_name(key)] = tuple(file.get_slice(key).get_shape())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{directory / name}: {error}") from error
        except ValueError as error:
            raise CheckpointError(str(error)) from error

    def read(name: str) -> np.ndarray:
        path, key = places[name]
        with safe_open(path, framework="flax") as file:
            return np.asarray(file.get_tensor(key))

    return Source(index if index.is_file() else path, shapes, read, True)


def google_source(directory: Path) -> Source:
    """The tensors of the one checkpoint in a directory."""
    found = sorted(directory.glob("*.index"))
    if len(found) != 1:
        raise CheckpointError(f"{directory} must have one checkpoint (*.index); it has {len(found)}")
    checkpoint = Bundle(found[0].with_suffix(""))
    names = {google_name(name): name for name in checkpoint.entries}
    shapes = {plain: checkpoint.entries[name].shape for plain, name in names.items()}
    return Source(found[0], shapes, lambda name: checkpoint.read(names[name]), False)


def plain_name(name: str) -> str:
    """A tensor's name without the prefix, RoBERTa's as BERT's, and the parts of norms by their newer names."""
    for prefix in ("bert.", "roberta."):
        name = name.removeprefix(prefix)
    for theirs, ours in ROBERTA_NAMES.items():
        name = ours + name.removeprefix(theirs) if name.startswith(theirs) else name
    if name.endswith(("LayerNorm.gamma", "LayerNorm.beta")):
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return name


def google_name(name: str) -> str:
    """A name such as ``bert/encoder/layer_0/output/dense/kernel`` as Hugging Face has it."""
    name = name.replace("layer_", "layer.").replace("/", ".").replace(".kernel", ".weight")
    name = name.replace("cls.predictions.output_bias", "cls.predictions.bias")
    if name.endswith("_embeddings"):
        name += ".weight"
    return plain_name(name)


def wanted(config: Config, found: set[str]) -> dict[str, Place]:
    """The places of the encoder, and of the heads of which there is anything, by the names of the tensors."""
    places: dict[str, Place] = {}

    def linear(name: str, path: tuple[str, ...], layer: int | None = None) -> None:
        places[f"{name}.weight"] = Place((*path, "weight"), layer, True)
        places[f"{name}.bias"] = Place((*path, "bias"), layer, False)

    def norm(name: str, path: tuple[str, ...], layer: int | None = None) -> None:
        places[f"{name}.weight"] = Place((*path, "scale"), layer, False)
        places[f"{name}.bias"] = Place((*path, "offset"), layer, False)

    for table in TABLES:
        places[f"embeddings.{TABLE_NAMES[table]}_embeddings.weight"] = Place(("encoder", table), None, False)
    norm("embeddings.LayerNorm", ("encoder", "norm"))
    for layer in range(config.num_layers):
        for field, name in LAYER_NAMES.items():
            add = norm if field.endswith("norm") else linear
            add(f"encoder.layer.{layer}.{name}", ("encoder", "layers", field), layer)
    if any(name.startswith("pooler.") for name in found):
        linear("pooler.dense", ("pooler",))
    if any(name.startswith("cls.predictions.") for name in found):
        linear("cls.predictions.transform.dense", ("masked", "dense"))
        norm("cls.predictions.transform.LayerNorm", ("masked", "norm"))
        places["cls.predictions.bias"] = Place(("masked", "bias"), None, False)
    if any(name.startswith("classifier.") for name in found):
        linear("classifier", ("head",))
    return places


def shape_of(place: Place, config: Config, num_outputs: int) -> tuple[int, ...]:
    """The shape of a tensor in our order, without the axis of layers."""
    d, path = config.hidden_dim, place.path
    if path[-1] in TABLES:
        return {"words": config.vocabulary_size, "positions": config.num_positions, "types": config.num_types}[
            path[-1]
        ], d
    if path == ("masked", "bias"):
        return (config.vocabulary_size,)
    widths = {"up": (d, config.mlp_dim), "down": (config.mlp_dim, d), "head": (d, num_outputs)}
    width = widths.get(path[-2], (d, d))
    return width if path[-1] == "weight" else width[1:]


def assemble(source: Source, config: Config, num_outputs: int | None) -> Parameters:
    """The parameters, in float32, from the tensors of a file; see ``load``."""
    shapes = source.shapes
    places = wanted(config, set(shapes))
    classes = shapes.get("classifier.bias", (0,))
    num_outputs = num_outputs or (classes[0] if classes else 0)
    problems = []
    missing = sorted(set(places) - set(shapes))
    extra = sorted(name for name in set(shapes) - set(places) if not any(part in name for part in IGNORED))
    if missing:
        problems.append(f"missing: {', '.join(missing)}")
    if extra:
        problems.append(f"left over: {', '.join(extra)}")
    for name, place in places.items():
        shape = shape_of(place, config, num_outputs)
        stored = shape[::-1] if place.transposed and source.transposed else shape
        if name in shapes and shapes[name] != stored:
            problems.append(f"{name} has shape {list(shapes[name])}; allowed: {list(stored)}")
    if problems:
        raise CheckpointError(f"{source.path}: {'; '.join(problems)}")
    values: dict[tuple[str, ...], Any] = {}
    for name, place in places.items():
        tensor = np.asarray(source.read(name), np.float32)
        tensor = tensor.T if place.transposed and source.transposed else tensor
        if place.layer is None:
            values[place.path] = tensor
        else:
            values.setdefault(place.path, []).append(tensor)
    check_tied(source, values[("encoder", "words")], values.get(("masked", "bias")))
    return parameters_of({path: np.stack(v) if isinstance(v, list) else v for path, v in values.items()})


def check_tied(source: Source, words: np.ndarray, bias: np.ndarray | None) -> None:
    """Refuses a head for masked words that has a table or a bias of its own."""
    for name, expected in {"cls.predictions.decoder.weight": words, "cls.predictions.decoder.bias": bias}.items():
        if name in source.shapes and expected is not None:
            found = np.asarray(source.read(name), np.float32)
            if found.shape != expected.shape or not np.array_equal(found, expected):
                raise CheckpointError(f"{source.path}: {name} is not that of the encoder, with which it must be one")


def parameters_of(values: dict[tuple[str, ...], np.ndarray]) -> Parameters:
    """The pytree of arrays by path."""

    def build(kind: Any, *path: str) -> Any:
        return kind(*[jnp.asarray(values[(*path, field)]) for field in kind._fields])

    layers = {
        field: build(Norm if field.endswith("norm") else Linear, "encoder", "layers", field) for field in LAYER_NAMES
    }
    words, positions, types = (jnp.asarray(values[("encoder", table)]) for table in TABLES)
    encoder = Encoder(words, positions, types, build(Norm, "encoder", "norm"), Layer(**layers))
    heads = {name: build(Linear, name) for name in ("pooler", "head") if (name, "weight") in values}
    if ("masked", "bias") in values:
        dense, norm = build(Linear, "masked", "dense"), build(Norm, "masked", "norm")
        heads["masked"] = MaskedHead(dense, norm, jnp.asarray(values[("masked", "bias")]))
    return Parameters(encoder, **heads)


def named_arrays(parameters: Parameters) -> dict[tuple[str, ...], np.ndarray]:
    """The arrays by path: what ``parameters_of`` takes."""
    leaves = jax.tree_util.tree_leaves_with_path(parameters)
    return {tuple(key.name for key in path): np.asarray(leaf) for path, leaf in leaves}


def tensors_of(config: Config, parameters: Parameters, *, transposed: bool) -> dict[str, np.ndarray]:
    """The tensors of a file by Hugging Face's names without a prefix; ``transposed`` is outputs first."""
    values, tensors = named_arrays(parameters), {}
    found = {"pooler": "pooler.", "masked": "cls.predictions.", "head": "classifier."}
    heads = {name for field, name in found.items() if getattr(parameters, field) is not None}
    for name, place in wanted(config, heads).items():
        value = values[place.path] if place.layer is None else values[place.path][place.layer]
        tensors[name] = np.ascontiguousarray(value.T if place.transposed and transposed else value)
    return tensors


def described(config: Config) -> dict[str, Any]:
    """What ``config.json`` and ``bert_config.json`` say alike."""
    return {
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.hidden_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_dim,
        "max_position_embeddings": config.num_positions,
        "type_vocab_size": config.num_types,
        "hidden_act": config.activation,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
    }


def write_config(path: Path, content: dict[str, Any]) -> None:
    """Writes the sizes of a model."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def save(directory: Path, config: Config, parameters: Parameters) -> None:
    """Writes ``config.json`` and ``model.safetensors`` in float32, as Hugging Face's BERT or RoBERTa reads them."""
    roberta, has_head = config.first_position > 0, parameters.head is not None
    alone = not has_head and parameters.masked is None
    prefix = "" if alone else "roberta." if roberta else "bert."
    tensors = {
        saved_name(name, prefix, roberta and has_head): value
        for name, value in tensors_of(config, parameters, transposed=True).items()
    }
    kind = "Roberta" if roberta else "Bert"
    task = "Model" if alone else "ForSequenceClassification" if has_head else "ForMaskedLM"
    content = {"architectures": [kind + task], "model_type": kind.lower()} | described(config)
    content |= {"pad_token_id": config.first_position - 1 if roberta else 0, "layer_norm_eps": config.epsilon}
    if parameters.head is not None:
        content["num_labels"] = parameters.head.bias.shape[0]
    write_atomically(directory / "model.safetensors", lambda file: save_file(tensors, file, {"format": "pt"}))
    checkpoints.seal(directory / "model.safetensors")
    write_config(directory / "config.json", content)


def save_google(directory: Path, config: Config, parameters: Parameters) -> None:
    """Writes ``bert_config.json`` and ``bert_model.ckpt.*`` in float32, as Google's BERT reads them.

    Raises:
      ValueError: if the model is one that these files cannot hold: RoBERTa, another epsilon, or with a task's head.
    """
    if config.first_position or config.epsilon != GOOGLE_EPSILON or parameters.head is not None:
        raise ValueError(
            f"save_google: Google's files hold BERT with epsilon {GOOGLE_EPSILON} and without a task's head; got"
            f" first_position {config.first_position}, epsilon {config.epsilon} and {', '.join(parts(parameters))}"
        )
    tensors = tensors_of(config, parameters, transposed=False)
    bundle.write(directory / "bert_model.ckpt", {written_by_google(name): value for name, value in tensors.items()})
    write_config(directory / "bert_config.json", described(config))


def written_by_google(name: str) -> str:
    """A tensor's name in Google's files: the opposite of ``google_name``."""
    if name == "cls.predictions.bias":
        return "cls/predictions/output_bias"
    name = name if name.startswith("cls.") else f"bert.{name}"
    name = name.replace("layer.", "layer_").replace("LayerNorm.weight", "LayerNorm.gamma")
    name = name.replace("LayerNorm.bias", "LayerNorm.beta").replace("_embeddings.weight", "_embeddings")
    return name.replace(".weight", ".kernel").replace(".", "/")


def saved_name(name: str, prefix: str, roberta_classifier: bool) -> str:
    """A tensor's name in the file that is written: the opposite of ``plain_name``."""
    if prefix == "roberta.":
        for theirs, ours in ROBERTA_NAMES.items():
            belongs_to_classifier = theirs.startswith("classifier.")
            if name.startswith(ours) and belongs_to_classifier <= roberta_classifier:
                return theirs + name.removeprefix(ours)
    return name if name.startswith(("cls.", "classifier.")) else prefix + name
