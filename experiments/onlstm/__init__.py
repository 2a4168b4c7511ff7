"""Ordered neurons: language models and the trees they imply; logical inference on longer formulas than seen."""
