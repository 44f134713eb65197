"""What all models around an encoder have in common."""

import keras
import numpy as np
import pytest

from keras_siamese import losses
from keras_siamese.layers import Chunked, CrossBatchMemory, LearnedScale

MAKES = {
    "chunked": lambda encoder: Chunked(encoder, rows=4),
    "memory": lambda encoder: CrossBatchMemory(encoder, size=6, momentum=0.9),
    "scale": LearnedScale,
    "nested": lambda encoder: LearnedScale(Chunked(encoder, rows=4)),
}


def half_precision():
    """An encoder as it is made under the global policy "mixed_float16"."""
    layers = [keras.Input((3,)), keras.layers.Dense(4, dtype="mixed_float16"), keras.layers.UnitNormalization()]
    encoder = keras.Sequential(layers)
    encoder.dtype_policy = keras.dtype_policies.get("mixed_float16")
    return encoder


@pytest.mark.parametrize("name", MAKES)
def test_the_loss_is_scaled_as_that_of_the_encoder_is(name):
    model = MAKES[name](half_precision())
    model.compile("sgd", losses.NTXentLoss(), auto_scale_loss=False)
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    model.compile("sgd", losses.NTXentLoss())
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


def test_it_trains_and_is_loaded_with_a_scaled_loss(rng, tmp_path):
    model = MAKES["nested"](half_precision())
    model.compile("sgd", losses.NTXentLoss())
    before = [np.array(weight) for weight in model.encoder.get_weights()]
    model.fit(rng.normal(size=(12, 3)), np.arange(12) // 2, batch_size=6, verbose=0, epochs=6)  # the first overflow
    assert any((old != new).any() for old, new in zip(before, model.encoder.get_weights(), strict=True))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert isinstance(again, keras.optimizers.LossScaleOptimizer)
    assert isinstance(again.inner_optimizer, keras.optimizers.SGD)
