"""The F-measure as a loss: fine-tuning a classifier of rare examples after cross entropy."""
