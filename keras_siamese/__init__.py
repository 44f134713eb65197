"""keras_siamese: siamese (verification) networks for Keras 3."""

from keras_siamese import distances, layers, losses
from keras_siamese._version import __version__
from keras_siamese.layers import DistanceLayer, SiameseWrapper

__all__ = ["DistanceLayer", "SiameseWrapper", "__version__", "distances", "layers", "losses"]
