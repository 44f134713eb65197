"""Losses that use all pairs or triplets in a batch, from identities `(batch,)` and embeddings `(batch, dim)`."""
