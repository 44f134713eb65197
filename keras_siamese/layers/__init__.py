"""Keras layers: the siamese model, the distance between embeddings, the head that turns a distance into a probability,
cosines to class weights for the proxy losses, and generalized-mean pooling."""

from keras_siamese.layers.distance import DistanceLayer, LogisticHead
from keras_siamese.layers.pooling import GeneralizedMeanPooling1D, GeneralizedMeanPooling2D
from keras_siamese.layers.proxies import ProxyLogits
from keras_siamese.layers.siamese import SiameseWrapper

__all__ = ["DistanceLayer", "GeneralizedMeanPooling1D", "GeneralizedMeanPooling2D", "LogisticHead", "ProxyLogits"]
__all__ += ["SiameseWrapper"]
