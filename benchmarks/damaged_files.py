"""The kinds of file that the experiments read, and one that is right of each; ``damage`` makes them wrong."""

import bz2
import contextlib
import dataclasses
import functools
import gzip
import io
import json
import random
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from benchmarks.damage import Damage, Kind, changed, json_inside
from experiments import images
from experiments.bert import bundle, tokens, weights
from experiments.bert import data as texts
from experiments.bert.model import Config
from experiments.information_extraction import data as triples
from experiments.information_extraction import model as extraction
from experiments.information_extraction import settings, units
from experiments.information_extraction.pointer import Options
from experiments.onlstm import corpus, logic_data


def safetensors_inside(damage: Damage, source: random.Random) -> bytes:
    """Another list of tensors before their bytes, its length right; or other bytes."""
    content = tensors()
    size = struct.unpack("<Q", content[:8])[0]
    if source.random() < 0.2:
        return content[: 8 + size] + damage(content[8 + size :])
    header = json.dumps(changed(json.loads(content[8 : 8 + size]), source)).encode()
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def idx() -> bytes:
    """Five images of 4 x 3."""
    return bytes([0, 0, 8, 3]) + struct.pack(">3I", 5, 4, 3) + bytes(range(60))


#: Sizes of a BERT of one layer.
SIZES = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 6}
SIZES |= {"max_position_embeddings": 5}


def tensors() -> bytes:
    """Its weights by the names of Hugging Face, all of one number."""
    sizes = Config(9, 4, 1, 2, 6, 5)
    places = weights.wanted(sizes, set())
    shapes = {name: weights.shape_of(place, sizes, 0) for name, place in places.items()}
    return save(
        {name: np.full(shapes[name][:: -1 if places[name].transposed else 1], 0.5, np.float32) for name in shapes}
    )


def encode(record: Any) -> bytes:
    """A line of JSON."""
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


@functools.cache
def checkpoint() -> dict[str, bytes]:
    """The files of three tensors as TensorFlow writes them."""
    with tempfile.TemporaryDirectory() as directory:
        three = np.arange(6, dtype=np.float32).reshape(2, 3)
        bundle.write(Path(directory) / "model.ckpt", {"bias": three[0], "kernel": three, "step": three[:0]})
        return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def index_inside(damage: Damage, source: random.Random) -> bytes:
    """The index with damage to one of its blocks or entries, and the right checksums."""
    items = [*bundle.table_items(checkpoint()["model.ckpt.index"])]
    which = source.randrange(len(items))
    if source.random() < 0.6:
        items[which] = items[which][0], damage(items[which][1])
        which = -1
    blocks = [bundle.write_block([item]) for item in items]
    content, places = b"", []
    for number, ((key, _), body) in enumerate(zip(items, blocks, strict=True)):
        content, place = bundle.append_block(content, damage(body) if number == which else body)
        places.append((key, place))
    content, empty = bundle.append_block(content, bundle.write_block([]))
    content, index = bundle.append_block(content, bundle.write_block(places))
    return content + (empty + index).ljust(bundle.FOOTER - 8, b"\0") + struct.pack("<Q", bundle.MAGIC)


def read_bundle(path: Path) -> list[np.ndarray]:
    """All tensors of a checkpoint."""
    found = bundle.Bundle(path.parent / "model.ckpt")
    return [found.read(name) for name in found.entries]


@functools.cache
def tokenizer() -> bytes:
    """A file of the package ``tokenizers``."""
    with tempfile.TemporaryDirectory() as directory:
        tokens.from_texts([TEXT], Path("texts")).save(Path(directory))
        return (Path(directory) / "tokenizer.json").read_bytes()


def read_tokenizer(path: Path) -> Any:
    """The tokens of a text."""
    found = tokens.load(path.parent)
    return found.size, found.encode(TEXT, max_length=8)


def read_triples(path: Path) -> Any:
    """Examples with their triples at their places."""
    examples, problems = triples.read(path)
    every = [range(len(example.text) + 1) for example in examples]
    return [triples.located(example, places, places) for example, places in zip(examples, every, strict=True)], problems


def read_trees(path: Path) -> Any:
    """The sentences of a treebank; what it prints about those left out is rendered, but not seen."""
    with contextlib.redirect_stdout(io.StringIO()):
        return corpus.read_treebank([path])


def read_settings(path: Path) -> Any:
    """What an extractor's file says; the shapes of its weights, which JAX takes a MiB to find, are left out."""
    return settings.read(path.parent, extraction.Sizes, 10**6, 40)


def read_splits(path: Path) -> Any:
    """The files of the splits."""
    return corpus.read_splits(path.parent)


EXTRACTOR = {
    "sizes": dataclasses.asdict(extraction.Sizes(2, "bert", pretrained=Config(9, 4, 1, 2, 6, 5))),
    "predicates": ["of", "in"],
    "open_predicates": False,
    "thresholds": [0.5, 0.5],
    "max_length": 5,
}
EXTRACTOR["sizes"]["options"] = Options()._asdict()
PRIOR = [["cat", "dog", {"of": 1}], ["cat", "the", {"in": 2, "of": 1}]]
SPLITS = b"# Splits\n\n## train\n  * a\n  * b\n## dev\n  * a\n## test\n  * b\n"
REVIEWS = "movie_name,category,text\n" + "".join(
    f'film {number % 4},{"fresh" if number % 2 else "rotten"},"It is {number}, and fine"\n' for number in range(12)
)
PAIRS = b"=\ta\t( a ( and a ) )\n<\t( not b )\t( c ( or ( not b ) ) )\n#\t( a ( or d ) )\te\n"
TREES = b"""( (S (NP (DT The) (NN cat)) (VP (VBD sat)) (. .)) )

(S (NP-SBJ (-NONE- *)) (VP (VB Go) (ADVP (RB 12))))
"""
TEXT = "the cat of the dog is fine"
LABELLED = {"text": TEXT, "label": "praise"}, {"text": TEXT, "second": "no", "label": 0}
TABS = b"text\tlabel\nfine\tyes\nawful\tno\n"
WORDS = {"tokens": ["the", "cat"], "labels": ["O", "animal"]}
SPANS = {"text": TEXT, "spans": [[4, 7, "animal"], [15, 18, "animal"]]}
SPO = {"subject": "cat", "predicate": "of", "object": "dog"}
RECORDS = [
    {"text": TEXT, "spo_list": [SPO], "postag": [{"word": "the", "pos": "d"}, {"word": "cat", "pos": "n"}]},
    {"text": TEXT, "spo_list": [SPO | {"object": {"@value": "dog", "place": "the"}}]},
    {"text": TEXT, "triple_list": [["cat", "of", "dog"]]},
    {"tokens": TEXT.split(), "spo_details": [[1, 2, "A", "of", 4, 5, "A"]], "spo_list": [SPO]},
]
COLUMNS = b"""#doc 1
0\tKim\tB-Peop\t['Work_For', 'Live_In']\t[2, 4]
1\tat\tO\t['N']\t[1]
2\tAcme\tB-Org\t['N']\t[2]
3\tin\tO\t['N']\t[3]
4\tLos\tB-Loc\t['N']\t[4]
5\tAngeles\tI-Loc\t['N']\t[5]
"""
VOCABULARY = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "##s", "中", ""]).encode()


def lines_of(task: str) -> Callable[[Path], Any]:
    """What reads the texts of a task."""
    return lambda path: texts.read(path, task)


def json_lines(name: str, read: Callable[[Path], Any], error: type[Exception], *records: Any) -> Kind:
    """A kind of file whose lines are JSON."""
    return Kind(name, "a.jsonl", lambda: b"".join(map(encode, records)), read, (error,), inside=json_inside(*records))


def json_file(name: str, read: Callable[[Path], Any], record: Any) -> Kind:
    """A kind of file of an extractor that is one value of JSON."""
    return Kind(name, name, lambda: encode(record), read, (triples.DataError,), inside=json_inside(record))


KINDS = (
    Kind("idx", "images-idx3-ubyte", idx, lambda path: images.read_idx(path, 3), (images.DataError,)),
    Kind(
        "idx, compressed",
        "images-idx3-ubyte.gz",
        lambda: gzip.compress(idx(), mtime=0),
        lambda path: images.read_idx(path, 3),
        (images.DataError,),
        inside=lambda damage, _: gzip.compress(damage(idx()), mtime=0),
    ),
    Kind(
        "CIFAR-10",
        "test_batch.bin",
        lambda: bytes(number % 10 for number in range(2 * images.CIFAR10_ROW)),
        lambda path: images.read_cifar10(path.parent, "test"),
        (images.DataError,),
    ),
    Kind(
        "safetensors",
        "model.safetensors",
        tensors,
        lambda path: weights.load(path.parent),
        (weights.CheckpointError,),
        lambda: {"config.json": encode(SIZES)},
        safetensors_inside,
    ),
    Kind(
        "safetensors in parts",
        "model.safetensors.index.json",
        lambda: encode({"metadata": {}, "weight_map": {"pooler.dense.bias": "model.safetensors"}}),
        lambda path: weights.load(path.parent),
        (weights.CheckpointError,),
        lambda: {"config.json": encode(SIZES), "model.safetensors": tensors()},
        json_inside({"metadata": {}, "weight_map": {"pooler.dense.bias": "model.safetensors"}}),
    ),
    Kind(
        "BERT's sizes",
        "config.json",
        lambda: encode(SIZES),
        lambda path: weights.load_config(path.parent),
        (weights.CheckpointError,),
        inside=json_inside(SIZES),
    ),
    Kind(
        "TensorFlow's index",
        "model.ckpt.index",
        lambda: checkpoint()["model.ckpt.index"],
        read_bundle,
        (weights.CheckpointError,),
        checkpoint,
        index_inside,
    ),
    Kind(
        "TensorFlow's data",
        "model.ckpt.data-00000-of-00001",
        lambda: checkpoint()["model.ckpt.data-00000-of-00001"],
        read_bundle,
        (weights.CheckpointError,),
        checkpoint,
    ),
    Kind("vocab.txt", "vocab.txt", lambda: VOCABULARY, tokens.from_vocabulary, (tokens.TokenError,)),
    Kind(
        "tokenizer.json",
        "tokenizer.json",
        tokenizer,
        read_tokenizer,
        (tokens.TokenError,),
        inside=lambda damage, source: json_inside(json.loads(tokenizer()))(damage, source),
    ),
    json_lines("units", units.Vocabulary.load, triples.DataError, {"units": ["the", "cat"], "words": ["cat"]}),
    json_lines("texts", lines_of("classification"), texts.DataError, *LABELLED),
    json_lines("words", lines_of("tokens"), texts.DataError, WORDS, WORDS),
    json_lines("spans", lines_of("spans"), texts.DataError, SPANS, SPANS),
    Kind("texts with tabs", "a.tsv", lambda: TABS, lines_of("classification"), (texts.DataError,)),
    json_lines("triples", read_triples, triples.DataError, *RECORDS),
    json_lines("triples in one array", read_triples, triples.DataError, RECORDS),
    json_lines("open triples", read_triples, triples.DataError, {TEXT: [["cat", "of", "dog"]]}),
    Kind("CoNLL04", "a.txt", lambda: COLUMNS, read_triples, (triples.DataError,)),
    Kind("treebank", "a.ptb", lambda: TREES, read_trees, (ValueError,)),
    Kind(
        "splits of a treebank",
        "splits.md",
        lambda: SPLITS,
        read_splits,
        (ValueError,),
        lambda: {"a.ptb": TREES, "b.mrg": TREES},
    ),
    Kind(
        "reviews",
        "reviews.csv.bz2",
        lambda: bz2.compress(REVIEWS.encode()),
        lambda path: texts.reviews(path, 0),
        (texts.DataError,),
        inside=lambda damage, _: bz2.compress(damage(REVIEWS.encode())),
    ),
    json_file("extractor.json", read_settings, EXTRACTOR),
    json_file("prior.json", extraction.read_prior, PRIOR),
    Kind("sentences", "a.txt", lambda: b"the cat\nsat\n", lambda path: corpus.read_text(path, False), (ValueError,)),
    Kind("formulas", "train0", lambda: PAIRS, lambda path: logic_data.encode(logic_data.read(path)), (ValueError,)),
)
