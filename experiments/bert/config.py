"""The settings of a training, and those of a tiny one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Config:
    """Settings of a run."""

    out: Path = Path("runs/bert")
    """Directory of the run; the same command goes on where it was killed."""
    model: Path | None = None
    """Directory of a model, of Hugging Face's files or Google's; the small English one by default."""
    task: Literal["classification", "tokens", "spans", "masked"] = "classification"
    """What is predicted: a class of each text, one of each word, labelled spans, or words that are masked."""
    train: Path | None = None
    """A file of examples (see experiments/bert/data.py); film reviews or generated sentences without it."""
    valid: Path | None = None
    """To choose the best epoch by; a tenth of ``train`` without it."""
    test: Path | None = None
    """To report on, and to predict."""
    num_epochs: int = 3
    """Passes through the examples, at most."""
    patience: int = 2
    """Epochs without a better validation after which training ends."""
    batch_size: int = 32
    """Texts of a step."""
    max_length: int = 128
    """Tokens of a text; what is longer is cut."""
    learning_rate: float = 1e-4
    """Of the head; reached after the warm-up, and 0 at the end."""
    layer_decay: float = 0.9
    """The rate of a layer over that of the one above it."""
    warmup: float = 0.1
    """Share of the steps in which the rate rises."""
    weight_decay: float = 0.01
    """Of matrices; vectors have none."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    ema: float = 0.99
    """Decay of the mean of weights that is validated and kept; shorter in the first steps."""
    dropout: float = 0.1
    """Of features and of attention weights."""
    half: bool = False
    """Whether products are in bfloat16; weights, sums and the optimizer stay in float32."""
    keep: Literal["everything", "products", "layers"] = "products"
    """What is kept for the backward pass, rather than computed again."""
    seed: int = 0
    """Of the head, dropout and the order of examples."""
    save_every: int = 200
    """Steps between checkpoints; there is one after each epoch."""
    model_devices: int = 1
    """Devices that share each layer's matrices; the others share the batch."""
    tiny: bool = False
    """A model and data so small that they show only that it works."""


TINY = Config(num_epochs=6, batch_size=8, max_length=16, learning_rate=3e-3, layer_decay=1.0, ema=0.9, dropout=0.0)
TINY_SIZES: dict[str, Any] = {"hidden_dim": 32, "num_layers": 2, "num_heads": 2, "mlp_dim": 64, "num_positions": 64}
