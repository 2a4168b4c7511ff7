"""New images: codes from a prior, position by position, and the decoder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.files import save_figure
from experiments.vqvae_pixelcnn.fit_prior import fitted, prior_config_at
from experiments.vqvae_pixelcnn.priors import NUM_CLASSES, draw
from experiments.vqvae_pixelcnn.train import codes_of, config_at, images_of, load, trained


@dataclass(frozen=True)
class Sampling:
    """Settings of sampling."""

    prior: Path = Path("runs/prior")
    """Directory of the prior's run."""
    out: Path = Path("runs/samples.png")
    """File of the figure: ten images of each class."""
    temperature: float = 1.0
    """Of the codes; 1 is the prior itself."""
    seed: int = 0


def tiled(images: np.ndarray, columns: int) -> np.ndarray:
    """Images [n, h, w, c] in rows of ``columns``, as one, with a white line between them."""
    images = np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=1.0)
    rows = images.reshape(-1, columns, *images.shape[1:]).transpose(0, 2, 1, 3, 4)
    return rows.reshape(rows.shape[0] * rows.shape[1], -1, images.shape[-1]).squeeze()


def shown(images: np.ndarray, columns: int, title: str) -> Figure:
    """A figure of images in rows."""
    rows = len(images) // columns
    figure = Figure(figsize=(0.55 * columns, 0.55 * rows + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(tiled(images, columns), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()
    return figure


def sample(config: Sampling) -> dict[str, Any]:
    """Draws ten images of each class and writes them into one figure."""
    prior_config = prior_config_at(config.prior)
    settings = config_at(prior_config.auto_encoder)
    functions, state = trained(settings)
    images = load(settings.data)[0].images
    shape = codes_of(functions, state, images[:1]).shape[1:]
    prior, params = fitted(prior_config, functions.num_codes, shape)
    labels = np.repeat(np.arange(NUM_CLASSES, dtype=np.int32), 10)
    drawing = jax.jit(lambda key, labels: draw(prior, params, key, labels, config.temperature))
    codes = drawing(jax.random.key(config.seed), jnp.asarray(labels))
    pictures = images_of(functions, state, np.asarray(codes))
    save_figure(config.out, shown(pictures, 10, f"{prior_config.prior}: samples, one class a row"))
    return {"figure": str(config.out), "different_grids": len(np.unique(np.asarray(codes), axis=0))}
