"""Identities as digits that survive casts, the options and the config of a loss, and margins out of reach."""

import numpy as np
import pytest
from keras import ops

from keras_siamese.losses import ContrastiveLoss, NCALoss, TripletLoss
from keras_siamese.losses.base import concrete, joined_ids, option_names, refuse_margin, split_ids, without_wide_mask


@pytest.mark.each_backend
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_identities_survive_a_cast_of_their_digits(dtype):
    ids = np.array([0, 1, 255, 256, 65_537, 2**24 + 1, 2**31 - 1, -1, -(2**31)], "int32")
    digits = split_ids("y_true", ops.convert_to_tensor(ids), dtype)
    assert tuple(digits.shape) == (9, 2 if dtype == "float32" else 4)
    again, missing = joined_ids(ops.cast(digits, dtype), dtype)
    assert ops.convert_to_numpy(again).tolist() == ids.tolist()
    assert missing is None


def test_names_become_numbers_that_are_equal_where_the_names_are():
    ids, _ = joined_ids(split_ids("y_true", np.array(["b", "a", "b"])))
    assert ops.convert_to_numpy(ids).tolist() == [1, 0, 1]


def test_a_number_that_is_not_whole_is_refused_where_its_value_is_known():
    with pytest.raises(ValueError, match="`y_true` must be whole numbers"):
        split_ids("y_true", ops.convert_to_tensor([1.0, 2.5]))
    for dtype in ("float32", "float16"):
        digits = split_ids("y_true", ops.convert_to_tensor([7.0, 300.0], "float32"), dtype)
        digits = np.array(ops.convert_to_numpy(digits))
        digits[1, -1] = np.nan
        ids, missing = joined_ids(ops.cast(digits, dtype), dtype)
        assert ops.convert_to_numpy(ids).tolist() == [7, 300]
        assert ops.convert_to_numpy(missing).tolist() == [False, True]


def test_option_names_hold_those_of_the_bases():
    assert option_names(TripletLoss) == ["margin", "soft", "swap", "reduction", "name", "dtype"]
    assert option_names(NCALoss) == ["scale", "distance", "block_size", "local_negatives", "reduction", "name", "dtype"]


def test_the_config_holds_the_options_of_the_bases():
    config = TripletLoss(margin=0.3, swap=True, name="t", reduction="sum").get_config()
    wanted = {"margin": 0.3, "soft": False, "swap": True, "name": "t", "reduction": "sum"}
    assert wanted.items() <= config.items()
    assert set(config) <= {*wanted, "dtype"}
    assert NCALoss(block_size=4).get_config()["block_size"] == 4


def test_a_margin_is_refused_only_beyond_reach():
    loss = ContrastiveLoss()
    refuse_margin(loss, "margin", 2.0, 2.0, 0.0, 2.0)
    with pytest.raises(ValueError, match=r"`margin` of ContrastiveLoss must be at most 2, .* \[0, 2\].*; got 2.5"):
        refuse_margin(loss, "margin", 2.5, 2.0, 0.0, 2.0)


def test_values_that_are_known():
    assert concrete(ops.convert_to_tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    tensor = ops.ones((2, 3))
    assert without_wide_mask(tensor) is tensor
