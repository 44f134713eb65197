"""Proxy losses: y_true `(batch,)` is the class, y_pred `(batch, classes)` the cosines to learned class weights.

Contract: the class weights belong to the layer `keras_siamese.layers.ProxyLogits`, which puts out the cosines, so no
label enters the forward pass; after training the encoder in front of it is what verifies. `SubCenterArcFaceLoss` and
`SoftTripleLoss` take several weights a class, `(batch, classes, centers)`. Keras's mean over the batch is the value of
pytorch-metric-learning.

    model = keras.Sequential([encoder, ProxyLogits(num_classes=1000)])
    model.compile("adam", loss=ArcFaceLoss(margin=0.5, scale=64))
    model.fit(x, labels)                                                # labels (n,) in 0 … 999
"""

from keras_siamese.losses.proxies.angular import (
    ArcFaceLoss,
    CosFaceLoss,
    NormalizedSoftmaxLoss,
    SphereFaceLoss,
    SubCenterArcFaceLoss,
)
from keras_siamese.losses.proxies.base import ProxyLoss
from keras_siamese.losses.proxies.neighbours import ProxyAnchorLoss, ProxyNCALoss, SoftTripleLoss

__all__ = [
    "ArcFaceLoss",
    "CosFaceLoss",
    "NormalizedSoftmaxLoss",
    "ProxyAnchorLoss",
    "ProxyLoss",
    "ProxyNCALoss",
    "SoftTripleLoss",
    "SphereFaceLoss",
    "SubCenterArcFaceLoss",
]
