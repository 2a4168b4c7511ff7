"""The table of quantizers: one budget, rows that later calls add to, and training that any block size cuts alike."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from benchmarks import quantizers
from benchmarks.quantizers import COMPARED, MEASURES, Config, main, summary, trained
from experiments.vqvae_pixelcnn.model import Model
from experiments.vqvae_pixelcnn.train import Data, load

TINY = Config(
    names=("fsq",),
    data=Data("digits"),
    model=Model(num_codes=64, levels=(4, 4, 4), hidden=4, residual_hidden=2, code_dim=3),
    num_seeds=2,
    num_steps=4,
    batch_size=8,
    block=2,
    save_every=2,
)


@pytest.fixture(autouse=True)
def promotion():
    """Which optax itself relies on."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_rows_of_later_calls_join_those_of_earlier_ones_and_another_budget_is_refused(tmp_path):
    tiny = replace(TINY, runs=tmp_path / "runs", out=tmp_path / "out")
    (row,) = main(tiny)
    assert all(len(row[measure]) == 2 for measure in MEASURES)
    assert row["psnr"][0] != row["psnr"][1]
    main(replace(tiny, names=("lfq",)))
    table = (tmp_path / "out" / "quantizers.md").read_text()
    assert [line.split(" | ")[0] for line in table.splitlines()[4:]] == ["| fsq", "| lfq"]
    assert table.startswith("digits, 2 seeds, 4 steps of 8 images, 4 channels, 64 codes")
    assert summary(row["psnr"]) in table
    with pytest.raises(SystemExit, match="rows of another budget"):
        main(replace(tiny, num_steps=5))


def test_a_run_that_is_cut_goes_on_to_the_bits_of_one_that_is_not_and_seeds_at_once_are_seeds_in_turn(tmp_path):
    images = load(TINY.data)[0].images
    whole = trained(replace(TINY, runs=tmp_path / "whole"), "fsq", images)[1]
    cut = replace(TINY, runs=tmp_path / "cut")

    with pytest.MonkeyPatch.context() as patch:
        made = []

        def rows_of_batches(*arguments):
            made.append(arguments)
            if len(made) == 2:
                raise KeyboardInterrupt
            return original(*arguments)

        original = quantizers.rows_of_batches
        patch.setattr(quantizers, "rows_of_batches", rows_of_batches)
        with pytest.raises(KeyboardInterrupt):
            trained(cut, "fsq", images)
    resumed = trained(cut, "fsq", images)[1]
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    together = trained(replace(TINY, runs=tmp_path / "together", seeds_at_once=2), "fsq", images)[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), together, whole)


def test_all_that_are_to_be_compared_are():
    assert {"ema", "ema_restart", "rotation", "diveq", "sim", "fsq", "lfq", "bsq", "gumbel"} <= set(COMPARED)
    assert Config().num_seeds >= 5
