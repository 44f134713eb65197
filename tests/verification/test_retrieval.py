"""Retrieval against loops over sorted (distance, row), against pytorch-metric-learning, and where distances tie."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_siamese import distances
from keras_siamese.verification.retrieval import cmc, evaluate_retrieval, map_at_r, r_precision, recall_at_k
from tests.oracles.retrieval import cosine, euclidean, figures, ranked_hits
from tests.support.retrievals import (
    assert_same,
    compare,
    every_distance,
    grid_embeddings,
    random_embeddings,
    with_and_without_gallery,
)

# --- against the loops


@every_distance
@with_and_without_gallery
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.deep) for seed in range(1, 4))])
def test_all_figures(seed, gallery, distance):
    found = compare(*random_embeddings(seed, gallery), distance=distance)
    assert 0 < found.map_at_r < found.r_precision < 1
    assert found.without_mate > 0


@every_distance
@with_and_without_gallery
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.deep) for seed in range(1, 4))])
def test_all_figures_where_distances_tie(seed, gallery, distance):
    compare(*grid_embeddings(seed, gallery, distance), distance=distance)


@with_and_without_gallery
def test_single_functions_read_the_same_figures(gallery):
    embeddings, labels, *rest = random_embeddings(1, gallery)
    options = dict(zip(("gallery", "gallery_labels"), rest, strict=True))
    found = evaluate_retrieval(embeddings, labels, k=[1, 3], max_rank=7, **options)
    recalls = recall_at_k(embeddings, labels, [3, 1], **options)
    assert recalls.tolist() == [found.recall[3], found.recall[1]]
    assert recall_at_k(embeddings, labels, **options) == found.recall[1]
    assert r_precision(embeddings, labels, **options) == found.r_precision
    assert map_at_r(embeddings, labels, **options) == found.map_at_r
    assert cmc(embeddings, labels, max_rank=7, **options).tolist() == found.cmc.tolist()
    single = (recall_at_k(embeddings, labels, 2, **options), r_precision(embeddings, labels, **options))
    assert [type(value) for value in single] == [float, float]


def test_ranks_up_to_the_last():
    embeddings, labels, *_ = random_embeddings(2, gallery=False)
    size = len(labels) - 1
    found = compare(embeddings, labels, distance="cosine", ks=(1, size), max_rank=size)
    assert found.recall[size] == found.cmc[-1] == 1
    probes, probe_labels, gallery, gallery_labels = random_embeddings(2, gallery=True)
    size = len(gallery)
    assert cmc(probes, probe_labels, max_rank=size, gallery=gallery, gallery_labels=gallery_labels)[-1] == 1


@with_and_without_gallery
def test_the_loops_reject_a_query_among_its_own_neighbours(gallery):
    data = random_embeddings(0, gallery)
    broken = figures(ranked_hits(*data, cosine, exclude_self=False), (1,), 3)
    found = evaluate_retrieval(*data[:2], k=1, max_rank=3, gallery=data[2], gallery_labels=data[3])
    if gallery:  # where nothing is left out
        assert_same(found, broken)
    else:
        with pytest.raises(AssertionError):
            assert_same(found, broken)


def test_the_loops_reject_ties_broken_by_the_higher_row():
    embeddings, labels, *_ = grid_embeddings(0, gallery=False, distance="euclidean")
    flipped = evaluate_retrieval(embeddings[::-1], labels[::-1], k=1, max_rank=3, distance="euclidean")
    with pytest.raises(AssertionError):
        assert_same(flipped, figures(ranked_hits(embeddings, labels, None, None, euclidean), (1,), 3))


@with_and_without_gallery
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.deep) for seed in range(1, 3))])
def test_pytorch_metric_learning_agrees(seed, gallery, distance):
    calculators = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    inference = pytest.importorskip("pytorch_metric_learning.utils.inference")
    peers = pytest.importorskip("pytorch_metric_learning.distances")
    peer = peers.CosineSimilarity() if distance == "cosine" else peers.LpDistance(normalize_embeddings=False)
    calculator = calculators.AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        knn_func=inference.CustomKNN(peer),
        kmeans_func=lambda *_: None,
    )
    embeddings, labels, others, other_labels = random_embeddings(seed, gallery)
    expected = calculator.get_accuracy(embeddings, labels, others, other_labels)
    options = {"gallery": others, "gallery_labels": other_labels, "distance": distance}
    found = evaluate_retrieval(embeddings, labels, **options)
    assert found.recall[1] == pytest.approx(expected["precision_at_1"], abs=1e-6)
    assert found.r_precision == pytest.approx(expected["r_precision"], abs=1e-6)
    assert found.map_at_r == pytest.approx(expected["mean_average_precision_at_r"], abs=1e-6)


# --- by hand, and defined edges


def test_perfect():
    embeddings, labels = np.repeat(np.eye(4), [2, 3, 4, 5], axis=0), np.repeat(list("abcd"), [2, 3, 4, 5])
    found = evaluate_retrieval(embeddings, labels, max_rank=3)
    assert found.recall == {1: 1.0, 5: 1.0, 10: 1.0}
    assert (found.r_precision, found.map_at_r, found.cmc.tolist()) == (1.0, 1.0, [1.0, 1.0, 1.0])


def test_worst():
    embeddings, labels = [[0.0], [0.1], [50.0], [50.2]], [0, 1, 0, 1]
    found = evaluate_retrieval(embeddings, labels, k=(1, 2, 3), max_rank=3, distance="euclidean")
    # 0.1 is nearer to 50 than 0 is, and 50 to 0.1 than 50.2 is: each query's last but one or last is its mate.
    assert found.recall == {1: 0.0, 2: 0.5, 3: 1.0}
    assert (found.r_precision, found.map_at_r, found.cmc.tolist()) == (0.0, 0.0, [0.0, 0.5, 1.0])


def test_by_hand():
    """Query 0 on a line with mates at 1 and 3, others at 2 and 9: hits 1, 0, 1, 0."""
    options = {"gallery": [[9.0], [3.0], [2.0], [1.0]], "gallery_labels": [5, 4, 5, 4], "distance": "euclidean"}
    found = evaluate_retrieval([[0.0]], [4], k=1, max_rank=4, **options)
    assert (found.recall, found.r_precision, found.map_at_r) == ({1: 1.0}, 0.5, 0.5)
    found = evaluate_retrieval([[2.0]], [4], k=1, max_rank=4, **options)  # 2 (0), 3 before 1 (both 1), 9
    assert (found.recall, found.r_precision, found.map_at_r) == ({1: 0.0}, 0.5, 0.25)


@every_distance
def test_identical_embeddings_rank_by_row(distance):
    labels = [3, 1, 1, 2, 3, 3, 1]
    found = compare(np.full((7, 5), 0.3, np.float32), labels, distance=distance, loop=lambda a, b: 0)
    # The nearest is row 0, of identity 3, to all but itself: right for the two others of that identity.
    assert (found.queries, found.without_mate, found.recall[1]) == (6, 1, 2 / 6)
    gallery = {"gallery": np.full((3, 5), 0.3, np.float32), "gallery_labels": [8, 1, 3], "distance": distance}
    found = evaluate_retrieval(np.full((7, 5), 0.3, np.float32), labels, k=1, max_rank=3, **gallery)
    assert found.cmc.tolist() == [0.0, 0.5, 1.0]


def test_queries_without_a_mate_are_left_out_and_counted():
    embeddings = [[0.0], [0.1], [0.05], [7.0]]
    found = evaluate_retrieval(embeddings, ["ann", "ann", "bob", "cy"], k=(1, 2), max_rank=2, distance="euclidean")
    assert (found.queries, found.without_mate, found.gallery) == (2, 2, 3)
    assert found.recall == {1: 0.0, 2: 1.0}  # bob between the two
    assert "2 queries among 3 embeddings each; 2 without a mate left out" in str(found)
    # The same faces as a gallery: bob is there, and finds itself.
    options = {"gallery": embeddings[:3], "gallery_labels": ["ann", "ann", "bob"], "k": 1, "max_rank": 1}
    found = evaluate_retrieval(embeddings, ["ann", "ann", "bob", "cy"], distance="euclidean", **options)
    assert (found.queries, found.without_mate, found.gallery, found.recall) == (3, 1, 3, {1: 1.0})


def test_table():
    lines = str(evaluate_retrieval([[0.0], [1.0], [3.0], [4.5], [9.0]], list("aabab"), k=[2, 4], max_rank=1)).split(
        "\n"
    )
    assert lines[0] == "Retrieval of 5 queries among 4 embeddings each"
    assert [line.split()[0] for line in lines[1:]] == ["recall@2", "recall@4", "R-precision", "MAP@R"]


# --- other distances


def test_of_an_asymmetric_distance_the_query_comes_first():
    data = random_embeddings(3, gallery=True)

    def snr(a, b):
        return np.var(np.subtract(a, b)) / np.var(a)

    compare(*data, distance="snr", loop=snr)
    backward = evaluate_retrieval(*data[:2], gallery=data[2], gallery_labels=data[3], distance=lambda a, b: b[:, 0])
    forward = figures(ranked_hits(*data, lambda a, b: b[0]), (1,), 6)
    assert backward.map_at_r == pytest.approx(forward["map_at_r"], abs=1e-12)


def test_names_instances_configs_and_learned_distances():
    embeddings, labels, *_ = random_embeddings(3, gallery=False)
    expected = map_at_r(embeddings, labels, distance="euclidean")
    learned = distances.get("mahalanobis")
    learned.build((None, 5))
    config = keras.saving.serialize_keras_object(distances.get("euclidean"))
    for distance in (distances.EuclideanDistance(), config, "squared_euclidean", "minkowski", learned):
        assert map_at_r(embeddings, labels, distance=distance) == pytest.approx(expected, abs=1e-12)
    assert map_at_r(embeddings, labels, distance="angular") == map_at_r(embeddings, labels)
    assert map_at_r(embeddings, labels, distance="manhattan") != pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("convert", [np.float16, np.float64, pytest.param("bfloat16", marks=pytest.mark.each_backend)])
@every_distance
def test_other_dtypes(convert, distance):
    embeddings, labels, *_ = random_embeddings(3, gallery=False)
    embeddings = keras.ops.convert_to_tensor(embeddings, "bfloat16") if convert == "bfloat16" else convert(embeddings)
    # Compared as the numbers that they hold.
    wide = keras.ops.convert_to_numpy(keras.ops.cast(embeddings, "float32"))
    if convert == "bfloat16" and keras.backend.backend() == "torch":
        embeddings = wide  # torch gives NumPy no bfloat16
    assert map_at_r(embeddings, labels, distance=distance) == map_at_r(wide, labels, distance=distance)


def test_integers_are_embeddings():
    assert recall_at_k([[0], [1], [5], [7]], [0, 0, 1, 1], distance="euclidean") == 1.0


def test_progress(capsys):
    embeddings, labels, *_ = random_embeddings(3, gallery=False)
    evaluate_retrieval(embeddings, labels)
    assert capsys.readouterr().out == ""
    evaluate_retrieval(embeddings, labels, progress=True)
    assert "42/42" in capsys.readouterr().out


# --- properties


@st.composite
def clouds(draw):
    labels = np.array(draw(st.lists(st.integers(0, 5), min_size=13, max_size=25)))
    labels[:2] = 9
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.normal(size=(len(labels), 4)) + 0.3, labels, rng


def everything(found):
    return [*found.recall.values(), found.r_precision, found.map_at_r, *found.cmc, found.queries, found.without_mate]


@settings(deadline=None, max_examples=20)
@given(clouds(), st.sampled_from(["cosine", "euclidean"]))
def test_the_order_of_the_rows_does_not_matter_without_ties(cloud, distance):
    embeddings, labels, rng = cloud
    expected = evaluate_retrieval(embeddings, labels, max_rank=12, distance=distance)
    order = rng.permutation(len(labels))
    found = evaluate_retrieval(embeddings[order], labels[order], max_rank=12, distance=distance)
    np.testing.assert_allclose(everything(found), everything(expected), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(clouds())
def test_the_cosine_ignores_norms(cloud):
    embeddings, labels, rng = cloud
    expected = evaluate_retrieval(embeddings, labels, max_rank=12)
    scaled = embeddings * 10.0 ** rng.integers(-3, 4, (len(labels), 1))
    assert everything(evaluate_retrieval(scaled, labels, max_rank=12)) == everything(expected)


@settings(deadline=None, max_examples=20)
@given(clouds(), st.floats(-100, 100), st.sampled_from([-0.01, 0.5, 30.0]))
def test_the_euclidean_distance_ignores_place_and_scale(cloud, shift, scale):
    embeddings, labels, _ = cloud
    expected = evaluate_retrieval(embeddings, labels, max_rank=12, distance="euclidean")
    moved = evaluate_retrieval(scale * embeddings + shift, labels, max_rank=12, distance="euclidean")
    assert everything(moved) == everything(expected)


# --- what is refused

GOOD = {"embeddings": np.eye(4), "labels": [0, 0, 1, 1]}
GALLERY = {"gallery": np.eye(5, 4), "gallery_labels": [0, 1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": np.ones(4)}, r"`embeddings` must have shape \(n, dim\).*got shape \(4,\)"),
        ({"embeddings": np.ones((0, 4)), "labels": []}, r"`embeddings` must have shape.*got shape \(0, 4\)"),
        ({"embeddings": np.ones((4, 0))}, r"`embeddings` must have shape.*got shape \(4, 0\)"),
        ({"embeddings": np.where(np.eye(4), np.nan, 1)}, "`embeddings` must be finite; 4 of its 16 values"),
        ({"labels": [0, 0, 1]}, "`labels` must have one entry for each of the 4 samples; got 3"),
        ({"labels": [0, 0, 1, np.nan]}, "`labels` must be finite"),
        ({"labels": list("abcd")}, "`labels` must give.*got 4 queries of 4 identities, none.*among each other"),
        ({"labels": [8, 8, 9, 9], **GALLERY}, "4 queries of 2 identities, none .* the gallery's 5 of 5 identities"),
        ({"gallery": np.eye(5, 4)}, "`gallery_labels` must be given if `gallery` is; got None"),
        ({"gallery_labels": [0]}, "`gallery` must be given if `gallery_labels` is; got None"),
        ({**GALLERY, "gallery": np.eye(5, 3)}, r"`gallery` must have the dimension.*\(5, 3\) and \(4, 4\)"),
        ({**GALLERY, "gallery": np.full((5, 4), np.inf)}, "`gallery` must be finite; 20 of its 20 values"),
        (
            {**GALLERY, "gallery_labels": [0, 1]},
            "`gallery_labels` must have one entry for each of the 5 samples; got 2",
        ),
        ({**GALLERY, "gallery_labels": list("abcde")}, "`labels` and `gallery_labels` must both be"),
        ({"distance": "cosinus"}, "`distance` must be one of 'euclidean'.*got 'cosinus'"),
        ({"distance": lambda a, b: a[:, 0] / 0.0}, "`distance` must be finite"),
    ],
)
def test_refused(change, message):
    with pytest.raises(ValueError, match=message):
        evaluate_retrieval(**{**GOOD, "k": 1, "max_rank": 1, **change})


@pytest.mark.parametrize("function", [recall_at_k, cmc, r_precision, map_at_r])
def test_single_functions_refuse_the_same(function):
    options = {"max_rank": 1} if function is cmc else {}
    with pytest.raises(ValueError, match="`embeddings` must be finite; 4 of its 16 values"):
        function(**{**GOOD, **options, "embeddings": np.where(np.eye(4), np.nan, 1)})
    with pytest.raises(ValueError, match="`distance` must be one of 'euclidean'.*got 'cosinus'"):
        function(**{**GOOD, **options, "distance": "cosinus"})


@pytest.mark.parametrize("rank", [0, 4, -1])
def test_ranks_out_of_range(rank):
    message = f"must be from 1 to 3, the number of embeddings that a query is compared with; got {rank}"
    with pytest.raises(ValueError, match=f"`k` {message}"):
        recall_at_k(**GOOD, k=rank)
    with pytest.raises(ValueError, match=f"`k` {message}"):
        evaluate_retrieval(**GOOD, k=(1, rank), max_rank=1)
    with pytest.raises(ValueError, match=f"`max_rank` {message}"):
        evaluate_retrieval(**GOOD, k=1, max_rank=rank)
    with pytest.raises(ValueError, match=f"`max_rank` {message}"):
        cmc(**GOOD, max_rank=rank)
    assert recall_at_k(**GOOD, **GALLERY, k=5) == 1.0


@pytest.mark.parametrize("rank", [1.5, True, "1", None])
def test_ranks_that_are_no_integers(rank):
    with pytest.raises(TypeError, match="`k` must be an integer"):
        recall_at_k(**GOOD, k=rank)


def test_embeddings_that_are_no_real_numbers():
    with pytest.raises(TypeError, match="`embeddings` must be real numbers; got dtype complex128"):
        map_at_r(np.eye(4) * 1j, [0, 0, 1, 1])


def test_the_figures_cannot_be_changed():
    found = evaluate_retrieval(**GOOD, k=1, max_rank=1)
    with pytest.raises(AttributeError):
        found.map_at_r = 1.0
