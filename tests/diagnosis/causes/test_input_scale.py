"""The cause `input_scale` on facts written by hand."""

import pytest

from tests.support.facts_by_hand import answer, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"input_scale": 100.0}, ("error", 6.0)),
        ({"input_scale": 40.0}, ("warning", 4.806)),
        ({"input_scale": 20.0}, None),
        ({"input_scale": 0.005}, None),
        ({"input_scale": 0.004}, ("warning", 7.194)),
        ({"input_scale": 0.001}, ("error", 9.0)),
        ({"eer": 0.079}, None),
        ({"eer": 0.08}, ("error", 6.124)),
        ({"input_scale": 0.5, "drawn_towers": -0.31, "eer": 0.0}, ("error", 10.0)),
        ({"input_scale": 0.5, "drawn_towers": None, "held_out_towers": 0.31}, ("error", 10.0)),
        ({"input_scale": 0.5, "drawn_towers": None, "held_out_towers": 0.3}, None),
        ({"input_scale": 0.5, "held_out_towers": 0.31}, None),  # training pairs are alike: a matter of preprocessing
    ],
)
def test_strength_is_the_order_of_magnitude(changes, expected):
    assert severity_and_strength("input_scale", **changes) == expected


def test_it_says_which_inputs_are_off():
    apart = answer("input_scale", drawn_towers=2.0)
    assert "100 times as large as the other" in apart.summary and apart.apply({}) == {"tower_scale": 1.0}
    assert "inputs of size 110" in answer("input_scale").summary
    assert answer("input_scale").apply({}) == {"input_scale": 1.0}
