"""A run: a directory that one command fills, and fills to the same bits however often it is killed and started again.

    directory/
      config.json      what the run was started with; another configuration is refused
      metrics.jsonl    one line a call of `log`, cut back on resuming to where the checkpoint was made
      events/          the same for TensorBoard
      checkpoints/     the last few, by orbax, each with the checksums of its files: written in the background, and
                       renamed into their place when they are whole
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
import json
import logging
import math
import os
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments import devices, files
from experiments.checkpoints import CHECKSUMS, LAYOUT, checksums, damage_of, described, one_copy, placed
from experiments.files import RunError, write_atomically

CONFIG = "config.json"
METRICS = "metrics.jsonl"
EVENTS = "events"
CHECKPOINTS = "checkpoints"


def is_raised(record: logging.LogRecord) -> bool:
    """Whether an error is logged that orbax raises at the next call.

    Orbax logs each in every thread that meets it, with all it was called by; asyncio logs those of the parts for which
    nobody waits any more, since another has failed.
    """
    trace = record.exc_info[2] if record.exc_info else None
    files = [record.pathname, *(frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace))]
    return record.levelno == logging.ERROR and any("orbax" in Path(file).parts for file in files)


for logger in ("absl", "asyncio"):
    logging.getLogger(logger).addFilter(lambda record: not is_raised(record))


class Run:
    """A directory with the configuration, metrics and checkpoints of one run.

    Args:
      directory: made if it does not exist; one process (or one group of JAX processes) at a time may use it.
      config: a frozen dataclass of what can be written as JSON (a path is written as its name).
      keep: how many checkpoints stay.
      changeable: the fields of ``config`` that may differ when the run is started again, such as how long it is.

    Raises:
      RunError: if the directory belongs to another configuration, cannot be written, or another process is at work in
        it.
    """

    def __init__(self, directory: Path, config: Any, *, keep: int = 2, changeable: Collection[str] = ()):
        self.directory = directory.absolute()
        #: Of several processes one writes; checkpoints are written by all, which orbax arranges.
        self.is_writer = devices.is_first()
        self._lock = None
        self._metrics = None
        self._events: Any = None
        try:
            with self._explained():
                self.directory.mkdir(parents=True, exist_ok=True)
                self._lock = lock(self.directory) if self.is_writer else None
                check_config(self.directory / CONFIG, config, changeable)
                write_atomically(self.directory / CONFIG, (json.dumps(as_json(config), indent=2) + "\n").encode())
                self._manager = ocp.CheckpointManager(
                    self.directory / CHECKPOINTS,
                    options=ocp.CheckpointManagerOptions(
                        max_to_keep=keep,  # an older one goes when a newer one is whole
                        cleanup_tmp_directories=True,  # of a process that was killed as it saved
                        enable_async_checkpointing=True,
                        async_options=ocp.AsyncOptions(
                            post_finalization_callback=self._seal,
                            # Else the threads that wait for a directory that cannot be made do so for five minutes.
                            create_directories_asynchronously=False,
                        ),
                    ),
                )
        except BaseException:
            self._unlock()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.close()
        except Exception as error:
            if kind is None:
                raise
            # Not instead of the error that ends the run, nor after one that has said the same.
            if kind is not RunError:
                Console(stderr=True).print(f"[bold red]{self.directory} could not be closed: {error}")

    def close(self) -> None:
        """Waits for the last checkpoint and closes the files.

        What was logged after the last checkpoint stays to be read, until the run is resumed.

        Raises:
          RunError: if the last checkpoint or the last lines could not be written.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._explained())
            stack.callback(self._unlock)
            for file in (self._events, self._metrics):
                if file is not None:
                    stack.callback(file.close)
            stack.callback(self._manager.close)
            self._manager.wait_until_finished()

    def _seal(self) -> None:
        """Adds the checksums to a checkpoint whose files are written, before orbax renames it into its place."""
        for unfinished in (self.directory / CHECKPOINTS).glob("*.orbax-checkpoint-tmp*"):
            with (unfinished / CHECKSUMS).open("w") as file:
                json.dump(checksums(unfinished), file)
                file.flush()
                os.fsync(file.fileno())

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        then = "The checkpoints that are there are whole: when this is mended, the same command goes on from the last"
        return files.explained(self.directory, f"{then} of them")

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def restore(self, like: Any) -> tuple[int, Any]:
        """Where to go on from: the newest whole checkpoint. To be called once, before anything is logged or saved.

        Args:
          like: the state at step 0: what a checkpoint must be like in structure, shapes and types. Arrays are put where
        its arrays lie, on however many devices the checkpoint was made; shapes without arrays, on the first device.

        Returns:
          The step and the state; 0 and ``like`` itself if there is no checkpoint.

        Raises:
          RunError: if there are checkpoints, and all are damaged; if one is of another layout, or whole but not like
            ``like``.
        """
        if self._metrics is not None:
            raise RunError("restore was called twice")
        step, state, size = 0, like, 0
        steps = sorted(self._manager.all_steps(), reverse=True)
        # Looked at before orbax does: a failed restore leaves threads behind it that fail once more, later.
        damaged = self._newest_damaged(steps)
        if steps and len(damaged) == len(steps):
            raise RunError(f"no checkpoint of {self.directory} is whole; move the directory away to start over")
        if len(damaged) < len(steps):
            step = steps[len(damaged)]
            state, size = self._read(step, like)
        with self._explained():
            for candidate in damaged:
                self._manager.delete(candidate)
            if self.is_writer:
                self._open_logs(size, step + 1 if steps else 0)
        return step, state

    def _newest_damaged(self, steps: list[int]) -> list[int]:
        """Those of the steps, newest first, that come before the first whole one; all processes get the same."""
        count = 0
        if self.is_writer:
            console = Console(stderr=True)
            for step in steps:
                damage = damage_of(self.directory / CHECKPOINTS / str(step))
                if damage is None:
                    if count:
                        console.print(f"[bold yellow]going on from checkpoint {step}, which is whole")
                    break
                console.print(f"[bold red]checkpoint {step} of {self.directory} is not whole: {damage}")
                count += 1
        if jax.process_count() > 1:
            count = int(multihost_utils.broadcast_one_to_all(np.int32(count)))
        return steps[:count]

    def _read(self, step: int, like: Any) -> tuple[Any, int]:
        # Compared before orbax restores: it would cast one type to another without a word.
        record = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
        then = "go on with the version of the program that began the run, or move the directory away to start over"
        if (layout := record.get("layout", 1)) != LAYOUT:
            raise RunError(
                f"checkpoint {step} of {self.directory} is of layout {layout}; this program reads layout {LAYOUT}:"
                f" {then}"
            )
        found, wanted = record["leaves"], described(like)
        for name in wanted | found:
            if found.get(name) != wanted.get(name):
                raise RunError(
                    f"checkpoint {step} of {self.directory}: state{name} must be {wanted.get(name, 'absent')};"
                    f" got {found.get(name, 'absent')}: {then}"
                )
        parts = ocp.args.Composite(state=ocp.args.StandardRestore(jax.tree.map(placed, like)))
        return self._manager.restore(step, args=parts)["state"], record["metrics_size"]

    def _open_logs(self, size: int, first_step: int) -> None:
        """Cuts off what was logged after the checkpoint, and goes on from there."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        path = self.directory / METRICS
        path.touch()
        if path.stat().st_size < size:
            raise RunError(f"{path} has lost lines: the checkpoint was made when it had {size} bytes")
        os.truncate(path, size)
        self._metrics = path.open("ab")
        events = self.directory / EVENTS
        events.mkdir(exist_ok=True)
        # A suffix, for names tell no more than seconds. Not SummaryWriter, whose thread ends in silence when a disk is
        # full, and whose queue then waits for ever.
        self._events = EventsWriter(str(events / "events"), filename_suffix=f".{len(list(events.glob('*')))}")
        # TensorBoard hides what earlier files have from this step on.
        start = SessionLog(status=SessionLog.START)
        self._events.write_event(Event(wall_time=time.time(), step=first_step, session_log=start))

    def save(self, step: int, state: Any) -> None:
        """Begins to save a checkpoint, which is there whole or not at all; nothing is done if this step has one.

        The state is copied before this returns, and written in the background, while training goes on; the next call,
        or ``close``, waits for it.

        Raises:
          RunError: if this checkpoint, or the one before it, cannot be written; it says why.
        """
        with self._explained():
            if step not in self._manager.all_steps():
                self._save(step, state)

    def _save(self, step: int, state: Any) -> None:
        size = 0
        if self.is_writer:
            metrics = self._opened()
            os.fsync(metrics.fileno())
            size = metrics.tell()
            self._events.flush()
        record = {"layout": LAYOUT, "metrics_size": size, "leaves": described(state)}
        parts = ocp.args.Composite(
            state=ocp.args.StandardSave(jax.tree.map(one_copy, state)), record=ocp.args.JsonSave(record)
        )
        self._manager.save(step, args=parts)

    def log(self, step: int, **values: Any) -> None:
        """Adds a line to the metrics: numbers, or arrays of them (each entry of an array is a TensorBoard curve)."""
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.summary import scalar

        if not self.is_writer:
            return
        metrics = self._opened()
        arrays = {name: np.asarray(value, dtype=float) for name, value in values.items()}
        line = {"step": step} | {name: numbers(array.tolist()) for name, array in arrays.items()}
        with self._explained():
            metrics.write((json.dumps(line, allow_nan=False) + "\n").encode())
            metrics.flush()
            for name, array in arrays.items():
                for index, value in np.ndenumerate(array):
                    summary = scalar("/".join([name, *map(str, index)]), value)
                    self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))

    def _opened(self) -> Any:
        if self._metrics is None:
            raise RunError("restore must be called first: it tells where the metrics go on")
        return self._metrics

    def save_figure(self, name: str, figure: Any) -> Path:
        """Writes a matplotlib figure into the directory; the suffix of ``name`` says in which format."""
        path = self.directory / name
        files.save_figure(path, figure)
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


def lock(directory: Path) -> Any:
    """An open file that keeps other processes out of the directory until it is closed, or its process is gone."""
    file = (directory / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RunError(f"another process is at work in {directory}") from None
    return file


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
    console = Console(stderr=True, quiet=not devices.is_first())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as bar:
        task = bar.add_task(description, total=total, completed=completed, note="")

        def advance(completed: int, **values: float) -> None:
            note = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            bar.update(task, completed=completed, note=note)

        yield advance
