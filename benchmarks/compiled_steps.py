"""The training steps of the experiments, with the shapes of their arguments on a mesh: what the table compiles.

Nothing is trained or loaded here: of parameters and states only the shapes are made. The small size of each step is
that of its experiment's quick run; the large one has the experiment's default settings, or the paper's.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks import binary_vae
from benchmarks.compilers import placed
from experiments import devices
from experiments.bert import config as bert_config
from experiments.bert import model as bert
from experiments.bert import train as bert_train
from experiments.information_extraction import model as extraction
from experiments.information_extraction import train as extraction_train
from experiments.information_extraction.prior import MOST
from experiments.onlstm import classification, language, sentences
from experiments.onlstm.logic import LOGIC
from experiments.vqvae_pixelcnn import fit_prior, train
from experiments.vqvae_pixelcnn.model import Model

Lower = Callable[[Mesh], jax.stages.Lowered]


@dataclass(frozen=True)
class Step:
    """A training step of one size."""

    name: str
    size: str  # "small" or "large"
    lower: Lower
    """Traces it with its batch spread over the mesh."""


def vqvae_step(model: Model, shape: tuple[int, ...], batch_size: int) -> Lower:
    """The VQ-VAE."""

    def lower(mesh: Mesh) -> jax.stages.Lowered:
        mesh = Mesh(mesh.devices.reshape(-1, 1), (devices.BATCH, devices.MODEL))
        # Some images, of which the program has the variance.
        some = np.random.default_rng(0).integers(256, size=(max(64, batch_size), *shape), dtype=np.uint8)
        key = jax.random.key(0)
        state = jax.eval_shape(train.built(model, some).init, key, some)
        images = jax.ShapeDtypeStruct((batch_size, *shape), jnp.uint8)
        arguments = (placed(key, mesh), placed(state, mesh), placed(images, mesh, devices.BATCH))
        step: Any = train.spread_step(model, some, mesh, state)
        return step.lower(*arguments)

    return lower


def prior_step(name: str, num_codes: int, side: int, batch_size: int) -> Lower:
    """A prior over the codes."""

    def lower(mesh: Mesh) -> jax.stages.Lowered:
        config = fit_prior.PriorConfig(prior=name)  # pyright: ignore[reportArgumentType]
        prior = fit_prior.prior_of(config, num_codes, (side, side))
        state = jax.eval_shape(functools.partial(fit_prior.initial_state, config, prior))
        codes = jax.ShapeDtypeStruct((batch_size, side, side), jnp.int32)
        labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
        batch = placed((codes, labels), mesh, "batch")
        step: Any = fit_prior.spread_step(config, prior, mesh)
        return step.lower(placed(state, mesh), *batch)

    return lower


def language_step(config: language.Config, vocabulary_size: int) -> Lower:
    """The language model of ordered LSTMs; its columns of text are spread."""

    def lower(mesh: Mesh) -> jax.stages.Lowered:
        model = language.LanguageModel(config, vocabulary_size)
        state = jax.eval_shape(lambda: language.initial_state(model, 0))
        state = placed(state._replace(carries=None), mesh)._replace(carries=placed(state.carries, mesh, "batch"))
        words = jax.ShapeDtypeStruct((config.window, config.batch_size), jnp.int32)
        words = placed(words, mesh, None, "batch")
        return language.train_step.lower(state, placed(jax.random.key(0), mesh), words, words, model=model)

    return lower


def logic_step(config: classification.Config, num_steps: int) -> Lower:
    """The classifier of logical relations; the rows of its packed sentences are spread, its examples are not."""

    def lower(mesh: Mesh) -> jax.stages.Lowered:
        state = jax.eval_shape(lambda: classification.initial_state(LOGIC, config))
        num_sentences = LOGIC.num_sentences * config.batch_size
        # Rows are nearly full of sentences, whose mean length is a third of the longest.
        rows = -(-num_sentences // 3 // 8) * 8
        grid = placed(jax.ShapeDtypeStruct((num_steps, rows), jnp.int32), mesh, None, "batch")
        ends = placed(jax.ShapeDtypeStruct((num_sentences, 2), jnp.int32), mesh)
        labels = placed(jax.ShapeDtypeStruct((config.batch_size,), jnp.int32), mesh)
        packed = sentences.Packed(grid, grid, grid, ends)
        return classification.train_step.lower(placed(state, mesh), packed, labels, task=LOGIC, config=config)

    return lower


def bert_step(config: bert_config.Config, sizes: bert.Config) -> Lower:
    """Fine-tuning of BERT."""

    def lower(mesh: Mesh) -> jax.stages.Lowered:
        setup = bert_train.Setup(config, sizes, 1000, mask=-1)

        def begin():
            parameters = bert.initial(jax.random.key(0), sizes)._replace(masked=None)
            parameters = parameters._replace(head=bert.initial_head(jax.random.key(1), sizes, 2))
            optimizer = bert_train.make_optimizer(config, setup.num_steps).init(parameters)  # pyright: ignore
            nothing = jnp.array(-1.0), jnp.array(0)
            return bert_train.TrainState(parameters, optimizer, parameters, parameters, *nothing)

        rows, length = config.batch_size, config.max_length
        batch = {
            "ids": jax.ShapeDtypeStruct((rows, length), jnp.int32),
            "types": jax.ShapeDtypeStruct((rows, length), jnp.int32),
            "mask": jax.ShapeDtypeStruct((rows, length), jnp.bool_),
            "targets": jax.ShapeDtypeStruct((rows,), jnp.int32),
            "counts": jax.ShapeDtypeStruct((rows,), jnp.float32),
        }
        key, count = placed((jax.random.key(0), jnp.array(0)), mesh)
        state, batch = placed(jax.eval_shape(begin), mesh), placed(batch, mesh, "batch")
        return bert_train.train_step.lower(state, key, batch, count, setup=setup)

    return lower


def extraction_step(sizes: extraction.Sizes, batch_size: int, length: int, loss: str = "entropy") -> Lower:
    """Extraction of triples; beside both encoders, a unit is a word of one and a half tokens."""

    def lower(mesh: Mesh) -> jax.stages.Lowered:
        setup = extraction_train.Setup(sizes, (1e-3, 1.0, 0.0, 1.0, 0.998), loss, (100, 1000))

        def begin():
            parameters = extraction.initial(jax.random.key(0), sizes)
            optimizer = extraction_train.make_optimizer(setup).init(parameters)
            means = {name: jnp.array(1.0) for name in ("both", "decided", "true")}
            nothing = jnp.array(-1.0), jnp.array(0)
            return extraction_train.TrainState(parameters, optimizer, parameters, parameters, *nothing, means)

        units = {"ids": jnp.int32, "words": jnp.int32, "mask": jnp.bool_, "inside": jnp.bool_}
        batch = {name: jax.ShapeDtypeStruct((batch_size, length), kind) for name, kind in units.items()}
        batch |= {
            "pieces": jax.ShapeDtypeStruct((batch_size, length, PIECES), jnp.int32),
            "triples": jax.ShapeDtypeStruct((batch_size, TRIPLES, 5), jnp.int32),
            "prior": jax.ShapeDtypeStruct((batch_size, MOST, 5), jnp.int32),
            "counts": jax.ShapeDtypeStruct((batch_size,), jnp.float32),
        }
        if sizes.encoder == "bert+dgcnn":
            tokens = (batch_size, 3 * length // 2)
            batch |= {
                "tokens": jax.ShapeDtypeStruct(tokens, jnp.int32),
                "token_mask": jax.ShapeDtypeStruct(tokens, jnp.bool_),
                "spans": jax.ShapeDtypeStruct((batch_size, length, 2), jnp.int32),
            }
        key, count = placed((jax.random.key(0), jnp.array(0)), mesh)
        state, batch = placed(jax.eval_shape(begin), mesh), placed(batch, mesh, "batch")
        return extraction_train.train_step.lower(state, key, batch, count, setup=setup)

    return lower


def curves_step(estimator: str, evaluations: int, num_images: int, num_pixels: int) -> Lower:
    """Ten steps of the published auto-encoder with 200 bits, for eight seeds, which are spread."""

    def lower(mesh: Mesh) -> jax.stages.Lowered:
        recipe = binary_vae.Recipe("rodeo", "nonlinear", estimator, evaluations)
        keys = jax.eval_shape(lambda: jax.vmap(jax.random.key)(jnp.arange(SEEDS)))
        mean = jax.ShapeDtypeStruct((num_pixels,), jnp.float32)
        training = jax.eval_shape(lambda keys, mean: binary_vae.initial_training(keys, recipe, mean), keys, mean)
        rows = jax.ShapeDtypeStruct((num_images, num_pixels), jnp.uint8)
        data = placed(binary_vae.Data(rows, rows, rows, mean), mesh)  # pyright: ignore[reportArgumentType]
        training, keys = placed((training, keys), mesh, "batch")
        first = placed(jnp.int32(0), mesh)
        return binary_vae.train.lower(training, keys, first, data, recipe, 10)

    return lower


SEEDS, PIECES, TRIPLES = 8, 16, 8
DIGITS, FASHION = (8, 8, 1), (28, 28, 1)
SMALL_LANGUAGE = dataclasses.replace(language.TINY, num_epochs=0)
LARGE_LANGUAGE = language.Config(
    num_epochs=0, batch_size=32, embedding_dim=400, hidden_dim=1150, num_layers=3, averaged_sgd=True, learning_rate=30.0
)
SMALL_BERT = bert.Config(vocabulary_size=512, **bert_config.TINY_SIZES)
LARGE_BERT = bert.Config(vocabulary_size=30_522)
MINI_BERT = bert.Config(30_522, 384, 6, 12, 1536)
WEBNLG: dict[str, Any] = {"num_predicates": 216, "num_units": 2_000, "num_words": 10_000}
DGCNN, GRAMMAR = extraction.Sizes(**WEBNLG), extraction.Sizes(8, dim=32, num_layers=3)
BOTH, SMALL_BOTH = (
    dataclasses.replace(sizes, encoder="bert+dgcnn", pretrained=pretrained)
    for sizes, pretrained in ((DGCNN, MINI_BERT), (GRAMMAR, SMALL_BERT))
)
GLOBAL, SMALL_GLOBAL = (dataclasses.replace(sizes, decoder="global") for sizes in (DGCNN, GRAMMAR))

#: The large sizes are the defaults of each experiment; of the language model, those of the paper.
STEPS: tuple[Step, ...] = (
    Step("VQ-VAE", "small", vqvae_step(train.TINY["model"], DIGITS, 32)),
    Step("VQ-VAE", "large", vqvae_step(Model(), FASHION, 256)),
    Step("PixelCNN prior", "small", prior_step("pixelcnn", 64, 2, 32)),
    Step("PixelCNN prior", "large", prior_step("pixelcnn", 512, 7, 256)),
    Step("transformer prior", "small", prior_step("transformer", 64, 2, 32)),
    Step("transformer prior", "large", prior_step("transformer", 512, 7, 256)),
    Step("ON-LSTM language model", "small", language_step(SMALL_LANGUAGE, 64)),
    Step("ON-LSTM language model", "large", language_step(LARGE_LANGUAGE, 10_000)),
    Step("ON-LSTM logic", "small", logic_step(LOGIC.tiny, 24)),
    Step("ON-LSTM logic", "large", logic_step(classification.Config(), 48)),
    Step("BERT fine-tuning", "small", bert_step(bert_config.TINY, SMALL_BERT)),
    Step("BERT fine-tuning", "large", bert_step(bert_config.Config(), LARGE_BERT)),
    Step("extraction, DGCNN", "small", extraction_step(GRAMMAR, 16, 32)),
    Step("extraction, DGCNN", "large", extraction_step(DGCNN, 32, 128)),
    Step("extraction, BERT with DGCNN", "small", extraction_step(SMALL_BOTH, 16, 32)),
    Step("extraction, BERT with DGCNN", "large", extraction_step(BOTH, 32, 128)),
    Step("extraction, global pointer", "small", extraction_step(SMALL_GLOBAL, 16, 32)),
    Step("extraction, global pointer", "large", extraction_step(GLOBAL, 32, 128)),
    Step("extraction, by F1", "small", extraction_step(GRAMMAR, 16, 32, "f1")),
    Step("extraction, by F1", "large", extraction_step(DGCNN, 32, 128, "f1")),
    Step("extraction, BERT", "small", extraction_step(extraction.Sizes(8, "bert", pretrained=SMALL_BERT), 16, 32)),
    Step("extraction, BERT", "large", extraction_step(extraction.Sizes(216, "bert", pretrained=MINI_BERT), 32, 128)),
    Step("auto-encoder with 200 bits", "small", curves_step("leave_one_out", 2, 1_297, 64)),
    Step("auto-encoder with 200 bits", "large", curves_step("leave_one_out", 2, 50_000, 784)),
)
