"""What auto-encoder and prior are worth on the test images: error, use of the codes, bits; and figures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.files import save_figure, write_json
from experiments.vqvae_pixelcnn.coding import by_frequency, by_prior, decoded, encoded
from experiments.vqvae_pixelcnn.fit_prior import fitted, prior_config_at
from experiments.vqvae_pixelcnn.model import VqVae, quantizer_of
from experiments.vqvae_pixelcnn.priors import log_prob
from experiments.vqvae_pixelcnn.sample import shown
from experiments.vqvae_pixelcnn.train import codes_of, config_at, load, trained
from jaxlab.quantize import CodeUsage, code_usage

CHUNK = 500


@dataclass(frozen=True)
class Evaluation:
    """Settings of the evaluation."""

    prior: Path = Path("runs/prior")
    """Directory of the prior's run."""
    out: Path = Path("runs/evaluation")
    """Directory of evaluation.json and the figures."""
    num_coded: int = 10_000
    """How many test images go through the entropy coder, to and fro."""


def reconstruction(
    functions: VqVae, state: Any, images: np.ndarray, quantizer: Any
) -> tuple[CodeUsage, float, np.ndarray]:
    """How codes are used, the mean squared error of brightness, and the decoded images."""
    usage, pictures = None, []
    decode = jax.jit(quantizer.decode)
    for start in range(0, len(images), CHUNK):
        vectors, codes = functions.encode(state, images[start : start + CHUNK])
        values = decode(state.params["quantizer"], state.quantizer_state, codes)
        part = code_usage(vectors, values, codes, num_codes=functions.num_codes)
        usage = part if usage is None else usage.merge(part)
        pictures.append(np.asarray(functions.decode(state, codes)))
    assert usage is not None
    whole = np.concatenate(pictures)
    return usage, float(np.mean((whole - images / 255.0) ** 2)), whole


def prior_bits(prior: Any, params: Any, codes: np.ndarray, labels: np.ndarray) -> float:
    """Mean bits of an image's codes under the prior."""

    @jax.jit
    def nats(codes, labels):
        return log_prob(prior.apply(params, codes, labels), codes)

    parts = [nats(codes[start : start + CHUNK], labels[start : start + CHUNK]) for start in range(0, len(codes), CHUNK)]
    return float(-np.concatenate([np.asarray(part, np.float64) for part in parts]).mean() / np.log(2))


def coded_bits(codes: np.ndarray, make: Any) -> float:
    """Bits of an image in the stream of a real coder, from which the same codes were read again."""
    num_bits = 0
    for start in range(0, len(codes), 1000):
        part = codes[start : start + 1000]
        words = encoded(part, make(start, len(part)))
        num_bits += 32 * len(words)
        if not np.array_equal(decoded(words, part.shape, make(start, len(part))), part):
            raise AssertionError("the decoded codes are not the encoded ones")
    return num_bits / len(codes)


def usage_figure(counts: np.ndarray, perplexity: float) -> Figure:
    """How often each code is taken, the most frequent first."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    edges = np.arange(len(counts) + 1)
    axes.stairs(np.sort(counts)[::-1] / counts.sum() * 100, edges, fill=True)
    axes.axhline(100 / len(counts), color="0.3", linestyle="--", linewidth=1)
    axes.text(len(counts), 100 / len(counts), "all alike ", ha="right", va="bottom", color="0.3", fontsize=8)
    axes.set(xlabel="codes, the most frequent first", ylabel="taken, % of all places", xlim=(0, len(counts)))
    axes.set_title(f"Use of {len(counts)} codes: perplexity {perplexity:.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def codebook_figure(vectors: np.ndarray, counts: np.ndarray) -> Figure:
    """The codes' vectors in the plane of their two largest principal components."""
    centred = vectors - vectors.mean(0)
    _, sizes, axes_of = np.linalg.svd(centred, full_matrices=False)
    plane = centred @ axes_of[:2].T
    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.subplots()
    used = counts > 0
    if not used.all():
        axes.scatter(*plane[~used].T, s=12, facecolors="none", edgecolors="0.6", label="never taken")
    share = counts[used] / counts.sum()
    axes.scatter(*plane[used].T, s=8 * len(counts) * share, alpha=0.6, linewidths=0, label="area: how often taken")
    share = (sizes[:2] ** 2).sum() / (sizes**2).sum()
    axes.set(title=f"Codebook: two components, {share:.0%} of its variance", xticks=[], yticks=[])
    axes.legend(fontsize=7)
    return figure


def evaluate(config: Evaluation) -> dict[str, Any]:
    """Measures everything on the test images; writes evaluation.json and the figures."""
    prior_config = prior_config_at(config.prior)
    settings = config_at(prior_config.auto_encoder)
    functions, state = trained(settings)
    train, test = load(settings.data)
    usage, error, pictures = reconstruction(functions, state, test.images, quantizer_of(settings.model)[0])
    codes = codes_of(functions, state, test.images)
    prior, params = fitted(prior_config, functions.num_codes, codes.shape[1:])
    train_counts = np.bincount(codes_of(functions, state, train.images).ravel(), minlength=functions.num_codes)
    few = codes[: config.num_coded]

    def coder_of_prior(start, size):
        return by_prior(prior, params, test.labels[start : start + size])

    # Of vectors with several codes: the sums over them of bits, and the geometric mean of perplexities.
    counts = np.asarray(usage.counts).reshape(-1, functions.num_codes).sum(0)
    perplexity = float(np.exp2(np.mean(usage.marginal_bits())))
    vectors_of_image = int(usage.num_vectors) // len(codes)
    results = {
        "images": len(codes),
        "psnr": float(-10 * np.log10(error)),
        "squared_error": error,
        "perplexity": perplexity,
        "used_codes": int((counts > 0).sum()),
        "signal_to_noise": float(usage.signal_to_noise()),
        "bits_of_an_image": {
            "pixels": int(test.images[0].size * 8),
            "nominal": vectors_of_image * float(np.sum(usage.nominal_bits())),
            "marginal": vectors_of_image * float(np.sum(usage.marginal_bits())),
            prior_config.prior: prior_bits(prior, params, codes, test.labels),
        },
        "coded_images": len(few),
        "coded_bits_of_an_image": {
            "marginal": coded_bits(few, lambda start, size: by_frequency(train_counts, size)),
            prior_config.prior: coded_bits(few, coder_of_prior),
        },
    }
    write_json(config.out / "evaluation.json", results)
    pairs = np.stack([test.images[:20] / 255.0, pictures[:20]], 0).reshape(2, 2, 10, *test.images.shape[1:])
    pairs = pairs.transpose(1, 0, 2, 3, 4, 5).reshape(40, *test.images.shape[1:])
    save_figure(config.out / "reconstructions.png", shown(pairs, 10, "test images above their reconstructions"))
    save_figure(config.out / "code_usage.png", usage_figure(counts, perplexity))
    book = quantizer_of(settings.model)[0].decode
    # Of vectors with several codes, the first of them alone.
    alone = jnp.full((functions.num_codes, *functions.code_shape), -1)
    alone = alone.reshape(functions.num_codes, -1).at[:, 0].set(jnp.arange(functions.num_codes)).reshape(alone.shape)
    vectors = np.asarray(book(state.params["quantizer"], state.quantizer_state, alone))
    of_first = np.asarray(usage.counts).reshape(-1, functions.num_codes)[0]
    save_figure(config.out / "codebook.png", codebook_figure(vectors, of_first))
    return results
