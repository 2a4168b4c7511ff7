"""Each experiment's step of training has the same losses on one device, on two, on four, and with matrices cut."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import devices
from experiments.bert import train as bert
from experiments.information_extraction import train as extraction
from experiments.information_extraction.config import Config as ExtractionConfig
from experiments.onlstm import classification, language, logic, sentences
from experiments.vqvae_pixelcnn import fit_prior, priors
from experiments.vqvae_pixelcnn import train as vqvae
from experiments.vqvae_pixelcnn.model import Model

NUM_STEPS = 4


@pytest.fixture(autouse=True)
def cheaply():
    """Tests of what programs compute, not of how fast; and what optax itself relies on."""
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.numpy_dtype_promotion("standard"):
        yield
    jax.config.update("jax_disable_most_optimizations", False)


IMAGES = np.random.default_rng(0).integers(0, 256, size=(64, 8, 8, 1), dtype=np.uint8)


def auto_encoder(num_model, name="ema_restart"):
    model = Model(name, num_codes=16, levels=(4, 2, 2), code_dim=6, hidden=8, residual_hidden=4)
    mesh = devices.mesh(8, num_model)
    start = jax.jit(vqvae.built(model, IMAGES).init)(jax.random.key(0), IMAGES)
    step = vqvae.spread_step(model, IMAGES, mesh, start)
    state, key = vqvae.on_mesh(start, mesh), devices.everywhere(mesh, jax.random.key(1))
    for number in range(NUM_STEPS):
        batch = devices.spread(mesh, vqvae.batch_at(0, number, IMAGES, 8))
        state, metrics = step(jax.random.fold_in(key, number), state, batch)
        yield state, metrics["loss"]


def auto_encoder_with_noise(num_model):
    return auto_encoder(num_model, "gumbel")


def prior_of_codes(num_model, name="pixelcnn"):
    config = fit_prior.PriorConfig(prior=name, batch_size=8, num_steps=NUM_STEPS)
    prior, mesh = priors.PRIORS[name](5, 4, 4, hidden=8, num_layers=2), devices.mesh(8)
    step = fit_prior.spread_step(config, prior, mesh)
    state = devices.everywhere(mesh, jax.jit(lambda: fit_prior.initial_state(config, prior))())
    codes = np.random.default_rng(0).integers(5, size=(8, 4, 4)).astype(np.int32)
    for _ in range(NUM_STEPS):
        state, bits = step(state, *devices.spread(mesh, (codes, np.arange(8, dtype=np.int32))))
        yield state, bits


def fine_tuning(num_model):
    trainer = bert.Trainer(bert.Config(tiny=True, task="spans", model_devices=num_model))
    trainer.setup = trainer.setup._replace(
        config=dataclasses.replace(trainer.setup.config, dropout=0.1),
        sizes=dataclasses.replace(trainer.sizes, dropout=0.1, attention_dropout=0.1),
    )
    state, root = trainer.initial_state(), trainer.everywhere(jax.random.key(0))
    for step in range(NUM_STEPS):
        batch = trainer.batch(trainer.train, trainer.plan(0)[0])
        key, count = jax.random.fold_in(root, step), trainer.everywhere(np.int32(step))
        state, loss = bert.train_step(state, key, batch, count, setup=trainer.setup)
        yield state, loss


def transformer_prior(num_model):
    return prior_of_codes(num_model, "transformer")


def extracting(num_model, **options):
    trainer = extraction.Trainer(ExtractionConfig(tiny=True, batch_size=8, **options))
    state, root = trainer.initial_state(), devices.everywhere(trainer.mesh, jax.random.key(0))
    for step in range(NUM_STEPS):
        batch = devices.spread(trainer.mesh, trainer.batch(0))
        key, count = jax.random.fold_in(root, step), devices.everywhere(trainer.mesh, np.int32(step))
        state, loss = extraction.train_step(state, key, batch, count, setup=trainer.setup)
        yield state, loss


def extracting_with_bert(num_model):
    return extracting(num_model, encoder="bert")


def extracting_with_both_encoders(num_model):
    return extracting(num_model, encoder="bert+dgcnn")


def extracting_by_global_pointer(num_model):
    return extracting(num_model, decoder="global")


def extracting_by_f1(num_model):
    return extracting(num_model, loss="f1")


def language_model(num_model):
    config = dataclasses.replace(language.TINY, num_layers=1, input_dropout=0.2)
    model, mesh = language.LanguageModel(config, 11), devices.mesh(config.batch_size)
    text = np.random.default_rng(0).integers(11, size=(10 * NUM_STEPS + 1, config.batch_size)).astype(np.int32)
    state, root = language.initial_state(model, 0), devices.everywhere(mesh, jax.random.key(0))
    for step in range(NUM_STEPS):
        part = text[10 * step : 10 * step + 11]
        words, targets = devices.spread(mesh, (part[:-1], part[1:]), axis=1)
        state, loss = language.train_step(state, jax.random.fold_in(root, step), words, targets, model=model)
        yield state, loss


def logical_inference(num_model):
    config = dataclasses.replace(logic.LOGIC.tiny, num_draws=300, batch_size=16)
    data, mesh = logic.LOGIC.load(config).train, devices.mesh(config.batch_size)
    rows, num_steps = sentences.batches(data, config.batch_size, (0,))[0], sentences.steps_for(data)
    state = devices.everywhere(mesh, classification.initial_state(logic.LOGIC, config))
    for _ in range(NUM_STEPS):
        packed, labels = classification.spread_batch(mesh, data, rows, num_steps)
        state, loss = classification.train_step(state, packed, labels, task=logic.LOGIC, config=config)
        yield state, loss


EXPERIMENTS = [
    auto_encoder,
    auto_encoder_with_noise,
    prior_of_codes,
    transformer_prior,
    fine_tuning,
    extracting,
    extracting_with_bert,
    extracting_with_both_encoders,
    extracting_by_global_pointer,
    extracting_by_f1,
    language_model,
    logical_inference,
]
CUT = (auto_encoder, fine_tuning)


def curve(monkeypatch, experiment, num_devices, num_model=1):
    """The losses; every state lies as the first one, so that no step is compiled twice."""
    monkeypatch.setattr(devices, "available", lambda: jax.devices()[:num_devices])
    losses, lies = [], None
    for state, loss in experiment(num_model):
        found = jax.tree.map(lambda leaf: leaf.sharding, state)
        assert lies in (None, found)
        assert {sharding.mesh.size for sharding in jax.tree.leaves(found)} == {num_devices}
        if num_model > 1:
            assert any(devices.MODEL in sharding.spec for sharding in jax.tree.leaves(found))
        lies = found
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.__name__)
def test_losses_are_the_same_on_one_two_and_four_devices(experiment, monkeypatch):
    """Planted and found: a gradient of each device's own part, and noise that all devices draw alike."""
    expected = curve(monkeypatch, experiment, 1)
    assert len(set(expected)) == NUM_STEPS
    meshes = [(4, 2)] if experiment in CUT else []
    for num_devices, num_model in [(2, 1), (4, 1), *meshes]:
        found = curve(monkeypatch, experiment, num_devices, num_model)
        np.testing.assert_allclose(found, expected, rtol=2e-5)
