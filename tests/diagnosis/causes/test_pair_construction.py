"""The cause `pair_construction` on facts written by hand."""

import pytest

from keras_siamese.diagnosis.causes import NotExamined
from tests.support.facts_by_hand import BAD, answer, examined, severity_and_strength

SOUND = {"identical_genuine": 0.0}
LABELS = {"train_input_auc": 0.5, "train_input_auc_se": 0.02, "input_auc": 0.85}

HELD_OUT = {"train_input_auc": 0.75, "train_input_auc_se": 0.02, "input_auc": 0.5, "input_auc_se": 0.02}
HELD_OUT |= {"eer": 0.5, "eer_se": 0.02}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 10.0)),
        ({"identical_genuine": 0.02}, None),  # some forms were scanned twice
        ({"eer": 0.05}, None),  # random layers make two views of one item
        ({**SOUND, "contradictory_pairs": 0.3}, ("error", 10.0)),
        ({**SOUND, "contradictory_pairs": 0.05}, None),
        ({**SOUND, "constant_side": 1.0}, ("error", 10.0)),
        ({**SOUND, "times_shown": 40.0, "pairs_of_items": 50.0}, ("error", 10.0)),
        ({**SOUND, "times_shown": 40.0, "pairs_of_items": 1.5}, None),  # so few items have no more pairs
        ({**SOUND, **LABELS}, ("error", 10.0)),
        ({**SOUND, **LABELS, "train_input_auc": 0.57}, None),  # noise leaves a part
        ({**SOUND, **LABELS, "input_auc": 0.55}, None),  # raw inputs tell nothing
        ({**SOUND, **LABELS, "input_auc": None}, None),
        ({**SOUND, **LABELS, "train_input_auc_se": 0.2}, None),  # too few genuine pairs to tell
        ({**SOUND, **HELD_OUT}, ("error", 10.0)),
        ({**SOUND, **HELD_OUT, "eer": 0.3}, None),  # the network tells them apart
        ({**SOUND, **HELD_OUT, "input_auc": 0.57}, None),
        ({**SOUND, **HELD_OUT, "train_input_auc": 0.55}, None),
        ({**SOUND, **HELD_OUT, "input_auc_se": 0.2}, None),
        ({**SOUND, **HELD_OUT, "held_out_towers": 2.4, "drawn_towers": 0.0}, None),  # one side was not divided by 255
        ({**SOUND, **HELD_OUT, "turned": 0.5}, None),
    ],
)
def test_each_mistake_counts_alone(changes, expected):
    assert severity_and_strength("pair_construction", **changes) == expected


def test_it_says_which_mistake_it_is():
    assert "one item twice" in answer("pair_construction").summary
    assert "both labels" in answer("pair_construction", **SOUND, contradictory_pairs=0.3).summary
    assert "the same item" in answer("pair_construction", **SOUND, constant_side=0.9).summary
    assert "training labels do not follow" in answer("pair_construction", **SOUND, **LABELS).summary
    held_out = answer("pair_construction", **SOUND, **HELD_OUT)
    assert "held-out labels do not follow" in held_out.summary and "order" in held_out.advice


def test_it_needs_pairs():
    assert isinstance(answer("pair_construction", identical_genuine=None), NotExamined)


def test_it_explains_labels_that_look_noisy():
    findings, _ = examined(**BAD, **SOUND, **LABELS, impostor_like=0.9, impostor_like_se=0.02)
    assert findings[0].cause == "pair_construction" and all(one.explained_by for one in findings[1:])
