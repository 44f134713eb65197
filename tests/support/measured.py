"""A small encoder, and the facts of it as it is."""

import keras

from keras_siamese.attach.anatomy import dissect
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.run import Run
from keras_siamese.scoring import Trials, score
from tests.support import plantings


def encoder(batch_normalization=False, rescaling=None):
    layers = [keras.Input((24,))]
    layers += [keras.layers.Rescaling(1 / rescaling)] if rescaling else []
    layers += [keras.layers.Dense(12, activation="relu")]
    layers += [keras.layers.BatchNormalization()] if batch_normalization else []
    return keras.Sequential([*layers, keras.layers.Dense(6), keras.layers.UnitNormalization()])


def facts_of(model, train=None, source=None, history=None, **options):
    x, labels = plantings.held_out_part()
    siamese = dissect(model, x[:4])
    trials = Trials.from_labels(x[:60], labels[:60])
    trained = None if train is None else score(siamese, Trials.from_labels(*train))
    observed = Observed(Run(history or {}), score(siamese, trials), trained, siamese=siamese, source=source, **options)
    return observed.facts
