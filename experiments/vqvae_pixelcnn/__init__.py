"""VQ-VAE with a prior over its codes: train, prior, sample, evaluate. See README.md."""
