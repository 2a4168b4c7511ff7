"""The experiments on biased statistics: they run, and say what they are there to say."""

import dataclasses
import json

import jax
import numpy as np
from replicates import FAR

from experiments.biased_unbiased import __main__ as biased_unbiased
from experiments.smooth_f1 import __main__ as smooth_f1


def test_the_headline_tables_are_the_committed_ones_within_standard_errors(tmp_path):
    config = dataclasses.replace(biased_unbiased.TINY, replicates=500, population=500_000, seed=1, out=tmp_path)
    tables = biased_unbiased.main(config)
    committed = json.loads(biased_unbiased.COMMITTED.read_text())
    assert biased_unbiased.largest_z(tables, committed) < FAR
    exchanged = {**tables, "f_measure": [{**row, "naive": row["linearised"]} for row in tables["f_measure"]]}
    assert biased_unbiased.largest_z(exchanged, committed) > FAR
    assert json.loads((tmp_path / "tables.json").read_text()).keys() == tables.keys()
    assert (tmp_path / "biases.png").stat().st_size > 10_000
    small, *_, everything = tables["f_measure"]
    assert small["naive"][0] < 0 < everything["naive"][0]
    assert small["linearised"][0] > 0
    wide = tables["alignment"][-1]
    np.testing.assert_allclose(wide["biased"][0], 0.953, atol=0.01)
    assert abs(wide["unbiased parts"][0]) < 0.05


def test_fine_tuning_runs_and_reports_every_loss(tmp_path):
    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in integers
        summary = smooth_f1.main(dataclasses.replace(smooth_f1.TINY, out=tmp_path))
    assert list(json.loads((tmp_path / "results.json").read_text())) == list(summary)
    assert {name.partition(",")[0] for name in summary} == {"before fine-tuning", *smooth_f1.LOSSES}
    assert all(0 <= mean <= 1 for mean, _ in summary.values())
