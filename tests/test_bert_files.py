"""Checkpoints, vocabularies and labelled texts: read as they are, and refused in words when something is wrong."""

import dataclasses
import json
import shutil
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.bert import bundle, data, model, tokens, weights
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


VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "爱",
    "北",
    "京",
    "the",
    "##s",
    "cat",
    "0",
    ".",
    "880",
    "##7",
]


@pytest.fixture
def vocabulary(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return tmp_path


def test_offsets_are_those_of_the_text(vocabulary):
    """Chinese characters one by one, unknown ones too; capitals, accents and digits stand as they were."""
    tokenizer = tokens.load(vocabulary)
    text = "The CATS爱北京箓 0.8807 thé"
    found = tokenizer.encode(text)
    cut = [text[start:end] for start, end in found.offsets]
    assert cut == ["", "The", "CAT", "S", "爱", "北", "京", "箓", "0", ".", "880", "7", "thé", ""]
    assert [VOCABULARY[number] for number in found.ids][7:9] == ["[UNK]", "0"]
    first, last = found.span(text.index("0.8807"), text.index("0.8807") + 6)
    assert text[found.offsets[first][0] : found.offsets[last][1]] == "0.8807"
    assert found.span(4, 6) is None, "within a token"
    short = tokenizer.encode(text, max_length=5)
    assert (len(short.ids), short.truncated, short.span(18, 24)) == (5, True, None)
    assert not tokenizer.encode(text).truncated, "a length is asked for anew each time"
    assert tokenizer.encode("").ids == [2, 3]
    pair = tokenizer.encode("the cat", "北京")
    assert pair.types == [0, 0, 0, 0, 1, 1, 1]
    batch = tokenizer.batch([found, pair])
    assert batch.ids.shape == (2, 14)
    assert batch.mask.sum(1).tolist() == [14, 7]


def test_a_saved_tokenizer_is_the_same_and_what_is_baked_in_is_switched_off(vocabulary, tmp_path):
    tokenizer = tokens.load(vocabulary)
    saved = tmp_path / "saved"
    saved.mkdir()
    tokenizer.save(saved)
    state = json.loads((saved / "tokenizer.json").read_text())
    state["truncation"] = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    fixed = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None}
    state["padding"] = fixed | {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    (saved / "tokenizer.json").write_text(json.dumps(state))
    text = "the cats 爱 the cat"
    assert tokens.load(saved).encode(text) == tokenizer.encode(text)
    assert (saved / "vocab.txt").read_text().split() == VOCABULARY


def test_a_smaller_vocabulary_gives_the_same_features(vocabulary):
    tokenizer = tokens.load(vocabulary)
    config = dataclasses.replace(CONFIG, vocabulary_size=len(VOCABULARY))
    parameters = initial(config)
    chosen = [name for name in VOCABULARY if name not in ("0", "880", "##7", "[MASK]")]
    numbers = [VOCABULARY.index(name) for name in chosen]
    fewer_config, fewer = weights.keep_tokens(config, parameters, numbers)
    text = "the cats 爱北"
    results = []
    for cut, sizes, values in ((tokenizer, config, parameters), (tokenizer.keep(chosen), fewer_config, fewer)):
        batch = cut.batch([cut.encode(text)])
        results.append(model.encode(values.encoder, batch.ids, batch.mask, config=sizes))
    np.testing.assert_array_equal(*results)
    assert fewer_config.vocabulary_size == 11
    with pytest.raises(ValueError, match="numbers must differ"):
        weights.keep_tokens(config, parameters, [1, 1])
    with pytest.raises(ValueError, match="from 0 to 14"):
        weights.keep_tokens(config, parameters, [15])
    with pytest.raises(tokens.TokenError, match=r"has no \[UNK\]"):
        tokenizer.keep(["[PAD]", "[CLS]", "[SEP]"])


def test_vocabularies_that_cannot_be_used(tmp_path):
    path = tmp_path / "vocab.txt"
    for content, message in (
        (b"[PAD]\n[UNK]\n[CLS]\nx\n", r"has no \[SEP\]"),
        (b"[PAD]\nx\ny\nx\n", "line 4 has 'x' again, which line 2 has"),
        ("北京".encode("gbk"), "can't decode byte"),
    ):
        path.write_bytes(content)
        with pytest.raises(tokens.TokenError, match=message):
            tokens.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(tokens.TokenError, match=r"tokenizer\.json: "):
        tokens.load(tmp_path)
    with pytest.raises(tokens.TokenError, match=r"neither tokenizer\.json nor vocab\.txt"):
        tokens.load(tmp_path / "nothing")


def test_lines_that_cannot_be_used_are_left_out_and_listed(tmp_path):
    path = tmp_path / "some.tsv"
    path.write_bytes("\ufeffgood film\t1\n\nno label\n \t0\nbad film\t\n".encode() + b"caf\xe9\t1\nfine\tsecond\t0\r\n")
    examples, problems = data.read(path, "classification")
    assert [(e.line, e.text, e.second, e.labels) for e in examples] == [
        (1, "good film", None, ("1",)),
        (7, "fine", "second", ("0",)),
    ]
    assert [problem.line for problem in problems] == [2, 3, 4, 5, 6]
    assert [problem.reason for problem in problems] == [
        "empty",
        "1 fields; allowed: text, label, or text, text, label",
        "text is empty",
        "label is empty",
        "not UTF-8 from byte 3 on",
    ]
    path.write_text("id\tsentence\tlabel\n1\tgood film\tx\n2\tfilm\n")
    examples, problems = data.read(path, "classification")
    assert (examples[0].text, examples[0].labels) == ("good film", ("x",))
    assert problems == [(3, "2 fields; the header has 3")]


def test_json_lines(tmp_path):
    path = tmp_path / "some.jsonl"
    lines = [
        {"text": "good", "label": 1},
        {"text": "good"},
        {"text": 5, "label": "x"},
        {"text": "good", "label": None},
    ]
    path.write_text("\n".join([*map(json.dumps, lines), "{", "[]"]))
    examples, problems = data.read(path, "classification")
    assert [e.labels for e in examples] == [("1",)]
    expected = [
        "no 'label'",
        "text must be text; got int",
        "label must be text or a whole number; got None",
        "not JSON",
    ]
    for problem, reason in zip(problems, expected, strict=False):
        assert problem.reason.startswith(reason)
    assert len(problems) == 5
    path.write_text('{"text": "a cat", "spans": [[2, 5, "x"]]}\n{"text": "a cat", "spans": [[2, 6, "x"]]}')
    examples, problems = data.read(path, "spans")
    assert examples[0].spans == ((2, 5, "x"),)
    assert problems == [(2, "span 2 to 6 is not within the 5 characters of the text")]
    path.write_text('{"tokens": ["a", "cat"], "labels": ["D", "N"]}\n{"tokens": ["a"], "labels": []}')
    examples, problems = data.read(path, "tokens")
    assert examples[0].spans == ((0, 1, "D"), (2, 5, "N"))
    assert problems == [(2, "1 tokens and 0 labels")]
    with pytest.raises(data.DataError, match=r"no line can be used as an example of spans; line 1: no 'text'"):
        data.read(path, "spans")
    shutil.copy(path, tmp_path / "some.csv")
    with pytest.raises(data.DataError, match=r"the name must end in .tsv or .jsonl"):
        data.read(tmp_path / "some.csv", "tokens")
    with pytest.raises(data.DataError, match="No such file"):
        data.read(tmp_path / "none.tsv", "classification")
