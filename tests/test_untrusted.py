"""Files from anywhere: what reads them, and what nobody may use to read them.

The laws were tried against violations: those of the list here, and readers that are wrong in each of the four ways.
"""

import ast
import bz2
import pickle
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks import fuzz
from benchmarks.damaged_files import KINDS
from experiments.bert import data as texts
from experiments.bert import weights
from experiments.information_extraction import data
from experiments.onlstm import corpus

ROOT = Path(__file__).parents[1]
FILES = [
    path for name in ("jaxlab", "experiments", "benchmarks", "tests") for path in sorted((ROOT / name).rglob("*.py"))
]
# They run what a file or a string says, or load a module that does.
CALLS = {"eval", "exec", "compile", "__import__", "unpack_archive", "literal_eval", "system", "popen", "mktemp"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "jsonpickle", "xmlrpc"}


def dangers(source: str) -> list[str]:
    """The calls and imports in a program that could run what a file says, each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"{node.lineno}: import {name}" for name in names if name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.Call):
            plain = node.func.id if isinstance(node.func, ast.Name) else ""
            attribute = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            owner = node.func.value.id if attribute and isinstance(node.func.value, ast.Name) else ""
            options = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            wrong = (
                plain in CALLS
                or (attribute in CALLS and owner in ("os", "shutil", "ast", "builtins", "tempfile", "importlib"))
                or options.get("shell") not in (None, False)
                or options.get("allow_pickle") not in (None, False)
                or (attribute == "extractall" and options.get("filter") != "data")
                or (owner == "torch" and attribute == "load")
            )
            if wrong:
                found.append(f"{node.lineno}: {plain or attribute}")
    return found


PLANTED = {
    "eval": "eval('1')",
    "exec": "exec(text)",
    "pickle": "import pickle",
    "a part of pickle": "from pickle import loads",
    "yaml": "import yaml\nyaml.load(text)",
    "a shell": "import subprocess\nsubprocess.run(command, shell=True)",
    "os.system": "import os\nos.system(command)",
    "NumPy's pickles": "import numpy as np\nnp.load(path, allow_pickle=True)",
    "an archive that may leave its directory": "archive.extractall(directory)",
    "torch's pickles": "import torch\ntorch.load(path)",
}


@pytest.mark.parametrize("program", PLANTED.values(), ids=PLANTED)
def test_dangers_are_seen(program):
    assert dangers(program)


# This file makes pickles, to see them refused.
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_of_ours_runs_what_a_file_says(path):
    allowed = {"import pickle", "save"} if path == Path(__file__) else set()
    assert [found for found in dangers(path.read_text()) if found.partition(": ")[2] not in allowed] == []


class Evil:
    """What a pickle of it does when it is read is to make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pickle_is_refused_and_not_run(tmp_path, name):
    (tmp_path / "config.json").write_bytes(next(kind for kind in KINDS if kind.name == "BERT's sizes").content())
    (tmp_path / name).write_bytes(pickle.dumps(Evil(tmp_path / "run")))
    message = (
        r"model\.safetensors: Error" if name == "model.safetensors" else r"pytorch_model\.bin.*save it as safetensors"
    )
    with pytest.raises(weights.CheckpointError, match=message):
        weights.load(tmp_path)
    assert not (tmp_path / "run").exists()


def test_arrays_that_are_pickles_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([Evil(tmp_path / "run")], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        np.load(tmp_path / "a.npy")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "sub/a.safetensors"])
def test_parts_of_a_checkpoint_lie_beside_their_list(tmp_path, name):
    (tmp_path / "sub").mkdir()
    for place in (tmp_path, tmp_path / "sub"):
        save_file({"x": np.zeros(1, np.float32)}, place / "a.safetensors")
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_bytes(next(kind for kind in KINDS if kind.name == "BERT's sizes").content())
    (directory / "model.safetensors.index.json").write_text(f'{{"weight_map": {{"x": "{name}"}}}}')
    with pytest.raises(weights.CheckpointError, match="has no file"):
        weights.load(directory)


def test_reviews_that_are_small_only_when_compressed_are_refused(tmp_path):
    """Planted and found: ``bz2.decompress``, whose result is as large as somebody wants."""
    path = tmp_path / "reviews.csv.bz2"
    path.write_bytes(bz2.compress(b"movie_name,category,text\n" + bytes(2**24)))
    tracemalloc.start()
    with pytest.raises(texts.DataError, match=r"reviews\.csv\.bz2: .*more than \d+ bytes when decompressed"):
        texts.reviews(path, 0)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["../a", "/tmp/a", "a\0", "x" * 300])
def test_a_treebank_names_only_files_beside_its_splits(tmp_path, name):
    (tmp_path / "a.ptb").write_text("( (S (NN cat)) )\n")
    directory = tmp_path / "gum"
    directory.mkdir()
    (directory / "splits.md").write_text(f"## train\n* {name}\n## dev\n* {name}\n## test\n* {name}\n")
    with pytest.raises(ValueError, match=r"splits\.md, line 2: .* is no name of a file of a split"):
        corpus.read_splits(directory)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_damaged_files_give_data_or_a_documented_error(kind, tmp_path):
    """Ten thousand of each kind: ``python -m benchmarks.fuzz``."""
    counts, lost = fuzz.tried(kind, tmp_path, range(40))
    assert lost == []
    assert counts.total() == 40


def lost_of(tmp_path, read, **options):
    kind = next(kind for kind in KINDS if kind.name == "sentences")
    return fuzz.tried(fuzz.Kind("planted", "a.txt", kind.content, read, (ValueError,), **options), tmp_path, range(3))[
        1
    ]


def test_what_is_lost_is_seen(tmp_path, monkeypatch):
    """An error that is not documented, one that does not name the file, too much memory, and no end."""
    begun = []

    def first_right(wrong):
        begun.clear()
        return lambda path: wrong(path) if begun else begun.append(path)

    def undocumented(path):
        raise KeyError(path)

    def nameless(path):
        raise ValueError("it is wrong")

    def endless(path):
        while True:
            pass

    assert len(lost_of(tmp_path, first_right(undocumented))) == 3
    assert len(lost_of(tmp_path, first_right(nameless))) == 3
    assert len(lost_of(tmp_path, first_right(lambda path: [0] * 2**20))) == 3
    monkeypatch.setattr(fuzz, "SECONDS", 0.05)
    assert len(lost_of(tmp_path, first_right(endless))) == 3


def test_nearest_places_of_a_text_that_repeats_itself():
    """The same as of all pairs, of which there are too many to look at."""
    source = random.Random(0)
    for _ in range(300):
        sizes = source.sample((1, 2, 3), 2)
        first, second = ([(at, at + n) for at in sorted(source.sample(range(12), source.randrange(6)))] for n in sizes)
        second = source.choice((first, second))
        pairs = [(a, b) for a in first for b in second if a != b] or [(a, b) for a in first for b in second]
        expected = min(pairs, key=lambda pair: (abs(pair[0][0] - pair[1][0]), pair), default=None)
        assert data.nearest(first, second) == expected
    example = data.Example(1, "ab" * 20_000, (("a", "of", "b"), ("a", "of", "a")), ())
    found, lost = data.located(example, range(40_001), range(40_001))
    assert [(mention.subject, mention.object) for mention in found] == [((0, 1), (1, 2)), ((0, 1), (2, 3))]
    assert lost == []
