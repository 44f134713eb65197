"""`ProxyLogits`: cosines between embeddings and learned class weights, the input of the proxy losses.

Contract: computes and returns at least float32 under every dtype policy.

    model = keras.Sequential([encoder, ProxyLogits(num_classes=1000)])
    model.compile("adam", loss=keras_siamese.losses.ArcFaceLoss())

    model = keras.Sequential([encoder, ProxyLogits(num_classes=1000, dims=[64, 16])])
    model.compile("adam", loss=keras_siamese.losses.MatryoshkaLoss(ArcFaceLoss(), dims=[64, 16]))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_siamese._checks import check_dims, check_integer, check_number
from keras_siamese._export import export
from keras_siamese._types import Shape, Shapes, Tensor
from keras_siamese.ops import at_least_float32, safe_sqrt, unit


@export
class ProxyLogits(keras.layers.Layer):
    """Cosine cos(x, w_j) between each embedding x and each class weight w_j, both scaled to unit length.

    Takes embeddings `(batch, dim)` of any length and returns `(batch, classes)`, or `(batch, classes, centers)` if each
    class has several weights, in at least float32. A vector shorter than 1e-6 has cosine 0 to all others, with
    gradient 0.

    Args:
        num_classes: number of classes; y_true holds 0 … num_classes − 1.
        centers_per_class: number of weights of each class.
        center_sparsity: factor ≥ 0 on half the mean distance ‖w_jk − w_jl‖ between the unit weights of one class. The
            term is added to the model's loss and merges centers that the data does not need. It is the second term of
            SoftTriple (0.2 in the paper) and pytorch-metric-learning's `SparseCentersRegularizer`. Qian, Shang, Sun,
            Hu, Li, Jin, *SoftTriple Loss: Deep Metric Learning Without Triplet Sampling*, ICCV 2019,
            https://arxiv.org/abs/1909.05235
        dims: the dims of a `MatryoshkaLoss`. The output is then `(batch, len(dims), classes[, centers])`, the cosines
            between the first d dimensions of embeddings and of class weights, from the most dimensions to the fewest.
            None (default) compares all dimensions.

    Attributes:
        proxies: the weights, `(classes · centers, dim)`; the centers of one class are consecutive rows. They start with
            random directions, uniform over the sphere, and a length near 1.

    >>> import keras, numpy as np
    >>> layer = ProxyLogits(num_classes=2)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[2.0, 0.0], [0.0, 3.0]])])
    >>> print(keras.ops.convert_to_numpy(layer(np.array([[3.0, 4.0]]))).round(3))
    [[0.6 0.8]]
    """

    def __init__(
        self,
        num_classes: int,
        centers_per_class: int = 1,
        center_sparsity: float = 0.0,
        dims: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        # Without autocast=False, a mixed policy would cast float32 embeddings to float16.
        super().__init__(autocast=False, **kwargs)
        self.num_classes = check_integer("num_classes", num_classes, low=1)
        self.centers_per_class = check_integer("centers_per_class", centers_per_class, low=1)
        self.center_sparsity = check_number("center_sparsity", center_sparsity, low=0, open_high=True)
        if self.center_sparsity and self.centers_per_class == 1:
            raise ValueError(f"`center_sparsity` needs centers_per_class > 1; got {center_sparsity!r} with one center")
        self.dims = None if dims is None else check_dims("dims", dims)

    def build(self, input_shape: Shapes) -> None:
        shape = tuple(input_shape)
        if len(shape) != 2 or shape[1] is None:
            raise ValueError(f"ProxyLogits takes embeddings of shape (batch, dim) with a known dim; got shape {shape}")
        if self.dims is not None and max(self.dims) > shape[1]:
            raise ValueError(f"`dims` must be at most {shape[1]}, the size of the embeddings; got {self.dims}")
        self.proxies = self.add_weight(
            name="proxies",
            shape=(self.num_classes * self.centers_per_class, shape[1]),
            initializer=keras.initializers.RandomNormal(stddev=shape[1] ** -0.5),
            regularizer=CenterSparsity(self.centers_per_class, self.center_sparsity) if self.center_sparsity else None,
            autocast=False,  # the layer's own autocast=False does not apply to its weights
        )
        self.built = True

    def call(self, embeddings: Tensor) -> Tensor:
        embeddings = at_least_float32(embeddings)
        proxies = ops.cast(self.proxies, embeddings.dtype)
        if self.dims is None:
            return self.cosines(embeddings, proxies)
        largest_first = sorted(self.dims, reverse=True)
        return ops.stack([self.cosines(embeddings[..., :d], proxies[:, :d]) for d in largest_first], axis=1)

    def cosines(self, embeddings: Tensor, proxies: Tensor) -> Tensor:
        """Cosines `(batch, classes[, centers])` of embeddings `(batch, d)` and weights `(classes · centers, d)`."""
        cosine = within_one(ops.matmul(unit(embeddings), ops.transpose(unit(proxies))))
        if self.centers_per_class == 1:
            return cosine
        return ops.reshape(cosine, (-1, self.num_classes, self.centers_per_class))

    def compute_mask(self, inputs: Tensor, mask: Tensor = None) -> None:
        # A mask on the embeddings belongs to time steps; on the cosines it would change the weights of the loss.
        return None

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        several = () if self.centers_per_class == 1 else (self.centers_per_class,)
        cut = () if self.dims is None else (len(self.dims),)
        return (input_shape[0], *cut, self.num_classes, *several)

    def get_config(self) -> dict[str, Any]:
        options = ("num_classes", "centers_per_class", "center_sparsity", "dims")
        return {**super().get_config(), **{name: getattr(self, name) for name in options}}


class CenterSparsity(keras.regularizers.Regularizer):
    """Half the mean distance between the unit weights `(classes · centers, dim)` of one class, times a factor."""

    def __init__(self, centers, factor):
        self.centers, self.factor = centers, factor

    def __call__(self, proxies):
        classes = proxies.shape[0] // self.centers
        grouped = ops.reshape(unit(at_least_float32(proxies)), (classes, self.centers, -1))
        cosine = ops.matmul(grouped, ops.transpose(grouped, (0, 2, 1)))
        apart = safe_sqrt(2.0 - 2.0 * cosine)  # for unit vectors; 0 with gradient 0 if centers are equal
        pairs = classes * self.centers * (self.centers - 1) // 2
        return self.factor * ops.sum(ops.triu(apart, 1)) / (2 * pairs)


def within_one(cosine):
    """Clip `cosine`, which rounding may take beyond ±1, to [−1, 1]; the gradient is that of the unclipped value."""
    return cosine + ops.stop_gradient(ops.clip(cosine, -1.0, 1.0) - cosine)
