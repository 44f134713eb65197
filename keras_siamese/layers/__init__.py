"""Keras layers: the siamese model, the distance between embeddings, the head that turns a distance into a probability,
cosines to class weights for the proxy losses, pooling, encoders of batches larger than memory, and
encoders with a learned temperature."""

from keras_siamese.layers.chunked import Chunked
from keras_siamese.layers.distance import DistanceLayer, LogisticHead
from keras_siamese.layers.memory import CrossBatchMemory
from keras_siamese.layers.pooling import GeneralizedMeanPooling1D, GeneralizedMeanPooling2D, TokenPooling
from keras_siamese.layers.proxies import ProxyLogits
from keras_siamese.layers.scale import LearnedScale
from keras_siamese.layers.siamese import SiameseWrapper

__all__ = ["Chunked", "CrossBatchMemory", "DistanceLayer", "GeneralizedMeanPooling1D", "GeneralizedMeanPooling2D"]
__all__ += ["LearnedScale", "LogisticHead", "ProxyLogits", "SiameseWrapper", "TokenPooling"]
