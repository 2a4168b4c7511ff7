"""The benchmark measures what it says: its z scores, its exact gradients, its verdicts."""

import dataclasses
import functools
import itertools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from benchmarks import gradient_variance, measure, problems, vae, variants
from jaxlab.estimators import ESTIMATORS

TINY = problems.Source(num_images=3, training_calls=2, steps_a_call=3)


@functools.cache
def built(name):
    return problems.PROBLEMS[name](TINY)


# The z score of a vector of biases.


@jax.jit
def noisy_gradients(mean, scale, keys):
    return mean[None] + scale[None] * jax.vmap(lambda key: jax.random.normal(key, mean.shape))(keys)


def synthetic(bias, *, scale, num_draws, seed):
    """The summary of gradients that are an exact gradient, a bias, and noise."""
    exact = jnp.linspace(-1.0, 1.0, len(bias))
    gradients_at = functools.partial(noisy_gradients, exact + bias, scale)
    return measure.summarised(gradients_at, jax.random.key(seed), exact, num_draws)


def test_z_is_standard_normal_without_bias():
    size = 30
    scale = jnp.logspace(-2, 1, size)  # most of the noise in few coordinates
    scores = [
        measure.bias_of(synthetic(jnp.zeros(size), scale=scale, num_draws=400, seed=seed), 0.0).z for seed in range(60)
    ]
    assert max(map(abs, scores)) < 4
    assert abs(np.mean(scores)) < 4 / math.sqrt(60)
    assert 0.65 < np.std(scores) < 1.4


@pytest.mark.parametrize("coordinate", [0, 7, 29])
def test_bias_in_any_one_direction_is_found(coordinate):
    bias = jnp.zeros(30).at[coordinate].set(-0.3)
    found = measure.bias_of(synthetic(bias, scale=jnp.ones(30), num_draws=8000, seed=1), 0.0)
    assert found.z > 10
    assert 0.2 < found.bias < 0.3 + 4 * found.standard_error  # the direction is found up to noise


def test_bias_is_not_found_where_rounding_is():
    summary = synthetic(jnp.full(5, 1e-7), scale=jnp.zeros(5), num_draws=8, seed=0)
    assert float(summary.bias_standard_error) < 1e-12
    assert abs(measure.bias_of(summary, 1e-6).z) < 1
    assert measure.bias_of(synthetic(jnp.zeros(5), scale=jnp.zeros(5), num_draws=8, seed=0), 0.0).z == 0


def test_summary_is_that_of_all_draws(monkeypatch):
    monkeypatch.setattr(measure, "CHUNK_NUMBERS", 40)  # ten draws of four coordinates at once
    summary = synthetic(jnp.array([0.5, 0.0, 0.0, 0.0]), scale=jnp.array([1.0, 2.0, 0.0, 0.0]), num_draws=4000, seed=3)
    assert int(summary.num_draws) == 4000
    assert float(summary.variance) == pytest.approx(5, rel=0.1)
    assert float(summary.mean_squared_error) == pytest.approx(5.25, rel=0.1)
    assert float(summary.mean_squared_error_standard_error) == pytest.approx(math.sqrt((2 + 32) / 4000), rel=0.2)


# Problems.


def numeric_slope(function, x, step=1e-4):
    return (function(x + step) - function(x - step)) / (2 * step)


def test_gradient_of_bits_is_the_slope_of_their_expectation():
    for name in ("bit_0499_off_centre", "bits_049", "bits_0499_off_centre"):
        problem = built(name)
        target, size = float(problem.constants), len(problem.parameters)

        def expectation(logit, target=target):
            probability = 1 / (1 + math.exp(-logit))
            return probability * (1 - target) ** 2 + (1 - probability) * target**2

        logit = float(problem.parameters[0])
        assert problem.value == pytest.approx(expectation(logit), rel=1e-6)
        slope = numeric_slope(expectation, logit) / size
        np.testing.assert_allclose(problem.gradient, np.full(size, slope), rtol=1e-4)


@pytest.mark.parametrize("which", range(4))
def test_gradient_of_normal_costs_is_that_of_a_quadrature(which):
    problem = problems.normal_problem("normal", which, TINY)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    cost = problems.NORMAL_COSTS[which].cost

    def expectation(loc, log_scale):
        values = np.asarray(cost(loc + np.exp(log_scale) * nodes), np.float64)
        return float(weights @ values / math.sqrt(2 * math.pi))

    loc, log_scale = float(problem.parameters.loc), float(problem.parameters.log_scale)
    assert problem.value == pytest.approx(expectation(loc, log_scale), rel=1e-5)
    # float32 inside some of the costs: a wide step
    by_loc = numeric_slope(lambda x: expectation(x, log_scale), loc, 1e-2)
    by_scale = numeric_slope(lambda x: expectation(loc, x), log_scale, 1e-2)
    np.testing.assert_allclose(ravel_pytree(problem.gradient)[0], [by_loc, by_scale], rtol=2e-3)


def test_gradient_of_categories_is_the_slope_of_a_sum_by_hand():
    problem = built("categories")
    weights, readout, offset = (np.asarray(leaf, np.float64) for leaf in problem.constants)

    def expectation(logits):
        probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        total = 0.0
        for i, j in itertools.product(range(3), repeat=2):
            rows = np.concatenate([np.eye(3)[i], np.eye(3)[j]])
            total += probabilities[0, i] * probabilities[1, j] * (np.tanh(rows @ weights) @ readout + offset)
        return total

    logits = np.asarray(problem.parameters, np.float64)
    assert problem.value == pytest.approx(expectation(logits), rel=1e-5)
    for place in np.ndindex(2, 3):
        direction = np.zeros((2, 3))
        direction[place] = 1
        slope = numeric_slope(lambda x, d=direction: expectation(logits + x * d), 0.0)
        assert float(problem.gradient[place]) == pytest.approx(slope, rel=1e-3, abs=1e-5)


def by_numpy(network, x):
    weights, biases, output_weights, output_biases = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(network))
    hidden = (2 * x - 1) @ weights + biases
    return np.where(hidden > 0, hidden, 0.3 * hidden) @ output_weights + output_biases


@pytest.mark.parametrize("name", ["vae_initial", "vae_trained"])
def test_gradient_of_the_autoencoder_is_the_slope_of_its_bound_by_numpy(name):
    problem = built(name)
    images = np.asarray(problem.constants.images, np.float64)
    states = np.array(list(itertools.product([0.0, 1.0], repeat=vae.NUM_LATENTS)))
    pixels = by_numpy(problem.constants.decoder, states)
    log_likelihood = images @ pixels.T - np.logaddexp(0, pixels).sum(-1)  # [images, states]
    flat, unravel = ravel_pytree(problem.parameters)

    def negative_bound(parameters):
        logits = by_numpy(unravel(jnp.asarray(parameters, jnp.float32)), images)
        log_posterior = logits @ states.T - np.logaddexp(0, logits).sum(-1)[:, None]
        integrand = log_posterior + vae.NUM_LATENTS * math.log(2) - log_likelihood
        return np.sum(np.exp(log_posterior) * integrand, -1).mean()

    gradient = np.asarray(ravel_pytree(problem.gradient)[0], np.float64)
    flat = np.asarray(flat, np.float64)
    assert problem.value == pytest.approx(negative_bound(flat), rel=1e-5)
    for direction in (gradient, np.random.default_rng(0).normal(size=gradient.size)):
        direction = direction / np.linalg.norm(direction)
        slope = numeric_slope(lambda x, d=direction: negative_bound(flat + x * d), 0.0, 3e-3)
        assert gradient @ direction == pytest.approx(slope, rel=2e-2, abs=1e-4)


def test_training_lowers_the_bound_and_is_the_same_each_time():
    source = problems.Source(num_images=3, training_calls=2, steps_a_call=40)
    values = [problems.PROBLEMS[name](source).value for name in ("vae_initial", "vae_early", "vae_trained")]
    assert values[0] > values[1] > values[2]
    again = problems.PROBLEMS["vae_trained"](dataclasses.replace(source))
    assert again.value == values[2]


# Variants.


def test_every_estimator_is_measured_and_labels_are_unique():
    chosen = variants.all_variants()
    assert {variant.row.name for variant in chosen} == set(ESTIMATORS)
    assert len({variant.label for variant in chosen}) == len(chosen)
    relaxed = [v.numbers(built("bit_049")) for v in chosen if v.row.name == "gumbel_softmax"]
    assert [options["temperature"] for options in relaxed] == list(variants.TEMPERATURES)


def test_only_fitting_estimators_are_measured():
    def names(problem):
        return {variant.row.name for variant in variants.all_variants() if variant.fits(built(problem))}

    assert {"exact", "reinforce", "gumbel_softmax"} <= names("bit_049")
    assert "reparameterized" not in names("bit_049")
    assert "exact" not in names("bits_049")  # 2 ** 200 states
    assert {"reparameterized", "leave_one_out"} <= names("normal_square")
    assert "gumbel_softmax" not in names("normal_square")


def test_evaluations_are_those_of_the_options():
    four = next(v for v in variants.all_variants() if dict(v.static).get("num_samples") == 4)
    assert variants.described(four, built("bit_049"))["evaluations"] == 4
    exact = variants.Variant(ESTIMATORS["exact"])
    assert variants.described(exact, built("vae_initial"))["evaluations"] == 1024


# The main job.


def run(tmp_path, *, estimator, problem, **options):
    settings = gradient_variance.Settings(problem=problem, estimator=estimator, out=tmp_path, **options)
    status = gradient_variance.main(settings)
    path = tmp_path / "gradient_variance.json"
    return status, json.loads(path.read_text()) if path.exists() else None


def test_main_measures_writes_and_draws(tmp_path, capsys):
    names = ("exact", "gumbel_softmax", "reinforce", "reinforce_moving_average", "leave_one_out", "reparameterized")
    status, results = run(tmp_path, estimator=names, problem=("normal_square", "bit_0499_off_centre"), samples=512)
    assert status == 0
    rows = {(row["problem"], row["label"]): row for row in results["rows"]}
    assert len(rows) == 6 + 10
    exact = rows["bit_0499_off_centre", "exact"]
    assert exact["variance"] == 0
    assert abs(exact["z"]) < 4
    assert exact["signal_to_noise"] is None
    plain = rows["bit_0499_off_centre", "reinforce"]
    assert plain["variance"] == pytest.approx(1.167e-2, rel=0.15)  # known in closed form
    assert plain["relative_variance_time"] == 1
    pair = rows["bit_0499_off_centre", "leave_one_out, 2 samples"]
    assert pair["variance"] == pytest.approx(2.344e-7, rel=0.25)
    relaxed = rows["bit_0499_off_centre", "gumbel_softmax, temperature 1.0"]
    assert relaxed["verdict"] == "biased, as declared"
    assert all(row["verdict"] == "unbiased" for row in rows.values() if row["unbiased"])
    assert all(row["seconds"] > 0 for row in rows.values())
    assert {"jax", "jaxlib", "jaxlab", "python"} == set(results["versions"])
    assert str(Path.cwd()) not in json.dumps(results)
    for name in ("variance_against_time.png", "bias_against_noise.png", "against_temperature.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / name).stat().st_size < 200_000
    assert "biased, as declared" in capsys.readouterr().out


def test_smoke_run_measures_the_autoencoder(tmp_path):
    names = ("leave_one_out", "reinforce_moving_average", "straight_through_mean")
    status, results = run(tmp_path, estimator=names, problem=("vae_initial",), samples=64, smoke=True)
    assert status == 0
    assert results["settings"]["draws"] == 64
    assert results["problems"][0]["size"] == 64 * 64 + 64 + 64 * 10 + 10
    assert [row["seconds"] for row in results["rows"]] == [None] * 4  # only the trained one is timed


def test_lines_do_not_depend_on_what_else_is_measured(tmp_path):
    alone = run(tmp_path, estimator=("leave_one_out",), problem=("bit_049",), samples=64)[1]["rows"][0]
    among = run(tmp_path, estimator=("reinforce", "leave_one_out"), problem=("bit_049",), samples=64)[1]["rows"][2]
    assert (alone["label"], alone["z"], alone["variance"]) == (among["label"], among["z"], among["variance"])


def test_a_false_claim_is_a_contradiction(tmp_path, monkeypatch, capsys):
    claim = dataclasses.replace(ESTIMATORS["straight_through_mean"], unbiased_gradient=True)
    monkeypatch.setitem(ESTIMATORS, "straight_through_mean", claim)
    status, results = run(tmp_path, estimator=("straight_through_mean",), problem=("bit_0499_off_centre",), samples=512)
    assert status == 1
    assert len(results["contradictions"]) == 1
    assert "CONTRADICTION" in capsys.readouterr().out


def test_a_gradient_that_is_not_a_number_is_a_contradiction(tmp_path, monkeypatch):
    def broken(key, dist, f, *, num_samples=1, temperature=1.0):
        return jnp.nan * f(dist.soften(dist.perturb(key), temperature=temperature))

    row = dataclasses.replace(ESTIMATORS["gumbel_softmax"], estimate=broken)
    monkeypatch.setitem(ESTIMATORS, "gumbel_softmax", row)
    status, results = run(tmp_path, estimator=("gumbel_softmax", "reinforce"), problem=("bit_049",), samples=16)
    assert status == 1
    z = {row["estimator"]: row["z"] for row in results["rows"]}
    assert z["gumbel_softmax"] is None
    assert z["reinforce"] is not None
    assert len(results["contradictions"]) == 4


def test_a_baseline_that_contains_its_own_sample_is_found(tmp_path, monkeypatch):
    def wrong(key, dist, f, state, *, num_samples=1):
        draw = dist.sample(key)
        updated = state.update(jax.lax.stop_gradient(f(draw)), decay=0.5)  # and only then used
        score = dist.log_prob(draw)
        surrogate = jax.lax.stop_gradient(f(draw) - updated.mean()) * (score - jax.lax.stop_gradient(score))
        return f(draw) + surrogate, updated

    row = dataclasses.replace(ESTIMATORS["reinforce_moving_average"], estimate=wrong, tunable=())
    monkeypatch.setitem(ESTIMATORS, "reinforce_moving_average", row)
    problem = ("normal_square",)
    status, results = run(tmp_path, estimator=("reinforce_moving_average",), problem=problem, samples=4000)
    assert status == 1
    assert results["rows"][0]["relative_bias"] == pytest.approx(0.5, abs=0.2)


def test_a_bias_that_no_problem_shows_is_a_contradiction():
    row = {"label": "a", "estimator": "a", "problem": "p", "unbiased": False, "z": 1.0}
    row["verdict"] = gradient_variance.verdict_of(row["unbiased"], row["z"])
    assert row["verdict"] == "bias not seen here"
    assert gradient_variance.contradictions([row], is_full=False) == []
    assert len(gradient_variance.contradictions([row], is_full=True)) == 1
    assert gradient_variance.contradictions([row, row | {"z": 5.0}], is_full=True) == []
    assert gradient_variance.verdict_of(True, math.nan).startswith("CONTRADICTION")


def test_unknown_names_are_refused(tmp_path, capsys):
    assert run(tmp_path, estimator=("reinforced",), problem=())[0] == 2
    assert "there are exact, " in capsys.readouterr().out
    assert run(tmp_path, estimator=(), problem=("bit",))[0] == 2
    assert run(tmp_path, estimator=(), problem=(), samples=2)[0] == 2


def test_a_partial_run_leaves_full_results_alone():
    assert gradient_variance.Settings().directory == gradient_variance.RESULTS
    for partial in ({"smoke": True}, {"problem": ("bit_049",)}, {"data": "fashion_mnist"}):
        assert gradient_variance.Settings(**partial).directory == gradient_variance.PARTIAL_RESULTS
