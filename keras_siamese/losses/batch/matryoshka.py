"""Matryoshka loss: any loss on embeddings, added up over the embedding's first dimensions.

Contract: wraps a loss on embeddings with identities, and computes it on the first d of the dim dimensions, for several
d. Labels, gathering across devices, and sample weights are those of one loss.

    encoder.compile("adam", loss=MatryoshkaLoss(SupConLoss(), dims=[64, 32, 16, 8]))
    short = encoder.predict(x)[:, :16]                    # works nearly as well as all 64
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras

from keras_siamese._checks import check_integer, check_number
from keras_siamese._export import export
from keras_siamese._types import Self, Tensor
from keras_siamese.distances import Distance
from keras_siamese.losses.batch.base import Batch, EmbeddingLoss, Memory
from keras_siamese.ops import unit


@export
class MatryoshkaLoss(EmbeddingLoss):
    """Matryoshka loss: Σ_d w_d · L(the first d dimensions of the embeddings), for several d.

    An encoder that is trained with it can be cut: its first d dimensions are nearly as good as an encoder with d
    outputs. y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`. Same value as sentence-transformers'
    `MatryoshkaLoss` around the same loss.

    Normalise a cut embedding again before it is compared by another distance than the cosine.

    Kusupati, Bhatt, Rege, Wallingford, Sinha, Ramanujan, Howard-Snyder, Chen, Kakade, Jain, Farhadi, *Matryoshka
    Representation Learning*, NeurIPS 2022, https://arxiv.org/abs/2205.13147

    Args:
        loss: L, a loss of `keras_siamese.losses` on embeddings. Options such as `block_size` are its own. Losses on
            cosines to class weights do not fit, because the class weights would have to be cut too.
        dims: the d, different whole numbers from 1 to dim. List dim itself too, to train all dimensions.
        weights: the w_d ≥ 0, one for each of `dims`; None (default) means 1 for each.
        normalize: whether the cut embeddings are normalised, as sentence-transformers does (default). With False, L
            gets them as they are, as an encoder without `UnitNormalization` may need it. It makes no difference for
            losses on cosines.
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`; reduction and dtype are by default those of L.

    Raises:
        TypeError: if `loss` is no loss on embeddings.
        ValueError: if `dims` or `weights` do not fit, or (when called) if dim is smaller than one of `dims`.

    >>> from keras import ops
    >>> from keras_siamese.losses import NTXentLoss
    >>> loss = MatryoshkaLoss(NTXentLoss(temperature=1.0), dims=[2, 1])
    >>> embeddings = ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(float(loss(ops.array([7, 7, 9]), embeddings)), 4)
    0.6265
    """

    def __init__(
        self,
        loss: EmbeddingLoss,
        dims: Sequence[int],
        weights: Sequence[float] | None = None,
        normalize: bool = True,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(loss, EmbeddingLoss):
            wanted = "a loss on embeddings, such as ks.losses.SupConLoss()"
            raise TypeError(f"`loss` of MatryoshkaLoss must be {wanted}; got {loss!r}")
        kwargs.setdefault("reduction", loss.reduction)
        super().__init__(dtype=loss.dtype if dtype is None else dtype, **kwargs)
        self.loss = loss
        self.dims = check_dims(dims)
        self.weights = check_weights(weights, self.dims)
        self.normalize = bool(normalize)
        self.local_negatives = loss.local_negatives

    def costs_of(self, batch: Batch, wanted: bool) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        dim = batch.embeddings.shape[1]
        if dim is not None and max(self.dims) > dim:
            raise ValueError(f"`dims` must be at most {dim}, the size of the embeddings in `y_pred`; got {self.dims}")
        sums, statistics, places, memory = [], [], None, getattr(self.loss, "memory", None)
        try:
            for d, weight in sorted(zip(self.dims, self.weights, strict=True)):
                part = Batch(batch.labels, self.cut(batch.embeddings, d), places, batch.own)
                if memory is not None:
                    self.loss.memory = memory._replace(embeddings=self.cut(memory.embeddings, d))
                costs, statistics = self.loss.costs_of(part, wanted)
                sums += [(weight * total, count) for total, count in costs]
                places = vars(part).get("places")  # the rows are the same, so they are sorted only once
        finally:
            if memory is not None:
                self.loss.memory = memory
        return sums, statistics  # the statistics of the most dimensions

    def cut(self, embeddings: Tensor, d: int) -> Tensor:
        """The first `d` dimensions, `(rows, d)`."""
        part = embeddings[:, :d]
        return unit(part) if self.normalize and not self.loss.compares_cosines else part

    def remembering(self, memory: Memory) -> AbstractContextManager[None]:
        """As `BatchLoss.remembering`, for the inner loss; `memory` holds whole embeddings."""
        if not hasattr(self.loss, "remembering"):
            name = type(self.loss).__name__
            raise ValueError(f"{name} cannot compare with rows of earlier batches. Use a loss such as SupConLoss")
        return self.loss.remembering(memory)

    def statistic_names(self) -> tuple[str, ...]:
        return self.loss.statistic_names()

    def value_at_collapse(self, positive_fraction: float | None = None) -> float | None:
        value = self.loss.value_at_collapse(positive_fraction)
        return None if value is None else value * sum(self.weights)

    @property
    def minimum(self) -> float:
        return self.loss.minimum * sum(self.weights)

    @property
    def by_rows(self) -> bool:
        return self.loss.by_rows

    @property
    def mining(self) -> tuple[str, str] | None:
        return self.loss.mining

    @property
    def measure(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The inner loss's, of all dimensions."""
        return self.loss.measure

    @property
    def distance(self) -> Distance | None:
        return getattr(self.loss, "distance", None)

    @property
    def distance_margin(self) -> float | None:
        return self.loss.distance_margin

    @property
    def margin_is_gap(self) -> bool:
        return self.loss.margin_is_gap

    @property
    def compares_cosines(self) -> bool:
        return self.loss.compares_cosines

    @property
    def cosine_temperature(self) -> float | None:
        return self.loss.cosine_temperature

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        loss = config["loss"]
        loss = keras.saving.deserialize_keras_object(loss) if isinstance(loss, dict) else loss
        return cls(**{**config, "loss": loss})


def check_dims(dims):
    """`dims` as a list of different whole numbers ≥ 1."""
    if not isinstance(dims, (list, tuple)) or not dims:
        raise ValueError(f"`dims` must be a list of dimensions, such as [64, 32, 16]; got {dims!r}")
    dims = [check_integer("dims", one, low=1) for one in dims]
    if len(set(dims)) < len(dims):
        raise ValueError(f"`dims` must be different from each other; got {dims}")
    return dims


def check_weights(weights, dims):
    """The weights of `dims` as a list of numbers ≥ 0, not all of them 0."""
    if weights is None:
        return [1.0] * len(dims)
    if not isinstance(weights, (list, tuple)) or len(weights) != len(dims):
        raise ValueError(f"`weights` must be a list with one number for each of the dims {dims}; got {weights!r}")
    weights = [check_number("weights", one, low=0, open_high=True) for one in weights]
    if not any(weights):
        raise ValueError(f"`weights` must not all be 0; got {weights}")
    return weights
