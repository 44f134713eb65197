"""Types of the public arguments and results, by name.

Contract: this module holds aliases, protocols and the options that `**kwargs` passes on, and no code. Any module may
import it; it imports no other module of the package.

Keras and the backends have no types of their own for tensors: a type checker reads `keras.Model` as Any, as it does
the aliases below that are Any. Their names and the docstrings tell what is meant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict, Union

from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack
elif sys.version_info >= (3, 11):
    from typing import Self, Unpack
else:  # for those who evaluate annotations at run time
    Self, Unpack = Any, Union

if TYPE_CHECKING:
    from keras_tuner import HyperParameters as HyperParameters
    from keras_tuner import Objective as Objective
    from keras_tuner import Tuner as Tuner
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure
    from pandas import DataFrame as DataFrame
else:  # of optional packages, which are not imported for the sake of their names
    Axes = DataFrame = Figure = HyperParameters = Objective = Tuner = Any

__all__ = ["ArrayLike", "Self", "Unpack"]
__all__ += ["Augment", "Data", "DistanceLike", "Samples", "Shape", "Shapes", "Sliced", "Source", "StrPath", "Tensor"]
__all__ += ["BatchOptions", "DatasetOptions", "DistanceOptions", "ImageOptions", "LossOptions", "MonitorOptions"]
__all__ += ["PairOptions", "SequenceOptions"]

StrPath: TypeAlias = str | os.PathLike[str]
Tensor: TypeAlias = Any  # of the backend or symbolic; where a model or a loss is called, also what Keras converts
Shape: TypeAlias = tuple[int | None, ...]
Shapes: TypeAlias = Any  # a shape, or a nested structure of them, as Keras passes it to `build`
Data: TypeAlias = Any  # data as `fit` and `evaluate` take them, a sequence, or a tuple of samples and labels
Augment: TypeAlias = Callable[..., Any]  # a function or a Keras layer, see `keras_siamese.data.augment`


class Source(Protocol):
    """Samples that are read when they are needed, such as `ImageFiles`, by integers `(m,)` or a slice."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


class Sliced(Protocol):
    """Embeddings whose slices of rows are arrays, such as a `verification.Shards` or a memory-mapped array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


class Comparing(Protocol):
    """A `Distance`."""

    def rowwise(self, a: Tensor, b: Tensor) -> Tensor: ...

    def pairwise(self, a: Tensor, b: Tensor = None) -> Tensor: ...


Samples: TypeAlias = ArrayLike | Mapping[str, Any] | Source  # `(n, …)`, or such by name
DistanceLike: TypeAlias = str | Comparing | Mapping[str, Any] | Callable[[Any, Any], Any]  # see `distances.get`


class LossOptions(TypedDict, total=False):
    """Of every loss, as in `keras.losses.Loss`."""

    reduction: str | None
    name: str | None
    dtype: Any


class PairOptions(LossOptions, total=False):
    """Of losses on pairs, as in `PairLoss`."""

    positive_weight: float
    negative_weight: float
    similar_label: int


class BatchOptions(LossOptions, total=False):
    """Of losses on batches, as in `BatchLoss`."""

    block_size: int | None
    local_negatives: bool


class DistanceOptions(BatchOptions, total=False):
    """Of losses on batches with a choice of the distance."""

    distance: DistanceLike


class DatasetOptions(TypedDict, total=False):
    """Of `keras.utils.PyDataset`."""

    workers: int
    use_multiprocessing: bool
    max_queue_size: int


class SequenceOptions(DatasetOptions, total=False):
    """Of `ExplicitPairs`."""

    labels: ArrayLike | None
    batch_size: int
    augment: Augment | None
    frozen: bool
    similar_label: int
    seed: int


class ImageOptions(TypedDict, total=False):
    """Of `ImageFiles`."""

    color_mode: Literal["rgb", "grayscale", "rgba"]
    interpolation: str
    check: bool
    on_error: Literal["raise", "skip"]
    cache_bytes: int


class MonitorOptions(TypedDict, total=False):
    """Of `VerificationMonitor`."""

    far: Any
    every: int
    encoder: Any
    distance: DistanceLike | None
    score: Callable[[Any, Any], Any] | None
    similar_label: int | None
    batch_size: int
    log_dir: StrPath | None
    strict: bool
