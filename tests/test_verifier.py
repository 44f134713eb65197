"""The verifier: its threshold, its probabilities, what it reports and what it refuses."""

import json
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_siamese as ks
from keras_siamese import verification
from keras_siamese.layers import SiameseWrapper
from keras_siamese.scoring import Trials, score
from keras_siamese.verifier import Verifier
from keras_siamese.verifier_calibration import HeldOutPairs, held_out, threshold_for
from tests.support.verifiers import FEATURES, clusters, decisions_of, encoder_model, wrapper


@pytest.fixture(scope="module")
def valid():
    return clusters(30, 6, seed=1)


@pytest.fixture(scope="module")
def test():
    return clusters(25, 6, seed=2)


# --- the threshold


@pytest.mark.parametrize(("far", "head"), [(0.001, None), (0.5, None), (0.01, "logistic")])
def test_the_threshold_keeps_to_the_far_on_its_own_pairs(valid, far, head):
    siamese = SiameseWrapper(encoder_model(), "euclidean", head=head)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        verifier = Verifier.calibrate(siamese, *valid, far=far)
    accepted, same = decisions_of(verifier, *valid)
    impostors = np.count_nonzero(~same)
    allowed = int(np.floor(far * impostors))
    assert np.count_nonzero(accepted & ~same) <= allowed
    # And it is the smallest such: the next lower score is an impostor's and one too many.
    scores = score(siamese, Trials.from_labels(*valid)).scores
    lower = scores[scores < verifier.threshold].max()
    assert np.count_nonzero(scores[~same] >= lower) > allowed
    assert np.mean(accepted[same]) == verification.tar_at_far(same, scores, far)


def test_the_threshold_lies_between_scores_and_not_on_one(valid):
    pairs = held_out(SiameseWrapper(encoder_model()), *valid, None, 0)
    for far, criterion in ((0.01, None), (None, "eer"), (None, "accuracy")):
        threshold = threshold_for(pairs, far, criterion)
        assert float(np.float32(threshold)) == threshold
        scores = pairs.scored.scores
        near = scores[np.argsort(np.abs(scores - threshold))[:2]]
        assert near.min() < threshold <= near.max()


def test_neighbouring_scores_leave_the_threshold_on_the_upper_one():
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    trials = Trials(np.zeros((2, 1)), np.zeros(4, int), np.ones(4, int), np.array([1, 1, 0, 0], bool), None)
    pairs = HeldOutPairs(None, trials)
    pairs.scored = ks.scoring.ScoredTrials(trials, np.zeros((2, 1)), np.array([high, high, low, low]))
    assert threshold_for(pairs, None, "eer") == high


def test_the_eer_threshold_balances_the_errors(valid):
    verifier = Verifier.calibrate(SiameseWrapper(encoder_model()), *valid)
    accepted, same = decisions_of(verifier, *valid)
    fmr, fnmr = np.mean(accepted[~same]), np.mean(~accepted[same])
    assert abs(fmr - fnmr) < 0.005
    assert verifier.evidence["criterion"] == "eer"
    assert verifier.evidence["eer"] == pytest.approx((fmr + fnmr) / 2, abs=0.005)


def test_the_accuracy_threshold_is_the_best_of_a_balanced_subset(valid):
    siamese = SiameseWrapper(encoder_model())
    verifier = Verifier.calibrate(siamese, *valid, criterion="accuracy")
    scored = score(siamese, Trials.from_labels(*valid))
    rows = scored.trials.balanced()
    same, scores = scored.same[rows], scored.scores[rows]
    assert verification.accuracy_at(same, scores, verifier.threshold) == verification.best_accuracy(same, scores)[0]


# --- the rule of 30


def test_a_far_beyond_the_data_is_refused(valid):
    x, labels = clusters(8, 3, seed=3)  # 24 items: 252 impostor pairs
    siamese = SiameseWrapper(encoder_model())
    with pytest.raises(ValueError, match=r"`far` must be at least 0.012 for 252 impostor pairs.*got 0.01.*needs 300"):
        Verifier.calibrate(siamese, x, labels, far=0.01)
    with pytest.warns(UserWarning, match=r"far=0.02 rests on only 5 false accepts of 252 .*; 1500 impostor pairs"):
        Verifier.calibrate(siamese, x, labels, far=0.02)
    Verifier.calibrate(siamese, x, labels, far=0.2)  # 50 false accepts: no warning


def test_impostors_that_tie_at_the_top_leave_no_pair_to_accept():
    # Two identities that the encoder cannot tell apart, and that score as high as scores go.
    x = np.concatenate([np.eye(FEATURES)[[0] * 20], np.eye(FEATURES)[[0] * 20], np.eye(FEATURES)[[1, 2] * 5]])
    labels = np.repeat([0, 1, 2], [20, 20, 10])
    encoder = keras.Sequential([keras.Input((FEATURES,)), layers.UnitNormalization()])
    siamese = SiameseWrapper(encoder, "euclidean")
    with pytest.warns(UserWarning, match="The threshold accepts no pair at all"):
        verifier = Verifier.calibrate(siamese, x.astype("float32"), labels, far=0.1)
    assert not verifier.verify(x, x).any()


# --- probabilities


class FirstFeature(layers.Layer):
    """An encoder whose euclidean distance is the difference of the first feature: a score that a test can choose."""

    def call(self, inputs):
        return inputs[:, :1]


def test_probability_is_the_share_of_genuine_pairs():
    # Differences of N(0, 1) samples about identities that are N(0, 3²) apart: two half-normals, mixed one to one.
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(400), 5)
    x = (3 * rng.normal(size=400)[labels] + rng.normal(size=2000)).astype("float32")[:, None]
    verifier = Verifier.calibrate(SiameseWrapper(FirstFeature(), "euclidean"), x, labels)
    new = (3 * rng.normal(size=400)[labels] + rng.normal(size=2000)).astype("float32")[:, None]
    left, right = np.arange(2000), np.where(rng.random(2000) < 0.5, np.arange(2000) // 5 * 5, rng.permutation(2000))
    same, keep = labels[left] == labels[right], left != right
    probability = verifier.probability(new[left], new[right])
    # Monotone, ½ where the score says so, and right on average.
    scores = verifier.score(new[left], new[right])
    order = np.argsort(scores)
    assert (np.diff(probability[order]) >= 0).all()
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-(verifier.slope * scores + verifier.offset))), atol=1e-5)
    for low, high in ((0, 0.3), (0.3, 0.7), (0.7, 1)):
        inside = keep & (probability >= low) & (probability < high)
        genuine, impostor = np.mean(inside[same & keep]), np.mean(inside[~same])
        assert genuine / (genuine + impostor) == pytest.approx(probability[inside].mean(), abs=0.12)


def test_a_model_that_ranks_backwards_is_refused(valid):
    class Backwards(layers.Layer):
        def call(self, distance):
            return distance

    with pytest.raises(ValueError, match=r"Genuine pairs must score higher.*AUC of 0\.0"):
        Verifier.calibrate(SiameseWrapper(encoder_model(), head=Backwards()), *clusters(30, 6, seed=1, spread=0.05))


def test_calibrating_leaves_the_model_as_it_was(valid):
    siamese = wrapper()
    siamese((valid[0][:2], valid[0][:2]))
    before = siamese.get_weights()
    verifier = Verifier.calibrate(siamese, *valid)
    assert verifier.siamese is siamese
    for old, new in zip(before, siamese.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# --- evaluation


@pytest.mark.each_backend
def test_evaluation_equals_the_verification_functions_by_hand(valid, test):
    verifier = Verifier.calibrate(wrapper(), *valid, far=0.05)
    report = verifier.evaluate(*test, far=0.02)
    x, labels = test
    left, right = np.triu_indices(len(labels), 1)
    same = labels[left] == labels[right]
    z = verifier.siamese.encoder.predict(x, verbose=0).astype(float)
    scores = -np.abs(z[left] - z[right]).sum(axis=1)
    accepted = scores >= verifier.threshold
    assert report.threshold == verifier.threshold
    assert report.fmr == pytest.approx(np.mean(accepted[~same]))
    assert report.fnmr == pytest.approx(np.mean(~accepted[same]))
    assert report.accuracy == pytest.approx(np.mean(accepted == same))
    assert report.eer == pytest.approx(verification.eer(same, scores), abs=1e-6)
    assert report.auc == pytest.approx(verification.auc(same, scores), abs=1e-6)
    assert report.tar[0].tar == pytest.approx(verification.tar_at_far(same, scores, 0.02), abs=1e-6)
    assert (report.genuines, report.impostors, report.identities) == (25 * 15, len(same) - 25 * 15, 25)
    assert report.intervals["eer"].low < report.eer < report.intervals["eer"].high


def test_the_evidence_says_what_the_threshold_rests_on(valid):
    verifier = Verifier.calibrate(wrapper(), *valid, far=0.05)
    evidence = json.loads(json.dumps(verifier.evidence))
    measured = {name: evidence.pop(name) for name in ("eer", "fmr", "fnmr", "intervals")}
    assert evidence == {
        "criterion": "far=0.05",
        "far": 0.05,
        "samples": 180,
        "identities": 30,
        "genuine_pairs": 30 * 15,
        "impostor_pairs": 180 * 179 // 2 - 30 * 15,
        "keras_siamese": ks.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }
    accepted, same = decisions_of(verifier, *valid)
    assert measured["fmr"] == pytest.approx(np.mean(accepted[~same])) and measured["fmr"] <= 0.05
    assert measured["fnmr"] == pytest.approx(np.mean(~accepted[same]))
    report = verifier.evaluate(*valid)  # on the same pairs, at the same threshold, from the same resamples
    for name in ("eer", "fmr", "fnmr"):
        interval = report.intervals[name]
        assert measured["intervals"][name] == pytest.approx([interval.low, interval.high], abs=1e-6)
        assert interval.low < measured[name] < interval.high


def test_a_calibration_without_error_has_no_intervals():
    x, labels = clusters(30, 6, seed=1, spread=0.01)
    verifier = Verifier.calibrate(SiameseWrapper(encoder_model()), x, labels)
    assert verifier.evidence["fmr"] == verifier.evidence["fnmr"] == 0.0 and verifier.evidence["intervals"] == {}
    assert verifier.evidence["far"] is None


# --- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"far": 0.1, "criterion": "eer"}, "Give `far` or `criterion`, not both"),
        ({"criterion": "best"}, "`criterion` must be one of 'eer', 'accuracy', 'cost'; got 'best'"),
        ({"far": 0.0}, "`far` must be in"),
        ({"far": 1.0}, "`far` must be in"),
        ({"labels": np.zeros(180, int)}, "they have 1 identities"),
        ({"labels": np.arange(179)}, "`labels` must have one entry for each of the 180 samples; got 179"),
        ({"x": np.full((180, FEATURES), np.nan)}, "`x` must be finite; 180 of its 180"),
        ({"x": np.zeros((0, FEATURES)), "labels": []}, "`x` must hold at least one sample"),
        ({"model": keras.Sequential([keras.Input((FEATURES,)), layers.Dense(1)])}, "No encoder found"),
    ],
)
def test_bad_calibration_is_refused(valid, change, message):
    x, labels = valid
    arguments = {"model": wrapper(), "x": x, "labels": labels} | change
    with pytest.raises(ValueError, match=message):
        Verifier.calibrate(arguments.pop("model"), arguments.pop("x"), arguments.pop("labels"), **arguments)


def test_weights_that_are_not_finite_are_refused(valid):
    siamese = wrapper()
    siamese.encoder.set_weights([np.full_like(weight, np.nan) for weight in siamese.encoder.get_weights()])
    with pytest.raises(ValueError, match="must be finite; some are NaN or infinite"):
        Verifier.calibrate(siamese, *valid)


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (np.zeros((3, FEATURES)), np.zeros((2, FEATURES)), "as many samples; got 3 and 2"),
        (np.full((3, FEATURES), np.nan), np.zeros((3, FEATURES)), "`left` must be finite"),
        (np.zeros((0, FEATURES)), np.zeros((0, FEATURES)), "`left` must hold at least one sample"),
    ],
)
def test_bad_pairs_are_refused(valid, left, right, message):
    verifier = Verifier.calibrate(wrapper(), *valid)
    with pytest.raises(ValueError, match=message):
        verifier.verify(left, right)


@pytest.mark.parametrize("name", ["threshold", "slope", "offset"])
def test_parameters_must_be_numbers(name):
    with pytest.raises(TypeError, match=f"`{name}` must be a number"):
        Verifier(wrapper(), **{"threshold": 0.0, name: "high"})


# --- costs


def test_the_cost_criterion_has_the_least_cost(valid):
    siamese = SiameseWrapper(encoder_model())
    found = {}
    for costs in ((0.5, 1, 1), (0.02, 1, 1), (0.5, 20, 1)):
        verifier = Verifier.calibrate(siamese, *valid, criterion="cost", costs=costs)
        scored = score(siamese, Trials.from_labels(*valid))
        point = verification.operating_point(scored.same, scored.scores, verifier.threshold)
        p_target, c_miss, c_fa = costs
        cost = c_miss * p_target * point.fnmr + c_fa * (1 - p_target) * point.fmr
        least = verification.min_dcf(scored.same, scored.scores, *costs) * min(c_miss * p_target, c_fa * (1 - p_target))
        assert cost == pytest.approx(least, abs=1e-9)
        found[costs] = verifier.threshold
    # Rarer genuine pairs ask for a stricter threshold, dearer misses for a looser one.
    assert found[0.02, 1, 1] > found[0.5, 1, 1] > found[0.5, 20, 1]
    assert "cost, p_target=0.5, c_miss=20, c_fa=1" in repr(verifier)


def test_a_negative_threshold_is_said_to_be_one_of_distances(valid, test):
    verifier = Verifier.calibrate(SiameseWrapper(encoder_model()), *valid)
    assert repr(verifier).startswith(f"Verifier(threshold={verifier.threshold:.4g}, score=-distance, ")
    said = f"The score is −distance: a pair is accepted if its distance is at most {-verifier.threshold:.6g}."
    assert verifier.evaluate(*test).meaning.endswith(said)
    head = Verifier.calibrate(SiameseWrapper(encoder_model(), head="logistic"), *valid)
    assert "score=-" not in repr(head) and "The score is" not in str(head.evaluate(*test))


def test_costs_without_their_criterion_or_out_of_range_are_refused(valid):
    siamese = SiameseWrapper(encoder_model())
    with pytest.raises(ValueError, match='`costs` needs criterion="cost"'):
        Verifier.calibrate(siamese, *valid, costs=(0.5, 1, 1))
    with pytest.raises(ValueError, match=r"`p_target` must be in \(0, 1\)"):
        Verifier.calibrate(siamese, *valid, criterion="cost", costs=(1.5, 1, 1))
    for wrong in ((0.5, 1), (0.5, 1, 1, 1), 0.5):
        with pytest.raises(ValueError, match=r"`costs` must be \(p_target, c_miss, c_fa\)"):
            Verifier.calibrate(siamese, *valid, criterion="cost", costs=wrong)
    with pytest.raises(TypeError, match="`c_miss` must be a number"):
        Verifier.calibrate(siamese, *valid, criterion="cost", costs=(0.5, "1", 1))


def test_the_report_has_the_cost_of_the_calibrated_scores(valid, test):
    verifier = Verifier.calibrate(SiameseWrapper(encoder_model()), *valid)
    report = verifier.evaluate(*test)
    scored = score(verifier.siamese, Trials.from_labels(*test))
    ratios = verifier.slope * scored.scores.astype("float64") + verifier.offset
    assert report.cllr == pytest.approx(verification.cllr(scored.same, ratios))
    assert report.min_cllr <= report.cllr
