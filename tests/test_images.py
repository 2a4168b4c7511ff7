"""Images are found where they should be, checked, and refused when they are damaged."""

import gzip
import hashlib
import urllib.error
import urllib.response
from pathlib import Path

import numpy as np
import pytest

from experiments import images


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4) * 10


def test_digits_are_embedded():
    pictures = images.load("digits")
    assert pictures.shape == (1797, 8, 8)
    assert pictures.dtype == np.float32
    assert (pictures.min(), pictures.max()) == (0, 1)
    with pytest.raises(images.DataError, match="fashion_mnist only"):
        images.load("digits", Path())
    with pytest.raises(images.DataError, match="no test images"):
        images.load("digits", split="test")


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(("split", "name"), [("train", "train-images-idx3-ubyte"), ("test", "t10k-images-idx3-ubyte")])
def test_a_given_directory_is_read(tmp_path, suffix, split, name):
    content = idx(IMAGES)
    (tmp_path / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    pictures = images.load("fashion_mnist", tmp_path, split=split)
    np.testing.assert_allclose(pictures, IMAGES / 255, rtol=1e-6)


def test_a_given_directory_is_the_only_one_looked_at(tmp_path):
    with pytest.raises(images.DataError, match=r"no file train-images-idx3-ubyte.*in the data directory"):
        images.load("fashion_mnist", tmp_path)


GOOD = idx(IMAGES)
DAMAGED = {
    "empty": b"",
    "half a header": GOOD[:9],
    "too short": GOOD[:-1],
    "too long": GOOD + b"\0",
    "another type": GOOD[:2] + b"\x0d" + GOOD[3:],
    "other axes": idx(IMAGES[0]) + b"\0" * 8,
    "text": b"<html>not found</html>",
    "half a gzip": gzip.compress(GOOD)[:-12],
    "not quite a gzip": b"\x1f\x8b" + GOOD,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(images.DataError, match=str(path)):
        images.read_idx(path, num_axes=3)


def test_places_are_tried_in_order(tmp_path, monkeypatch):
    package, cache, asked = tmp_path / "package", tmp_path / "cache", []
    monkeypatch.setattr(images, "FASHION_MNIST_PACKAGE", package)
    monkeypatch.setattr(images, "FASHION_MNIST_SHA256", {"train-images-idx3-ubyte": hashlib.sha256(GOOD).hexdigest()})
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))

    def no_network(url, sha256, destination):
        asked.append(url)
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(images, "download", no_network)
    with pytest.raises(images.DataError, match=r"dataset-fashion-mnist.*--data-directory.*--data digits"):
        images.load("fashion_mnist")
    assert asked == [images.FASHION_MNIST_URL + "train-images-idx3-ubyte.gz"]
    cached = cache / "jaxlab" / "train-images-idx3-ubyte"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(GOOD[:-1])  # not what the checksum is of: fetched again
    with pytest.raises(images.DataError):
        images.load("fashion_mnist")
    cached.write_bytes(GOOD)
    assert images.find_fashion_mnist() == cached
    package.mkdir()
    (package / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(GOOD))
    assert images.find_fashion_mnist().parent == package
    assert len(asked) == 2


def test_labelled_images_are_read_in_pairs(tmp_path):
    labels = np.array([3, 9], np.uint8)
    for prefix in ("train", "t10k"):
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(IMAGES))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    for split in ("train", "test"):
        found = images.load_labelled("fashion_mnist", split, tmp_path)
        np.testing.assert_array_equal(found.images, IMAGES[..., None])
        assert found.labels.tolist() == [3, 9]
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels[:1]))
    with pytest.raises(images.DataError, match="test: 2 images with 1 labels"):
        images.load_labelled("fashion_mnist", "test", tmp_path)
    train, test = (images.load_labelled("digits", split) for split in ("train", "test"))
    assert (train.images.shape, test.images.shape) == ((1500, 8, 8, 1), (297, 8, 8, 1))
    assert (train.images.max(), train.images.dtype, len(set(train.labels))) == (255, np.uint8, 10)


def test_cifar10_is_read_from_its_binary_files(tmp_path):
    row = np.concatenate([[7], np.repeat([10, 20, 30], 1024)]).astype(np.uint8)
    (tmp_path / "test_batch.bin").write_bytes(row.tobytes() * 2)
    found = images.load_labelled("cifar10", "test", tmp_path)
    assert found.labels.tolist() == [7, 7]
    assert found.images.shape == (2, 32, 32, 3)
    assert (found.images == np.array([10, 20, 30])).all()
    for broken, message in ((row[:-1], "multiple of 3073"), (row[:0], "multiple of"), (row + 5, "from 0 to 9; got 12")):
        (tmp_path / "test_batch.bin").write_bytes(broken.tobytes())
        with pytest.raises(images.DataError, match=message):
            images.load_labelled("cifar10", "test", tmp_path)
    with pytest.raises(images.DataError, match=r"no file data_batch_1.bin"):
        images.load_labelled("cifar10", "train", tmp_path)
    with pytest.raises(images.DataError, match="needs a directory"):
        images.load_labelled("cifar10", "train")
