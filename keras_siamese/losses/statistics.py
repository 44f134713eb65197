"""Keras metrics of what a loss computes in each batch: mean distances and the share of terms above zero.

Contract: `loss.metrics(…)` creates `BatchStatistic`s, which reuse what the loss computed for the batch. If the model
uses another loss object than the metric (after loading from a file), the metric computes the statistic again.

    encoder.compile("adam", loss=loss, metrics=loss.metrics("active_fraction", "negative_distance"))
"""

import threading

import keras
from keras import ops

from keras_siamese._export import export

STATISTICS = ("positive_distance", "negative_distance", "active_fraction")


@export
class BatchStatistic(keras.metrics.Metric):
    """Mean of one statistic of a loss over the batches of an epoch, weighted by the pairs (or triplets) in each.

    y_true and y_pred are those of the loss. Sample weights are not used.

    Args:
        loss: a loss of `keras_siamese.losses`; `loss.metrics(…)` is the easiest way to create the metric.
        statistic: "positive_distance", "negative_distance" or "active_fraction".
        name, dtype: as in `keras.metrics.Metric`; the default name is the statistic.
    """

    def __init__(self, loss, statistic, name=None, **kwargs):
        super().__init__(name=statistic if name is None else name, **kwargs)
        self.loss = loss
        self.statistic = statistic
        self.total = self.add_variable(shape=(), initializer="zeros", name="total")
        self.count = self.add_variable(shape=(), initializer="zeros", name="count")
        self.told = set()  # threads: each replica of a TensorFlow strategy has its own
        loss.observers.add(self)

    def record(self, total, count):
        """Adds a batch that the loss has just computed; the next `update_state` then adds nothing."""
        self.add(total, count)
        self.told.add(threading.get_ident())

    def update_state(self, y_true, y_pred, sample_weight=None):
        if threading.get_ident() in self.told:
            self.told.discard(threading.get_ident())
        else:
            self.add(*self.loss.statistics(y_true, y_pred)[self.statistic])

    def add(self, total, count):
        self.total.assign_add(ops.cast(ops.stop_gradient(total), self.total.dtype))
        self.count.assign_add(ops.cast(ops.stop_gradient(count), self.count.dtype))

    def result(self):
        return ops.divide_no_nan(self.total, self.count)

    def get_config(self):
        loss = keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "loss": loss, "statistic": self.statistic}

    @classmethod
    def from_config(cls, config):
        loss = config["loss"]
        loss = keras.saving.deserialize_keras_object(loss) if isinstance(loss, dict) else loss
        return cls(**{**config, "loss": loss})
