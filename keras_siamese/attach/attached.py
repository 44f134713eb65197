"""A user's siamese model as a model of two inputs that can be saved.

Contract: a `Verifier` holds an `AttachedModel` where the user's model is no `SiameseWrapper`: its comparator is the
user's own. It saves the user's model, and dissects it again when it is loaded.
Imports `anatomy` and `layers`.

    siamese = AttachedModel(model, "score")
    siamese((left, right))                       # (batch, 1), the output of model([left, right])
"""

import copy

import keras
import numpy as np
from keras import tree

from keras_siamese._export import export
from keras_siamese.attach.anatomy import dissect
from keras_siamese.attach.graph import is_functional
from keras_siamese.layers.siamese import map_shapes


@export
class AttachedModel(keras.Model):
    """A siamese model of any form. Call it on `(left, right)`; the output `(batch, 1)` is the one that compares them.

    Args:
        model: the user's model.
        output_kind: "distance" if the output falls with similarity, "score" if it grows.
        sample: shapes and dtypes of what `model` takes, a nested structure of `{"shape": …, "dtype": …}`. A subclassed
            model is traced with it.
    """

    distance = head = bounds = None
    joint = False

    def __init__(self, model, output_kind, sample=None, **kwargs):
        super().__init__(**kwargs)
        self.model, self.output_kind, self.sample = model, output_kind, sample
        self._anatomy = None

    @classmethod
    def of(cls, anatomy):
        """The model of an `Anatomy` whose direction is known."""
        sample = None if is_functional(anatomy.model) or anatomy.sample is None else specs_of(anatomy.sample)
        made = cls(anatomy.model, anatomy.output_kind, sample)
        made._anatomy = anatomy
        return made

    @property
    def anatomy(self):
        """The `Anatomy` of the model. Its towers are no attributes here, or Keras would save their weights twice."""
        if self._anatomy is None:
            self._anatomy = dissect(self.model, None if self.sample is None else zeros(self.sample))
            self._anatomy.output_kind = self.output_kind
        return self._anatomy

    def build(self, input_shape):
        self._tower_shapes = map_shapes(tuple, input_shape)
        self.built = True

    def call(self, inputs, training=None):
        return self.anatomy.compare(*self.anatomy.embed(inputs, training=bool(training)))

    def compute_output_shape(self, input_shape):
        return (None, 1)

    def get_config(self):
        model = keras.saving.serialize_keras_object(self.model)
        return {**super().get_config(), "model": model, "output_kind": self.output_kind, "sample": self.sample}

    @classmethod
    def from_config(cls, config):
        model = keras.saving.deserialize_keras_object(copy.deepcopy(config["model"]))  # Keras changes the config
        return cls(**{**config, "model": model})

    def get_build_config(self):
        return {"towers": map_shapes(list, self._tower_shapes)} if self.built else None

    def build_from_config(self, config):
        if config:
            self.build(config["towers"])


def specs_of(x):
    """Shapes and dtypes of the arrays in `x`, as plain values that can be saved."""
    return tree.map_structure(lambda one: {"shape": [1, *np.shape(one)[1:]], "dtype": str(one.dtype)}, x)


def zeros(specs):
    """Arrays of zeros of these shapes and dtypes."""
    if isinstance(specs, dict) and set(specs) == {"shape", "dtype"}:
        return np.zeros(specs["shape"], specs["dtype"])
    if isinstance(specs, dict):
        return {name: zeros(one) for name, one in specs.items()}
    return [zeros(one) for one in specs]
