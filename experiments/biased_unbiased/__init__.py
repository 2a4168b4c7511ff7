"""Biased and unbiased statistics, measured: where the bias comes from, and what takes it off."""
