"""Vocabularies and labelled texts: offsets into the text, and lines that cannot be used.

A violation planted for the offsets, which failed: a span that ends one character on.
"""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer as Fast
from tokenizers import models, pre_tokenizers, processors, trainers

from experiments.bert import data, masking, model, tokens
from experiments.bert.vocabulary import keep_tokens

CONFIG = model.Config(20, 16, 2, 4, 24, 12)


def initial(config):
    """Random weights, drawn without a program to compile."""
    source, shapes = np.random.default_rng(0), jax.eval_shape(lambda: model.initial(jax.random.key(0), config))
    return jax.tree.map(lambda leaf: jnp.asarray(source.normal(size=leaf.shape), leaf.dtype), shapes)


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
    for second, least in ((None, 2), ("the", 3)):
        assert len(tokenizer.encode(text, second, max_length=least).ids) == least
        with pytest.raises(ValueError, match=f"max_length must be at least {least} here; got {least - 1}"):
            tokenizer.encode(text, second, max_length=least - 1)
    assert tokenizer.encode("").ids == [2, 3]
    pair = tokenizer.encode("the cat", "北京")
    assert pair.types == [0, 0, 0, 0, 1, 1, 1]
    batch = tokenizer.batch([found, pair])
    assert batch.ids.shape == (2, 14)
    assert batch.mask.sum(1).tolist() == [14, 7]


def test_offsets_of_a_vocabulary_of_bytes(tmp_path):
    """RoBERTa's: a character of several tokens has one place, a space before a word is none of it; saved and loaded."""
    fast = Fast(models.BPE(unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special, alphabet = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(["the cat saw the cat"] * 3, trainer)
    fast.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokens.Tokenizer(fast, tmp_path).save(tmp_path)
    tokenizer = tokens.load(tmp_path)
    text = "the Cat 爱 cat\U0001f600"
    found = tokenizer.encode(text)
    places = dict.fromkeys((a, b) for a, b in found.offsets if a < b)
    assert [text[slice(*place)] for place in places] == ["the", "C", "at", "爱", "cat", "\U0001f600"]
    for phrase in ("Cat", "爱", "cat\U0001f600"):
        start = text.index(phrase)
        first, last = found.span(start, start + len(phrase))
        assert text[found.offsets[first][0] : found.offsets[last][1]] == phrase
        assert found.offsets[first - 1][1] <= start, "the first of its tokens"
    pair = tokenizer.encode("the", "cat")
    assert pair.texts == [None, 0, None, None, 1, None]
    batch = tokenizer.batch([found, pair])
    assert (tokenizer.padding_id, batch.ids[1, -1], masking.mask_id(tokenizer)) == (1, 1, 4)
    with pytest.raises(tokens.TokenError, match="only a vocabulary of pieces of words can be made smaller"):
        tokenizer.keep(special)


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
    fewer_config, fewer = keep_tokens(config, parameters, numbers)
    text = "the cats 爱北"
    results = []
    for cut, sizes, values in ((tokenizer, config, parameters), (tokenizer.keep(chosen), fewer_config, fewer)):
        batch = cut.batch([cut.encode(text)])
        results.append(model.encode(values.encoder, batch.ids, batch.mask, config=sizes))
    np.testing.assert_array_equal(*results)
    assert fewer_config.vocabulary_size == 11
    with pytest.raises(ValueError, match="numbers must differ"):
        keep_tokens(config, parameters, [1, 1])
    with pytest.raises(ValueError, match="from 0 to 14"):
        keep_tokens(config, parameters, [15])
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
    empty = tmp_path / "empty"
    with pytest.raises(tokens.TokenError, match=r"empty is no directory"):
        tokens.load(empty)
    empty.mkdir()
    with pytest.raises(tokens.TokenError, match=r"neither tokenizer\.json nor vocab\.txt: a model's directory"):
        tokens.load(empty)
    (empty / "model").mkdir()
    with pytest.raises(tokens.TokenError, match=r"it is the directory of a run, whose model is .*empty/model\)"):
        tokens.load(empty)


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
        "1 field; allowed: text, label, or text, text, label",
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
    path.write_text(r'{"text": "good", "label": "\ud83d\ude00"}' + "\n" + r'{"text": "good", "label": "\ude00"}')
    examples, problems = data.read(path, "classification")
    assert examples[0].labels == ("\U0001f600",)
    assert problems == [(2, r"half of a surrogate pair, '\ude00', is no character")]
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
