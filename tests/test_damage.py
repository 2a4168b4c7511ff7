"""Files of weights and of data that are cut off, or have one bit changed, are refused by name."""

import gzip

import jax
import pytest

from experiments import images
from experiments.bert import model, weights
from experiments.bert.bundle import CheckpointError
from experiments.images import DataError

SIZES = model.Config(vocabulary_size=7, hidden_dim=4, num_layers=1, num_heads=2, mlp_dim=4, num_positions=8)


def with_a_bit_changed(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_weights_that_are_not_as_written_are_refused(tmp_path):
    """Planted and found: weights without a checksum, of which a changed bit is one of a number."""
    weights.save(tmp_path, SIZES, jax.jit(model.initial, static_argnums=1)(jax.random.key(0), SIZES))
    weights.load(tmp_path)
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    for damaged in (with_a_bit_changed(content, len(content) - 100), content[:-1], content[:10], b""):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"model.safetensors: not as it was written .* writes it again"):
            weights.load(tmp_path)
    (tmp_path / "checksums.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"checksums\.json: no list of checksums"):
        weights.load(tmp_path)
    (tmp_path / "checksums.json").unlink()  # as models of other programs are
    with pytest.raises(CheckpointError, match=r"model\.safetensors: "):
        weights.load(tmp_path)


@pytest.mark.skipif(not images.FASHION_MNIST_PACKAGE.is_dir(), reason="needs the package dataset-fashion-mnist")
def test_images_that_are_not_as_published_are_refused(tmp_path, monkeypatch):
    """And those that are whole are offered, if there are any."""
    name = "t10k-labels-idx1-ubyte"
    packed = (images.FASHION_MNIST_PACKAGE / f"{name}.gz").read_bytes()
    content = gzip.decompress(packed)
    (tmp_path / name).write_bytes(content)
    assert len(images.read_fashion_mnist(tmp_path, name, 1)) == 10_000
    (tmp_path / name).write_bytes(with_a_bit_changed(content, 5_000))
    offered = rf"{images.FASHION_MNIST_PACKAGE}/{name}.* is whole: without a data directory"
    with pytest.raises(DataError, match=rf"{name}: not as published .* {offered}"):
        images.read_fashion_mnist(tmp_path, name, 1)
    for damaged in (content[:-1], with_a_bit_changed(packed, 2_000), packed[:-4]):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{tmp_path}/{name}: .* {offered}"):
            images.read_fashion_mnist(tmp_path, name, 1)
    monkeypatch.setattr(images, "FASHION_MNIST_PACKAGE", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / f"{name}.gz").write_bytes(packed[:-9])
    with pytest.raises(DataError, match=rf"{name}: .* Install the Debian package .* or delete the file"):
        images.read_fashion_mnist(None, name, 1)
    (tmp_path / f"{name}.gz").write_bytes(packed)
    with pytest.raises(DataError, match=rf"{name}: .* {tmp_path}/{name}.gz is whole"):
        images.read_fashion_mnist(None, name, 1)
