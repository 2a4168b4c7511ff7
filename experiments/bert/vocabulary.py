"""A model of fewer words: the part of a vocabulary that a task needs (with ``tokens.Tokenizer.keep``)."""

from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from experiments.bert.model import Config, Parameters


def keep_tokens(config: Config, parameters: Parameters, numbers: Sequence[int]) -> tuple[Config, Parameters]:
    """A model of fewer words: the token ``numbers[i]`` gets the number ``i``.

    Raises:
      ValueError: if a number is there twice, or no token has it.
    """
    if len(set(numbers)) != len(numbers):
        raise ValueError("keep_tokens: numbers must differ")
    if any(not 0 <= number < config.vocabulary_size for number in numbers):
        raise ValueError(f"keep_tokens: numbers must be from 0 to {config.vocabulary_size - 1}")
    rows = jnp.asarray(np.asarray(numbers, np.int32))
    encoder = parameters.encoder._replace(words=parameters.encoder.words[rows])
    masked = parameters.masked
    masked = None if masked is None else masked._replace(bias=masked.bias[rows])
    return replace(config, vocabulary_size=len(numbers)), parameters._replace(encoder=encoder, masked=masked)
