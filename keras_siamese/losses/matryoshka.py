"""Matryoshka loss: any loss, added up over the first dimensions of the embeddings.

Contract: wraps a loss, and computes it on the first d of the dim dimensions, for several d. Labels, gathering across
devices, and sample weights are those of one loss. Embeddings are cut here. A loss that gets distances or cosines needs
them for each d: `SiameseWrapper` and `ProxyLogits` compare the cut embeddings, from the most dimensions to the fewest.

    encoder.compile("adam", loss=MatryoshkaLoss(SupConLoss(), dims=[64, 32, 16, 8]))
    siamese.compile("adam", loss=MatryoshkaLoss(ContrastiveLoss(), dims=[64, 32, 16, 8]))
    short = encoder.predict(x)[:, :16]                    # works nearly as well as all 64
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras

from keras_siamese._checks import check_dims, check_number
from keras_siamese._export import export
from keras_siamese._types import Self, Tensor
from keras_siamese.distances import Distance
from keras_siamese.losses.base import SiameseLoss
from keras_siamese.losses.batch.base import Batch, EmbeddingLoss, Memory
from keras_siamese.losses.pairs import PairLoss
from keras_siamese.losses.proxies.base import ProxyLoss
from keras_siamese.losses.triplets import TripletLoss
from keras_siamese.ops import named_tensor, unit


@export
class MatryoshkaLoss(EmbeddingLoss):
    """Matryoshka loss: Σ_d w_d · L(the first d dimensions of the embeddings), for several d.

    An encoder that is trained with it can be cut: its first d dimensions are nearly as good as an encoder with d
    outputs. Same value as sentence-transformers' `MatryoshkaLoss` around the same loss. y_true is that of L:

    - L on embeddings, such as `SupConLoss`: y_pred `(batch, dim)`.
    - L on pairs or triplets, such as `ContrastiveLoss`: compile it into a `SiameseWrapper`. In `fit` and `evaluate` the
      model also compares cut embeddings, y_pred `(batch, len(dims), 1)`, or `(batch, len(dims), 2)` for triplets. Its
      output, metrics, and whatever else looks at the model still see the comparison of whole embeddings.
    - L on cosines to class weights, such as `ArcFaceLoss`: give the layer the same dims,
      ``ProxyLogits(classes, dims=[64, 32])``. It cuts the class weights too, y_pred `(batch, len(dims), classes)`.

    Normalise a cut embedding again before it is compared by another distance than the cosine.

    Kusupati, Bhatt, Rege, Wallingford, Sinha, Ramanujan, Howard-Snyder, Chen, Kakade, Jain, Farhadi, *Matryoshka
    Representation Learning*, NeurIPS 2022, https://arxiv.org/abs/2205.13147

    Args:
        loss: L, a loss of `keras_siamese.losses`, but not one on a matrix of similarities. Options such as
            `block_size` are its own.
        dims: the d, different whole numbers from 1 to dim. List dim itself too, to train all dimensions.
        weights: the w_d ≥ 0, one for each of `dims`; None (default) means 1 for each.
        normalize: whether the cut embeddings are normalised, as sentence-transformers does (default). With False, they
            are compared as they are, as an encoder without `UnitNormalization` may need it. It makes no difference for
            losses on cosines. For pairs and triplets, embeddings of all dim dimensions are compared as they are.
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`; reduction and dtype are by default those of L.

    Raises:
        TypeError: if `loss` is not such a loss.
        ValueError: if `dims` or `weights` do not fit, or (when called) if dim is smaller than one of `dims`, or y_pred
            does not hold a comparison for each of `dims`.

    >>> from keras import ops
    >>> from keras_siamese.losses import NTXentLoss
    >>> loss = MatryoshkaLoss(NTXentLoss(temperature=1.0), dims=[2, 1])
    >>> embeddings = ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(float(loss(ops.array([7, 7, 9]), embeddings)), 4)
    0.6265

    Of pairs, the model keeps its output:

    >>> import keras_siamese as ks
    >>> encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.UnitNormalization()])
    >>> siamese = ks.SiameseWrapper(encoder, distance="cosine")
    >>> siamese.compile("sgd", loss=MatryoshkaLoss(ks.losses.ContrastiveLoss(margin=0.5), dims=[3, 2]))
    >>> pairs, same = (ops.ones((5, 4)), ops.zeros((5, 4))), ops.ones(5)
    >>> history = siamese.fit(pairs, same, verbose=0)
    >>> tuple(siamese(pairs).shape)
    (5, 1)
    """

    def __init__(
        self,
        loss: SiameseLoss,
        dims: Sequence[int],
        weights: Sequence[float] | None = None,
        normalize: bool = True,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        check_inner(loss)
        kwargs.setdefault("reduction", loss.reduction)
        super().__init__(dtype=loss.dtype if dtype is None else dtype, **kwargs)
        self.loss = loss
        self.dims = check_dims("dims", dims)
        self.weights = check_weights(weights, self.dims)
        self.normalize = bool(normalize)
        self.expects = loss.expects
        self.local_negatives = getattr(loss, "local_negatives", False)

    @property
    def cuts_outputs(self) -> bool:
        """Whether a model that compares must also give its outputs for embeddings that are `cut` to each of `dims`."""
        return isinstance(self.loss, (PairLoss, TripletLoss))

    @property
    def from_most(self) -> list[tuple[int, float]]:
        """The `(d, w_d)` from the most dimensions to the fewest."""
        return sorted(zip(self.dims, self.weights, strict=True), reverse=True)

    def prepared(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.loss, EmbeddingLoss):
            return super().prepared(y_true, y_pred)
        y_pred = named_tensor("y_pred", y_pred)
        shape, count = tuple(y_pred.shape), len(self.dims)
        if len(shape) < 3 or shape[1] != count:
            use = "a SiameseWrapper, which compares cut embeddings in `fit` and `evaluate`"
            use = use if self.cuts_outputs else f"ProxyLogits(classes, dims={self.dims})"
            last = "columns" if self.cuts_outputs else "classes"
            needs = f"`y_pred` must hold the {self.expects}s for each of the dims {self.dims}"
            raise ValueError(f"{needs}, (batch, {count}, {last}); got shape {shape}. Use {use}")
        return self.loss.prepared(y_true, y_pred[:, 0])[0], y_pred

    def values_and_statistics(
        self, y_true: Tensor, y_pred: Tensor, wanted: bool
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        if isinstance(self.loss, EmbeddingLoss):
            return super().values_and_statistics(y_true, y_pred, wanted)
        values, statistics = [], {}
        for place, (_, weight) in enumerate(self.from_most):
            of_rows, found = self.loss.values_and_statistics(y_true, y_pred[:, place], wanted and place == 0)
            values.append(weight * of_rows)
            statistics |= found  # of the most dimensions
        return sum(values[1:], values[0]), statistics

    def costs_of(self, batch: Batch, wanted: bool) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        dim = batch.embeddings.shape[1]
        if dim is not None and max(self.dims) > dim:
            raise ValueError(f"`dims` must be at most {dim}, the size of the embeddings in `y_pred`; got {self.dims}")
        sums, statistics, places, memory = [], [], None, getattr(self.loss, "memory", None)
        try:
            for d, weight in reversed(self.from_most):
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

    def statistics(self, y_true: Tensor, y_pred: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """As `SiameseLoss.statistics`; also of a model's output `(batch, columns)` alone, for pairs and triplets."""
        if isinstance(self.loss, EmbeddingLoss):
            return super().statistics(y_true, y_pred)
        return self.loss.statistics(y_true, y_pred[:, 0] if len(y_pred.shape) == 3 else y_pred)

    def check_output(self, kind: str, bounds: tuple[float, float] | None) -> None:
        self.loss.check_output(kind, bounds)

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
        return getattr(self.loss, "by_rows", False)

    @property
    def kind(self) -> str | None:
        return self.loss.kind

    @property
    def expected_range(self) -> tuple[float, float]:
        return self.loss.expected_range

    @property
    def mining(self) -> tuple[str, str] | None:
        return self.loss.mining

    @property
    def measure(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The inner loss's, of all dimensions."""
        return self.loss.measure

    @property
    def distance(self) -> Distance | None:
        return self.loss.distance

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

    # Only losses on pairs have the following ones; of others, the error is an `AttributeError`, as it should be.

    @property
    def similar_label(self) -> int:
        return self.loss.similar_label

    @property
    def positive_weight(self) -> float:
        return self.loss.positive_weight

    @property
    def negative_weight(self) -> float:
        return self.loss.negative_weight

    @property
    def class_weight(self) -> str | dict[int, float] | None:
        return self.loss.class_weight

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        loss = config["loss"]
        loss = keras.saving.deserialize_keras_object(loss) if isinstance(loss, dict) else loss
        return cls(**{**config, "loss": loss})


def check_inner(loss):
    """Raises if `loss` does not get embeddings, or comparisons of them."""
    if isinstance(loss, MatryoshkaLoss) and not isinstance(loss.loss, EmbeddingLoss):
        raise TypeError(f"`loss` of MatryoshkaLoss must be the loss that another one wraps; got {loss!r}")
    if not isinstance(loss, (EmbeddingLoss, PairLoss, ProxyLoss, TripletLoss)):
        wanted = "a loss on embeddings, pairs, triplets or cosines to class weights, such as ks.losses.SupConLoss()"
        raise TypeError(f"`loss` of MatryoshkaLoss must be {wanted}; got {loss!r}")


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
