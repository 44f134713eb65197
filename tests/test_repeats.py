"""Runs repeat after `keras.utils.set_random_seed`: the same weights, bit for bit, in fresh processes and with workers.

A monitor changes nothing about it.
"""

import keras
import numpy as np
import pytest

import keras_siamese as ks
from tests.support.fresh_python import fresh
from tests.support.monitored import VALID, compiled, pairs

PROGRAM = """
import hashlib, json, random
import keras
import numpy as np
import keras_siamese as ks

def digest(workers, is_seeded=True):
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 6)).astype("float32"), np.repeat(np.arange(20), 3)
    model = ks.SiameseWrapper(keras.Sequential([keras.Input((6,)), keras.layers.Dropout(0.2), keras.layers.Dense(4)]))
    model.compile("adam", loss=ks.losses.ContrastiveLoss())
    if not is_seeded:
        random.seed(2)
        np.random.seed(2)
    augment = lambda batch, rng: batch + 0.1 * rng.normal(size=batch.shape).astype(batch.dtype)
    data = ks.data.PairSequence(x, labels, batch_size=8, pairs_per_epoch=64, seed=0, workers=workers, augment=augment)
    monitor = ks.callbacks.VerificationMonitor((x, labels), far=0.1)
    model.fit(data, epochs=3, verbose=0, callbacks=[monitor])
    return hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest()

print(json.dumps([*map(digest, (1, 2, 4)), digest(1, is_seeded=False)]))
"""


@pytest.mark.deep
@pytest.mark.each_backend
def test_two_processes_have_equal_weights_with_1_2_and_4_workers():
    backend = {"KERAS_BACKEND": keras.backend.backend(), "TF_CPP_MIN_LOG_LEVEL": "3"}
    first, again = fresh(PROGRAM, **backend), fresh(PROGRAM, **backend)
    assert first == again and len({*first[:3]}) == 1
    assert first[3] != first[0]  # `fit` shuffles by a global generator: the seed is needed


@pytest.mark.each_backend
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.deep_on("tensorflow", "jax")
def test_weights_are_the_same_with_and_without_monitors(tmp_path, shuffle):
    def weights(*callbacks):
        keras.utils.set_random_seed(3)
        model = compiled()
        model.fit(pairs(), epochs=3, shuffle=shuffle, verbose=0, callbacks=[*callbacks])
        return [*model.get_weights(), *(keras.ops.convert_to_numpy(one.value) for one in model.optimizer.variables)]

    alone = weights()
    monitors = [
        ks.callbacks.VerificationMonitor(VALID, far=0.1),
        ks.callbacks.DivergenceMonitor(VALID, log=tmp_path / "run.jsonl", far=0.1, every_steps=2),
    ]
    for monitor in monitors:
        assert all(np.array_equal(*pair) for pair in zip(alone, weights(monitor), strict=True))
    with pytest.warns(UserWarning, match="has 'val_"):  # both write the same keys
        assert all(np.array_equal(*pair) for pair in zip(alone, weights(*monitors), strict=True))
