"""Images, with their classes: scikit-learn's digits; Fashion-MNIST from a directory, the system's package or a checked
download; CIFAR-10 from a directory.
"""

import contextlib
import hashlib
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.downloads import DataError, cache_directory, decompress, download

Name = Literal["digits", "fashion_mnist"]
Split = Literal["train", "test"]

#: How the authors of Fashion-MNIST call the two parts.
PREFIXES: dict[Split, str] = {"train": "train", "test": "t10k"}
FASHION_MNIST_FILE = "train-images-idx3-ubyte"
#: Of the decompressed files: upstream and the Debian package compress the same content differently.
FASHION_MNIST_SHA256 = {
    FASHION_MNIST_FILE: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
#: Of its two parts; a directory may have fewer of the user's own.
FASHION_MNIST_LENGTHS = {"train": 60_000, "t10k": 10_000}
#: Where the authors keep the files (README of that repository, "Get the Data").
FASHION_MNIST_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
#: Where the Debian package dataset-fashion-mnist puts them.
FASHION_MNIST_PACKAGE = Path("/usr/share/datasets/fashion-mnist")

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTES = 0x08  # the idx format's code for the type of its entries


def load(name: Name, directory: Path | None = None, *, split: Split = "train") -> np.ndarray:
    """Images by name, in a fixed order.

    Args:
      name: "digits" (1,797 of 8 x 8, part of scikit-learn) or "fashion_mnist" (60,000 of 28 x 28, 10,000 for tests).
      directory: where the file of Fashion-MNIST lies, compressed or not; otherwise it is looked for in the Debian
        package ``dataset-fashion-mnist`` and in the cache of earlier downloads, and then downloaded and checked.
      split: which file of Fashion-MNIST; the digits have one only.

    Returns:
      Brightness in [0, 1], float32, of shape [images, height, width].

    Raises:
      DataError: if the images cannot be found or are damaged; if a directory or the test images are asked for of the
        digits.
    """
    if name == "digits":
        if split != "train":
            raise DataError("digits have no test images of their own: split those there are")
        if directory is not None:
            raise DataError("digits come with scikit-learn: a data directory makes sense for fashion_mnist only")
        from sklearn.datasets import load_digits

        digits: Any = load_digits()
        return (digits.images / 16).astype(np.float32)
    if name != "fashion_mnist":
        raise DataError(f"data must be 'digits' or 'fashion_mnist'; got {name!r}")
    return read_fashion_mnist(directory, f"{PREFIXES[split]}-images-idx3-ubyte", num_axes=3).astype(np.float32) / 255


class Labelled(NamedTuple):
    """Images with the number of their class."""

    images: np.ndarray  # bytes, [images, height, width, channels]
    labels: np.ndarray  # int32, [images]


#: Of scikit-learn's digits, the first ones are for training.
NUM_TRAINING_DIGITS = 1500
#: Each image is a byte for its class and 32 x 32 bytes for each of red, green and blue.
CIFAR10_FILES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}
CIFAR10_ROW = 1 + 3 * 32 * 32


def load_labelled(name: Name | Literal["cifar10"], split: Split, directory: Path | None = None) -> Labelled:
    """Images with their classes, for training or for testing, in a fixed order.

    Args:
      name: "digits" (1,500 and 297 of 8 x 8), "fashion_mnist" (60,000 and 10,000 of 28 x 28) or "cifar10" (50,000
        and 10,000 of 32 x 32 in colour).
      split: "train" or "test".
      directory: where the files lie, for Fashion-MNIST and for the binary version of CIFAR-10, which needs it.

    Returns:
      Bytes of brightness, and classes from 0 to 9.

    Raises:
      DataError: if the images cannot be found or are damaged.
    """
    if name == "digits":
        from sklearn.datasets import load_digits

        digits: Any = load_digits()
        part = slice(NUM_TRAINING_DIGITS) if split == "train" else slice(NUM_TRAINING_DIGITS, None)
        brightness = np.round(load(name, directory)[part, ..., None] * 255).astype(np.uint8)
        return Labelled(brightness, digits.target[part].astype(np.int32))
    if name == "cifar10":
        return read_cifar10(directory, split)
    prefix = PREFIXES[split]
    pictures = read_fashion_mnist(directory, f"{prefix}-images-idx3-ubyte", num_axes=3)
    labels = read_fashion_mnist(directory, f"{prefix}-labels-idx1-ubyte", num_axes=1)
    if len(pictures) != len(labels):
        raise DataError(f"fashion_mnist, {split}: {len(pictures)} images with {len(labels)} labels")
    return Labelled(pictures[..., None], labels.astype(np.int32))


def read_cifar10(directory: Path | None, split: Split) -> Labelled:
    """The binary version of CIFAR-10 as its authors distribute it, unpacked into the directory."""
    if directory is None:
        raise DataError("cifar10 needs a directory (--data-directory) with data_batch_1.bin, ... of its binary version")
    parts = []
    for file in CIFAR10_FILES[split]:
        path = directory / file
        if not path.is_file():
            raise DataError(f"no file {file} in the data directory {directory}")
        content = np.frombuffer(path.read_bytes(), np.uint8)
        if not len(content) or len(content) % CIFAR10_ROW:
            raise DataError(f"{path}: a file of images has a multiple of {CIFAR10_ROW} bytes; got {len(content)}")
        parts.append(content.reshape(-1, CIFAR10_ROW))
    rows = np.concatenate(parts)
    if rows[:, 0].max() > 9:
        raise DataError(f"{directory}: classes go from 0 to 9; got {rows[:, 0].max()}")
    return Labelled(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0].astype(np.int32))


def find_fashion_mnist(directory: Path | None = None, file: str = FASHION_MNIST_FILE) -> Path:
    """A file, the training images': in the given directory (nowhere else then), the package, the cache, the net."""
    names = (file, file + ".gz")
    place = FASHION_MNIST_PACKAGE if directory is None else directory
    for candidate in (place / name for name in names):
        if candidate.is_file():
            return candidate
    if directory is not None:
        raise DataError(f"no file {' or '.join(names)} in the data directory {directory}")
    cached = cache_directory() / names[0]
    if cached.is_file() and hashlib.sha256(cached.read_bytes()).hexdigest() == FASHION_MNIST_SHA256[file]:
        return cached
    try:
        return download(FASHION_MNIST_URL + names[1], FASHION_MNIST_SHA256[file], cached)
    except OSError as error:
        raise DataError(
            f"Fashion-MNIST is not here, and its download failed ({error}). Do one of these: install the Debian package"
            f" dataset-fashion-mnist; or give a directory (--data-directory) with the file {names[1]};"
            " or take the digits (--data digits)."
        ) from error


def read_fashion_mnist(directory: Path | None, file: str, num_axes: int) -> np.ndarray:
    """One of its four files, found and read; as many entries as were published must be the published ones."""
    path = find_fashion_mnist(directory, file)
    try:
        return read_published(path, file, num_axes)
    except DataError as error:
        raise DataError(f"{error}. {instead_of(path, file, num_axes)}") from error


def read_published(path: Path, file: str, num_axes: int) -> np.ndarray:
    """A file of Fashion-MNIST by its path; as many entries as were published must be the published ones."""
    found = read_idx(path, num_axes)
    if len(found) == FASHION_MNIST_LENGTHS[file.partition("-")[0]]:
        header = bytes([0, 0, UNSIGNED_BYTES, num_axes]) + np.array(found.shape, ">u4").tobytes()
        digest = hashlib.sha256(header + found.tobytes()).hexdigest()
        if digest != FASHION_MNIST_SHA256[file]:
            raise DataError(
                f"{path}: not as published (SHA-256 {digest} instead of {FASHION_MNIST_SHA256[file]}): it is damaged,"
                " or of another data set"
            )
    return found


def instead_of(damaged: Path, file: str, num_axes: int) -> str:
    """What to take in place of a damaged file: a whole one that is here, or where there is one."""
    for place in (FASHION_MNIST_PACKAGE, cache_directory()):
        for path in (place / file, place / f"{file}.gz"):
            if path != damaged and path.is_file():
                with contextlib.suppress(DataError):
                    read_published(path, file, num_axes)
                    return f"{path} is whole: without a data directory, the same command takes it"
    return (
        "Install the Debian package dataset-fashion-mnist, once more if it is there; or delete the file, and without a"
        " data directory the same command downloads it"
    )


def read_idx(path: Path, num_axes: int) -> np.ndarray:
    """Reads an array of bytes in the idx format, compressed by gzip or not.

    The format is: two zero bytes, a code for the type, the number of axes, their lengths as big-endian 32-bit
    integers, the entries in row-major order.

    Args:
      path: of the file.
      num_axes: how many axes it must have.

    Returns:
      An array of ``uint8``.

    Raises:
      DataError: if anything about the file is not so, naming the file.
    """
    content = path.read_bytes()
    if content.startswith(GZIP_MAGIC):
        content = decompress(content, str(path))
    header_size = 4 + 4 * num_axes
    if len(content) < header_size:
        raise DataError(f"{path}: an idx file of {num_axes} axes has at least {header_size} bytes; got {len(content)}")
    expected = bytes([0, 0, UNSIGNED_BYTES, num_axes])
    if content[:4] != expected:
        raise DataError(
            f"{path}: not an idx file of bytes with {num_axes} axes:"
            f" it begins with {content[:4].hex()}, not {expected.hex()}"
        )
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", num_axes, offset=4))
    size = math.prod(shape)
    if len(content) - header_size != size:
        raise DataError(f"{path}: shape {shape} needs {size} bytes; the file has {len(content) - header_size}")
    return np.frombuffer(content, np.uint8, offset=header_size).reshape(shape)
