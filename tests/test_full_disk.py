"""A disk that is full or read-only says so: nothing that was there is lost, no half file is left, and nothing hangs.

The disks are real: file systems of their own, of a few MiB, which are mounted for a test; where this user may not mount
one, the tests are skipped and say so. Planted and found: ``Path.write_text`` in a writer, a temporary file left,
directories of checkpoints made in the background, for which other threads wait.
"""

import ast
import asyncio
import concurrent.futures
import contextlib
import dataclasses
import gc
import hashlib
import io
import itertools
import json
import os
import runpy
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmarks import stress
from experiments import downloads, files, runs
from experiments.bert import model as bert
from experiments.bert import tokens, weights
from experiments.checkpoints import damage_of
from experiments.files import RunError, errors_told
from experiments.information_extraction import model, pointer, predict
from experiments.information_extraction.data import Example
from experiments.information_extraction.prior import Table
from experiments.information_extraction.units import Vocabulary
from experiments.runs import Run

ROOT = Path(__file__).parent.parent
PAGE = os.sysconf("SC_PAGE_SIZE")
FULL, READ_ONLY = "the disk is full", "it lies on a file system that is read-only"


@contextlib.contextmanager
def mounted(place, options):
    """A file system in memory at a directory."""
    try:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", os.fspath(place)]
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {getattr(error, 'stderr', None) or error}")
    try:
        yield place
    finally:
        # At once, and for good as soon as no file of it is open any more.
        subprocess.run(["umount", "--lazy", os.fspath(place)], check=True)


@pytest.fixture
def disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    with mounted(place, "size=4m,nr_inodes=200"):
        yield place


@contextlib.contextmanager
def read_only(disk):
    subprocess.run(["mount", "-o", "remount,ro", os.fspath(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", os.fspath(disk)], check=True)


@contextlib.contextmanager
def full(disk, pages=0, inodes=None):
    """Fills the disk up to so many free pages, or free names of files."""
    ballast = disk / "ballast"
    if inodes is None:
        found = os.statvfs(disk)
        ballast.write_bytes(bytes(found.f_bavail * found.f_frsize - pages * PAGE))
    else:
        ballast.mkdir()
        for number in range(os.statvfs(disk).f_ffree - inodes):
            (ballast / str(number)).touch()
    try:
        yield
    finally:
        shutil.rmtree(ballast) if ballast.is_dir() else ballast.unlink()


def contents(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


# Each writes something that depends on a number below a directory.
def results(directory, number):
    files.write_json(directory / "results.json", {"loss": number})


def figure(directory, number):
    drawn = Figure()
    drawn.subplots().plot([number, 1])
    files.save_figure(directory / "figure.png", drawn)


def tokenizer(number):
    return tokens.from_texts(["the cat sat", str(number)], Path("texts"))


def vocabulary(directory, number):
    tokenizer(number).save(directory)


def bert_weights(directory, number):
    sizes = bert.Config(vocabulary_size=7, hidden_dim=4, num_layers=1, num_heads=1, mlp_dim=4, num_positions=512)
    shapes = jax.eval_shape(lambda: bert.initial(jax.random.key(0), sizes))
    parameters = jax.tree.map(lambda shape: np.full(shape.shape, number, shape.dtype), shapes)
    weights.save(directory, sizes, parameters)


def extractor(directory, number):
    example = Example(1, "the cat sat", (("cat", "did", "sat"),), ())
    sizes = model.Sizes(1, "dgcnn", "pointer", pointer.Options())
    made = model.Extractor(
        sizes,
        {"arrays": np.full(2000, number, np.float32)},
        ("did",),
        Vocabulary.of([example]),
        tokenizer(number),
        Table.of([example.triples]),
        False,
        (number / 10, 0.5),
        16,
    )
    model.save(directory, made)


def predictions(directory, number):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "load", lambda _: None)
        patch.setattr(predict, "found_in", lambda *_: iter([{"line": 1, "triples": [number]}]))
        predict.predict(predict.Prediction(Path("model"), text=("a",), output=directory / "predictions.jsonl"))


def benchmark(directory, number):
    counts = stress.Counts(number, 0, 0, 0, 1, 1, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stress, "stress", lambda *_: counts)
        stress.main(stress.Settings(number, out=directory / "stress.json"))


class Response(io.BytesIO):
    def geturl(self):
        return "https://there"


def fetched(directory, number):
    content = bytes([number]) * 2 * PAGE
    digest = hashlib.sha256(content).hexdigest()
    downloads.download("https://there", digest, directory / "data", lambda *_, **__: Response(content))


WRITERS = [results, figure, vocabulary, bert_weights, extractor, predictions, benchmark, fetched]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_what_was_written_stays_whole_and_the_error_names_the_file(disk, write):
    """Without any room; with that for one page, in which a file is begun; without a name for a file; read-only."""
    directory = disk / "out"
    write(directory, 1)
    before = contents(disk)
    troubles = [
        (full(disk), FULL),
        (full(disk, pages=1), FULL),
        (full(disk, pages=8, inodes=0), FULL),
        (read_only(disk), READ_ONLY),
    ]
    # A page is enough for what is small.
    small = write in (results, vocabulary, predictions, benchmark)
    for trouble, reason in troubles[:1] + troubles[1 + small :]:
        with trouble:
            with pytest.raises(RunError, match=reason) as error:
                write(directory, 2)
            assert os.fspath(directory) in str(error.value)
            assert {path: found for path, found in contents(disk).items() if "ballast" not in path.parts} == before
            with pytest.raises(RunError, match=reason) as error:
                write(disk / "new", 2)
            assert os.fspath(disk / "new") in str(error.value)
            assert not list(disk.glob("new/*"))
    write(directory, 2)
    after = contents(disk)
    assert list(after) == list(before)
    assert after != before


def others():
    """The threads that keep a process from ending; those of executors do not, unless they are at work."""
    idle = concurrent.futures.thread._threads_queues
    return {thread for thread in threading.enumerate() if not thread.daemon and thread not in idle}


@contextlib.contextmanager
def no_thread_left():
    before, end = others(), time.monotonic() + 20
    yield
    while (left := others() - before) and time.monotonic() < end:
        time.sleep(0.01)
    assert not left


def assert_whole(directory):
    """What stands in the directory of a run under a name to be read is whole."""
    for checkpoint in (directory / "checkpoints").glob("*"):
        assert not checkpoint.name.isdigit() or damage_of(checkpoint) is None
    if (directory / "config.json").exists():
        json.loads((directory / "config.json").read_text())
    runs.read_metrics(directory)


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: float = 0.1


def trained(directory, num_steps, in_between=contextlib.nullcontext):
    """A state and where it was gone on from."""

    def state_at(step):
        return {"weights": np.arange(3000.0) + step, "step": step}

    with Run(directory, Settings()) as run:
        first, state = run.restore(state_at(0))
        assert first == 0 or state["weights"][0] == first
        with in_between():
            for step in range(first + 1, num_steps + 1):
                run.log(step, loss=1 / step)
                run.save(step, state_at(step))
    return first


@pytest.mark.parametrize("room", ["pages", "inodes"])
def test_a_run_goes_on_from_where_the_disk_was_full(disk, room):
    """The less room, the earlier the file that cannot be written: from config.json to the last of a checkpoint."""
    directory = disk / "run"
    for number in itertools.count(0, 3):
        trained(directory, 2)
        with full(disk, **{room: number}), no_thread_left():
            try:
                trained(directory, 4)
            except RunError as error:
                reason = str(error)
            else:
                break
            assert FULL in reason
            assert os.fspath(directory) in reason
            assert_whole(directory)
        assert trained(directory, 4) in (2, 3)
        assert trained(directory, 4) == 4
        assert [line["step"] for line in runs.read_metrics(directory)] == [1, 2, 3, 4]
        assert [path for path in directory.rglob("*") if "tmp" in path.name or path.name.startswith(".")] == []
        shutil.rmtree(directory)
    assert number > 10


def test_a_run_goes_on_from_where_the_disk_became_read_only(disk):
    trained(disk / "run", 2)
    with read_only(disk):
        for directory in (disk / "run", disk / "new"):
            with no_thread_left(), pytest.raises(RunError, match=READ_ONLY) as error:
                trained(directory, 4)
            assert os.fspath(directory) in str(error.value)
    # As it trains: files that are open keep their own disk, not the place of the next checkpoint.
    with no_thread_left(), pytest.raises(RunError, match=READ_ONLY):
        trained(disk / "run", 4, lambda: mounted(disk / "run" / "checkpoints", "ro"))
    assert_whole(disk / "run")
    assert trained(disk / "run", 4) == 2


def test_an_experiment_ends_with_the_reason_and_goes_on(disk):
    """As a user meets it: one message, no thread that keeps the process, and the same command once there is room."""
    settings = {"encoders": "lstm", "seeds": 0, "rounds": 1, "config.num-draws": 900, "config.embedding-dim": 4}
    settings |= {"config.hidden-dim": 8, "config.chunk-size": 4, "config.batch-size": 64, "config.save-every": 2}
    command = [sys.executable, "-m", "experiments.onlstm.listops", "--out", os.fspath(disk / "run")]
    command += [f"--{name}={value}" for name, value in settings.items()]

    def run():
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        return found.returncode, found.stderr

    # The names of one checkpoint and of a part of the next.
    subprocess.run(["mount", "-o", "remount,nr_inodes=60", os.fspath(disk)], check=True)
    code, said = run()
    assert code == 1
    last = said.splitlines()[-1]
    assert last.startswith(f"{disk / 'run' / 'lstm-0'}: {FULL}. The checkpoints that are there are whole")
    assert "Traceback" not in said
    assert_whole(disk / "run" / "lstm-0")
    steps = [int(path.name) for path in (disk / "run/lstm-0/checkpoints").iterdir() if path.name.isdigit()]
    assert steps
    subprocess.run(["mount", "-o", "remount,nr_inodes=300", os.fspath(disk)], check=True)
    assert run()[0] == 0
    assert json.loads((disk / "run/listops-1-epochs.json").read_text())["runs"][0]["accuracy"]
    assert (disk / "run/listops-1-epochs.png").read_bytes().startswith(b"\x89PNG")


WRITING = {"write_text", "write_bytes", "savefig", "save_file", "savez", "tofile", "dump"}
#: Into memory, into a file that gets its name when it is whole, to be damaged, or into a file of the kernel's.
ALLOWED = {
    "benchmarks/damage.py": {"write_bytes"},
    "benchmarks/fuzz.py": {"write_bytes", "write_text"},
    "benchmarks/speed_quantize.py": {"write_text"},
    "experiments/bert/bundle.py": {"open"},
    "experiments/bert/weights.py": {"save_file"},
    "experiments/devices.py": {"open"},
    "experiments/files.py": {"savefig"},
    "experiments/information_extraction/model.py": {"save_file"},
    "experiments/runs.py": {"open", "dump"},
}


def writing(source):
    """The names of calls that write a file."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            values = [
                part.value for part in (*node.args, *node.keywords) if isinstance(part, ast.Constant | ast.keyword)
            ]
            modes = [getattr(value, "value", value) for value in values]
            to_write = any(isinstance(mode, str) and set("wax") & set(mode) for mode in modes)
            if name in WRITING or (name == "open" and to_write):
                found.add(name)
    return found


@pytest.mark.parametrize("package", ["experiments", "benchmarks"])
def test_files_are_written_in_one_way(package):
    for planted in ("path.write_text(text)", "open(path, 'w')", "path.open(mode='ab')", "figure.savefig(path)"):
        assert writing(planted)
    assert not writing("path.open('rb'), open(path), path.read_text()")
    for path in sorted((ROOT / package).rglob("*.py")):
        assert writing(path.read_text()) <= ALLOWED.get(path.relative_to(ROOT).as_posix(), set()), path


class Part:
    """Ends as that of a checkpoint does: nobody can catch what it raises."""

    def __init__(self, error):
        self.error = error

    def __del__(self):
        raise self.error


def test_parts_that_end_after_the_first_that_failed_say_nothing_and_other_errors_do(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: shown.append(unraisable.exc_value))
    other = RuntimeError("Event loop is open")
    with errors_told():
        Part(RuntimeError("Event loop is closed"))
        Part(other)
    assert shown == [other]
    last = RuntimeError("Event loop is closed")
    Part(last)
    assert shown == [other, last]


@pytest.mark.parametrize("library", ["orbax", "other"])
def test_errors_of_parts_for_which_nobody_waits_are_logged_unless_they_are_orbaxs(library, tmp_path, caplog):
    store = tmp_path / library / "store.py"
    store.parent.mkdir()
    store.write_text("async def write():\n    raise OSError\n")
    write = runpy.run_path(os.fspath(store))["write"]

    async def save():
        part = asyncio.ensure_future(write())
        await asyncio.sleep(0.01)
        assert part.done()

    asyncio.run(save())
    gc.collect()
    assert [record.exc_info[0] for record in caplog.records] == [OSError] * (library == "other")
