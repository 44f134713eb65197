"""Streaming metrics: the figures of `verification`, batch by batch, on each backend, weighted, merged and saved."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_siamese import metrics, verification
from keras_siamese.layers import SiameseWrapper
from keras_siamese.losses import ContrastiveLoss

KINDS = {
    "eer": (metrics.EqualErrorRate, verification.eer),
    "auc": (metrics.VerificationAUC, verification.auc),
    "tar": (lambda **k: metrics.TARAtFAR(0.1, **k), lambda same, scores: verification.tar_at_far(same, scores, 0.1)),
    "best": (metrics.BestVerificationAccuracy, lambda same, scores: balanced_best(same, scores)),
}
# Which way of compiling takes less time here; PyTorch's needs a C++ toolchain, and is not tested.
FASTER = keras.backend.backend() == "jax"
XLA = [pytest.mark.tensorflow, pytest.mark.jax]
every_kind = pytest.mark.parametrize("kind", KINDS)


def balanced_best(same, scores):
    """The best balanced accuracy, by trying every threshold."""
    tried = [*scores, np.inf]
    return max(((scores[same] >= t).mean() + (scores[~same] < t).mean()) / 2 for t in tried)


def pairs(n=600, seed=0, decimals=2):
    """Labels and distances `(n,)`, on a grid so coarse that no two of its values share a bin."""
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.3
    return same, np.round(np.abs(rng.normal(size=n) * 0.4 + 1.2 - 0.6 * same), decimals).astype("float32")


def streamed(metric, same, output, size=100, weights=None):
    for start in range(0, len(same), size):
        rows = slice(start, start + size)
        weight = None if weights is None else weights[rows]
        metric.update_state(same[rows].astype("float32"), output[rows, None], weight)
    return float(metric.result())


@pytest.mark.each_backend
@every_kind
@pytest.mark.parametrize("output", ["distance", "score"])
def test_is_the_figure_of_all_pairs_at_once(kind, output):
    make, exact = KINDS[kind]
    same, distance = pairs()
    given = distance if output == "distance" else 1 / (1 + distance)
    found = streamed(make(output=output), same, given)
    assert found == pytest.approx(exact(same, -distance), abs=1e-5)
    assert 0.02 < found < 0.98
    # Taken for the other kind, the same numbers are worse than chance: the sign matters.
    wrong = streamed(make(output="score" if output == "distance" else "distance"), same, given)
    assert (wrong > 0.5) if kind == "eer" else (wrong < found)


@every_kind
@pytest.mark.parametrize("bins", [50, 400])
def test_few_bins_err_by_no_more_than_stated(kind, bins):
    make, exact = KINDS[kind]
    same, distance = pairs(n=5000, seed=1, decimals=6)
    metric = make(bins=bins)
    error = abs(streamed(metric, same, distance) - exact(same, -distance))
    z = (-distance - float(metric.centre)) / float(metric.scale)
    place = np.floor((0.5 + 0.5 * z / (1 + np.abs(z))) * (bins - 1) + 0.25).astype(int)
    genuine, impostor = (np.bincount(place[kind], minlength=bins) / kind.sum() for kind in (same, ~same))
    bound = 0.5 * np.sum(genuine * impostor) if kind == "auc" else np.max(genuine + impostor)
    assert 0 < error <= bound + 1e-5


SCALES = [*(10.0 ** np.arange(-6, 7)).tolist(), 1e-30, 1e30]


@every_kind
def test_the_unit_and_the_zero_of_the_outputs_do_not_matter(kind):
    """Float32 has 24 bits, so 1,000 units of shift leave each output 14 bits: as many as there are bins."""
    make, exact = KINDS[kind]
    same, distance = pairs(n=3000, decimals=6)
    for scale in SCALES:
        for shift in (0.0, 60.0, -1000.0):
            given = ((distance + shift) * scale).astype("float32")
            found = streamed(make(), same, given, size=1000)
            # All pairs of a bin are ties, so figures err by single pairs.
            assert found == pytest.approx(exact(same, -given), abs=2e-3), (scale, shift)


@every_kind
@pytest.mark.parametrize("size", [7, 100])
def test_later_batches_may_be_unlike_the_first(kind, size):
    """Sorted outputs: each batch lies beside those before; then outliers, a constant first batch, and small ones."""
    make, exact = KINDS[kind]
    same, distance = pairs(n=1000, decimals=5)
    order, place = np.argsort(distance), np.arange(1000)
    cases = {
        "sorted": (same[order], distance[order]),
        "sorted the other way": (same[order][::-1], distance[order][::-1]),
        "outliers": (same, np.where(place % 100 == 99, distance * 1e6, distance)),
        "equal outputs first": (same, np.where(place < 100, 0.5, distance)),
        "outliers first": (same, np.where(place < size, distance * 1e6, distance)),
    }
    for case, (labels, given) in cases.items():
        given = given.astype("float32")
        found = streamed(make(), labels, given, size)
        assert found == pytest.approx(exact(labels, -given), abs=5e-3), case


@every_kind
def test_bins_that_are_chosen_anew_keep_what_was_counted(kind):
    make, exact = KINDS[kind]
    same, distance = pairs()
    metric = make()
    scales = []
    for factor in (0.1, 1.0, 8.0):
        streamed(metric, same, distance * np.float32(factor))
        scales.append(float(metric.scale))
    assert scales[2] > 4 * scales[1] > 16 * scales[0]
    given = np.concatenate([distance * np.float32(factor) for factor in (0.1, 1.0, 8.0)])
    assert float(metric.result()) == pytest.approx(exact(np.tile(same, 3), -given), abs=5e-3)


@pytest.mark.each_backend
@every_kind
def test_weights_count_as_repetitions(kind):
    make, _ = KINDS[kind]
    same, distance = pairs()
    weights = np.random.default_rng(2).integers(0, 4, len(same))
    weighted = streamed(make(), same, distance, weights=weights.astype("float32"))
    assert weighted == pytest.approx(streamed(make(), np.repeat(same, weights), np.repeat(distance, weights)), abs=1e-5)
    column = streamed(make(), same, distance, weights=weights[:, None].astype("float32"))
    assert column == weighted
    assert abs(weighted - streamed(make(), same, distance)) > 1e-4


@every_kind
@pytest.mark.parametrize("similar_label", [0, 1])
def test_other_labels_of_the_same_pairs_give_the_same(kind, similar_label):
    make, exact = KINDS[kind]
    same, distance = pairs()
    found = streamed(make(similar_label=similar_label), same if similar_label == 1 else ~same, distance)
    assert found == pytest.approx(exact(same, -distance), abs=1e-5)


@pytest.mark.each_backend
@pytest.mark.parametrize(("output", "weights"), [("float32", "float64"), ("float64", "float32"), ("float32", "int64")])
def test_weights_may_be_of_another_type_than_the_output(output, weights):
    metric = metrics.VerificationAUC()
    metric.update_state([1, 0, 1, 0], np.array([[0.2], [0.9], [0.5], [0.4]], output), np.array([1, 1, 1, 2], weights))
    assert float(metric.result()) == pytest.approx(4 / 6)


@pytest.mark.each_backend
@every_kind
def test_merged_parts_are_the_whole(kind):
    make, _ = KINDS[kind]
    same, distance = pairs()
    parts = [make(), make(), make()]
    for part, rows in zip(parts, np.array_split(np.arange(len(same)), 3), strict=True):
        streamed(part, same[rows], distance[rows])
    parts[0].merge_state(parts[1:])
    assert float(parts[0].result()) == pytest.approx(streamed(make(), same, distance), abs=1e-6)


@pytest.mark.each_backend
def test_keras_finds_the_direction_of_a_metric():
    """EarlyStopping without `mode` looks for it."""
    rng = np.random.default_rng(0)
    left, right, same = *rng.normal(size=(2, 40, 3)).astype("float32"), rng.random(40) < 0.5
    siamese = SiameseWrapper(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))
    makers = [metrics.EqualErrorRate, metrics.VerificationAUC, metrics.TARAtFAR, metrics.BestVerificationAccuracy]
    watched = [make() for make in makers] + [metrics.VerificationAccuracy(0.5)]
    siamese.compile("sgd", loss=ContrastiveLoss(), metrics=watched)
    stops = [keras.callbacks.EarlyStopping(f"val_{metric.name}") for metric in watched]
    data = (left, right), same.astype("float32")
    siamese.fit(*data, validation_data=data, verbose=0, callbacks=stops)
    lower = [bool(stop.monitor_op(1.0, 2.0)) for stop in stops]
    assert lower == [True, False, False, False, False]


def test_other_metrics_are_not_merged():
    metric = metrics.EqualErrorRate(bins=10)
    for other in (
        metrics.EqualErrorRate(bins=20),
        metrics.VerificationAUC(bins=10),
        metrics.EqualErrorRate(10, "score"),
    ):
        with pytest.raises(ValueError, match="`metrics` must be of class EqualErrorRate with the options"):
            metric.merge_state([other])


@every_kind
def test_reset_forgets(kind):
    make, exact = KINDS[kind]
    metric = make()
    streamed(metric, *pairs(seed=3))
    metric.reset_state()
    assert np.isnan(float(metric.result()))
    same, distance = pairs()
    assert streamed(metric, same, distance) == pytest.approx(exact(same, -distance), abs=1e-5)


@pytest.mark.each_backend
@every_kind
def test_one_class_nan_outputs_and_strange_labels_give_nan(kind):
    make, _ = KINDS[kind]
    for labels, output in (
        ([1.0, 1.0], [0.2, 0.3]),
        ([0.0, 0.0], [0.2, 0.3]),
        ([1.0, 0.0, 0.0], [0.2, np.nan, 0.4]),
        ([1.0, 0.0, 1.0], [0.2, 0.3, np.inf]),
        ([1.0, 0.0, 2.0], [0.2, 0.3, 0.4]),
    ):
        metric = make()
        metric.update_state(np.array(labels, "float32"), np.array(output, "float32")[:, None])
        assert np.isnan(float(metric.result())), (labels, output)


@every_kind
def test_degenerate_scores(kind):
    make, exact = KINDS[kind]
    same = np.array([True, True, False, False])
    for distance in ([1, 1, 1, 1], [0, 0, 5, 5], [5, 5, 0, 0], [-2, -1, 1e6, 1e-6]):
        distance = np.array(distance, "float32")
        assert streamed(make(), same, distance) == pytest.approx(exact(same, -distance), abs=1e-6), distance


@pytest.mark.each_backend
def test_accuracy_is_exact_at_its_threshold():
    same, distance = pairs()
    threshold = float(distance[5])  # a pair on the threshold is accepted
    found = streamed(metrics.VerificationAccuracy(threshold), same, distance)
    assert found == pytest.approx(np.mean((distance <= np.float32(threshold)) == same), abs=1e-6)
    assert found == pytest.approx(verification.accuracy_at(same, -distance, -threshold), abs=1e-6)
    score = streamed(metrics.VerificationAccuracy(-threshold, output="score"), same, -distance)
    assert score == found
    weights = np.random.default_rng(4).random(len(same)).astype("float32")
    weighted = streamed(metrics.VerificationAccuracy(threshold), same, distance, weights=weights)
    assert weighted == pytest.approx(np.average((distance <= np.float32(threshold)) == same, weights=weights), abs=1e-5)
    assert np.isnan(float(metrics.VerificationAccuracy(1.0).result()))


@pytest.mark.each_backend
@every_kind
def test_states_can_be_kept_outside(kind):
    """JAX's training step keeps the states outside the metric."""
    make, exact = KINDS[kind]
    metric = make()
    same, distance = pairs()
    state = metric.stateless_reset_state()
    for rows in np.array_split(np.arange(len(same)), 4):
        state = metric.stateless_update_state(state, same[rows].astype("float32"), distance[rows, None])
    assert float(metric.stateless_result(state)) == pytest.approx(exact(same, -distance), abs=1e-5)
    assert np.isnan(float(metric.result()))


@pytest.mark.each_backend
@pytest.mark.parametrize("head", [None, pytest.param("logistic", marks=pytest.mark.deep)])
@pytest.mark.parametrize("jit", [FASTER, pytest.param(not FASTER, marks=[pytest.mark.deep, *XLA])])
def test_evaluate_gives_the_figures_of_predict(head, jit):
    rng = np.random.default_rng(5)
    left, right = rng.normal(size=(2, 150, 4)).astype("float32")
    same = rng.random(150) < 0.4
    right[same] = left[same] + 0.6 * right[same]
    siamese = SiameseWrapper(keras.Sequential([keras.Input((4,)), layers.Dense(3)]), head=head)
    output = "distance" if head is None else "score"
    watched = [make(output=output, name=name) for name, (make, _) in KINDS.items()]
    loss = ContrastiveLoss() if head is None else "binary_crossentropy"
    siamese.compile("sgd", loss=loss, metrics=watched, jit_compile=jit)
    found = siamese.evaluate((left, right), same.astype("float32"), batch_size=32, verbose=0, return_dict=True)
    predicted = np.asarray(siamese.predict((left, right), verbose=0))[:, 0]
    scores = -predicted if head is None else predicted
    for name, (_, exact) in KINDS.items():
        assert found[name] == pytest.approx(exact(same, scores), abs=0.02), name
    history = siamese.fit((left, right), same.astype("float32"), batch_size=32, epochs=2, verbose=0).history
    assert all(np.isfinite(history[name]).all() for name in KINDS)


@pytest.mark.each_backend
def test_half_precision_outputs_are_read_in_float32():
    same, distance = pairs(decimals=1)
    expected = streamed(metrics.EqualErrorRate(), same, distance.astype("float16").astype("float32"))
    metric = metrics.EqualErrorRate()
    metric.update_state(ops.cast(same, "float16"), ops.cast(distance[:, None], "float16"))
    assert float(metric.result()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.EqualErrorRate(bins=1), "`bins` must be at least 2; got 1"),
        (lambda: metrics.EqualErrorRate(output="logit"), "`output` must be one of 'distance', 'score'; got 'logit'"),
        (lambda: metrics.TARAtFAR(0.0), r"`far` must be in \(0, 1\); got 0.0"),
        (lambda: metrics.VerificationAUC(similar_label=-1), "`similar_label` must be one of 0, 1; got -1"),
        (lambda: metrics.VerificationAccuracy(float("nan")), "`threshold` must be in"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"must have one row for each pair; got \(3,\) and \(2,\)"):
        metrics.EqualErrorRate().update_state(np.ones(3), np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"`y_pred` must have shape \(batch,\) or \(batch, 1\)"):
        metrics.EqualErrorRate().update_state(np.ones(3), np.ones((3, 2)))
