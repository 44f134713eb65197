"""A verifier calibrated on a histogram of all pairs is the one calibrated on the pairs, up to the width of a bin."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_siamese as ks
from keras_siamese import verification
from keras_siamese.layers import SiameseWrapper
from keras_siamese.scoring import embed
from keras_siamese.verification import ScoreHistogram, compare_embeddings, compare_shards
from keras_siamese.verifier import Verifier
from keras_siamese.verifier_calibration import refuse_sides
from tests.support.verifiers import FEATURES, clusters, encoder_model

RULES = [
    {"far": 0.01},
    {"far": 0.2},
    {"criterion": "eer"},
    {"criterion": "accuracy"},
    {"criterion": "cost", "costs": (0.3, 1.0, 2.0)},
]


@pytest.fixture(scope="module")
def valid():
    return clusters(30, 6, seed=1)


@pytest.fixture(scope="module")
def siamese():
    return SiameseWrapper(encoder_model(), "euclidean")


@pytest.fixture(scope="module")
def embeddings(siamese, valid):
    return embed(siamese.encoder, valid[0])


@pytest.fixture(scope="module")
def pairs(siamese, embeddings, valid):
    left, right = np.triu_indices(len(valid[1]), 1)
    scores = -np.linalg.norm(embeddings[left] - embeddings[right], axis=1)
    return (valid[1][left] == valid[1][right]).astype(int), scores


def cost_of(rule, same, scores, threshold):
    """What the rule minimises at a threshold: the FNMR where FMR ≤ far, |FMR − FNMR|, or the expected cost."""
    fmr, fnmr = verification.operating_point(same, scores, threshold)[1:]
    if "far" in rule:
        return fnmr if fmr <= rule["far"] else np.inf
    if rule["criterion"] == "eer":
        return abs(fmr - fnmr)
    p, miss, false_accept = rule.get("costs", (0.5, 1.0, 1.0))
    return p * miss * fnmr + (1 - p) * false_accept * fmr


def assert_near(found, exact, scores, width):
    """`found` is at most a bin from `exact`, or further if there are no scores between them."""
    lowest, highest = scores[scores < exact - width].max(), scores[scores >= exact + width].min()
    assert lowest - 1e-6 <= found <= highest + 1e-6


@pytest.mark.parametrize("bins", [50, 65_536])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_threshold_is_that_of_the_pairs_up_to_a_bin(siamese, valid, embeddings, pairs, rule, bins):
    histogram = compare_shards(embeddings, valid[1], "euclidean", bins=bins, progress=False)
    exact, found = Verifier.calibrate(siamese, *valid, **rule), Verifier.calibrate(siamese, histogram, **rule)
    lost = cost_of(rule, *pairs, found.threshold) - cost_of(rule, *pairs, exact.threshold)
    # No threshold is better than by the pairs that lie in one bin, of both classes and twice for costs of 2.
    bound = 2 * sum(tally.counts.max() / tally.counts.sum() for tally in (histogram._genuine, histogram._impostor))
    assert lost <= bound
    if rule.get("criterion") != "accuracy":  # in memory, that of a sample of the impostor pairs
        assert lost >= -1e-12
    if rule.get("criterion") in (None, "eer"):  # costs may have several minima
        assert_near(found.threshold, exact.threshold, pairs[1], histogram.error_bound)
    fmr, fnmr = verification.operating_point(*pairs, found.threshold)[1:]
    assert (found.evidence["fmr"], found.evidence["fnmr"]) == pytest.approx((fmr, fnmr), abs=1e-12)
    assert abs(found.evidence["eer"] - exact.evidence["eer"]) <= histogram.eer_error_bound() + 1e-12
    for name in ("criterion", "far", "genuine_pairs", "impostor_pairs"):
        assert found.evidence[name] == exact.evidence[name]


def test_in_the_tail_it_is_the_same_threshold(siamese, valid, embeddings):
    histogram = compare_shards(embeddings, valid[1], "euclidean", progress=False)
    one, other = (Verifier.calibrate(siamese, *x, far=0.01).threshold for x in (valid, (histogram,)))
    assert one == pytest.approx(other, abs=1e-6)
    assert other < histogram.threshold_at_far(0.01), "halfway to the next lower score"


@pytest.mark.parametrize("bins", [50, 65_536])
def test_the_probability_is_that_of_the_pairs_up_to_a_bin(siamese, valid, embeddings, pairs, bins):
    histogram = compare_shards(embeddings, valid[1], "euclidean", bins=bins, progress=False)
    exact, found = Verifier.calibrate(siamese, *valid), Verifier.calibrate(siamese, histogram)
    p, q = (1 / (1 + np.exp(-(one.slope * pairs[1] + one.offset))) for one in (exact, found))
    # A score that is half a bin off has a probability that is off by slope/4 of it; the fit moves no more than that.
    assert np.abs(p - q).max() <= exact.slope / 4 * histogram.error_bound


def test_intervals_come_from_groups_of_identities(siamese, valid, embeddings):
    plain = compare_shards(embeddings, valid[1], "euclidean", progress=False)
    grouped = compare_shards(embeddings, valid[1], "euclidean", groups=20, progress=False)
    assert Verifier.calibrate(siamese, plain).evidence["intervals"] == {}
    found = Verifier.calibrate(siamese, grouped).evidence
    assert set(found["intervals"]) == {"eer", "fmr", "fnmr"}
    for name, (low, high) in found["intervals"].items():
        assert low < found[name] < high
    assert "Chosen by the rule `eer` on 450" in Verifier.calibrate(siamese, grouped).card()


@pytest.mark.each_backend
def test_it_is_built_and_saved_without_samples(tmp_path, valid):
    model = encoder_model()
    embeddings = embed(model, valid[0])
    unbuilt = SiameseWrapper(model, "cosine")
    verifier = Verifier.calibrate(unbuilt, compare_embeddings(embeddings, valid[1]), far=0.05)
    verifier.save(tmp_path / "verifier.keras")
    loaded = Verifier.load(tmp_path / "verifier.keras")
    x = valid[0]
    np.testing.assert_array_equal(loaded.verify(x[:20], x[20:40]), verifier.verify(x[:20], x[20:40]))
    assert Verifier.calibrate(model, compare_embeddings(embeddings, valid[1])).siamese.distance.bounds == (0.0, 2.0)


def test_scores_of_a_head_are_counted_by_the_user(valid):
    siamese = SiameseWrapper(encoder_model(), "euclidean", head="logistic")
    exact = Verifier.calibrate(siamese, *valid)
    left, right = np.triu_indices(len(valid[1]), 1)
    histogram = ScoreHistogram(0, 1)
    scores = exact.score(valid[0][left], valid[0][right])
    histogram.add(valid[1][left] == valid[1][right], scores)
    found = Verifier.calibrate(siamese, histogram)
    assert_near(found.threshold, exact.threshold, scores, histogram.error_bound)
    assert (found.slope, found.offset) == pytest.approx((exact.slope, exact.offset), rel=1e-2)


class Unbuilt(layers.Layer):
    def call(self, inputs):
        return inputs


def test_pairs_in_place_of_samples_are_named(siamese, valid):
    sides, same = [valid[0][:40], valid[0][40:80]], valid[1][:40] == valid[1][40:80]
    with pytest.raises(ValueError, match=r"Give pairs as one argument: .*\(\[left, right\], same\)\)"):
        Verifier.calibrate(siamese, sides, same)
    with pytest.raises(ValueError, match=r"Give pairs as one argument: evaluate\(\(\[left, right\], same\)\)"):
        Verifier.calibrate(siamese, *valid).evaluate(sides, same)
    refuse_sides("call", [1.0, 2.0], [0, 1]), refuse_sides("call", *valid)


class Own(SiameseWrapper):
    def compare(self, *embeddings):
        return 2 * super().compare(*embeddings)


def test_histograms_that_do_not_suit_the_model_are_named(siamese, valid, embeddings):
    labels = valid[1]
    by_angle = compare_embeddings(embeddings, labels)
    with pytest.raises(ValueError, match=r"`x` must hold scores.*CosineDistance\(\).*compares by EuclideanDistance"):
        Verifier.calibrate(siamese, by_angle)
    head = SiameseWrapper(encoder_model(), "cosine", head="logistic")
    for model in (head, Own(encoder_model(), "cosine")):
        with pytest.raises(ValueError, match="compares by a head or comparison of its own"):
            Verifier.calibrate(model, by_angle)
    far_apart = compare_embeddings(10 * embeddings, labels, "euclidean")
    with pytest.raises(ValueError, match=r"which for .* lie in \[-2, -?0\]; it has scores from -1.*of its encoder"):
        Verifier.calibrate(siamese, far_apart)
    by_distance = compare_embeddings(embeddings, labels, "euclidean")
    with pytest.raises(ValueError, match="`labels` must be None"):
        Verifier.calibrate(siamese, by_distance, labels)
    with pytest.raises(ValueError, match="`far` must be at least"):
        Verifier.calibrate(siamese, by_distance, far=1e-7)
    with pytest.raises(ValueError, match="must have been called on samples"):
        Verifier.calibrate(SiameseWrapper(Unbuilt(), "euclidean"), compare_embeddings(valid[0], labels, "euclidean"))
    backwards = ScoreHistogram(-2, 0)
    backwards.add([1, 1, 0, 0], [-1.5, -1.0, -0.5, -0.1])
    with pytest.raises(ValueError, match=r"AUC of 0\.000"):
        Verifier.calibrate(siamese, backwards)
    with pytest.raises(ValueError, match="pairs of both classes"):
        Verifier.calibrate(siamese, ScoreHistogram(-2, 0))
    inputs = [keras.Input((FEATURES,)), keras.Input((FEATURES,))]
    two = keras.Model(inputs, layers.Dense(1)(layers.Concatenate()([layers.Dense(3)(one) for one in inputs])))
    with pytest.raises(ValueError, match="`model` must be an encoder or a SiameseWrapper"):
        Verifier.calibrate(two, by_distance)


def test_a_far_that_accepts_no_pair_is_warned_of(siamese, valid, embeddings):
    histogram = ScoreHistogram(-2, 0)
    histogram.add(np.repeat([0, 1], 200), np.concatenate([np.linspace(-1, -0.5, 150), np.full(250, -0.1)]))
    with pytest.warns(UserWarning, match="accepts no pair at all"):
        verifier = Verifier.calibrate(siamese, histogram, far=0.16)
    assert verifier.threshold > -0.1


def test_the_operating_point_of_a_given_threshold_is_exact_or_pessimistic():
    rng = np.random.default_rng(3)
    same = rng.permutation(np.repeat([1, 0], [300, 900]))
    scores = np.clip(rng.normal(size=1200) * 0.3 + 0.5 * same, -1, 2)
    for tail in (20, 1000):
        histogram = ScoreHistogram(-1, 2, bins=30, tail=tail)
        histogram.add(same, scores)
        counts = [tally.counts.max() / tally.counts.sum() for tally in (histogram._impostor, histogram._genuine)]
        for threshold in (-2.0, *rng.uniform(-1, 2, 20), *scores[:20], 3.0):
            found = histogram.operating_point(threshold)
            true = verification.operating_point(same, scores, threshold)
            for rate, bound in zip(("fmr", "fnmr"), counts, strict=True):
                more = getattr(found, rate) - getattr(true, rate)
                assert -1e-12 <= more <= (bound if tail == 20 else 1e-12)


def test_merging_keeps_distances_apart(embeddings, valid):
    one = ScoreHistogram(-2, 0, distance="cosine")
    total = ScoreHistogram(-2, 0) + one
    assert total.has_distance(ks.distances.get("cosine")) and not total.has_distance(ks.distances.get("euclidean"))
    with pytest.raises(ValueError, match=r"`other` must have scores of CosineDistance\(\); got those of Eucl"):
        one.merge(ScoreHistogram(-2, 0, distance="euclidean"))
