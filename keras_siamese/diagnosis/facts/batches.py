"""Training batches: those of a sequence, and how the current encoder scores their pairs.

is_pairs(inputs), pair_outputs(siamese, batches_of(sequence))     # bool, (same, scores)
"""

import numpy as np
from keras import ops, tree

from keras_siamese.scoring import score_embeddings, to_numpy


def batches_of(source, count=6):
    """Up to `count` batches `(inputs, targets)` of a training sequence, evenly spaced over the current epoch."""
    places = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).astype(int))
    return [source[int(place)][:2] for place in places]


def is_pairs(inputs):
    """Whether the inputs of a batch are the two sides of pairs."""
    return isinstance(inputs, (tuple, list)) and len(inputs) == 2


def pair_outputs(siamese, batches, similar_label=1, training=False):
    """`(same, scores)` of training `batches`, of pairs or of identities, in one mode of the encoder."""
    same, scores = [], []
    sign = -1.0 if siamese.output_kind == "distance" else 1.0
    for inputs, targets in batches:
        targets = np.asarray(targets)
        if is_pairs(inputs):
            outputs = siamese.embed(tuple(inputs), training=training)
            same.append(targets.reshape(-1) == similar_label)
            scores.append(sign * to_numpy(siamese.compare(*outputs))[:, 0])
        else:
            embeddings = to_numpy(siamese.encode(as_tensors(inputs), training, None))
            left, right = np.triu_indices(len(targets), 1)
            same.append(targets[left] == targets[right])
            scores.append(score_embeddings(siamese, embeddings, left, right))
    return np.concatenate(same), np.concatenate(scores)


def as_tensors(inputs):
    return tree.map_structure(ops.convert_to_tensor, inputs)
