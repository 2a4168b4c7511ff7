"""The data of the experiments with ordered neurons: formulas, lists, trees, packed sentences.

Where the data of the papers is not there (``JAXLAB_DATA``, or ``shared/data`` beside the repository), the tests that
compare with it are skipped.

Violations planted for these tests, each of which failed: forward entailment named backward (the relations); a median
rounded up (the values of lists); a list in every third argument (the drawn lists); a recurrent encoder that does not
start anew where a sentence begins, and a Transformer that attends to the other sentences of a row (packing).
"""

import ast
import dataclasses
import itertools
import os
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.onlstm import (
    classification,
    corpus,
    listops,
    listops_data,
    logic,
    logic_data,
    parse,
    sentences,
)
from experiments.onlstm.logic_data import Pair, relation_of, truth_of

SHARED = Path(os.environ.get("JAXLAB_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs = {
    name: pytest.mark.skipif(not (SHARED / path).exists(), reason=f"no {name} data here")
    for name, path in {"logic": "proplog/proplog.tar.xz", "treebank": "gum/splits.md"}.items()
}


@pytest.fixture(autouse=True)
def standard_promotion():
    """The optimizers of optax raise Python numbers to integer powers."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The files of the paper's authors, unpacked."""
    directory = tmp_path_factory.mktemp("logic")
    with tarfile.open(SHARED / "proplog" / "proplog.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    return directory


def value_of(text: str, world: dict[str, bool]) -> bool:
    """A formula's value by Python's own grammar: another parser than the one that is tested reads the brackets."""

    def value(node: ast.expr) -> bool:
        match node:
            case ast.BoolOp(ast.And(), parts):
                return all(map(value, parts))
            case ast.BoolOp(ast.Or(), parts):
                return any(map(value, parts))
            case ast.UnaryOp(ast.Not(), part):
                return not value(part)
            case ast.Name(name):
                return world[name]
        raise ValueError(node)

    return value(ast.parse(text.replace("( and", "and (").replace("( or", "or ("), mode="eval").body)


def test_relations_are_what_logic_says():
    worlds = [dict(zip(logic_data.VARIABLES, bits, strict=True)) for bits in itertools.product((False, True), repeat=6)]
    definitions = {
        "=": lambda p, q: all(a == b for a, b in zip(p, q, strict=True)),
        "^": lambda p, q: all(a != b for a, b in zip(p, q, strict=True)),
        "<": lambda p, q: all(b for a, b in zip(p, q, strict=True) if a),
        ">": lambda p, q: all(a for a, b in zip(p, q, strict=True) if b),
        "|": lambda p, q: not any(a and b for a, b in zip(p, q, strict=True)),
        "v": lambda p, q: all(a or b for a, b in zip(p, q, strict=True)),
        "#": lambda p, q: True,
    }
    seen = set()
    for pair in logic_data.draw_pairs(0, 400):
        values = [[value_of(side, world) for world in worlds] for side in (pair.first, pair.second)]
        # The first that holds: equivalence and negation are stronger than what they imply.
        assert pair.relation == next(name for name, holds in definitions.items() if holds(*values)), pair
        seen.add(pair.relation)
    assert seen == set(logic_data.RELATIONS)


def test_golden_pairs():
    assert relation_of(truth_of("( a ( and b ) )"), truth_of("a")) == "<"
    assert relation_of(truth_of("a"), truth_of("( not a )")) == "^"
    assert relation_of(truth_of("( not b )"), truth_of("( ( not b ) ( or ( not e ) ) )")) == "<"
    pair = Pair("<", "( not b )", "( ( not b ) ( or ( not e ) ) )")
    assert pair.num_operators() == 3
    for broken in ("( a and b )", "( a ( and b )", "a b", "( g ( and b ) )", ""):
        with pytest.raises(ValueError, match="no formula"):
            truth_of(broken)


@needs["logic"]
def test_labels_and_bins_of_the_papers_files(original):
    count = 0
    for part, number in itertools.product(("train", "test"), range(13)):
        for pair in logic_data.read(original / f"{part}{number}")[::10]:
            assert relation_of(truth_of(pair.first), truth_of(pair.second)) == pair.relation
            assert pair.num_operators() == number
            count += 1
    assert count > 24_000


@needs["logic"]
def test_generated_pairs_are_distributed_as_the_papers(original):
    """Of their training pairs before repetitions are left out, which are rare from three operators on."""
    draws = [pair for pair in logic_data.draw_pairs(1, 20_000) if pair.num_operators() >= 5]
    files = [pair for number in range(5, 13) for pair in logic_data.read(original / f"train{number}")]

    def compare(statistic, names):
        ours, theirs = (np.array([statistic(pair) for pair in pairs]) for pairs in (draws, files))
        for name in names:
            p, q = (np.mean(values == name) for values in (ours, theirs))
            error = np.sqrt(q * (1 - q) * (1 / len(ours) + 1 / len(theirs)))
            assert abs(p - q) < 5 * error, (name, p, q)

    compare(lambda pair: pair.relation, logic_data.RELATIONS)
    compare(lambda pair: pair.num_operators(), range(7, 13))
    compare(lambda pair: pair.first.count("not"), range(8))
    compare(lambda pair: len({token for token in pair.first.split() if token in logic_data.VARIABLES}), range(1, 5))


def test_files_are_written_and_read_again(tmp_path):
    logic_data.main(logic_data.Config(tmp_path, num_draws=500))
    assert list(map(set, logic_data.load(tmp_path))) == list(map(set, logic_data.generate(0, 500)))
    (tmp_path / "train3").write_text("?\ta\tb\n")
    with pytest.raises(ValueError, match=r"train3, line 1: a relation and two formulas are wanted"):
        logic_data.load(tmp_path)


def test_every_pair_is_tested_and_batches_are_of_one_size():
    data = logic_data.encode(list(logic_data.draw_pairs(0, 300)))
    rows = sentences.batches(data, 32, None)
    assert rows.shape == (10, 32)
    assert set(rows.flat) == set(range(300))
    one, two = (sentences.batches(data, 32, (0, epoch)) for epoch in (0, 1))
    assert one.shape == (9, 32)
    assert len(set(one.flat)) == one.size
    assert one.tolist() != two.tolist()


def test_packed_sentences_are_whole_and_fill_their_rows():
    data = logic_data.encode(list(logic_data.draw_pairs(0, 300)))
    rows = np.arange(100)
    num_steps = sentences.steps_for(data)
    packed, labels = sentences.packed_batch(data, rows, num_steps)
    np.testing.assert_array_equal(labels, data.labels[rows])
    flat, lengths = data.tokens[rows].swapaxes(0, 1).reshape(200, -1), data.lengths[rows].T.reshape(-1)
    for number, (length, (step, row)) in enumerate(zip(lengths, packed.ends, strict=True)):
        steps = slice(step - length + 1, step + 1)
        np.testing.assert_array_equal(packed.tokens[steps, row], flat[number, :length])
        np.testing.assert_array_equal(packed.sentences[steps, row], number)
        np.testing.assert_array_equal(packed.positions[steps, row], np.arange(length))
    outside = packed.sentences == 200
    assert (packed.tokens[outside] == 0).all()
    assert (~outside).sum() == lengths.sum()
    needed = -(-lengths.sum() // num_steps)
    assert packed.tokens.shape[1] < needed + 1 + sentences.ROWS
    with pytest.raises(ValueError, match=r"^pack: lengths must be 1 ... 4; got 1 ... 7"):
        sentences.pack(np.ones((2, 7), np.int8), np.array([1, 7]), 4)


@pytest.mark.parametrize("encoder", ["lstm", "ordered", "input_only", "transformer"])
def test_packing_changes_no_encoder(encoder):
    """Each sentence alone in its row, and all of them packed; of a batch in another order, the same logits."""
    data = logic_data.encode(list(logic_data.draw_pairs(0, 40)))
    config = dataclasses.replace(logic.LOGIC.tiny, encoder=encoder)
    model = classification.make_model(logic.LOGIC, config)
    parameters = classification.initial_state(logic.LOGIC, config).parameters
    flat, lengths = data.tokens[:8].swapaxes(0, 1).reshape(16, -1), data.lengths[:8].T.reshape(-1)
    width = flat.shape[1]
    positions = np.where(np.arange(width)[None] < lengths[:, None], np.arange(width)[None], 0)
    numbers = np.where(np.arange(width)[None] < lengths[:, None], np.arange(16)[:, None], 16)
    alone = sentences.Packed(flat.T.astype(np.int32), numbers.T, positions.T, np.stack([lengths - 1, np.arange(16)], 1))
    together = sentences.pack(flat, lengths, sentences.steps_for(data))
    one, two = (jax.jit(model.apply)(parameters, packed) for packed in (alone, together))
    np.testing.assert_allclose(one, two, atol=1e-5)
    assert np.ptp(np.asarray(one), axis=0).max() > 1e-3


EXPRESSIONS = {
    "[MIN 3 1 2 ]": 1,
    "[MAX 3 [MIN 9 8 ] 2 ]": 8,
    "[MED 1 2 9 ]": 2,
    "[MED 1 4 ]": 2,  # of 2.5
    "[SM 7 8 9 ]": 4,
    "[SM [MED 5 0 5 6 ] [MAX 6 1 ] ]": 1,
}


def test_values_of_lists():
    for text, value in EXPRESSIONS.items():
        assert listops_data.value_of(text) == value
    for broken in ("[MIN 3", "[MIN ]", "3 ]", "[MUL 3 4 ]", "", "3 4"):
        with pytest.raises(ValueError, match="no expression"):
            listops_data.value_of(broken)


def test_drawn_lists_are_as_the_definition_says():
    train, test = listops_data.generate(0, 6_000)
    drawn = train + test
    assert len(set(drawn)) == len(drawn)
    for expression in drawn[::5]:
        depth = itertools.accumulate(
            (token in listops_data.OPERATORS) - (token == "]") for token in expression.text.split()
        )
        assert (listops_data.value_of(expression.text), max(depth)) == (expression.value, expression.levels)
    assert max(len(expression.text.split()) for expression in drawn) <= listops_data.MAXIMAL_TOKENS
    # One list in 4 of its arguments, where nothing has been left out: of the outermost ones that hold no list, the
    # share with n arguments falls by 3/4 for each of them.
    flat = [expression for expression in draws() if expression.levels == 1]
    counts = np.bincount([len(expression.text.split()) - 2 for expression in flat], minlength=6)[2:]
    expected = 0.75 ** np.arange(2, 6)
    expected /= expected.sum()
    error = np.sqrt(expected * (1 - expected) / len(flat))
    assert (np.abs(counts / len(flat) - expected) < 5 * error).all()
    with pytest.raises(ValueError, match="ListOps is generated: data must be None"):
        listops.load(dataclasses.replace(listops.DEFAULT, data=Path("somewhere")))


def draws():
    source = listops_data.random.Random(1)
    for _ in range(6_000):
        try:
            yield listops_data.draw_expression(source)
        except listops_data.TooLong:
            continue


TREE = """(ROOT
  (S
    (NP (DT The) (NN cat))
    (, ,)
    (VP (VBD sat) (PP (IN on) (NP (NP (CD 12) (NNS mats))))) (. .)))
"""


def test_read_tree():
    sentence = corpus.read_tree(TREE)
    assert sentence.words == ("the", "cat", "sat", "on", "N", "mats")
    assert sentence.spans == {(0, 5), (0, 1), (2, 5), (3, 5), (4, 5)}


def test_trees_that_do_not_parse_are_named_counted_and_left_out(tmp_path, capsys):
    path = tmp_path / "some.ptb"
    path.write_text(TREE + "(ROOT (NP (DT the)\n" + "(ROOT (X))\n" + "(ROOT (. .))\n" + "(ROOT (UH Yes))\n" + TREE)
    sentences, errors = corpus.read_treebank([path])
    assert [len(sentence.words) for sentence in sentences] == [6, 1, 6]
    assert [error.rpartition("/")[2].partition(":")[0] for error in errors] == ["some.ptb, line 6", "some.ptb, line 7"]
    assert "2 trees do not parse" in capsys.readouterr().out


def test_formulas_are_binary_trees():
    sentence = corpus.formula_sentence("( a ( and ( not b ) ) )")
    assert sentence == (("a", "and", "not", "b"), {(0, 3), (1, 3), (2, 3)})
    scores = parse.baselines(corpus.generated(100))
    assert scores["oracle"] == {"sentence_f1": pytest.approx(100), "corpus_f1": pytest.approx(100)}
    assert scores["random distances, unbiased"]["sentence_f1"] < 60


@needs["treebank"]
def test_trivial_trees_of_the_treebank():
    """Sentence F1 of an independent program: right branching 47.0, random about 25 by the biased parser."""
    data = corpus.load(SHARED / "gum")
    assert [len(part) for part in data[:3]] == [10_224, 1_575, 1_464]
    scores = {name: row["sentence_f1"] for name, row in parse.baselines(data.test).items()}
    assert scores["right branching"] == pytest.approx(47.0, abs=0.1)
    assert scores["left branching"] == pytest.approx(9.4, abs=0.5)
    assert scores["oracle"] == pytest.approx(83.9, abs=0.5)
    assert scores["random distances, right-biased"] > scores["random distances, unbiased"] + 2


def test_unknown_words_and_columns():
    vocabulary = (corpus.END, corpus.UNKNOWN, "a")
    sentences = [corpus.Sentence(("a", "b"), frozenset()), corpus.Sentence(("a",), frozenset())]
    np.testing.assert_array_equal(corpus.stream(sentences, vocabulary, 1)[:, 0], [2, 1, 0, 2, 0])
    with pytest.raises(ValueError, match="too few for 4 columns"):
        corpus.stream(sentences, vocabulary, 4)
