"""Objectives: the keys that a search can go by, and their directions."""

import keras_tuner
import pytest

from keras_siamese.callbacks import VerificationMonitor
from keras_siamese.tuning import objective
from keras_siamese.tuning.objectives import check_known, check_objective, keys_of, sign_of
from tests.support.searches import digits


@pytest.mark.parametrize("name", ["val_threshold", "val_loss", "eer", None])
def test_an_unknown_objective_is_refused(name):
    with pytest.raises(ValueError, match=f"`objective` must be one of val_eer, .*got {name!r}"):
        objective(name)


def test_objectives_know_their_direction():
    directions = {name: objective(name).direction for name in ("val_eer", "val_auc", "val_tar@far=0.02", "loss")}
    assert directions == {"val_eer": "min", "val_auc": "max", "val_tar@far=0.02": "max", "loss": "min"}


def test_each_key_that_the_monitor_writes_has_a_direction_but_the_threshold():
    keys = [key for key in VerificationMonitor(digits()).keys if key != "val_threshold"]
    assert [objective(key).name for key in keys] == keys


@pytest.mark.parametrize(
    ("name", "sign", "far"),
    [
        ("val_eer", -1, {}),
        ("val_auc", 1, {}),
        ("val_verification_accuracy", 1, {}),
        ("val_d_prime", 1, {}),
        ("loss", -1, {}),
        ("val_tar@far=0.01", 1, {"far": 0.01}),
    ],
)
def test_the_sign_of_each_key_and_what_the_monitor_must_know(name, sign, far):
    assert check_objective(name) == (sign, far)
    assert sign_of(objective(name)) == sign


@pytest.mark.parametrize("rate", ["0", "1", "1.5", "-0.1", "0.010", "x", ""])
def test_a_rate_is_above_0_and_below_1_and_written_as_the_monitor_writes_it(rate):
    with pytest.raises(ValueError, match="`objective` must be one of"):
        check_objective(f"val_tar@far={rate}")


def test_several_objectives_have_several_keys():
    aims = [objective("val_eer"), objective("val_tar@far=0.1"), objective("val_tar@far=0.01")]
    several = keras_tuner.oracles.RandomSearchOracle(objective=aims).objective
    assert keys_of(several) == ["val_eer", "val_tar@far=0.1", "val_tar@far=0.01"]
    assert keys_of(objective("loss")) == ["loss"]
    assert check_known(several) == {"far": (0.1, 0.01)}
    assert check_known(objective("val_auc")) == {}


def test_a_direction_that_is_wrong_is_refused():
    with pytest.raises(
        ValueError,
        match=r"must have direction 'max' for 'val_auc'; got 'min'. Use keras_siamese.tuning.objective\(name\)",
    ):
        check_known(keras_tuner.Objective("val_auc", "min"))
