"""Keras layers: the siamese model, the distance between embeddings, the head that turns it into a probability."""

from keras_siamese.layers.distance import DistanceLayer, LogisticHead
from keras_siamese.layers.siamese import SiameseWrapper

__all__ = ["DistanceLayer", "LogisticHead", "SiameseWrapper"]
