"""Measurements of jaxlab's estimators on problems whose gradient is known exactly.

python -m benchmarks.gradient_variance    # bias, variance and cost of every estimator on every problem
python -m benchmarks.training_curves      # the published auto-encoder with 200 bits, trained with each of them
python -m benchmarks.report               # puts the measured table into README.md
"""
