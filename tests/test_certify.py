"""Certification finds known mistakes and false claims, and knows the exact values that it certifies against."""

import dataclasses
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import certify
from benchmarks.controls import CONTROLS
from benchmarks.small_problems import BOUND_PROBLEMS, normal_bound
from jaxlab.distributions import Normal
from jaxlab.estimators import BOUNDS, ESTIMATORS


@pytest.mark.parametrize(("num_samples", "power"), [(1, 1.0), (2, 1.0), (3, 1.0), (2, 0.5)])
def test_the_bound_over_bits_is_the_sum_over_all_tuples(num_samples, power):
    dist, log_joint, bound, theta = BOUND_PROBLEMS["bits_bound"]
    chance = 1 / (1 + np.exp(-np.float64(dist.logits)))
    total = 0.0
    states = list(itertools.product([0.0, 1.0], repeat=3))
    joint = {b: float(log_joint(jnp.array(b), theta)) for b in states}
    log_q = {b: sum(math.log(p if bit else 1 - p) for bit, p in zip(b, chance, strict=True)) for b in states}
    for draws in itertools.product(states, repeat=num_samples):
        weights = [math.exp(power * (joint[b] - log_q[b])) for b in draws]
        total += math.exp(sum(log_q[b] for b in draws)) * math.log(sum(weights) / num_samples) / power
    assert float(bound(dist, theta, num_samples, power)) == pytest.approx(total, rel=1e-5)


def test_the_bound_of_a_normal_posterior_is_the_closed_form_for_one_sample():
    # E[a cos 2x - (x - m)^2 / 2] plus the entropy.
    m, s, a, center = 0.4, 0.8, 0.8, -0.3
    elbo = a * math.cos(2 * m) * math.exp(-2 * s**2) - ((m - center) ** 2 + s**2) / 2
    elbo += math.log(s) + 0.5 * math.log(2 * math.pi * math.e)
    dist = Normal(jnp.array([m]), jnp.array([s]))
    bound = [float(normal_bound(dist, jnp.array([a, center]), n, 1.0)) for n in (1, 2, 3)]
    assert bound[0] == pytest.approx(elbo, rel=1e-5)
    assert bound[0] < bound[1] < bound[2]


def test_every_known_mistake_is_found():
    lines = certify.certify_controls(20_000, seed=0)
    assert [line["control"] for line in lines] == list(CONTROLS)
    assert all(line["found"] for line in lines)
    # That one of them has no bias, and is told by its variance alone.
    (unbiased,) = (line for line in lines if not CONTROLS[line["control"]].is_biased)
    assert unbiased["z"] < certify.FAR
    assert unbiased["variance_ratio"] > certify.WASTE


def test_variances_of_one_bit_are_the_published_ones():
    lines = certify.certify_variances(20_000, seed=0)
    assert len(lines) == 28
    assert all(line["agrees"] for line in lines)


def test_variances_of_200_bits_are_those_measured_before():
    lines = certify.certify_many_bits(20_000, seed=0)
    assert [line["agrees"] for line in lines] == [True] * 10


@pytest.mark.parametrize("name", [*ESTIMATORS, *BOUNDS])
def test_every_estimator_has_a_problem_to_be_certified_on(name):
    assert any(row.name == name for row, _ in certify.fitting())


def run(tmp_path, *names, draws=4000):
    status = certify.main(certify.Settings(estimator=names, draws=draws, out=tmp_path))
    return status, json.loads((tmp_path / "certificate.json").read_text())


def test_right_claims_hold(tmp_path):
    status, results = run(tmp_path, "disarm", "iwae", "exact")
    assert status == 0
    assert [(line["estimator"], line["problem"]) for line in results["lines"]] == [
        ("exact", "bits"),
        ("exact", "categories"),
        ("disarm", "bits"),
        ("iwae", "normal_bound"),
    ]
    assert max(max(line["z"].values()) for line in results["lines"]) < certify.FAR


@pytest.mark.parametrize(
    ("table", "name", "claim"), [(ESTIMATORS, "straight_through_mean", True), (BOUNDS, "stl", True)]
)
def test_a_false_claim_is_a_contradiction(tmp_path, monkeypatch, table, name, claim):
    monkeypatch.setitem(table, name, dataclasses.replace(table[name], unbiased_gradient=claim))
    status, results = run(tmp_path, name)
    assert status == 1
    assert any("to the distribution claimed unbiased" in words for words in results["contradictions"])


def test_a_bias_that_is_not_seen_is_a_contradiction(tmp_path, monkeypatch):
    row = dataclasses.replace(ESTIMATORS["disarm"], unbiased_gradient=False)
    monkeypatch.setitem(ESTIMATORS, "disarm", row)
    status, results = run(tmp_path, "disarm")
    assert status == 1
    assert "declared biased" in results["contradictions"][0]


def test_not_a_number_is_infinitely_far():
    moments = certify.moments_of(jnp.array([[jnp.nan, 1.0], [0.0, 2.0]]))
    z = certify.z_scores(moments, (jnp.array(0.0), (jnp.array([1.5]), jnp.zeros(0))))
    assert z == {"value": math.inf, "to the distribution": pytest.approx(0, abs=1e-3), "to f": 0.0}


def test_unknown_names_are_refused(capsys):
    assert certify.main(certify.Settings(estimator=("reinforced",))) == 2
    assert "no 'reinforced'" in capsys.readouterr().out


def test_draws_are_those_that_are_asked_for():
    line = certify.certify(ESTIMATORS["leave_one_out"], "bits", 20_001, 0)
    assert line["draws"] >= 20_001
    assert jax.tree.leaves(line["claims"]) == [True] * 3
