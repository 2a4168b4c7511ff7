"""BERT: encoder and heads, checkpoints of other libraries, tokens with offsets, fine-tuning."""
