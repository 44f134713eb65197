"""Proxy losses that are a softmax over the cosines, with a margin for the row's own class.

Contract: a loss is a pure function `(target, cosine, …) → (batch,)` and a small Keras class that holds its options.
`target` `(batch, classes)` is True at each row's class y, `cosine` `(batch, classes)` holds cos θ_j.

    arcface(target, cosine, margin=0.5, scale=64.0)                     # (batch,)
    ArcFaceLoss(margin=0.5, scale=64)(labels, cosine)
"""

from __future__ import annotations

import math

from keras import ops

from keras_siamese._checks import check_integer, check_number
from keras_siamese._export import export
from keras_siamese._types import LossOptions, Tensor, Unpack
from keras_siamese.losses.proxies.base import ProxyLoss, own_of, softmax_loss
from keras_siamese.ops import safe_sqrt


def arcface(target, cosine, margin=0.5, scale=64.0):
    """−log(e^{s·ψ(θ_y)} / (e^{s·ψ(θ_y)} + Σ_{j≠y} e^{s·cos θ_j})), ψ(θ) = cos(θ + m) up to θ = π − m: `(batch,)`."""
    own = own_of(target, cosine)
    # Expands cos(θ + m), because arccos has no finite gradient at cos θ = ±1.
    sine = safe_sqrt((1.0 - own) * (1.0 + own))
    shifted = own * math.cos(margin) - sine * math.sin(margin)
    shifted = ops.where(own >= -math.cos(margin), shifted, own - margin * math.sin(margin))
    return softmax_loss(target, scale * ops.where(target, shifted, cosine))


def cosface(target, cosine, margin=0.35, scale=64.0):
    """−log(e^{s(cos θ_y − m)} / (e^{s(cos θ_y − m)} + Σ_{j≠y} e^{s·cos θ_j})): `(batch,)`."""
    return softmax_loss(target, scale * ops.where(target, cosine - margin, cosine))


def sphereface(target, cosine, margin=4, scale=1.0):
    """−log(e^{s·ψ(θ_y)} / (e^{s·ψ(θ_y)} + Σ_{j≠y} e^{s·cos θ_j})), ψ(θ) = (−1)ᵏ cos(mθ) − 2k: `(batch,)`."""
    own = own_of(target, cosine)
    # cos(mθ) by Chebyshev's recurrence cos(nθ) = 2·cos θ·cos((n−1)θ) − cos((n−2)θ): a polynomial in cos θ.
    before, multiple = ops.ones_like(own), own
    for _ in range(margin - 1):
        before, multiple = multiple, 2.0 * own * multiple - before
    passed = [ops.cast(own < math.cos(j * math.pi / margin), own.dtype) for j in range(1, margin)]
    k = sum(passed, start=ops.zeros_like(own))
    sign = 1.0 - 2.0 * ops.mod(k, 2.0)
    return softmax_loss(target, scale * ops.where(target, sign * multiple - 2.0 * k, cosine))


@export
class NormalizedSoftmaxLoss(ProxyLoss):
    """Normalized softmax loss: −log(e^{cos θ_y / τ} / Σ_j e^{cos θ_j / τ}).

    y_true `(batch,)` classes; y_pred cosines `(batch, classes)`. Same value as pytorch-metric-learning's
    `NormalizedSoftmaxLoss`.

    Zhai, Wu, *Classification is a Strong Baseline for Deep Metric Learning*, BMVC 2019,
    https://arxiv.org/abs/1811.12649

    Args:
        temperature: τ > 0.
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`.

    >>> loss = NormalizedSoftmaxLoss(temperature=0.5, reduction="none")
    >>> [round(float(value), 3) for value in loss(ops.array([0, 1]), ops.array([[0.9, 0.1], [0.9, 0.1]]))]
    [0.184, 1.784]
    """

    def __init__(self, temperature: float = 0.05, **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.temperature = check_number("temperature", temperature, low=0, open_low=True, open_high=True)

    def per_row(self, target: Tensor, cosine: Tensor) -> Tensor:
        return softmax_loss(target, cosine / self.temperature)


@export
class ArcFaceLoss(ProxyLoss):
    """ArcFace loss: −log(e^{s·cos(θ_y + m)} / (e^{s·cos(θ_y + m)} + Σ_{j≠y} e^{s·cos θ_j})).

    This is a softmax with an angular margin. y_true `(batch,)` classes; y_pred cosines `(batch, classes)`. Beyond
    θ_y = π − m, where cos(θ_y + m) would rise again, it is replaced by cos θ_y − m·sin m. The gradient is finite at
    cos θ = ±1, where the part through sin θ is 0. Equals pytorch-metric-learning's `ArcFaceLoss` (margin in degrees).

    Deng, Guo, Xue, Zafeiriou, *ArcFace: Additive Angular Margin Loss for Deep Face Recognition*, CVPR 2019,
    https://arxiv.org/abs/1801.07698

    Args:
        margin: m, radians in [0, π).
        scale: s > 0.
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`.

    >>> loss = ArcFaceLoss(margin=0.5, scale=4.0, reduction="none")
    >>> [round(float(value), 3) for value in loss(ops.array([0, 1]), ops.array([[0.9, 0.1], [0.9, 0.1]]))]
    [0.136, 5.163]
    """

    def __init__(self, margin: float = 0.5, scale: float = 64.0, **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, high=math.pi, open_high=True)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)

    def per_row(self, target: Tensor, cosine: Tensor) -> Tensor:
        return arcface(target, cosine, self.margin, self.scale)


@export
class SubCenterArcFaceLoss(ArcFaceLoss):
    """Sub-center ArcFace: `ArcFaceLoss` on the nearest center of each class, cos θ_j = max_k cos θ_jk.

    With several centers, outliers and wrong labels gather at a center of their own. y_true `(batch,)` classes; y_pred
    cosines `(batch, classes, centers)`, from ``ProxyLogits(classes, centers_per_class=3)`` in the paper. Same value as
    pytorch-metric-learning's `SubCenterArcFaceLoss`.

    Deng, Guo, Liu, Gong, Zafeiriou, *Sub-center ArcFace: Boosting Face Recognition by Large-scale Noisy Web Faces*,
    ECCV 2020, https://doi.org/10.1007/978-3-030-58621-8_43

    Args:
        margin, scale, **kwargs: as in `ArcFaceLoss`.

    >>> loss = SubCenterArcFaceLoss(margin=0.5, scale=4.0)
    >>> round(float(loss(ops.array([0]), ops.array([[[0.9, -0.5], [0.0, 0.1]]]))), 3)
    0.136
    """

    several_centers = True

    def per_row(self, target: Tensor, cosine: Tensor) -> Tensor:
        return super().per_row(target, ops.max(cosine, axis=2))


@export
class CosFaceLoss(ProxyLoss):
    """CosFace loss: −log(e^{s(cos θ_y − m)} / (e^{s(cos θ_y − m)} + Σ_{j≠y} e^{s·cos θ_j})).

    This is a softmax with a margin on the cosine. y_true `(batch,)` classes; y_pred cosines `(batch, classes)`. Same
    value as pytorch-metric-learning's `CosFaceLoss`.

    Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu, *CosFace: Large Margin Cosine Loss for Deep Face Recognition*, CVPR 2018,
    https://arxiv.org/abs/1801.09414

    Args:
        margin: m in [0, 2], a difference of cosines.
        scale: s > 0.
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`.

    >>> loss = CosFaceLoss(margin=0.5, scale=4.0, reduction="none")
    >>> [round(float(value), 3) for value in loss(ops.array([0, 1]), ops.array([[0.9, 0.1], [0.9, 0.1]]))]
    [0.263, 5.206]
    """

    def __init__(self, margin: float = 0.35, scale: float = 64.0, **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, high=2)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)

    def per_row(self, target: Tensor, cosine: Tensor) -> Tensor:
        return cosface(target, cosine, self.margin, self.scale)


@export
class SphereFaceLoss(ProxyLoss):
    """SphereFace loss: −log(e^{s·ψ(θ_y)} / (e^{s·ψ(θ_y)} + Σ_{j≠y} e^{s·cos θ_j})).

    ψ(θ) = (−1)ᵏ cos(mθ) − 2k with k = ⌊mθ/π⌋ multiplies the angle to the row's class by m and falls over all of [0, π].
    y_true `(batch,)` classes; y_pred cosines `(batch, classes)`. Same value as pytorch-metric-learning's
    `SphereFaceLoss` on unit embeddings, where its factor ‖x‖ is 1.

    Liu, Wen, Yu, Li, Raj, Song, *SphereFace: Deep Hypersphere Embedding for Face Recognition*, CVPR 2017,
    https://arxiv.org/abs/1704.08063

    Args:
        margin: m, a whole number ≥ 1.
        scale: s > 0.
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`.

    >>> loss = SphereFaceLoss(margin=2, scale=4.0, reduction="none")
    >>> [round(float(value), 3) for value in loss(ops.array([0, 1]), ops.array([[0.9, 0.1], [0.9, 0.1]]))]
    [0.118, 7.521]
    """

    def __init__(self, margin: int = 4, scale: float = 1.0, **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.margin = check_integer("margin", margin, low=1)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)

    def per_row(self, target: Tensor, cosine: Tensor) -> Tensor:
        return sphereface(target, cosine, self.margin, self.scale)
