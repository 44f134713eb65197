"""Facts: numbers about a run, each a pure function of embeddings, scores, samples or the model."""
