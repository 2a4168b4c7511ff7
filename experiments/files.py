"""Files that are there whole or not at all, and errors that say why one could not be written."""

import contextlib
import errno
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments import devices

#: Why a file could not be written, by error number.
REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "a file would become larger than this process may write (ulimit -f)",
    errno.EROFS: "it lies on a file system that is read-only",
    errno.EACCES: "it may not be written by this user",
    errno.EPERM: "it may not be written by this user",
}
UNCHANGED = "What stood there before is whole: when this is mended, run the command again"


class RunError(Exception):
    """A program that cannot go on as it is; the message says what to do."""


@contextlib.contextmanager
def explained(path: Path, then: str = UNCHANGED) -> Iterator[None]:
    """Makes a full disk, or one that cannot be written, a RunError that says so.

    Libraries tell the system's error in words of their own, or as the cause of their error.

    Args:
      path: what is written; the message names it.
      then: what is not lost, and what to do.

    Raises:
      RunError: for the errors of REASONS.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        seen: BaseException | None = error
        while seen is not None:
            for number, reason in REASONS.items():
                if getattr(seen, "errno", None) == number or os.strerror(number) in str(seen):
                    raise RunError(f"{path}: {reason}. {then} ({str(seen)[:200]})") from error
            seen = seen.__cause__ or seen.__context__
        raise


def write_atomically(path: Path, content: bytes | Callable[[Path], Any]) -> None:
    """Writes a file so that nobody ever sees half of it, nor leaves half of it when killed.

    Of several processes of JAX only the first one writes.

    Args:
      path: of the file; its directory is made if there is none.
      content: what it gets, or a function that writes that to the path it is given.

    Raises:
      RunError: if it cannot be written; what was there before stays.
    """
    if not devices.is_first():
        return
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                if isinstance(content, bytes):
                    file.write(content)
                    file.flush()
                else:
                    content(Path(file.name))
                os.fsync(file.fileno())
                os.chmod(file.name, 0o644)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON, as :func:`write_atomically` does."""
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def save_figure(path: Path, figure: Any) -> None:
    """Writes a matplotlib figure atomically, in the format that the suffix of the path says."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."), dpi=150)
    write_atomically(path, content.getvalue())


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
    """Ends a command that cannot go on with the message alone."""
    before = sys.unraisablehook

    def without_closed_loops(unraisable: "sys.UnraisableHookArgs") -> None:
        # Parts of a checkpoint that end after the first one that could not be written find the loop closed to which
        # they were to report: each would show a traceback beside the message. So this stays when there is one.
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            before(unraisable)

    sys.unraisablehook = without_closed_loops
    try:
        yield
    except RunError as error:
        sys.exit(str(error))
    sys.unraisablehook = before
