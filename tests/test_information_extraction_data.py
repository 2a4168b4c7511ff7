"""Information extraction: files of every shape, bad records, units, the look-up, exchanged pairs.

Violations planted for these tests, each of which failed: tokens whose places are one character off (the shapes); a
table that gives a text what it alone has (the prior); words that take in the last token before them, or the first after
them, are cut off a word early, or have no token and are given another's (the tokens of words).
"""

import os
from pathlib import Path

import numpy as np
import pytest

from experiments.bert import tokens
from experiments.information_extraction import (
    augment,
    data,
    model,
    prior,
    protocols,
    units,
)
from experiments.information_extraction.data import DataError, Example, Mention

WEBNLG = Path(os.environ.get("JAXLAB_DATA", Path(__file__).parents[2] / "shared" / "data")) / "webnlg"
SHAPES = {
    "duie.jsonl": b'{"text": "Ada wed Bob", "spo_list": [{"subject": "Ada", "predicate": "wed", "object": "Bob"}]}\n',
    "duie2.jsonl": b'{"text": "Ada wed Bob", "spo_list": [{"subject": "Ada", "predicate": "wed",'
    b' "object": {"@value": "Bob"}}]}',
    "prgc.json": b'[{"text": "Ada wed Bob", "triple_list": [["Ada", "wed", "Bob"]]}]',
    "jointer.json": b'[{"tokens": ["Ada", "wed", "Bob"], "spo_list": [["Ada", "wed", "Bob"]],'
    b' "spo_details": [[0, 1, "P", "wed", 2, 3, "P"]]}]',
    "open.json": b'{"Ada wed Bob": [["Ada", "wed", "Bob"]]}',
    "conll04.txt": b"#doc 1\n0\tAda\tB-P\t['wed']\t[2]\n1\twed\tO\t['N']\t[1]\n2\tBob\tB-P\t['N']\t[2]\n",
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_of_files_gives_the_same_triples(name, tmp_path):
    (tmp_path / name).write_bytes(SHAPES[name])
    [example], problems = data.read(tmp_path / name)
    assert (example.text, example.triples, problems) == ("Ada wed Bob", (("Ada", "wed", "Bob"),), [])
    if name in ("jointer.json", "conll04.txt"):
        assert example.mentions == (Mention((0, 3), "wed", (8, 11), ("P", "P")),)


def test_bad_records_are_counted_with_their_numbers_and_reasons(tmp_path):
    good = SHAPES["duie.jsonl"]
    lines = (
        good + b'\xff\n\n{"text": " "}\n[1]\n{"text": "a", "spo_list": [["a", "b"]]}\n{"text": 1}\nno\n{"tokens": []}\n'
    )
    (tmp_path / "bad.jsonl").write_bytes(lines + good.strip())
    examples, problems = data.read(tmp_path / "bad.jsonl")
    assert [example.line for example in examples] == [1, 10]
    assert [(number, reason.split(":")[0]) for number, reason in problems] == [
        (2, "not UTF-8 from byte 0 on"),
        (3, "empty"),
        (4, "text is empty"),
        (5, "a record must be an object; got list"),
        (6, "a triple has 2 parts"),
        (7, "text must be text; got int"),
        (8, "not JSON"),
        (9, "tokens must be a list with something in it"),
    ]
    (tmp_path / "none.jsonl").write_bytes(b"{}\n1\n")
    with pytest.raises(DataError, match="no record can be used; 1: no 'text'"):
        data.read(tmp_path / "none.jsonl")
    # In one array a fault is one of the whole file, which says where it is.
    array = b'[\n {"text": "Ada wed Bob"},\n {"text": "caf\xe9"}\n]'
    for content, reason in ((array, "is not UTF-8 in line 3"), (array[:40], "ends early: not JSON: .* line 3 column")):
        (tmp_path / "array.json").write_bytes(content)
        with pytest.raises(DataError, match=f"no record can be used; its JSON array {reason}"):
            data.read(tmp_path / "array.json")
    with pytest.raises(DataError, match=r"must end in \.jsonl, \.json or \.txt"):
        data.read(
            tmp_path / "none.jsonl".replace("jsonl", "csv")
            if (tmp_path / "none.csv").write_text("")
            else tmp_path / "none.csv"
        )
    with pytest.raises(DataError, match="No such file"):
        data.read(tmp_path / "absent.json")
    with pytest.raises(DataError, match=r"has no train\.jsonl, train\.json or train\.txt"):
        data.load(tmp_path, None, None, 0, False)


def test_half_of_a_surrogate_pair_is_a_bad_record(tmp_path):
    """It can be read as JSON, but neither cut into tokens nor written; whole pairs are characters."""
    for name, before, between, after in (("a.jsonl", "", "\n", ""), ("a.json", "[", ",", "]")):
        texts = [f'{{"text": "{text}", "spo_list": []}}' for text in (r"\ud83d\ude00", r"a \ud83d b")]
        (tmp_path / name).write_text(before + between.join(texts) + after)
        [example], problems = data.read(tmp_path / name)
        assert example.text == "\U0001f600"
        assert problems == [(2, r"half of a surrogate pair, '\ud83d', is no character")]


def test_the_directory_of_a_run_is_told_from_that_of_its_model(tmp_path):
    with pytest.raises(DataError, match="has no extractor: "):
        model.load(tmp_path)
    (tmp_path / "model").mkdir()
    with pytest.raises(DataError, match=r"has no extractor \(it is the directory of a run, whose model is .*model\): "):
        model.load(tmp_path)


def test_a_relation_of_no_entity_is_a_bad_record(tmp_path):
    (tmp_path / "a.txt").write_bytes(
        b"\xef\xbb\xbf" + SHAPES["conll04.txt"] + b"#doc 2\n0\tAda\tO\t['wed']\t[0]\n#doc 3\n0\tAda\n"
    )
    examples, problems = data.read(tmp_path / "a.txt")
    assert len(examples) == 1
    assert problems[0] == (5, "wed of tokens 0 and 0, one of which is in no entity")
    assert problems[1].line == 7


def test_triples_are_found_at_whole_units_and_nearest_to_each_other():
    """Not where ``text.find`` would find them: "an" within "than", or the first "Rome" of two."""
    text = "Rome is older than an inn; Eve left Rome"
    example = Example(1, text, (("Eve", "left", "Rome"), ("an", "a", "Rome"), ("ome", "b", "Eve")), ())
    places = data.units_of(text)
    found, lost = data.located(example, {a for a, _ in places}, {b for _, b in places})
    assert [(m.subject, m.object) for m in found] == [((27, 30), (36, 40)), ((19, 21), (36, 40))]
    assert lost == ["'ome' of ('ome', 'b', 'Eve') is not in the text as whole units"]


def test_units_are_words_numbers_and_chinese_characters():
    text = "华为5G于2014年 A.C. Köln-x"
    found = [text[slice(*place)] for place in data.units_of(text)]
    assert found == ["华", "为", "5", "G", "于", "2014", "年", "A", ".", "C", ".", "Köln", "-", "x"]


def test_open_triples_are_pairs_and_come_back():
    triples = (("a", "p", "b"), ("a", "p", "c"), ("d", "q", "b"))
    example = data.opened(Example(1, "a p b c d q", triples, ()))
    assert len(example.triples) == 8  # two triples share a pair
    assert sorted(data.closed(example.triples)) == sorted(triples)
    assert data.closed([t for t in example.triples if t != ("d", data.PAIRS[2], "b")]) == sorted(triples[:2])


def rows_of(text, *triples, max_length=64):
    example = Example(1, text, triples, ())
    vocabulary = units.Vocabulary.of([example, example])
    return example, vocabulary.encoder(max_length)(example)


def test_words_with_the_tokens_that_they_are_made_of():
    """Köln in two pieces without its accent; a character that the tokenizer drops; what is cut off."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ko", "##ln", "left", "ada", "."]
    tokenizer = tokens.from_tokens(pieces, Path("pieces"))
    example = Example(1, "Ada left Köln. \u200b", (), (), ((0, 3), (4, 8), (9, 13), (13, 14), (15, 16)))
    vocabulary = units.Vocabulary.of([example, example])
    row = units.joint_encoder(vocabulary, tokenizer, 16)(example)
    assert row.tokens.tolist() == [2, 7, 6, 4, 5, 8, 3]
    assert row.spans.tolist() == [[1, 1], [2, 2], [3, 4], [5, 5], [0, 0]]
    assert (row.length, row.truncated, len(row.ids)) == (7, False, 5)
    for most, expected in ((6, [[1, 1], [2, 2], [3, 4]]), (5, [[1, 1], [2, 2]]), (2, [])):
        row = units.joint_encoder(vocabulary, tokenizer, most)(example)
        assert (row.spans.tolist(), row.truncated, row.length) == (expected, True, most)
        assert len(row.ids) == len(row.offsets) == len(row.inside) == len(expected)
    assert units.joint_encoder(vocabulary, tokenizer, 9)(example._replace(text=" ", tokens=())).spans.shape == (0, 2)


def test_words_around_characters_and_unknown_units():
    example = Example(1, "上海人", (), (), None, ((0, 2),))
    vocabulary = units.Vocabulary.of([example, example])
    row = vocabulary.encoder(9)(example._replace(text="上海狗"))
    assert row.ids.tolist()[2] == units.UNKNOWN
    assert row.words.tolist() == [2, 2, 0]
    assert row.pieces.shape == (3, units.NUM_PIECES)
    assert vocabulary.encoder(2)(example).truncated


def test_a_prior_does_not_see_what_a_text_alone_has():
    texts = [(("Ada", "wed", "Bob"),), (("Ada", "wed", "Bob"), ("Bob", "saw", "Eve"))]
    table = prior.Table.of(texts)
    _, row = rows_of("Eve saw Ada and Bob")
    assert table.look_up("Eve saw Ada and Bob", row) == [(2, 2, "wed", 4, 4), (4, 4, "saw", 0, 0)]
    assert table.look_up("Eve saw Ada and Bob", row, texts[1]) == [(2, 2, "wed", 4, 4)]
    assert table.look_up("Eve saw Ada and Bob", row, [("Ada", "wed", "Bob")])[0][2] == "wed"


@pytest.mark.skipif(not WEBNLG.exists(), reason="no WebNLG here")
def test_what_a_table_of_the_training_finds_in_webnlg():
    """Against another program's: 91.1% of the test stands in the training, 143 triples do not; F1 0.584 (0.430, 0.911).

    It compared strings wherever they stand in the text, and had no units.
    """
    training, test = (data.read(WEBNLG / f"{name}.json")[0] for name in ("train", "test"))
    assert (len(training), len(test)) == (5019, 703)
    table, encode = prior.Table.of(example.triples for example in training), units.Vocabulary({}, {}).encoder(128)
    known = {triple for example in training for triple in example.triples}
    both = found = true = unseen = 0
    for example in test:
        row = encode(example)
        of_text = {
            tuple(
                part if isinstance(part, str) else example.text[row.offsets[part[0]][0] : row.offsets[part[1]][1]]
                for part in ((a, b), predicate, (c, d))
            )
            for a, b, predicate, c, d in table.look_up(example.text, row)
        }
        both, found = both + len(of_text & set(example.triples)), found + len(of_text)
        true, unseen = true + len(example.triples), unseen + len(set(example.triples) - known)
    assert (true, unseen) == (1607, 143)
    assert (2 * both / (found + true), both / found, both / true) == pytest.approx((0.584, 0.430, 0.911), abs=6e-4)


def test_swapped_pairs_keep_their_triples():
    example, row = rows_of("old Ada Lovelace wed Bob", ("Ada Lovelace", "wed", "Bob"), ("Ada Lovelace", "is", "old"))
    mentions = units.placed(example, row, {"wed": 0, "is": 1}).mentions
    changed = augment.swapped(
        example, mentions, {"wed": [("Eve", "Adam")], "is": [("Eve", "new")]}, np.random.default_rng(1)
    )
    assert changed.text in ("old Eve wed Adam", "new Eve wed Bob")
    assert changed.triples[0][0] == "Eve"
    assert all(protocols.as_triple(changed.text, m) in changed.triples for m in changed.mentions)
    # Words stay where nothing of them is exchanged, beside it too: "Lovelace wed" and "Bob" are gone.
    words = (0, 3), (4, 7), (8, 20), (17, 20), (21, 24)
    changed = augment.swapped(
        example._replace(words=words), mentions[:1], {"wed": [("Eve", "Adam")]}, np.random.default_rng(1)
    )
    assert changed.text == "old Eve wed Adam"
    assert [changed.text[slice(*word)] for word in changed.words] == ["old", "wed"]
    inner = (Mention((4, 16), "wed", (8, 16)),)
    assert augment.swapped(example, inner, {"wed": [("Eve", "Adam")]}, np.random.default_rng(0)) is None
