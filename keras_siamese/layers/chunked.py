"""`Chunked`: an encoder that is trained on large batches with the activations of few rows in memory.

Contract: takes what the encoder takes and returns what it returns, embeddings `(batch, dim)`. In training it calls the
encoder on chunks of rows and forgets their activations; the backward pass computes those of one chunk after the other
again. Values, gradients and weights are those of the encoder on the whole batch.

    encoder = Chunked(encoder, rows=128)
    encoder.compile("adam", keras_siamese.losses.NTXentLoss())
    encoder.fit(x, labels, batch_size=16384)
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import keras
from keras import ops, tree

from keras_siamese._checks import check_integer
from keras_siamese._export import export
from keras_siamese._types import Shapes, Tensor
from keras_siamese.layers.around import AroundEncoder
from keras_siamese.layers.siamese import embedding_shape_of, encoded, map_shapes


@export
class Chunked(AroundEncoder):
    """Cached gradients: an encoder whose training keeps the activations of at most `rows` rows.

    A loss over all pairs of a batch needs all its embeddings, but the activations that lead to an embedding are needed
    only while its gradient is computed. So this model embeds a batch in chunks under `keras.remat`, and the backward
    pass computes each chunk a second time. A training step then needs the memory of a step with `rows` rows, plus the
    inputs and the embeddings of the batch. Outside of training the encoder is called once, on the whole batch.

    Gao, Zhang, Han, Callan, *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup*, RepL4NLP 2021,
    https://arxiv.org/abs/2101.06983

    The result is that of the encoder on the whole batch. Dropout draws another mask in each chunk, and the same one in
    both passes. Layers whose result depends on the other rows would see a chunk instead of the batch. Therefore
    BatchNormalization is refused in training unless it is frozen. On JAX, the chunks are a loop, in which XLA computes
    the gradients of convolutions slowly on CPUs.

    Call it on inputs of shape `(batch, …)`, arrays or nested dicts and lists of arrays → embeddings `(batch, dim)`.

    Args:
        encoder: a `keras.Model` or layer from one input to an embedding `(batch, dim)`.
        rows: the largest number of rows to embed at once, at least 1. A batch is divided into chunks of equal size.
            `SiameseWrapper` concatenates its inputs, so each pair or triplet counts as 2 or 3 rows.
        **kwargs: `name` and `trainable` as in `keras.Model`. The precision is that of the encoder's own `dtype`.

    Raises:
        ValueError: if the encoder's output shape is not `(batch, dim)`, or if a training step of the encoder changes
            weights, adds a loss, or draws random numbers without a `keras.random.SeedGenerator` of its own.

    >>> import keras, numpy as np, keras_siamese as ks
    >>> encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.UnitNormalization()])
    >>> chunked = ks.layers.Chunked(encoder, rows=2)
    >>> tuple(chunked(np.ones((5, 4)), training=True).shape)
    (5, 3)
    """

    options = ("rows",)

    def __init__(self, encoder: keras.layers.Layer, rows: int = 128, **kwargs: Any) -> None:
        super().__init__(encoder, **kwargs)
        if not hasattr(keras, "remat"):
            found = f"this is Keras {keras.__version__}. Update Keras or train the encoder without it"
            need = "saves memory only with Keras 3.9 or later (`keras.remat`)"
            warnings.warn(f"`Chunked` {need}; {found}", stacklevel=2)
        self.rows = check_integer("rows", rows, low=1)
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape: Shapes) -> None:
        self._input_shape = map_shapes(tuple, input_shape)
        embedding_shape_of(self.encoder, self._input_shape)
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        if not training:
            return encoded(self.encoder, inputs, training, mask)
        structure, encoder = (inputs, mask), self.encoder
        present = [ops.convert_to_tensor(leaf) for leaf in tree.flatten(structure) if leaf is not None]
        is_float = [keras.backend.is_float_dtype(keras.backend.standardize_dtype(leaf.dtype)) for leaf in present]
        rows = ops.shape(present[0])[0]
        chunks, size = chunks_of(rows, self.rows)
        # A new number for each chunk in each step, which makes the encoder's seeds of this chunk.
        numbers = keras.random.randint((chunks,), 0, 2**30, "int32", seed=self.seed_generator)
        weights, seeds = encoder.weights, seeds_of(encoder)
        values, bases = ([ops.convert_to_tensor(one) for one in ones] for ones in (weights, seeds))

        def embedded(chunk):
            *leaves, number = chunk
            states = [base + ops.cast(ops.stack([number, 0 * number]), base.dtype) for base in bases]

            # On TensorFlow, only arguments of this function have gradients, and they must be floats.
            def of_floats(floats, values):
                floats = iter(floats)
                flat = [next(floats) if one else leaf for one, leaf in zip(is_float, leaves, strict=True)]
                part, part_mask = packed(structure, flat)
                with unchanged(encoder, [*zip(weights, values, strict=True), *zip(seeds, states, strict=True)]):
                    return encoded(encoder, part, training, part_mask)

            again = getattr(keras, "remat", lambda function: function)(of_floats)
            return again([leaf for one, leaf in zip(is_float, leaves, strict=True) if one], values)

        embeddings = ops.map(embedded, [*(divided(leaf, rows, chunks, size) for leaf in present), numbers])
        return ops.reshape(embeddings, (-1, embeddings.shape[-1]))[:rows]


def chunks_of(rows, largest):
    """The number of chunks of at most `largest` rows, and their size; numbers, or tensors where `rows` is one.

    >>> chunks_of(130, 128), chunks_of(5, 128), chunks_of(0, 128)
    ((2, 65), (1, 5), (1, 0))
    """
    chunks = -(-rows // largest)
    chunks = max(chunks, 1) if isinstance(rows, int) else ops.maximum(chunks, 1)
    return chunks, -(-rows // chunks)


def divided(tensor, rows, chunks, size):
    """The `tensor` `(rows, …)` as `(chunks, size, …)`; the first rows fill what is missing at the end."""
    known = isinstance(rows, int)
    if not known or rows < chunks * size:
        tensor = ops.concatenate([tensor, tensor[: chunks * size - rows]], axis=0)
    return ops.reshape(tensor, (chunks if known else -1, size, *tensor.shape[1:]))


def packed(structure, leaves):
    """The nested `structure` with `leaves` in the places that are not None."""
    leaves = iter(leaves)
    return tree.pack_sequence_as(structure, [one if one is None else next(leaves) for one in tree.flatten(structure)])


def seeds_of(layer):
    """The states of the seed generators in `layer`: its variables that are no weights."""
    weights = {id(weight) for weight in layer.weights}
    return [variable for variable in layer.variables if id(variable) not in weights]


@contextlib.contextmanager
def unchanged(encoder, values):
    """Let the encoder's variables have the `values`, pairs of a variable and its value, within the block.

    Raises:
        ValueError: if the block changes other variables than states of seeds, or adds losses.
    """
    with keras.StatelessScope(values, collect_losses=True) as scope:
        before = dict(scope.state_mapping)
        yield
    name, weights = encoder.name, {id(weight): weight for weight in encoder.weights}
    changed = [one for one, value in scope.state_mapping.items() if value is not before.get(one)]
    paths = [weights[one].path for one in changed if one in weights]
    if paths:
        raise ValueError(
            f"A training step changes {paths[0]!r} of the encoder {name!r}. `Chunked` gives it chunks of rows, and "
            "BatchNormalization, for example, needs the whole batch. Use LayerNormalization or "
            "GroupNormalization, or freeze it with `layer.trainable = False`"
        )
    if any(one not in before for one in changed):
        raise ValueError(
            f"The encoder {name!r} changes variables that are not its own in a training step, as random functions of "
            "Keras without `seed=` do. `Chunked` would draw the same numbers again: give its layers a "
            "keras.random.SeedGenerator"
        )
    if scope.losses:
        raise ValueError(
            f"The encoder {name!r} adds a loss in its call, such as an activity regularizer. `Chunked` gives it chunks "
            "of rows instead of the batch, so the loss would not be that of the batch. Add it outside of the encoder"
        )
