"""What the causes advise: for the labels of the user's pairs, whether or not the training data are known."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_siamese as ks
from keras_siamese.diagnosis.advice import (
    AUGMENT,
    NAMES,
    explained,
    for_samples,
    free_names,
    logistic_head,
    pair_loss,
)
from keras_siamese.diagnosis.facts.table import Facts
from tests.support.facts_by_hand import SIGNS, answer
from tests.support.small_programs import identities, pairs_of


def sigmoid_of_distance():
    """A compiled model of two inputs whose output cannot fall below ½."""
    tower, inputs = keras.Sequential([keras.Input((12,)), layers.Dense(8)]), [keras.Input((12,)) for _ in range(2)]
    apart = layers.Lambda(lambda two: ops.sqrt(ops.sum(ops.square(two[0] - two[1]), 1, keepdims=True) + 1e-7))
    model = keras.Model(inputs, layers.Activation("sigmoid")(apart([tower(one) for one in inputs])))
    model.compile("adam", "binary_crossentropy")
    return model


@pytest.mark.deep
@pytest.mark.parametrize("same_label", [1, 0])
def test_a_program_is_advised_alike_with_and_without_its_training_data(same_label):
    x, same = pairs_of(np.random.default_rng(0), *identities(), 400)
    y = same if same_label else 1 - same
    model = sigmoid_of_distance()
    found = [ks.diagnose(model, validation=(x, y), train=train) for train in (None, (x, y))]
    assert [one.facts["same_label"] for one in found] == [same_label] * 2
    advice = [{finding.cause: finding.advice for finding in one.findings} for one in found]
    assert advice[0]["unreachable_output"] == advice[1]["unreachable_output"]
    assert ("similar_label=0" in advice[0]["unreachable_output"]) == (same_label == 0)
    assert ("y = 1 - y" in advice[0]["unreachable_output"]) == (same_label == 0)
    if same_label:  # the loss of the other label pulls a distance the right way
        assert advice[0]["inverted_labels"] == advice[1]["inverted_labels"]
        assert "y = 1 - y\ny_valid = 1 - y_valid" in advice[0]["inverted_labels"]


def test_a_loss_is_advised_for_the_label_that_means_the_same():
    assert pair_loss(Facts({})) == "ks.losses.ContrastiveLoss()"
    assert pair_loss(Facts({"same_label": 0.0}), margin=1) == "ks.losses.ContrastiveLoss(margin=1, similar_label=0)"
    assert pair_loss(Facts({"same_label": 0.0}), "TripletLoss", margin=1) == "ks.losses.TripletLoss(margin=1)"
    stated = Facts({"loss_similar_label": 0.0})
    assert pair_loss(stated, "LiftedStructureLoss") == "ks.losses.LiftedStructureLoss(similar_label=0)"


@pytest.mark.parametrize("cause", ["margin", "pair_imbalance", "loss_mismatch", "unreachable_output", "head_sign"])
def test_no_advice_turns_the_labels(cause):
    advice = answer(cause, same_label=0, loss_similar_label=0).advice
    assert "similar_label=0" in advice or "y = 1 - y" in advice
    assert "similar_label" not in answer(cause).advice and "1 - y" not in answer(cause).advice


def test_labels_of_minus_one_become_0_and_1_for_a_probability():
    for same_label, line in ((1, "y = (y > 0)"), (0, "y = (y < 0)")):
        assert line in logistic_head(Facts({"same_label": same_label, "lowest_label": -1.0}))


@pytest.mark.parametrize(
    ("changes", "label"), [({}, 1), ({"same_label": 0}, 0), ({"same_label": 0, "lowest_label": -1}, -1)]
)
def test_pairs_are_weighed_as_the_loss_allows(changes, label):
    elsewhere = answer("pair_imbalance", **changes, loss_of_package=0.0).advice
    assert f"y, sample_weight=np.where(y == {label}, 99, 1))" in elsewhere and "ks.losses" not in elsewhere
    assert "ContrastiveLoss(positive_weight=99" in answer("pair_imbalance", **changes).advice


FORMS = {  # other advice of the same causes than that of their usual signs
    "threshold": {"identities": None},
    "batch_norm": {"batch_dependence": 1.0},
    "unreachable_output": {"output_low": 1.0},
    "margin": {"untrained_distance": 3.0, "reach": None},
    "inverted_labels": {"below_chance": 6.2, "train_below_chance": -9.0, "identities": None},
    "input_scale": {"drawn_towers": 2.4},
}


@pytest.mark.parametrize("cause", ["memorising", "weak_features"])
def test_augmentation_is_that_of_the_samples(cause):
    for kind, line in AUGMENT.items():
        assert line in for_samples(answer(cause).advice, Facts(words={"samples": kind}))
        compile(line, kind, "exec")
    rng, x = np.random.default_rng(0), np.ones((4, 50))
    names = {"np": np, "ks": ks}
    for kind in ("numbers", "ids"):
        exec(AUGMENT[kind], names)
        assert names["augment"](x * rng.normal(size=50), rng).shape == x.shape


ROWS = {"suspected_labels": [1]}


@pytest.mark.parametrize("cause", SIGNS)
def test_advice_says_what_its_names_stand_for(cause):
    pairs = {"identities": None, "train_identities": None}
    for changes in (
        {},
        FORMS.get(cause, {}),
        {"same_label": 0},
        pairs,
        {**pairs, "loss_of_package": 0.0, "rows": ROWS},
    ):
        advice = answer(cause, **changes).advice
        lines = advice.splitlines()
        legend = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
        for name in free_names(advice):
            assert f"{name}: {NAMES[name]}" in legend, name
        choices = [line.split(":")[0].lstrip("# ") for line in lines if line.startswith(("# either", "# or"))]
        assert choices == [] or (choices[0] == "either" and len(choices) > 1 and {*choices[1:]} == {"or"})
        assert not any("# or" in line for line in lines if not line.startswith("#")), "an alternative on one line"
        assert max(map(len, lines)) <= 120


def test_names_that_code_defines_are_not_explained():
    assert free_names("a = 1\nprint(a, x)\nx, b = f(x)") == ["x", "f"]
    assert explained("print(1)") == "print(1)"
    assert explained("u = x") == "u = x\n# x: your samples, one in each row"


def test_a_known_learning_rate_is_advised_as_a_number():
    assert "Adam(0.0001)" in answer("collapse").advice
    unknown = answer("collapse", learning_rate=None).advice
    assert "Adam(learning_rate / 10)" in unknown and "learning_rate: the rate that you use now" in unknown


def test_the_threshold_of_pairs_is_calibrated_on_pairs():
    assert "calibrate(siamese, x_valid, labels_valid" in answer("threshold").advice
    assert "calibrate(siamese, ([left, right], y)" in answer("threshold", identities=None).advice
