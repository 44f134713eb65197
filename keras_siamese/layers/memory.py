"""`CrossBatchMemory`: an encoder whose batches are also compared with the embeddings of earlier batches.

Contract: takes and returns what the encoder does. In training it hands the remembered rows to its loss, which must be
one on embeddings with identities, and remembers the rows of the batch afterwards. The memory is weights of this model,
so it is saved and resumed with it. The encoder alone does not have them.

    model = CrossBatchMemory(encoder, size=4096)
    model.compile("adam", keras_siamese.losses.SupConLoss())
    model.fit(x, labels, batch_size=32)
    model.encoder.save("encoder.keras")
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_siamese._checks import check_integer, check_number
from keras_siamese._export import export
from keras_siamese._types import Shape, Shapes, Tensor
from keras_siamese.layers.around import AroundEncoder
from keras_siamese.layers.siamese import embedding_shape_of, encoded, map_shapes


@export
class CrossBatchMemory(AroundEncoder):
    """Cross-batch memory: anchors are compared with the batch and with the last `size` rows of earlier batches.

    The loss of a batch is L(anchors; batch ∪ memory). The memory is a queue of embeddings and their identities, which
    have no gradient. The rows of a batch enter it after their loss, so no row meets its own copy. The memory is used
    once it is full; before, and outside of training, the loss is that of the batch alone.

    Remembered rows are as old as the memory is long, and while the encoder changes quickly they mislead: begin after
    some training, with a small learning rate, and use `momentum` with losses that are a softmax over negatives, such as
    SupCon. Compare with the batch alone: a memory does not always help.

    Wang, Zhang, Huang, Scott, *Cross-Batch Memory for Embedding Learning*, CVPR 2020, https://arxiv.org/abs/1912.06798

    Call it on inputs of shape `(batch, …)` → embeddings `(batch, dim)`. Compile it with a loss whose terms belong to
    anchors. Histogram, lifted structure, intra-pair variance and the losses on two views raise an error.

    Args:
        encoder: a `keras.Model` or layer from one input to an embedding `(batch, dim)`; also a `Chunked` one.
        size: number of rows to remember, at least 1.
        momentum: None (default) remembers the embeddings themselves. A number m in [0, 1), such as 0.999, remembers
            those of a second encoder whose weights w′ ← m·w′ + (1 − m)·w follow the encoder's w in each step, as in He,
            Fan, Wu, Xie, Girshick, *Momentum Contrast for Unsupervised Visual Representation Learning*, CVPR 2020,
            https://arxiv.org/abs/1911.05722. It is a copy of the encoder in the first step, and runs in inference mode.

    Attributes:
        embeddings, labels: the remembered rows, `(size, dim)` and `(size,)`, in the order of a ring.
        seen: how many rows have been remembered, scalar, at most `size`.
        place: where the next row goes, scalar.

    >>> import keras, numpy as np, keras_siamese as ks
    >>> encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.UnitNormalization()])
    >>> model = ks.layers.CrossBatchMemory(encoder, size=8)
    >>> model.compile("sgd", ks.losses.SupConLoss())
    >>> history = model.fit(np.ones((6, 4)), np.arange(6) // 2, batch_size=3, verbose=0)
    >>> int(model.seen), int(model.place)
    (6, 6)
    """

    options = ("size", "momentum")

    def __init__(
        self, encoder: keras.layers.Layer, size: int = 4096, momentum: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(encoder, **kwargs)
        self.size = check_integer("size", size, low=1)
        self.momentum = None if momentum is None else check_number("momentum", momentum, low=0, high=1, open_high=True)
        self.averaged = None
        if momentum is not None:
            self.averaged = type(encoder).from_config(encoder.get_config())
            self.averaged.trainable = False

    def build(self, input_shape: Shapes) -> None:
        self._input_shape = map_shapes(tuple, input_shape)
        dim = embedding_shape_of(self.encoder, self._input_shape)[1]
        if self.averaged is not None:
            embedding_shape_of(self.averaged, self._input_shape)
        # JAX has no 64-bit integers unless it is told to.
        whole = keras.backend.standardize_dtype(ops.convert_to_tensor(np.zeros(1, "int64")).dtype)
        self.embeddings = self.state("embeddings", (self.size, dim), "float32")
        self.labels = self.state("labels", (self.size,), whole)
        self.seen, self.place = self.state("seen", (), "int32"), self.state("place", (), "int32")
        self.built = True

    def state(self, name: str, shape: Shape, dtype: str) -> keras.Variable:
        return self.add_weight(
            name=name, shape=shape, dtype=dtype, initializer="zeros", trainable=False, autocast=False
        )

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        return encoded(self.encoder, inputs, training, mask)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        if not hasattr(self.loss, "remembering"):
            wanted = "a loss on embeddings with identities, such as ks.losses.SupConLoss()"
            raise ValueError(f"`loss` of CrossBatchMemory must be {wanted}; got {self.loss!r}")
        if not training:
            return super().compute_loss(x, y, y_pred, sample_weight, training=training)
        with self.loss.remembering((self.labels.value, self.embeddings.value, self.seen >= self.size)):
            value = super().compute_loss(x, y, y_pred, sample_weight, training=training)
        self.remember(self.loss.identities(y), y_pred if self.averaged is None else self.followed(x))
        return value

    def followed(self, x: Tensor) -> Tensor:
        """Embeddings `(batch, dim)` by the averaged encoder, after it has made a step towards the encoder."""
        share = ops.where(self.seen == 0, 0.0, self.momentum)
        for average, weight in zip(self.averaged.weights, self.encoder.weights, strict=True):
            new = ops.convert_to_tensor(weight)
            if keras.backend.is_float_dtype(weight.dtype):
                kept = ops.cast(share, weight.dtype)
                new = kept * ops.convert_to_tensor(average) + (1.0 - kept) * new
            average.assign(ops.stop_gradient(new))
        return encoded(self.averaged, x, False, None)

    def remember(self, labels: Tensor, embeddings: Tensor) -> None:
        """Put the rows of a batch, `(batch,)` and `(batch, dim)`, in the place of the oldest ones."""
        rows = ops.shape(labels)[0]
        places = ops.expand_dims((self.place + ops.arange(rows, dtype="int32")) % self.size, 1)
        for weight, values in ((self.labels, labels), (self.embeddings, embeddings)):
            values = ops.cast(ops.stop_gradient(values), weight.dtype)[-self.size :]  # a batch may have more rows
            weight.assign(ops.scatter_update(ops.convert_to_tensor(weight), places[-self.size :], values))
        self.place.assign((self.place + rows) % self.size)
        self.seen.assign(ops.minimum(self.seen + rows, self.size))
