"""Checkpoints: read as they are, and refused in words when something is wrong."""

import dataclasses
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.bert import bundle, model, weights
from experiments.bert.bundle import Bundle, CheckpointError
from experiments.bert.checksum import crc32c, masked

GOLDEN = Path(__file__).parent / "golden"
TENSORFLOW = GOLDEN / "bert_tensorflow"
CONFIG = model.Config(20, 16, 2, 4, 24, 12)


def initial(config):
    """Random weights, drawn without a program to compile."""
    source, shapes = np.random.default_rng(0), jax.eval_shape(lambda: model.initial(jax.random.key(0), config))
    return jax.tree.map(lambda leaf: jnp.asarray(source.normal(size=leaf.shape), leaf.dtype), shapes)


def bitwise(content):
    """CRC-32C bit by bit."""
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def test_checksums():
    """Of RFC 3720, appendix B.4, and of lengths around those at which the bytes are cut into more lanes."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert masked(0) == 0xA282EAD8
    content = np.random.default_rng(0).bytes(5000)
    for size in (0, 1, 63, 64, 127, 128, 129, 255, 256, 1023, 1024, 1025, 5000):
        assert crc32c(content[:size]) == bitwise(content[:size]), size


def test_a_checkpoint_of_tensorflow():
    """Written by TensorFlow 2.21: every value, the optimizer's moments left out, kernels in our order."""
    config, parameters = weights.load(TENSORFLOW)
    found = Bundle(TENSORFLOW / "bert_model.ckpt")
    assert found.read("global_step") == 7
    ours = sorted(name for name in found.entries if "adam" not in name and name != "global_step")
    for number, name in enumerate(ours):
        tensor = found.read(name)
        np.testing.assert_array_equal(tensor.ravel(), 1000 * number + np.arange(tensor.size))
    up = found.read("bert/encoder/layer_0/intermediate/dense/kernel")
    np.testing.assert_array_equal(parameters.encoder.layers.up.weight[0], up)
    np.testing.assert_array_equal(parameters.masked.bias, found.read("cls/predictions/output_bias"))
    np.testing.assert_array_equal(parameters.encoder.norm.scale, found.read("bert/embeddings/LayerNorm/gamma"))
    assert config.vocabulary_size == 9
    assert model.parts(parameters) == ["encoder", "pooler", "masked"]


def test_a_checkpoint_as_google_has_it(tmp_path):
    """Saved and loaded to the same bits, under the names that TensorFlow's own has; what it cannot hold is refused.

    TensorFlow reads the last of them, too, every value: ``tests/golden/bert_tensorflow.py PREFIX``. Planted: kernels
    with outputs first, which failed.
    """
    for has_heads in (True, False):
        directory = tmp_path / str(has_heads)
        directory.mkdir()
        parameters = initial(CONFIG)
        parameters = parameters if has_heads else parameters._replace(masked=None, pooler=None)
        weights.save_google(directory, CONFIG, parameters)
        config, found = weights.load(directory)
        assert config == CONFIG
        assert model.parts(found) == model.parts(parameters)
        jax.tree.map(np.testing.assert_array_equal, found, parameters)
    whole = weights.load(tmp_path / "True")[1]
    layer = Bundle(tmp_path / "True" / "bert_model.ckpt").read("bert/encoder/layer_1/intermediate/dense/kernel")
    np.testing.assert_array_equal(layer, whole.encoder.layers.up.weight[1])
    others = "adam", "global_step", "seq_relationship"
    theirs = {name for name in Bundle(TENSORFLOW / "bert_model.ckpt").entries if not any(o in name for o in others)}
    weights.save_google(tmp_path, *weights.load(TENSORFLOW))
    assert set(Bundle(tmp_path / "bert_model.ckpt").entries) == theirs
    for change in ({"first_position": 2}, {"epsilon": 1e-5}):
        with pytest.raises(ValueError, match=r"hold BERT with epsilon 1e-12 and without a task's head; got first_pos"):
            weights.save_google(tmp_path, dataclasses.replace(CONFIG, **change), whole)
    head = model.Linear(jnp.zeros((16, 2)), jnp.zeros(2))
    with pytest.raises(ValueError, match="encoder, pooler, masked, head"):
        weights.save_google(tmp_path, CONFIG, whole._replace(head=head))


TENSORS = {f"bert/layer_{i}/kernel": np.full((i + 1, 3), i, np.float32) for i in range(40)} | {
    "step": np.array(7),
    "half": np.arange(5, dtype=np.float16),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A checkpoint of several blocks, with keys that share prefixes across restarts."""
    prefix = tmp_path_factory.mktemp("bundle") / "model.ckpt"
    bundle.write(prefix, TENSORS, block_bytes=300)
    return prefix


def test_a_checkpoint_of_our_own(written):
    """TensorFlow reads what is written, too: ``tests/golden/bert_tensorflow.py PREFIX``."""
    found = Bundle(written)
    assert set(found.entries) == set(TENSORS)
    for name, expected in TENSORS.items():
        tensor = found.read(name)
        assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(tensor, expected)
    with pytest.raises(CheckpointError, match="no tensor 'other'"):
        found.read("other")


def outcome(prefix):
    """The tensors of a checkpoint, or the error's message."""
    try:
        found = Bundle(prefix)
        return {name: found.read(name) for name in found.entries}
    except CheckpointError as error:
        return str(error)


def test_damaged_checkpoints_are_refused(written, tmp_path):
    """Any byte of the index changed, any length: a clear error, or (where a byte means nothing) the same tensors."""
    prefix = tmp_path / "model.ckpt"
    index, values = (written.with_name(written.name + s).read_bytes() for s in (".index", ".data-00000-of-00001"))
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(values)
    source = np.random.default_rng(0)
    whole = outcome(written)
    unharmed = 0
    cuts = [index[:length] for length in (0, 10, 47, 48, len(index) // 2, len(index) - 1)]
    changes = []
    for place in source.integers(len(index), size=150):
        changes.append(index[:place] + bytes([index[place] ^ int(source.integers(1, 256))]) + index[place + 1 :])
    for content in cuts + changes:
        (tmp_path / "model.ckpt.index").write_bytes(content)
        found = outcome(prefix)
        if isinstance(found, dict):
            unharmed += 1
            jax.tree.map(np.testing.assert_array_equal, found, whole)
        else:
            assert "model.ckpt.index: " in found
    assert unharmed < 0.1 * len(changes), "the footer's filling, and the block that nothing is in"
    (tmp_path / "model.ckpt.index").write_bytes(index)
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(values[:-50] + b"\x01" + values[-49:])
    assert "the file is damaged" in outcome(prefix)
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(values[:-50])
    assert "the file has" in outcome(prefix)
    (tmp_path / "model.ckpt.data-00000-of-00001").unlink()
    assert "No such file" in outcome(prefix)


def entry(**changes):
    """An entry of the index that says something else about a tensor of two numbers."""
    fields = {"type": 1, "shape": bundle.write_field(2, bundle.write_field(1, 2)), "shard": 0, "offset": 0, "size": 8}
    fields |= changes
    content = b"".join(bundle.write_field(n, fields[name]) for n, name in enumerate(fields, 1) if n < 6)
    return content + bytes([53]) + struct.pack("<I", masked(crc32c(bytes(8)))) + fields.get("more", b"")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"type": 7}, "TensorFlow's type 7"),
        ({"size": 12}, r"shape \[2\] of float32, but 12 bytes"),
        ({"offset": 2**60}, "the file has 8"),
        ({"shard": 3}, "file 3 of 1|No such file"),
        ({"shape": bundle.write_field(2, bundle.write_field(1, 2**62))}, "but 8 bytes"),
        ({"shape": bundle.write_field(2, bundle.write_field(1, 2**64 - 1))}, "negative size"),
        ({"shape": bundle.write_field(3, 1)}, "unknown rank"),
        ({"shape": bundle.write_field(2, b"") * 33}, "33 axes"),
        ({"more": bundle.write_field(7, b"")}, "in slices"),
        ({"more": b"\xff"}, "cut off"),
        ({"shape": 5}, "a number where bytes must be"),
    ],
)
def test_entries_that_lie_are_refused(tmp_path, changes, message):
    """With checksums that are right: what someone may have written on purpose."""
    header = bundle.write_field(1, 1) + bundle.write_field(3, bundle.write_field(1, 1))
    content = bundle.write_table([(b"", header), (b"x", entry(**changes))], 4096)
    (tmp_path / "x.ckpt.index").write_bytes(content)
    (tmp_path / "x.ckpt.data-00000-of-00001").write_bytes(bytes(8))
    found = outcome(tmp_path / "x.ckpt")
    if message is None:
        np.testing.assert_array_equal(found["x"], [0, 0])
    else:
        with pytest.raises(CheckpointError, match=message):
            raise CheckpointError(found)


def test_a_compressed_block_is_named():
    body = bundle.write_block([(b"", b"")])
    content = body + b"\x01"
    content += struct.pack("<I", masked(crc32c(content))) + bytes(48)
    with pytest.raises(CheckpointError, match="compressed by Snappy"):
        bundle.block(content, 0, len(body))


@pytest.mark.parametrize("first_position", [0, 2])
@pytest.mark.parametrize("with_head", [False, True])
def test_saved_and_loaded_to_the_same_bits(tmp_path, first_position, with_head):
    config = dataclasses.replace(CONFIG, first_position=first_position)
    parameters = initial(config)
    if with_head:
        parameters = parameters._replace(head=model.initial_head(jax.random.key(1), config, 3), masked=None)
    elif first_position:
        parameters = parameters._replace(pooler=None)
    weights.save(tmp_path, config, parameters)
    found_config, found = weights.load(tmp_path)
    assert found_config == config
    assert model.parts(found) == model.parts(parameters)
    jax.tree.map(np.testing.assert_array_equal, found, parameters)


def test_names_of_older_files(tmp_path):
    """``gamma`` and ``beta``, the stored product with the table of words, numbers of positions."""
    parameters = initial(CONFIG)
    weights.save(tmp_path, CONFIG, parameters)
    (tmp_path / "checksums.json").unlink()  # the file is changed on purpose
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
    }
    renamed["bert.embeddings.position_ids"] = np.arange(12)[None]
    renamed["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    renamed["cls.seq_relationship.weight"] = np.zeros((2, 16), np.float32)
    save_file(renamed, path)
    jax.tree.map(np.testing.assert_array_equal, weights.load(tmp_path)[1], parameters)
    renamed["cls.predictions.decoder.weight"] = 2 * renamed["cls.predictions.decoder.weight"]
    save_file(renamed, path)
    with pytest.raises(CheckpointError, match=r"cls\.predictions\.decoder\.weight is not that of the encoder"):
        weights.load(tmp_path)


def test_one_error_names_all_that_does_not_fit(tmp_path):
    weights.save(tmp_path, CONFIG, initial(CONFIG))
    (tmp_path / "checksums.json").unlink()  # the file is changed on purpose
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["bert.encoder.layer.1.output.dense.bias"]
    tensors["bert.encoder.layer.2.output.dense.bias"] = np.zeros(16, np.float32)
    tensors["bert.pooler.dense.weight"] = np.zeros((16, 17), np.float32)
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as error:
        weights.load(tmp_path)
    for part in (
        "missing: encoder.layer.1.output.dense.bias",
        "left over: encoder.layer.2.output.dense.bias",
        "pooler.dense.weight has shape [16, 17]; allowed: [16, 16]",
    ):
        assert part in str(error.value)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: "):
        weights.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(CheckpointError, match="model_type must be one of bert, roberta, xlm-roberta; got 't5'"):
        weights.load(tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 5}')
    with pytest.raises(CheckpointError, match="has no 'hidden_size'"):
        weights.load(tmp_path)
    with pytest.raises(CheckpointError, match=r"neither config\.json nor bert_config\.json"):
        weights.load(tmp_path / "nothing")
