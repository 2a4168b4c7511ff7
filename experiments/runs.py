"""A run: a directory that one command fills, and fills to the same bits however often it is killed and started again.

    directory/
      config.json      what the run was started with; another configuration is refused
      metrics.jsonl    one line a call of `log`, cut back on resuming to where the checkpoint was made
      events/          the same for TensorBoard
      checkpoints/     the last few, by orbax, each with the checksums of its files
      *.png            figures

    with Run(directory, config) as run:
        step, state = run.restore(initial_state)
        while step < config.num_steps:
            step, state = step + 1, train_step(state)
            run.log(step, loss=state.loss)
            if step % 1000 == 0:
                run.save(step, state)

The state must hold all that the next step depends on (its PRNG key, its place in the data), and only deterministic
values belong in the metrics: neither seconds nor dates.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

CONFIG = "config.json"
METRICS = "metrics.jsonl"
EVENTS = "events"
CHECKPOINTS = "checkpoints"
CHECKSUMS = "checksums.json"


class RunError(Exception):
    """A run that cannot go on as it is; the message says what to do."""


class Run:
    """A directory with the configuration, metrics and checkpoints of one run.

    Args:
      directory: made if it does not exist; one process (or one group of JAX processes) at a time may use it.
      config: a frozen dataclass of what can be written as JSON (a path is written as its name).
      keep: how many checkpoints stay.
      changeable: the fields of ``config`` that may differ when the run is started again, such as how long it is.

    Raises:
      RunError: if the directory belongs to another configuration, or another process is at work in it.
    """

    def __init__(self, directory: Path, config: Any, *, keep: int = 2, changeable: Collection[str] = ()):
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        #: Of several processes one writes; checkpoints are written by all, which orbax arranges.
        self.is_writer = jax.process_index() == 0
        self._lock = lock(self.directory) if self.is_writer else None
        self._metrics = None
        self._events: Any = None
        try:
            check_config(self.directory / CONFIG, config, changeable)
            if self.is_writer:
                write_atomically(self.directory / CONFIG, (json.dumps(as_json(config), indent=2) + "\n").encode())
            self._manager = ocp.CheckpointManager(
                self.directory / CHECKPOINTS,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=keep,
                    cleanup_tmp_directories=True,  # of a process that was killed as it saved
                    enable_async_checkpointing=False,  # what is saved is saved when `save` returns
                ),
            )
        except BaseException:
            self._unlock()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files; what was logged after the last checkpoint stays to be read, until the run is resumed."""
        self._manager.close()
        for file in (self._metrics, self._events):
            if file is not None:
                file.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def restore(self, like: Any) -> tuple[int, Any]:
        """Where to go on from: the newest whole checkpoint. To be called once, before anything is logged or saved.

        Args:
          like: the state at step 0: what a checkpoint must be like in structure, shapes, types and sharding.

        Returns:
          The step and the state; 0 and ``like`` itself if there is no checkpoint.

        Raises:
          RunError: if there are checkpoints, and all are damaged.
          ValueError: if the checkpoint is whole but not like ``like``.
        """
        if self._metrics is not None:
            raise RunError("restore was called twice")
        step, state, size = 0, like, 0
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged = {}
        for candidate in steps:
            # Looked at before orbax does: a failed restore leaves threads behind it that fail once more, later.
            damage = damage_of(self.directory / CHECKPOINTS / str(candidate))
            if damage is None:
                step, (state, size) = candidate, self._read(candidate, like)
                break
            damaged[candidate] = damage
            Console(stderr=True).print(f"[bold red]checkpoint {candidate} of {self.directory} is not whole: {damage}")
        if steps and len(damaged) == len(steps):
            raise RunError(f"no checkpoint of {self.directory} is whole; move the directory away to start over")
        for candidate in damaged:
            self._manager.delete(candidate)
        if self.is_writer:
            self._open_logs(size, step + 1 if steps else 0)
        return step, state

    def _read(self, step: int, like: Any) -> tuple[Any, int]:
        # Compared before orbax restores: it would cast one type to another without a word.
        record = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
        found, wanted = record["leaves"], described(like)
        for name in wanted | found:
            if found.get(name) != wanted.get(name):
                raise ValueError(
                    f"checkpoint {step} of {self.directory}: state{name} must be {wanted.get(name, 'absent')};"
                    f" got {found.get(name, 'absent')}"
                )
        parts = ocp.args.Composite(state=ocp.args.StandardRestore(like))
        return self._manager.restore(step, args=parts)["state"], record["metrics_size"]

    def _open_logs(self, size: int, first_step: int) -> None:
        """Cuts off what was logged after the checkpoint, and goes on from there."""
        from tensorboardX import SummaryWriter

        path = self.directory / METRICS
        path.touch()
        if path.stat().st_size < size:
            raise RunError(f"{path} has lost lines: the checkpoint was made when it had {size} bytes")
        os.truncate(path, size)
        self._metrics = path.open("ab")
        events = self.directory / EVENTS
        # TensorBoard hides what earlier files have from `purge_step` on; a suffix, for names tell no more than seconds.
        suffix = f".{len(list(events.glob('*')))}"
        self._events = SummaryWriter(str(events), purge_step=first_step, filename_suffix=suffix)

    def save(self, step: int, state: Any) -> None:
        """Saves a checkpoint, whole or not at all; nothing is done if this step has one."""
        if step in self._manager.all_steps():
            return
        size = 0
        if self.is_writer:
            metrics = self._opened()
            os.fsync(metrics.fileno())
            size = metrics.tell()
            self._events.flush()
        record = {"metrics_size": size, "leaves": described(state)}
        parts = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
        self._manager.save(step, args=parts)
        if self.is_writer:
            directory = self.directory / CHECKPOINTS / str(step)
            write_atomically(directory / CHECKSUMS, json.dumps(checksums(directory)).encode())

    def log(self, step: int, **values: Any) -> None:
        """Adds a line to the metrics: numbers, or arrays of them (each entry of an array is a TensorBoard curve)."""
        if not self.is_writer:
            return
        metrics = self._opened()
        arrays = {name: np.asarray(value, dtype=float) for name, value in values.items()}
        line = {"step": step} | {name: numbers(array.tolist()) for name, array in arrays.items()}
        metrics.write((json.dumps(line, allow_nan=False) + "\n").encode())
        metrics.flush()
        for name, array in arrays.items():
            for index, value in np.ndenumerate(array):
                self._events.add_scalar("/".join([name, *map(str, index)]), value, step)

    def _opened(self) -> Any:
        if self._metrics is None:
            raise RunError("restore must be called first: it tells where the metrics go on")
        return self._metrics

    def save_figure(self, name: str, figure: Any) -> Path:
        """Writes a matplotlib figure into the directory; the suffix of ``name`` says in which format."""
        path = self.directory / name
        if self.is_writer:
            save_figure(path, figure)
        return path


def as_json(config: Any) -> dict[str, Any]:
    """The fields of a dataclass as they come back from a JSON file."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=os.fspath))


def check_config(path: Path, config: Any, changeable: Collection[str]) -> None:
    """Refuses a directory that was begun with another configuration."""
    if not path.exists():
        return
    before, after = json.loads(path.read_text()), as_json(config)
    for field in before | after:
        if field not in changeable and before.get(field, "absent") != after.get(field, "absent"):
            raise RunError(
                f"{path.parent} was begun with {field} = {before.get(field, 'absent')!r}, and it is"
                f" {after.get(field, 'absent')!r} here: give another directory, or the same {field}"
            )


def described(tree: Any) -> dict[str, str]:
    """Type and shape of every leaf, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" if hasattr(leaf, "dtype") else type(leaf).__name__
        for path, leaf in leaves
    }


def lock(directory: Path) -> Any:
    """An open file that keeps other processes out of the directory until it is closed, or its process is gone."""
    file = (directory / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RunError(f"another process is at work in {directory}") from None
    return file


def checksums(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below a directory but the list of checksums itself, by relative name."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != CHECKSUMS:
            with path.open("rb") as file:
                found[str(path.relative_to(directory))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def damage_of(checkpoint: Path) -> str | None:
    """What is wrong with the files of a checkpoint, or None."""
    try:
        expected = json.loads((checkpoint / CHECKSUMS).read_text())
    except (OSError, ValueError):
        return "its process ended before the checksums were written"
    found = checksums(checkpoint)
    wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    return f"{', '.join(wrong)} not as written" if wrong else None


def numbers(value: Any) -> Any:
    """Numbers as JSON has them: what is infinite or not a number becomes null."""
    if isinstance(value, list):
        return [numbers(entry) for entry in value]
    return value if math.isfinite(value) else None


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, also while it is being written; none if it has not begun."""
    path = directory / METRICS
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that nobody ever sees half of it, nor leaves half of it when killed."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def save_figure(path: Path, figure: Any) -> None:
    """Writes a matplotlib figure atomically, in the format that the suffix of the path says."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."), dpi=150)
    write_atomically(path, content.getvalue())


@contextlib.contextmanager
def progress(description: str, total: int, completed: int = 0) -> Iterator[Callable[..., None]]:
    """A progress bar on a terminal.

    Args:
      description: stands before the bar.
      total: steps in all.
      completed: steps that an earlier process has done.

    Yields:
      A function to call with the number of completed steps, and with numbers to show by name.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, completed=completed, note="")

        def advance(completed: int, **values: float) -> None:
            note = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            bar.update(task, completed=completed, note=note)

        yield advance
