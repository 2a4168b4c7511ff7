"""The auto-encoder of the published comparisons: what a step does, what is measured, and that a killed run goes on."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import binary_vae, curves_report, training_curves
from benchmarks.binary_vae import PROTOCOLS, Data, Recipe
from benchmarks.trained_estimators import TRAINED, num_samples_of, trainings
from benchmarks.training_curves import Settings
from experiments import images
from experiments.runs import read_metrics

PLAIN = Recipe("rodeo", "linear", "leave_one_out", 2)


@pytest.fixture(autouse=True, scope="module")
def _compiling_fast():
    with training_curves.compiling_fast(True):
        yield


@pytest.fixture(scope="module")
def data():
    brightness = np.random.default_rng(0).integers(0, 256, (230, 6)).astype(np.uint8)
    mean = (brightness.mean(0) / 255).astype(np.float32)
    return Data(*(jnp.asarray(part) for part in (brightness, brightness[:10], brightness[10:30], mean)))


def keys(*seeds):
    return jax.vmap(jax.random.key)(jnp.array(seeds))


def train(recipe, data, *blocks):
    """The state and the last mean loss after blocks of so many steps, for two seeds."""
    training, step = binary_vae.initial_training(keys(0, 1), recipe, data.mean), 0
    for block in blocks:
        training, losses = binary_vae.train(training, keys(0, 1), jnp.int32(step), data, recipe, block)
        step += block
    return training, losses


def test_pixels_are_one_with_the_probability_of_their_brightness():
    brightness = jnp.tile(jnp.array([0, 1, 100, 254, 255], jnp.uint8), (200_000, 1))
    pixels = np.asarray(binary_vae.binarised(jax.random.key(0), brightness))
    assert set(np.unique(pixels)) == {0, 1}
    probabilities = np.array([0, 1, 100, 254, 255]) / 255
    errors = np.sqrt(probabilities * (1 - probabilities) / 200_000)
    assert (abs(pixels.mean(0) - probabilities) <= 4.5 * errors).all()  # black and white without an exception
    assert (abs(pixels.mean(0) - np.array([0, 1, 100, 254, 255]) / 256) > 4.5 * errors)[1:4].any()  # not of 256


def test_an_epoch_goes_through_all_images_in_an_order_of_its_own():
    orders = np.asarray(binary_vae.order_of_epochs(jax.random.key(0), jnp.arange(3), 50))
    assert (np.sort(orders, 1) == np.arange(50)).all()
    assert len({tuple(order) for order in orders}) == 3
    again = np.asarray(binary_vae.order_of_epochs(jax.random.key(0), jnp.array([2]), 50))
    assert (again[0] == orders[2]).all()


def test_a_step_depends_on_its_number_and_not_on_its_block(data):
    # Epochs of two steps: blocks begin and end anywhere in them.
    whole, _ = train(PLAIN, data, 6)
    parts, _ = train(PLAIN, data, 3, 3)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    other, _ = train(PLAIN, data, 3)
    assert (np.asarray(whole.model.decoder[0][0]) != np.asarray(other.model.decoder[0][0])).any()


def test_seeds_differ_and_a_protocol_does_what_it_says(data):
    rodeo, _ = train(PLAIN, data, 3)
    weights = np.asarray(rodeo.model.encoder[0][0])
    assert (weights[0] != weights[1]).mean() > 0.9
    assert (np.asarray(rodeo.model.prior) == 0).all()
    recipe = dataclasses.replace(PLAIN, protocol="disarm")
    model = binary_vae.initial_training(keys(0), recipe, data.mean).model
    np.testing.assert_allclose(jax.nn.sigmoid(model.decoder[-1][1][0]), data.mean, rtol=1e-5)
    disarm, _ = train(recipe, data, 3)
    assert (np.asarray(disarm.model.prior) != 0).any()
    # Adam's first steps are as long as its learning rate.
    change = abs(np.asarray(disarm.model.encoder[0][0][0] - model.encoder[0][0][0])).max()
    assert 0.5 * PROTOCOLS["disarm"].learning_rate < change <= 3.1 * PROTOCOLS["disarm"].learning_rate


def test_training_raises_the_bound(data):
    _, first = train(PLAIN, data, 3)
    _, last = train(PLAIN, data, *[3] * 100)
    assert (np.asarray(last) < np.asarray(first) - 0.1).all()


def test_bound_of_a_model_that_knows_nothing_is_exact(data):
    protocol = PROTOCOLS["rodeo"]
    model = binary_vae.initial_training(keys(0, 1), PLAIN, data.mean).model
    blank = jax.tree.map(jnp.zeros_like, model)
    for num_samples in (1, 7):
        value = binary_vae.bound(blank, jax.random.key(0), data.test, data.mean, protocol, num_samples)
        np.testing.assert_allclose(value, -6 * math.log(2), atol=1e-4)


def test_bound_rises_with_the_number_of_samples(data):
    model = binary_vae.initial_training(keys(0), PLAIN, data.mean).model
    model = model._replace(decoder=jax.tree.map(lambda leaf: 10 * leaf, model.decoder))
    one, hundred = (
        float(binary_vae.bound(model, jax.random.key(0), data.test, data.mean, PROTOCOLS["rodeo"], n)[0])
        for n in (1, 100)
    )
    assert hundred > one + 1


@pytest.mark.parametrize("name", ["leave_one_out", "relax"])
def test_variance_is_that_of_gradients_at_frozen_parameters(data, name):
    recipe = dataclasses.replace(PLAIN, estimator=name, evaluations=3)
    training = binary_vae.initial_training(keys(3), recipe, data.mean)
    variance, error = binary_vae.encoder_variance(training, jax.random.key(5), data, recipe, 100)
    image_key, _ = jax.random.split(jax.random.key(5))
    pixels = binary_vae.binarised(image_key, data.train[: recipe.settings.batch_size])
    one = jax.tree.map(lambda leaf: leaf[0], training)

    @jax.jit
    @jax.vmap
    def gradients(key):
        return jax.grad(
            lambda encoder: binary_vae.loss(
                one.model._replace(encoder=encoder), one.tunables, key, recipe, pixels, data.mean
            )
        )(one.model.encoder)

    leaves = jax.tree.leaves(gradients(jax.random.split(jax.random.key(6), 200)))
    expected = sum(np.var(leaf, 0, ddof=1).sum() for leaf in leaves) / sum(leaf[0].size for leaf in leaves)
    assert 0 < error[0] < 0.05 * variance[0]
    assert abs(variance[0] - expected) < 6 * error[0]


@pytest.mark.parametrize("name", ["relax", "double_control_variate", "discrete_stein"])
def test_control_variates_are_trained_beside_the_model(data, name):
    recipe = dataclasses.replace(PLAIN, estimator=name, evaluations=num_evaluations(name))
    before = binary_vae.initial_training(keys(0, 1), recipe, data.mean)
    after, _ = train(recipe, data, 3)
    for a, b in zip(jax.tree.leaves(before.tunables), jax.tree.leaves(after.tunables), strict=True):
        assert (np.asarray(a) != np.asarray(b)).any()


def num_evaluations(name):
    return next(n for n in range(1, 10) if num_samples_of(name, n))


def test_estimators_are_trained_at_the_evaluations_asked_for():
    assert trainings(("leave_one_out", "disarm"), (2, 3)) == [
        ("leave_one_out", 2),
        ("disarm", 2),
        ("leave_one_out", 3),
    ]
    assert trainings(("relax", "arms"), (2,)) == [("relax", 3), ("arms", 3)]
    assert num_samples_of("relax", 3) == 1
    assert num_samples_of("disarm", 3) == 0
    assert {name for name, _ in trainings(tuple(TRAINED), (2, 3))} == set(TRAINED)


def test_what_is_measured_when():
    measured = [step for step in range(500, 200_001, 500) if training_curves.is_measured(step, 500)]
    assert measured == [1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000]


def test_images_are_split_as_published(monkeypatch):
    monkeypatch.setattr(
        images, "load", lambda name, directory, split="train": np.zeros((60_000 if split == "train" else 10_000, 1, 1))
    )
    data = training_curves.load("fashion_mnist", None)
    assert [len(part) for part in data[:3]] == [50_000, 10_000, 10_000]


def test_bad_settings_are_refused(capsys, tmp_path):
    assert training_curves.main(Settings(estimators=("nonsense",), out=tmp_path)) == 2
    assert "no 'nonsense'" in capsys.readouterr().err
    assert training_curves.main(Settings(steps=1234, out=tmp_path)) == 2
    assert "multiple of --block" in capsys.readouterr().err


TINY = {"depth": "linear", "data": "digits", "evaluations": (2,), "block": 5, "evaluate_every": 10, "save_every": 10}
TINY |= {"pairs": 2, "bound_samples": 2, "estimators": ("double_control_variate",)}


def options(settings, out):
    words = ["--out", str(out)]
    for name, value in settings.items():
        words += ["--" + name.replace("_", "-"), *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def test_killed_and_resumed_gives_the_same_curve(tmp_path):
    place = Path("rodeo-linear-digits", "double_control_variate-2", "seeds-0-1")
    root = Path(training_curves.__file__).parents[1]
    # Each run is a process of its own, as a user's is: what is compiled here depends on what other tests have set.
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4"}

    def command(name, steps):
        words = options(TINY | {"steps": steps}, tmp_path / name)
        return [sys.executable, "-m", "benchmarks.training_curves", *words]

    process = subprocess.Popen(command("killed", 100_000), cwd=root, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / place / "checkpoints" / "20").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = read_metrics(tmp_path / "killed" / place)[-1]["step"]
    steps = 10 * (killed_at // 10 + 3)
    for name in ("killed", "whole"):
        subprocess.run(command(name, steps), cwd=root, env=environment, check=True, stderr=subprocess.DEVNULL)
    curves = [(tmp_path / name / place / "metrics.jsonl").read_bytes() for name in ("killed", "whole")]
    assert curves[0] == curves[1]
    assert curves[0].count(b"\n") == steps // 5
    assert b"test_bound" in curves[0]


def test_smoke_run_leaves_table_and_figures(tmp_path):
    assert training_curves.main(Settings(smoke=True, out=tmp_path)) == 0
    directory = tmp_path / "rodeo-nonlinear-digits"
    results = json.loads((directory / "results.json").read_text())
    assert [(row["estimator"], row["step"]) for row in results["rows"]] == [
        ("leave_one_out", 20),
        ("double_control_variate", 20),
    ]
    for row in results["rows"]:
        assert row["variance"] > 0
        assert -64 < row["train_elbo"] < row["test_bound"] + 3 < 0
        assert row["train_elbo_standard_error"] > 0
    assert "double_control_variate" in (directory / "table.md").read_text()
    for name in ("elbo_against_steps.png", "variance_against_steps.png"):
        assert (directory / name).read_bytes().startswith(b"\x89PNG")


def write_run(directory, estimator, first_seed, elbos):
    """A run of two steps that were measured, with these train ELBOs [step, seed]."""
    place = directory / f"{estimator}-2" / f"seeds-{first_seed}-{first_seed + len(elbos[0]) - 1}"
    place.mkdir(parents=True)
    config = {"recipe": {"estimator": estimator, "evaluations": 2}, "first_seed": first_seed}
    (place / "config.json").write_text(json.dumps(config))
    lines = [
        {"step": step, "train_loss": elbo, "train_elbo": elbo, "validation_elbo": elbo, "test_bound": elbo}
        | {"variance": [1e-3] * len(elbo)}
        for step, elbo in zip((1000, 2000), elbos, strict=True)
    ]
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_report_pools_seeds_and_pairs_them(tmp_path):
    write_run(tmp_path, "leave_one_out", 0, [[-300, -301], [-250, -252]])
    write_run(tmp_path, "leave_one_out", 2, [[-302], [-260]])
    write_run(tmp_path, "disarm", 1, [[-300, -302], [-251, -258]])
    curves_report.save_timings(tmp_path, {"disarm-2": 0.01}, 2)
    written = curves_report.write(tmp_path, "the command")
    assert {path.name for path in written} >= {"elbo_against_time.png", "table.md", "results.json"}
    rows = {(row["estimator"], row["step"]): row for row in json.loads((tmp_path / "results.json").read_text())["rows"]}
    ours, theirs = rows["disarm", 2000], rows["leave_one_out", 2000]
    assert theirs["train_elbo"] == pytest.approx(-254)
    assert theirs["train_elbo_standard_error"] == pytest.approx(math.sqrt((16 + 4 + 36) / 2 / 3))
    # Seed 1: -251 + 252; seed 2: -258 + 260.
    assert ours["train_elbo_difference"] == pytest.approx(1.5)
    assert ours["train_elbo_difference_standard_error"] == pytest.approx(0.5)
    assert ours["seconds"] == 0.01
    assert theirs["seconds"] is None
    table = (tmp_path / "table.md").read_text()
    assert "1.50 ± 0.50" in table
    assert "### 2,000 steps" in table
