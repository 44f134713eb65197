"""Open-set identification against a loop over searches: FPIR, FNIR, thresholds, ranks and bad input."""

import numpy as np
import pytest

from keras_siamese.verification import evaluate_open_set


def searches(rng, people=40, strangers=60, dim=8):
    """Two enrolled samples of each of `people`, two searches of each, and one search of each stranger."""
    centres = rng.normal(size=(people + strangers, dim))
    gallery_labels = np.repeat(np.arange(people), 2)
    labels = np.concatenate([gallery_labels, np.arange(people, people + strangers)])
    return (
        centres[labels] + 0.7 * rng.normal(size=(len(labels), dim)),
        labels,
        centres[gallery_labels] + 0.7 * rng.normal(size=(len(gallery_labels), dim)),
        gallery_labels,
    )


def by_loop(probes, labels, gallery, gallery_labels, rank, threshold):
    """FPIR and FNIR of searches one by one."""
    false_positives, false_negatives, mated, non_mated = 0, 0, 0, 0
    for probe, label in zip(probes, labels, strict=True):
        distances = [float(np.linalg.norm(probe - one)) for one in gallery]
        candidates = sorted(range(len(gallery)), key=lambda row: distances[row])[:rank]
        returned = [row for row in candidates if -distances[row] >= threshold]
        if label in gallery_labels:
            mated += 1
            false_negatives += all(gallery_labels[row] != label for row in returned)
        else:
            non_mated += 1
            false_positives += bool(returned)
    return false_positives / non_mated, false_negatives / mated


@pytest.mark.each_backend
@pytest.mark.parametrize("rank", [1, 3])
def test_the_rates_are_those_of_a_loop(rng, rank):
    given = searches(rng)
    found = evaluate_open_set(*given, rank=rank, fpir=(0.3, 0.1, 0.01), distance="euclidean")
    assert (found.mated, found.non_mated, found.enrolled, found.enrolled_identities) == (80, 60, 80, 40)
    fpir, fnir, thresholds = found.curve()
    for at in np.linspace(1, len(thresholds) - 1, 12).astype(int):
        between = (thresholds[at] + thresholds[at - 1]) / 2 if at > 1 else thresholds[at] + 1e-6
        expected = pytest.approx(by_loop(*given, rank, between))
        assert found.at(between) == expected and (fpir[at - 1], fnir[at - 1]) == expected
    expected = pytest.approx(by_loop(*given, rank, -1e9))
    assert found.at(-1e9) == expected and (1, found.missed) == expected
    third, tenth, hundredth = found.figures
    assert (
        third.fnir == pytest.approx(min(fnir[fpir <= 0.3])) and third.interval.low <= third.fnir <= third.interval.high
    )
    assert found.at(third.threshold) == pytest.approx((max(fpir[fpir <= 0.3]), third.fnir))
    assert tenth.mark == "uncertain" and hundredth.fnir is None and hundredth.shown_from == 300
    assert "withheld" in str(found) and f"rank {rank}\n" in str(found)


def test_a_larger_gallery_gives_more_false_positives(rng):
    probes, labels, gallery, gallery_labels = searches(rng, people=60)
    whole = evaluate_open_set(probes, labels, gallery, gallery_labels, distance="euclidean")
    half = gallery_labels < 30
    kept = (labels < 30) | (labels >= 60)
    part = evaluate_open_set(probes[kept], labels[kept], gallery[half], gallery_labels[half], distance="euclidean")
    threshold = np.median(whole.scores)
    assert whole.at(threshold)[0] > part.at(threshold)[0]


def test_without_an_error_and_with_text_labels():
    gallery, probes = np.eye(3), np.concatenate([np.eye(3), np.full((40, 3), -1.0)])
    labels = np.array(["ada", "bo", "cy"] + ["x"] * 40)
    found = evaluate_open_set(probes, labels, gallery, labels[:3], fpir=0.2)
    assert found.missed == 0 and found.figures[0].fnir == 0 and found.figures[0].mark == "uncertain"
    assert found.at(0.0) == (0.0, 0.0) and found.curve()[1].min() == 0


def test_the_curve_is_drawn_with_its_names(rng):
    figures = pytest.importorskip("matplotlib.figure")
    found = evaluate_open_set(*searches(rng, people=80, strangers=400), distance="euclidean")
    axes = found.plot(figures.Figure().subplots())
    assert "FPIR = FNIR" in {text.get_text() for text in axes.get_legend().texts}
    assert "false positive identification" in axes.get_xlabel() and "<table>" in found._repr_html_()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fpir": 1.0}, r"`fpir` must be in \(0, 1\)"),
        ({"rank": 0}, "`rank` must be from 1 to 80"),
        ({"gallery": None}, "`gallery` must be the embeddings of the enrolled"),
        ({"gallery": np.ones((80, 3))}, "dimension of `probes`"),
        ({"probe_labels": np.zeros(140, int)}, "140 of 140 searches are mated"),
        ({"probe_labels": np.full(140, 999)}, "`probe_labels` must give at least one query a mate"),
        ({"probe_labels": np.zeros(3, int)}, "`probe_labels` must have one entry"),
    ],
)
def test_mistakes_are_named(rng, change, message):
    given = dict(zip(("probes", "probe_labels", "gallery", "gallery_labels"), searches(rng), strict=True))
    with pytest.raises(ValueError, match=message):
        evaluate_open_set(**given | change)
