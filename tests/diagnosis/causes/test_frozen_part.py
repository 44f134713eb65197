"""The cause `frozen_part` on facts written by hand, and on a part that gets no gradient."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_siamese as ks
from keras_siamese.diagnosis.causes.frozen_part import FrozenPart
from keras_siamese.diagnosis.facts.table import Facts
from tests.support.facts_by_hand import SIGNS, answer, facts, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 6.0)),
        ({"trainable_share": 0.3}, None),
        ({"trainable_share": 0.29}, ("error", 1.034)),
        ({"trainable_share": 0.0}, ("error", 10.0)),
        ({"own_eer": 0.29}, None),  # better than random weights: pretrained
        ({"train_eer": 0.15}, None),
        ({"eer": 0.099}, None),
        ({"verifies_badly": 0}, ("error", 6.0)),
        ({"own_eer": None, "fresh_eer": None}, ("warning", 6.0)),  # an encoder that Keras cannot copy
        ({"own_eer": None, "fresh_eer": None, "verifies_badly": 0}, None),
        ({"trainable_share": 1.0, "moved_share": 0.1}, ("error", 3.0)),
        ({"trainable_share": 1.0, "moved_share": 0.1, "update_size_largest": 1e-4}, None),  # nothing moves
    ],
)
def test_what_cannot_move_must_have_been_trained_before(changes, expected):
    assert severity_and_strength("frozen_part", **changes) == expected


def test_it_names_the_layers():
    numbers = facts(**SIGNS["frozen_part"]).numbers
    found = FrozenPart().examine(Facts(numbers, {"frozen_layers": "conv, dense"}))
    assert (
        "95% of the weights of the encoder are not trainable (conv, dense), and its embeddings (EER 0.33"
        in found.summary
    )
    stopped = answer("frozen_part", trainable_share=1.0, moved_share=0.1)
    assert "have not moved since the run began" in stopped.summary
    assert found.apply({}) == {"trainable": True}


@pytest.mark.each_backend
@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning")
def test_a_part_behind_stop_gradient_is_found_and_a_pretrained_one_is_not():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(2, 40))  # what tells people apart; the rest of the inputs is noise

    def data(seed, people=60, each=6):
        rng = np.random.default_rng(seed)
        who = np.repeat(np.arange(people), each)
        x = 4 * rng.normal(size=(people, 2))[who] @ directions / 6 + 2 * rng.normal(size=(len(who), 40))
        return x.astype("float32"), who

    def diagnosed(kernel=None):
        keras.utils.set_random_seed(3)
        stopped = layers.Lambda(ops.stop_gradient)
        encoder = keras.Sequential(
            [keras.Input((40,)), layers.Dense(2, name="base"), stopped, layers.Dense(2, name="top")]
        )
        if kernel is not None:
            encoder.layers[0].set_weights([kernel.astype("float32"), np.zeros(2, "float32")])
        siamese = ks.SiameseWrapper(encoder)
        siamese.compile(keras.optimizers.Adam(0.01), ks.losses.ContrastiveLoss())
        monitor = ks.callbacks.DivergenceMonitor(data(2, 40), target_eer=0.05)
        siamese.fit(ks.data.PairSequence(*data(1), batch_size=200), epochs=3, callbacks=[monitor], verbose=0)
        return monitor

    monitor = diagnosed()
    assert monitor.history["moved_share"] == pytest.approx([4 / 84] * 3) and monitor.recorder.still == ("base",)
    finding = monitor.diagnosis.findings[0]
    assert (finding.cause, finding.severity) == ("frozen_part", "error"), str(monitor.diagnosis)
    assert "95% of the weights of the encoder have not moved since the run began (base)" in finding.summary
    trained = diagnosed(np.linalg.pinv(directions)).diagnosis
    assert "frozen_part" not in [one.cause for one in trained.findings], str(trained)
