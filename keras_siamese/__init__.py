"""Siamese (verification) networks for Keras 3.

A siamese network takes two inputs and answers one question: do they show the same identity? Start with
`SiameseWrapper`, `data.PairSequence` and `callbacks.DivergenceMonitor`; deploy a `Verifier`.
"""

from keras_siamese import addons, callbacks, data, diagnosis, distances, layers, losses, metrics, tuning, verification
from keras_siamese._version import __version__
from keras_siamese.attach import Anatomy, dissect
from keras_siamese.callbacks.fitting import fit
from keras_siamese.diagnosis import Diagnosis, Repair, diagnose, repair
from keras_siamese.frozen import frozen_embeddings
from keras_siamese.layers import DistanceLayer, SiameseWrapper
from keras_siamese.pretrained import from_pretrained
from keras_siamese.stored import StoredGallery
from keras_siamese.tuning import SiameseGridSearch
from keras_siamese.verifier import Verifier

__all__ = [
    "Anatomy",
    "Diagnosis",
    "DistanceLayer",
    "Repair",
    "SiameseGridSearch",
    "SiameseWrapper",
    "StoredGallery",
    "Verifier",
    "__version__",
    "addons",
    "callbacks",
    "data",
    "diagnose",
    "diagnosis",
    "dissect",
    "distances",
    "fit",
    "from_pretrained",
    "frozen_embeddings",
    "layers",
    "losses",
    "metrics",
    "repair",
    "tuning",
    "verification",
]
