"""What belongs to one checkpoint: the checksums of its files, what its arrays look like, and where they are put."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from experiments.files import write_atomically

CHECKSUMS = "checksums.json"
#: Orbax writes these after the sums are taken; restoring does not look into them.
UNSUMMED = {"_CHECKPOINT_METADATA", "commit_success.txt"}
#: Of what a checkpoint has beside the state. Those without a number are of the first layout.
LAYOUT = 1


def checksums(directory: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint but the list of checksums itself, by relative name."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.relative_to(directory).as_posix() not in UNSUMMED | {CHECKSUMS}:
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
    named = (expected | found).keys() - UNSUMMED
    wrong = sorted(name for name in named if expected.get(name) != found.get(name))
    return f"{', '.join(wrong)} not as written" if wrong else None


def model_within(directory: Path) -> str:
    """For the error where a model is wanted and the directory of its run is given; empty for other directories."""
    within = directory / "model"
    return f" (it is the directory of a run, whose model is {within})" if within.is_dir() else ""


def seal(file: Path) -> None:
    """Writes the checksum of a file beside it, to be looked at by :func:`check`."""
    with file.open("rb") as content:
        found = {file.name: hashlib.file_digest(content, "sha256").hexdigest()}
    write_atomically(file.parent / CHECKSUMS, (json.dumps(found) + "\n").encode())


def check(file: Path) -> None:
    """Refuses a file that is not as it was sealed; files without a checksum pass.

    Raises:
      ValueError: if it is another one, with what to do.
    """
    sums = file.parent / CHECKSUMS
    if not sums.is_file() or not file.is_file():
        return
    try:
        expected = json.loads(sums.read_text()).get(file.name)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{sums}: no list of checksums ({error})") from error
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if expected not in (None, found):
        raise ValueError(
            f"{file}: not as it was written (SHA-256 {found} instead of {expected}); the command that trained the model"
            f" writes it again, from the last checkpoint. Delete {sums} if it was changed on purpose"
        )


def described(tree: Any) -> dict[str, str]:
    """Type and shape of every leaf, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" if hasattr(leaf, "dtype") else type(leaf).__name__
        for path, leaf in leaves
    }


def placed(leaf: Any) -> Any:
    """What is restored like this leaf: a shape without a place gets one, on which the checkpoint has no influence."""
    if not isinstance(leaf, jax.ShapeDtypeStruct) or leaf.sharding is not None:
        return leaf
    everywhere = NamedSharding(Mesh(jax.devices(), ("all",)), P())
    place = everywhere if jax.process_count() > 1 else SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def one_copy(leaf: Any) -> Any:
    """What is saved of this leaf: one copy, where all devices of this process have the same.

    Orbax would have each of them write a part, which it cuts off by a program of its own for each part of each array:
    training waits for all of these.
    """
    if isinstance(leaf, jax.Array) and leaf.is_fully_addressable and leaf.is_fully_replicated:
        return leaf.addressable_data(0)
    return leaf
