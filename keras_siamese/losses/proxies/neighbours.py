"""Proxy losses that treat the class weights as neighbours of the embeddings: NCA, Proxy Anchor, SoftTriple.

Contract: as in `angular`.

    proxy_anchor(target, cosine, margin=0.1, scale=32.0)                # (batch,)
    ProxyAnchorLoss()(labels, cosine)
"""

from __future__ import annotations

from keras import ops

from keras_siamese._checks import check_number
from keras_siamese._export import export
from keras_siamese._replicas import gathered
from keras_siamese._types import LossOptions, Tensor, Unpack
from keras_siamese.losses.proxies.angular import cosface
from keras_siamese.losses.proxies.base import ProxyLoss, softmax_loss
from keras_siamese.ops import softmax


def proxy_anchor(target, cosine, margin=0.1, scale=32.0):
    """(1/|P⁺|) Σ_{p∈P⁺} log(1 + Σ_{x∈p} e^{−s(cos − m)}) + (1/C) Σ_p log(1 + Σ_{x∉p} e^{s(cos + m)}), split by row.

    P⁺ are the proxies with a row in the batch. Each logarithm is split among its rows in proportion to their
    exponentials and multiplied by the batch size: `(batch,)`, whose mean is the value above.
    """
    rows, classes = ops.shape(cosine)[0], ops.shape(cosine)[1]
    present = ops.cast(ops.any(target, axis=0), cosine.dtype)
    positive = shared_log_sum(-scale * (cosine - margin), target) / ops.maximum(ops.sum(present), 1.0)
    negative = shared_log_sum(scale * (cosine + margin), ops.logical_not(target)) / ops.cast(classes, cosine.dtype)
    return ops.cast(rows, cosine.dtype) * ops.sum(positive + negative, axis=1)


def shared_log_sum(exponents, mask):
    """log(1 + Σ_i e^{a_i}) of each column, over the rows in `mask`, split among them in proportion to e^{a_i}.

    `exponents`, `mask` and the result are `(batch, classes)`; its columns sum to the logarithms. The shares have no
    gradient: in a column they sum to 1, so the gradient of the sum is that of the logarithm.
    """
    inside = ops.where(mask, exponents, 0.0)
    # The 1 is e⁰, so the largest exponent is at least 0, and a column without rows gives log 1.
    top = ops.stop_gradient(ops.maximum(ops.max(inside, axis=0, keepdims=True), 0.0))
    terms = ops.where(mask, ops.exp(inside - top), 0.0)
    total = ops.sum(terms, axis=0, keepdims=True)
    log_sum = top + ops.log(ops.exp(-top) + total)
    shares = terms / ops.where(total == 0, 1.0, total)
    return ops.stop_gradient(shares) * log_sum


def soft_triple(target, cosine, scale=20.0, gamma=0.1, margin=0.01):
    """`cosface` of the similarities S_j = Σ_k softmax_k(cos θ_jk / γ)·cos θ_jk: `(batch,)`."""
    similarity = ops.sum(softmax(cosine / gamma, axis=2) * cosine, axis=2)
    return cosface(target, similarity, margin, scale)


@export
class ProxyNCALoss(ProxyLoss):
    """Proxy-NCA loss: −log(e^{−s‖x − w_y‖²} / Σ_j e^{−s‖x − w_j‖²}) on unit vectors, with one proxy for each class.

    y_true `(batch,)` classes; y_pred cosines `(batch, classes)`, from which ‖x − w‖² = 2 − 2·cos θ. Same value as
    pytorch-metric-learning's `ProxyNCALoss`; as there, the sum includes the row's own proxy (in the paper it does not).

    Movshovitz-Attias, Toshev, Leung, Ioffe, Singh, *No Fuss Distance Metric Learning using Proxies*, ICCV 2017,
    https://arxiv.org/abs/1703.07464

    Args:
        scale: s > 0.
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`.

    >>> round(float(ProxyNCALoss(scale=2.0)(ops.array([0]), ops.array([[0.9, 0.1]]))), 3)
    0.04
    """

    def __init__(self, scale: float = 1.0, **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)

    @property
    def cosine_temperature(self) -> float | None:
        return 1 / (2 * self.scale)

    def per_row(self, target: Tensor, cosine: Tensor) -> Tensor:
        return softmax_loss(target, 2.0 * self.scale * cosine)


@export
class ProxyAnchorLoss(ProxyLoss):
    """Proxy Anchor loss: mean_{p∈P⁺} log(1 + Σ_{x∈p} e^{−s(cos − m)}) + mean_p log(1 + Σ_{x∉p} e^{s(cos + m)}).

    y_true `(batch,)` classes; y_pred cosines `(batch, classes)`. Each proxy p is an anchor: the rows of its class are
    its positives, all other rows its negatives. The first mean is over the proxies P⁺ with a row in the batch, the
    second over all proxies. Same value as pytorch-metric-learning's `ProxyAnchorLoss`.

    A proxy's logarithm is split among its rows in proportion to their exponentials, so the value of a row is the part
    of the loss that it causes. `sample_weight` multiplies that part; the row stays in the logarithms.

    Kim, Kim, Cho, Kwak, *Proxy Anchor Loss for Deep Metric Learning*, CVPR 2020, https://arxiv.org/abs/2003.13911

    Args:
        margin: m ≥ 0, a difference of cosines.
        scale: s > 0; α in the paper.
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`.

    >>> cosine = ops.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    >>> round(float(ProxyAnchorLoss(margin=0.1, scale=2.0)(ops.array([0, 1, 1]), cosine)), 3)
    1.72
    """

    def __init__(self, margin: float = 0.1, scale: float = 32.0, **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, open_high=True)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)

    def per_row(self, target: Tensor, cosine: Tensor) -> Tensor:
        (target, cosine), own = gathered(target, cosine)  # a proxy compares all rows of the batch
        return own(proxy_anchor(target, cosine, self.margin, self.scale))


@export
class SoftTripleLoss(ProxyLoss):
    """SoftTriple loss: −log(e^{λ(S_y − m)} / (e^{λ(S_y − m)} + Σ_{j≠y} e^{λS_j})).

    S_j = Σ_k softmax_k(cos θ_jk / γ)·cos θ_jk is the similarity to class j, mainly to its nearest centers. y_true
    `(batch,)` classes; y_pred cosines `(batch, classes, centers)`, from ``ProxyLogits(classes, centers_per_class=10)``
    in the paper. Same value as pytorch-metric-learning's `SoftTripleLoss`. The paper's second term, which merges
    superfluous centers, is an option of the layer: ``ProxyLogits(…, center_sparsity=0.2)``.

    Qian, Shang, Sun, Hu, Li, Jin, *SoftTriple Loss: Deep Metric Learning Without Triplet Sampling*, ICCV 2019,
    https://arxiv.org/abs/1909.05235

    Args:
        scale: λ > 0.
        gamma: γ > 0, the temperature of the choice among a class's centers.
        margin: m ≥ 0, a difference of cosines.
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`.

    >>> loss = SoftTripleLoss(scale=4.0)
    >>> round(float(loss(ops.array([0]), ops.array([[[0.9, -0.5], [0.0, 0.1]]]))), 3)
    0.037
    """

    several_centers = True

    def __init__(
        self, scale: float = 20.0, gamma: float = 0.1, margin: float = 0.01, **kwargs: Unpack[LossOptions]
    ) -> None:
        super().__init__(**kwargs)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)
        self.gamma = check_number("gamma", gamma, low=0, open_low=True, open_high=True)
        self.margin = check_number("margin", margin, low=0, open_high=True)

    def per_row(self, target: Tensor, cosine: Tensor) -> Tensor:
        return soft_triple(target, cosine, self.scale, self.gamma, self.margin)
