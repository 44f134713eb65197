"""A loss whose labels are swapped: what repairs a program that pulls pairs of the wrong label together.

Contract: a compiled loss in, a loss of the same arguments out. Imports `losses`.

    turned(model.loss, (0, 1))             # pairs with label 1 as the given loss treats those with label 0
"""

import keras
from keras import ops

from keras_siamese.losses import MatryoshkaLoss
from keras_siamese.losses.base import SiameseLoss


def turned(loss, ends):
    """`loss` with the two labels `ends` `(low, high)` swapped: by its own option, if it has one.

    Args:
        loss: a name, a function, or a `keras.losses.Loss`.
        ends: the labels of pairs.
    """
    loss = keras.losses.get(loss)
    config = loss.get_config() if isinstance(loss, SiameseLoss) else {}
    if isinstance(loss, MatryoshkaLoss):
        return type(loss).from_config({**config, "loss": turned(loss.loss, ends)})
    if "similar_label" in config:
        return type(loss).from_config({**config, "similar_label": 1 - config["similar_label"]})
    if isinstance(loss, TurnedLabels):
        return loss.loss
    return TurnedLabels(loss, sum(ends))


@keras.saving.register_keras_serializable(package="keras_siamese")
class TurnedLabels(keras.losses.Loss):
    """The values of `loss` for labels `total` − y_true.

    Args:
        loss: a `keras.losses.Loss`, or a function `(y_true, y_pred)` to the loss of each sample, or of all.
        total: the sum of the two labels: 1 for 0 and 1, 0 for −1 and 1.
    """

    def __init__(self, loss, total=1, name="turned_labels", **kwargs):
        super().__init__(name=name, **kwargs)
        self.loss, self.total = loss, total

    def call(self, y_true, y_pred):
        function = self.loss.call if isinstance(self.loss, keras.losses.Loss) else self.loss
        labels = self.total - ops.convert_to_tensor(y_true)
        if len(labels.shape) + 1 == len(y_pred.shape) and y_pred.shape[-1] == 1:  # as Keras does for a function
            labels = ops.expand_dims(labels, -1)
        return function(labels, y_pred)

    def get_config(self):
        loss = keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "loss": loss, "total": self.total}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})
