"""`ProxyLogits`: cosines of embeddings to learned class weights, what the proxy losses work on.

Contract: embeddings `(batch, dim)` in, cosines `(batch, classes)` or `(batch, classes, centers)` out, at least float32
whatever the dtype policy. Imports `_checks`, `_export` and `ops`.

    model = keras.Sequential([encoder, ProxyLogits(num_classes=1000)])
    model.compile("adam", loss=keras_siamese.losses.ArcFaceLoss())
"""

import keras
from keras import ops

from keras_siamese._checks import check_integer, check_number
from keras_siamese._export import export
from keras_siamese.ops import at_least_float32, safe_sqrt, unit


@export
class ProxyLogits(keras.layers.Layer):
    """cos(x, w_j) of each embedding x and each class weight w_j, both brought to unit length.

    Embeddings `(batch, dim)` in, of any length; out `(batch, classes)`, or `(batch, classes, centers)` with several
    weights a class. It works in at least float32 and puts that out. A vector shorter than 1e-6 has the cosine 0 to
    all, with gradient 0.

    Args:
        num_classes: how many classes; y_true holds 0 … num_classes − 1.
        centers_per_class: weights of each class.
        center_sparsity: ≥ 0, factor on half the mean distance ‖w_jk − w_jl‖ between the unit weights of one class,
            which joins the model's loss and merges centers that no data needs: the second term of SoftTriple (its
            paper takes 0.2), pytorch-metric-learning's `SparseCentersRegularizer`. Qian, Shang, Sun, Hu, Li, Jin,
            *SoftTriple Loss: Deep Metric Learning Without Triplet Sampling*, ICCV 2019,
            https://arxiv.org/abs/1909.05235

    Attributes:
        proxies: the weights, `(classes · centers, dim)`; those of one class are neighbours. They start with random
            directions, uniform over the sphere, and a length near 1.

    Example:

    >>> import keras, numpy as np
    >>> layer = ProxyLogits(num_classes=2)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[2.0, 0.0], [0.0, 3.0]])])
    >>> print(keras.ops.convert_to_numpy(layer(np.array([[3.0, 4.0]]))).round(3))
    [[0.6 0.8]]
    """

    def __init__(self, num_classes, centers_per_class=1, center_sparsity=0.0, **kwargs):
        # A mixed policy would cast float32 embeddings down to float16 on the way in.
        super().__init__(autocast=False, **kwargs)
        self.num_classes = check_integer("num_classes", num_classes, low=1)
        self.centers_per_class = check_integer("centers_per_class", centers_per_class, low=1)
        self.center_sparsity = check_number("center_sparsity", center_sparsity, low=0, open_high=True)
        if self.center_sparsity and self.centers_per_class == 1:
            raise ValueError(
                f"`center_sparsity` is about several centers of one class; got {center_sparsity!r} with "
                "centers_per_class=1"
            )

    def build(self, input_shape):
        shape = tuple(input_shape)
        if len(shape) != 2 or shape[1] is None:
            raise ValueError(f"ProxyLogits takes embeddings of shape (batch, dim) with a known dim; got shape {shape}")
        self.proxies = self.add_weight(
            name="proxies",
            shape=(self.num_classes * self.centers_per_class, shape[1]),
            initializer=keras.initializers.RandomNormal(stddev=shape[1] ** -0.5),
            regularizer=CenterSparsity(self.centers_per_class, self.center_sparsity) if self.center_sparsity else None,
            autocast=False,  # the layer's own autocast=False does not hold for its weights
        )
        self.built = True

    def call(self, embeddings):
        embeddings = at_least_float32(embeddings)
        proxies = ops.cast(self.proxies, embeddings.dtype)
        cosine = within_one(ops.matmul(unit(embeddings), ops.transpose(unit(proxies))))
        if self.centers_per_class == 1:
            return cosine
        return ops.reshape(cosine, (-1, self.num_classes, self.centers_per_class))

    def compute_mask(self, inputs, mask=None):
        # Whatever mask the embeddings carry is one over time steps; on the cosines it would reweight the loss.
        return None

    def compute_output_shape(self, input_shape):
        several = () if self.centers_per_class == 1 else (self.centers_per_class,)
        return (input_shape[0], self.num_classes, *several)

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "centers_per_class": self.centers_per_class,
            "center_sparsity": self.center_sparsity,
        }


class CenterSparsity(keras.regularizers.Regularizer):
    """Factor on half the mean distance between the unit weights of one class, from `(classes · centers, dim)`: a
    scalar.
    """

    def __init__(self, centers, factor):
        self.centers, self.factor = centers, factor

    def __call__(self, proxies):
        classes = proxies.shape[0] // self.centers
        grouped = ops.reshape(unit(at_least_float32(proxies)), (classes, self.centers, -1))
        cosine = ops.matmul(grouped, ops.transpose(grouped, (0, 2, 1)))
        apart = safe_sqrt(2.0 - 2.0 * cosine)  # of unit vectors; 0 with gradient 0 where centers meet
        number = ops.arange(self.centers)
        once = ops.expand_dims(number, 1) < ops.expand_dims(number, 0)
        pairs = classes * self.centers * (self.centers - 1) // 2
        return self.factor * ops.sum(ops.where(once, apart, 0.0)) / (2 * pairs)


def within_one(cosine):
    """`cosine` held in [−1, 1], past which rounding takes it, with the gradient of the unheld value."""
    return cosine + ops.stop_gradient(ops.clip(cosine, -1.0, 1.0) - cosine)
