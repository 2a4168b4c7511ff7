"""The tables say what was measured, in as many digits as are known, and the README has them."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from benchmarks import labels, report, tables

ROW = {
    "problem": "vae_trained",
    "estimator": "leave_one_out",
    "label": "leave_one_out, 2 samples",
    "unbiased": True,
    "evaluations": 2,
    "derivative_evaluations": 0,
    "relative_bias": 0.0123,
    "relative_bias_standard_error": 0.0111,
    "z": 1.108,
    "variance": 13.4,
    "relative_time": 1.42,
    "relative_variance_time": 0.0078,
}
RESULTS = {
    "date": "2026-01-02T03:04:05+00:00",
    "settings": {"draws": 8192, "smoke": False},
    "device": "cpu",
    "cores": 2,
    "versions": {"jax": "0.10.2"},
    "problems": [{"name": "vae_trained", "title": "auto-encoder", "size": 4810}],
    "rows": [ROW],
    "contradictions": [],
}


def test_report_writes_checks_and_finds_what_is_stale(tmp_path):
    readme, results = tmp_path / "README.md", tmp_path / "results"
    results.mkdir()
    (results / "gradient_variance.json").write_text(json.dumps(RESULTS))
    check = report.Settings(check=True, readme=readme, results=results)
    readme.write_text("# jaxlab\n")
    assert report.main(check) == 2  # no markers
    readme.write_text(f"# jaxlab\n\n{report.BEGIN}\n{report.END}\n\nmore {report.END}\n")
    assert report.main(check) == 1
    assert report.main(dataclasses.replace(check, check=False)) == 0
    assert report.main(check) == 0
    text = readme.read_text()
    assert text.startswith("# jaxlab\n")
    assert text.endswith(f"\n\nmore {report.END}\n")
    x = tables.TIMES
    assert (
        f"| `leave_one_out`, 2 samples | Scored | yes | all | 2 / 0 | 0.012 ± 0.011 | 1.1 | 13 | 1.4 {x} | 0.0078 {x} |"
        in text
    )
    assert "(results/bias_against_noise.png)" in text
    assert "do not take bits" not in text
    normal = ROW | {"problem": "normal_square", "estimator": "reparameterized", "label": "reparameterized"}
    problems = [*RESULTS["problems"], {"name": "normal_square", "title": "a normal variable", "size": 2}]
    both = RESULTS | {"rows": [ROW, ROW | {"problem": "normal_square"}, normal], "problems": problems}
    (results / "gradient_variance.json").write_text(json.dumps(both))
    assert report.main(dataclasses.replace(check, check=False)) == 0
    _, other = readme.read_text().split("Estimators that do not take bits, on a normal variable:")
    assert "| `reparameterized` | Reparameterizable |" in other
    assert "leave_one_out" not in other
    (results / "gradient_variance.json").write_text(json.dumps(RESULTS))
    readme.write_text(text.replace("| 13 |", "| 12 |"))
    assert report.main(check) == 1
    for useless in ({"settings": {"smoke": True}}, {"contradictions": ["a"]}, {"rows": []}):
        (results / "gradient_variance.json").write_text(json.dumps(RESULTS | useless))
        assert report.main(check) == 2


def test_readme_is_what_was_measured():
    assert report.main(report.Settings(check=True)) == 0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.04567, "0.046"),
        (0.0996, "0.10"),
        (1.0, "1.0"),
        (13.4, "13"),
        (-2449.0, "-2,400"),
        (1.2345e-9, "1.2e-9"),
        (2.5e9, "2.5e9"),
    ],
)
def test_numbers_have_two_digits(value, words):
    assert tables.number(value) == words


def test_errors_set_the_number_of_places():
    assert tables.with_error(0.01234, 0.0111) == "0.012 ± 0.011"
    assert tables.with_error(-1.2, 0.61) == "-1.20 ± 0.61"
    assert tables.with_error(152.3, 86.2) == "152 ± 86"
    assert tables.with_error(2449.0, 123.0) == "2,450 ± 120"
    assert tables.with_error(2.3e-7, 4.4e-9) == "2.3e-7 ± 4.4e-9"
    assert tables.with_error(0.0, 0.0) == "0 ± 0"
    assert tables.with_error(0.51, 1e-8) == "0.51 ± 1e-8"


def test_labels_are_spread_no_more_than_needed():
    assert labels.spread([0.0, 10.0], 5.0) == [0.0, 10.0]
    assert labels.spread([0.0, 1.0], 5.0) == [-2.0, 3.0]
    spread = labels.spread([0.0, 1.0, 2.0, 30.0, 31.0], 5.0)
    assert all(b - a >= 5 - 1e-9 for a, b in itertools.pairwise(spread))
    assert np.mean(spread[:3]) == pytest.approx(1)
