"""Logits and labels for the tests of metrics."""

import numpy as np

SIZE, CLASSES = 12, 3


def case(seed):
    """Logits with ties, labels of which some may not occur, and weights of which some are 0."""
    random = np.random.default_rng(seed)
    logits = random.integers(-2, 3, (SIZE, CLASSES)).astype(np.float32)
    labels = random.integers(0, random.integers(1, CLASSES + 1), SIZE)
    weights = random.integers(0, 4, SIZE).astype(np.float32) / 2
    weights[0] = 1
    return logits, labels, weights


def close(actual, expected):
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=2e-6, atol=2e-6)
