"""Training BERT on masked words: which are masked and how, that it learns a few sentences, and goes on when killed.

Violations planted for these tests, each of which failed: 20 percent of the gaps with a token that is drawn, gaps in
what stands around a text, gaps at all places that a batch has room for (the shares); words of one batch at the places
of another, frequencies with what stands around a text (the scores).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bert import data, masking, tokens, train, weights
from experiments.bert.config import Config
from experiments.bert.tokens import Tokens

MASK, NUM_TOKENS = 4, 50


def test_gaps_are_of_words_in_the_right_shares():
    """15 percent of the words of each text, of them 80, 10 and 10 percent by three ways; and nothing else changes."""
    counts = np.tile([40, 7, 1, 0], 1_000)
    words = (np.arange(42)[None] >= 1) & (np.arange(42)[None] < 1 + counts[:, None])
    ids = np.broadcast_to(np.arange(5, 47, dtype=np.int32), words.shape)
    draw = jax.jit(lambda key, ids, words: masking.asked(key, ids, words, mask=MASK, vocabulary_size=NUM_TOKENS))
    gaps = jax.tree.map(np.asarray, draw(jax.random.key(0), jnp.asarray(ids), jnp.asarray(words.astype(np.int32))))
    assert (gaps.used.sum(1) == np.tile([6, 1, 1, 0], 1_000)).all()
    asked_for = np.zeros(ids.shape, int)
    np.add.at(asked_for, (np.arange(len(ids))[:, None], gaps.places), gaps.used)
    assert asked_for.max() == 1, "no word is asked for twice"
    assert not asked_for[~words].any()
    np.testing.assert_array_equal(gaps.words, 5 + gaps.places)
    np.testing.assert_array_equal(gaps.ids[asked_for == 0], ids[asked_for == 0])
    # Each word is as likely as another to be asked for.
    often = asked_for[::4, 1:41].sum(0)
    assert (np.abs(often - 150) < 5 * np.sqrt(1_000 * 0.15 * 0.85)).all()
    # A token that is drawn is the one that stood there once in 50 times.
    shown, true = gaps.ids[asked_for == 1], ids[asked_for == 1]
    for share, expected in (
        ((shown == MASK).mean(), 0.8 + 0.1 / NUM_TOKENS),
        ((shown == true).mean(), 0.1 + 0.1 / NUM_TOKENS),
    ):
        assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / len(shown))
    replaced = shown[(shown != MASK) & (shown != true)]
    assert (replaced.min(), replaced.max()) == (0, NUM_TOKENS - 1)


def test_scores_by_hand():
    used = np.array([[True, True, False]])
    found = masking.Found(np.log([[2.0, 8.0, 99.0]]), np.array([[True, False, True]]), np.array([[1, 2, 0]]), used)
    other = found._replace(nats=np.log([[99.0, 99.0, 4.0]]), used=~used)
    result = masking.scores([found, other], np.array([6.0, 1.0, 2.0]))
    assert result["perplexity"] == pytest.approx(4)
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert (result["nats_by_frequency"], result["words"]) == (3, 3)
    rows = [Tokens([2, 5, 5, 3], [0] * 4, [(0, 0)] * 4, [None, 0, 0, None], False)]
    np.testing.assert_allclose(masking.frequencies(rows, 6), -np.log([1 / 8] * 5 + [3 / 8]))
    assert masking.is_word(rows[0], 6).tolist() == [0, 1, 1, 0, 0, 0]
    with pytest.raises(data.DataError, match="no text has a word that can be masked"):
        masking.scores([found._replace(used=~used & used)], np.zeros(3))


SENTENCES = [
    "the cat sleeps on sofas",
    "seven dogs ran past us",
    "every king wants golden crowns",
    "trains leave this station early",
]


class Killed(Exception):  # noqa: N818 (it stands for a signal)
    pass


def test_four_sentences_are_learned_by_heart_and_a_killed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    once = "\n\n".join(SENTENCES) + "\n"
    (tmp_path / "few.txt").write_text(once * 4)
    (tmp_path / "many.txt").write_text(once * 240)
    paths = {"train": tmp_path / "many.txt", "valid": tmp_path / "few.txt", "test": tmp_path / "few.txt"}
    small = Config(tiny=True, task="masked", num_epochs=4, patience=4, save_every=25, out=tmp_path / "whole", **paths)
    # A batch that the devices of the tests cannot share: they are threads of one processor.
    monkeypatch.setattr(train, "TINY", dataclasses.replace(train.TINY, dropout=0.01, batch_size=30, learning_rate=1e-2))
    programs = train.train_step._cache_size()
    expected = train.main(small)
    assert expected["test_nats"] < 0.2 * expected["test_nats_by_frequency"]
    assert expected["test_perplexity"] == pytest.approx(np.exp(expected["test_nats"]))
    assert expected["test_words"] == 16
    config, parameters = weights.load(tmp_path / "whole" / "model")
    assert parameters.masked.bias.shape == (config.vocabulary_size,)
    assert parameters.head is None
    log = train.Run.log

    def log_or_die(self, at, **values):
        if at >= 60:
            raise Killed
        log(self, at, **values)

    parts = dataclasses.replace(small, out=tmp_path / "parts")
    with monkeypatch.context() as patch:
        patch.setattr(train.Run, "log", log_or_die)
        with pytest.raises(Killed):
            train.main(parts)
    assert train.main(parts) == expected
    # One step for all epochs, and after it was killed; planted: a first score of a weak type.
    assert train.train_step._cache_size() == programs + 1
    for name in ("metrics.jsonl", "model/model.safetensors", "result.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_what_masked_words_need(tmp_path):
    path = tmp_path / "some.txt"
    path.write_bytes(b"\xef\xbb\xbffirst line\r\n\n\xff\n  last line\n")
    examples, problems = data.read(path, "masked")
    assert [(e.line, e.text) for e in examples] == [(1, "first line"), (4, "last line")]
    assert problems == [(3, "not UTF-8 from byte 0 on")]
    lines = tmp_path / "some.jsonl"
    lines.write_text('{"text": "a"}\n\n{"txt": "b"}\n')
    assert [e.text for e in data.read(lines, "masked")[0]] == ["a"]
    assert data.read(lines, "masked")[1] == [(3, "no 'text'")]
    tokenizer = tokens.from_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"], path)
    with pytest.raises(tokens.TokenError, match=r"has no \[MASK\], which masked words need"):
        masking.mask_id(tokenizer)
    with pytest.raises(data.DataError, match=r"name must end in \.tsv or \.jsonl"):
        data.read(tmp_path / "some.md", "masked")
