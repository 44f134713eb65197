"""The cause `nan_gradient` on facts written by hand."""

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis import causes
from keras_siamese.diagnosis.causes.nan_gradient import NanGradient
from keras_siamese.diagnosis.facts.table import Facts
from tests.support.facts_by_hand import answer, severity_and_strength


def test_a_loss_that_is_not_finite_while_the_weights_are():
    given = {"not_finite": None, "losses_not_finite": 1.0, "loss_not_finite_since": 1}
    assert severity_and_strength("nan_gradient", **given) == ("error", 10.0)
    found = answer("nan_gradient", **given)
    assert "NaN or infinite since epoch 1, although all weights are finite" in found.summary and found.apply is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 10.0)),
        ({"not_finite": None}, None),  # a root of 0 that training has not met
        ({"nan_at_equal": 0.0}, None),  # equal pairs do no harm to a safe distance
        ({"nan_at_equal": 0.0, "nan_at_zero": 1.0, "zero_pairs": 3}, ("error", 10.0)),
        ({"equal_pairs": 0}, ("warning", 1.0)),  # pairs may have become equal later
        ({"equal_pairs": None, "zero_pairs": None}, ("warning", 1.0)),  # without training data
        ({"equal_pairs": 0, "update_size_first": 5.0}, None),  # a step was too large
        ({"update_size_first": 5.0}, ("error", 10.0)),
        ({"nan_at_equal": 0.0, "nan_elsewhere": 0.5}, ("error", 10.0)),
        ({"nan_at_equal": 0.0, "nan_losses": 1.0}, None),  # NaN in the data, say
    ],
)
def test_a_place_and_a_pair_that_lies_there_are_an_error(changes, expected):
    measured = {"update_size_first": 0.15, **changes}
    assert severity_and_strength("nan_gradient", **measured) == expected


def test_it_counts_and_names_the_pairs():
    numbers = {"not_finite": 1.0, "nan_at_equal": 1.0, "nan_at_zero": 1.0, "equal_pairs": 2.0, "zero_pairs": 5.0}
    found = NanGradient().examine(Facts(numbers, {}, {"equal_pairs": [7, 30], "zero_pairs": [1, 2, 3, 4, 5]}))
    assert "2 training pairs have two equal embeddings and 5 training pairs have an embedding of zeros" in found.summary
    assert found.summary.endswith("Rows 1, 2, 3, 4, 5, ….")
    assert "Pass the training data" in answer("nan_gradient", equal_pairs=None).summary
    assert "at first" in answer("nan_gradient", equal_pairs=0).summary


def test_the_advice_keeps_roots_and_arccos_where_their_gradient_is_finite():
    arrays = {"squared": np.zeros(2), "z": np.zeros((2, 3)), "cosine": np.array([1.0, -1.0])}
    names = {name: keras.ops.convert_to_tensor(array.astype("float32")) for name, array in arrays.items()}
    exec(answer("nan_gradient").advice, {"keras": keras, "ks": ks}, names)
    distance, unit, angle = (keras.ops.convert_to_numpy(names[name]) for name in ("distance", "unit", "angle"))
    assert angle == pytest.approx([1.414e-3, np.pi - 1.414e-3], rel=0.03)  # √(2 · 1e-6), not 0
    assert distance.min() > 0 and np.isfinite(unit).all()


def test_only_causes_that_need_no_embeddings_are_judged_after_nan():
    findings, others = causes.examine(Facts({"not_finite": 1.0}))
    assert findings == [] and {one.cause for one in others} == {"nan_gradient", "learning_rate"}
