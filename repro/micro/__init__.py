"""The micro organism: a fictional world, a grammar that speaks about it, and the model trained on that from scratch."""
