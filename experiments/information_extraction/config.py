"""The settings of a training, and those of a tiny one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Config:
    """Settings of a run."""

    out: Path = Path("runs/extraction")
    """Directory of the run; the same command goes on where it was killed."""
    train: Path | None = None
    """A file (see experiments/information_extraction/data.py), or a directory with train, dev and test; generated
    sentences without it."""
    valid: Path | None = None
    """To choose epoch and thresholds by; a tenth of ``train`` without it."""
    test: Path | None = None
    """To report on; a tenth of ``train`` without it."""
    encoder: Literal["dgcnn", "bert", "bert+dgcnn"] = "dgcnn"
    """Convolutions that begin at random, a pretrained model, or both: convolutions over words, beside its tokens."""
    model: Path | None = None
    """Directory of the pretrained model; the small English one that is installed without it."""
    decoder: Literal["pointer", "global"] = "pointer"
    """Half pointer and half tagging, or the global pointer."""
    condition: Literal["gru", "norm"] = "gru"
    """How the subject enters the search for objects: recurrent networks, or layer normalisation."""
    selection: Literal["teacher", "straight_through"] = "teacher"
    """Subjects to train on: those of the text, or the model's own by straight-through gradients."""
    loss: Literal["entropy", "f1"] = "entropy"
    """Cross entropy, or F1 of triples (of the pointer decoder; for a model that is trained already)."""
    start: Path | None = None
    """Directory of a trained model whose weights to begin with."""
    num_subjects: int = 2
    """Subjects drawn for each text and step."""
    gates: bool = False
    """Whether to multiply by the probabilities of a boundary, and of a predicate to occur."""
    subject_power: float = 1.0
    """Power of the probabilities of subjects."""
    object_power: float = 1.0
    """Power of the probabilities of objects."""
    prior: bool = False
    """Whether the training's triples, looked up in the text, are an input."""
    open_predicates: bool = False
    """Whether predicates are words of the text rather than names from a list."""
    dim: int = 128
    """Features of a unit in the convolutional encoder."""
    num_layers: int = 12
    """Convolutions of that encoder."""
    num_epochs: int = 40
    """Passes through the texts."""
    batch_size: int = 32
    """Texts of a step."""
    max_length: int = 128
    """Units of a text; what is longer is cut."""
    learning_rate: float = 1e-3
    """Reached after the warm-up, and 0 at the end."""
    encoder_rate: float = 1.0
    """What the encoder's rate is multiplied by; that of the pretrained one if there are both."""
    warmup: float = 1.0
    """Epochs in which the rate rises."""
    weight_decay: float = 0.0
    """Of matrices; vectors have none."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    ema: float = 0.998
    """Decay of the mean of weights that is evaluated and kept; shorter in the first steps."""
    dropout: float = 0.25
    """Of the convolutions' input, or all layers of a pretrained model (beside convolutions it keeps its files' own)."""
    unit_dropout: float = 0.0
    """Share of units that are taken for unknown ones; of the convolutional encoder."""
    swap: float = 0.0
    """Share of texts in which the pair of a triple is exchanged for another of its predicate."""
    evaluate_every: int = 2
    """Epochs between evaluations."""
    threshold: float = 0.5
    """Of probabilities, for the evaluations; those of the report are chosen on ``valid``."""
    seed: int = 0
    """Of weights, dropout, drawn subjects and the order of texts."""
    save_every: int = 1_000
    """Steps between checkpoints; there is one after each evaluation."""
    tiny: bool = False
    """A model and data so small that they show only that it works."""


TINY: dict[str, Any] = {
    "dim": 32,
    "num_layers": 3,
    "batch_size": 16,
    "max_length": 32,
    "learning_rate": 5e-3,
    "ema": 0.9,
    "dropout": 0.0,
}
TINY_BERT: dict[str, Any] = {
    "hidden_dim": 32,
    "num_layers": 2,
    "num_heads": 2,
    "mlp_dim": 64,
    "num_positions": 64,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
