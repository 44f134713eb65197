"""Retrieval against loops over sorted (distance, row), against pytorch-metric-learning, and where distances tie."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_siamese import distances
from keras_siamese.verification import neighbours
from keras_siamese.verification.retrieval import cmc, evaluate_retrieval, map_at_r, r_precision, recall_at_k
from tests.oracles.retrieval import DISTANCES, cosine, euclidean, figures, ranked_hits


def assert_same(found, expected):
    assert found.recall == pytest.approx(expected["recall"], abs=1e-12)
    assert found.r_precision == pytest.approx(expected["r_precision"], abs=1e-12)
    assert found.map_at_r == pytest.approx(expected["map_at_r"], abs=1e-12)
    np.testing.assert_allclose(found.cmc, expected["cmc"], rtol=0, atol=1e-12)
    assert found.queries == expected["queries"]


def compare(embeddings, labels, gallery=None, gallery_labels=None, *, distance, ks=(1, 2, 5), max_rank=6, loop=None):
    loop = loop or DISTANCES[distance]
    expected = figures(ranked_hits(embeddings, labels, gallery, gallery_labels, loop), ks, max_rank)
    options = {"gallery": gallery, "gallery_labels": gallery_labels, "distance": distance}
    found = evaluate_retrieval(embeddings, labels, k=ks, max_rank=max_rank, **options)
    assert_same(found, expected)
    assert found.without_mate == len(labels) - found.queries
    return found


# --- data


def random_embeddings(seed, gallery):
    """Overlapping identities of 1 to 12 embeddings, all off centre; probes of which some have no mate."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(9), [1, 1, 2, 3, 4, 5, 7, 9, 12]))
    centres = rng.normal(size=(12, 5)) + 0.7
    embeddings = (centres[labels] + rng.normal(size=(len(labels), 5))).astype(np.float32)
    if not gallery:
        return embeddings, labels, None, None
    probe_labels = rng.integers(0, 12, 17)
    probe_labels[:2] = 11, 3
    probes = (centres[probe_labels] + rng.normal(size=(17, 5))).astype(np.float32)
    return probes, probe_labels, embeddings, labels


def grid_embeddings(seed, gallery, distance):
    """Few distinct points whose distances are exact: equal distances and identical embeddings everywhere."""
    rng = np.random.default_rng(seed)

    def draw(rows):
        # Signs have norms 1 and 2 in one and four dimensions, so that their directions are exact, too.
        return rng.choice([-1.0, 1.0], (rows, 4)) if distance == "cosine" else rng.integers(-1, 3, (rows, 3)) * 1.0

    labels = rng.integers(0, 6, 35)
    labels[:3] = 7, 1, 1
    if not gallery:
        return draw(35), labels, None, None
    probe_labels = rng.integers(0, 9, 13)
    probe_labels[0] = 1
    return draw(13), probe_labels, draw(35), labels


with_and_without_gallery = pytest.mark.parametrize("gallery", [False, True], ids=["own", "gallery"])
every_distance = pytest.mark.parametrize("distance", DISTANCES)


# --- against the loops


@every_distance
@with_and_without_gallery
@pytest.mark.parametrize("seed", range(4))
def test_all_figures(seed, gallery, distance):
    found = compare(*random_embeddings(seed, gallery), distance=distance)
    assert 0 < found.map_at_r < found.r_precision < 1
    assert found.without_mate > 0


@every_distance
@with_and_without_gallery
@pytest.mark.parametrize("seed", range(4))
def test_all_figures_where_distances_tie(seed, gallery, distance):
    compare(*grid_embeddings(seed, gallery, distance), distance=distance)


@every_distance
@with_and_without_gallery
@pytest.mark.parametrize("block, candidates, values", [(1, 2**21, 2**22), (100, 40, 8), (173, 1, 1)])
def test_blocks_do_not_matter(monkeypatch, gallery, distance, block, candidates, values):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "CANDIDATES", candidates)
    monkeypatch.setattr(neighbours, "VALUES", values)
    compare(*random_embeddings(5, gallery), distance=distance)
    compare(*grid_embeddings(5, gallery, distance), distance=distance)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_more_than_one_block_of_the_size_in_use(monkeypatch, distance):
    """And so many embeddings that the nearest are sought among minima first."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 400, 900)
    embeddings = (rng.normal(size=(400, 8))[labels] + 0.6 * rng.normal(size=(900, 8))).astype(np.float32)
    whole = evaluate_retrieval(embeddings, labels, max_rank=12, distance=distance)
    exact = embeddings.astype(np.float64)
    if distance == "cosine":
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    squares = np.square(exact[:, None] - exact[None]).sum(axis=2)
    np.fill_diagonal(squares, np.inf)
    hits = (labels == labels[:, None])[np.arange(900)[:, None], np.argsort(squares, axis=1, kind="stable")[:, :-1]]
    assert_same(whole, figures([row for row in hits.tolist() if any(row)], (1, 5, 10), 12))
    monkeypatch.setattr(neighbours, "BLOCK", 100_000)
    blocks = evaluate_retrieval(embeddings, labels, max_rank=12, distance=distance)
    assert (blocks.map_at_r, blocks.recall) == (whole.map_at_r, whole.recall)


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
@pytest.mark.parametrize("seed", range(3))
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


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_identical_embeddings_tie_wherever_they_stand(distance):
    """Matrix products may round equal rows differently at the edges of their tiles; ranks may not."""
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(67, 37)).astype(np.float32)
    gallery = np.repeat(rng.normal(size=(1, 37)), 131, axis=0).astype(np.float32)
    gallery[[7, 90]] *= -1
    gallery_labels = np.arange(131)
    expected = []
    for i, query in enumerate(queries.astype(np.float64)):
        near, far = (
            (gallery[0], gallery[7])
            if euclidean(query, gallery[0]) < euclidean(query, gallery[7])
            else (
                gallery[7],
                gallery[0],
            )
        )
        assert cosine(query, near) < cosine(query, far)
        order = [j for same in (near, far) for j in range(131) if (gallery[j] == same).all()]
        expected.append(order.index(i) + 1)
    options = {"gallery": gallery, "gallery_labels": gallery_labels, "distance": distance, "max_rank": 131}
    found = cmc(queries, np.arange(67), **options)
    np.testing.assert_allclose(found, [(np.array(expected) <= r).mean() for r in range(1, 132)], rtol=0, atol=1e-12)


def test_ties_of_the_cosine_by_scaled_copies_and_by_embeddings_without_direction():
    gallery = np.array([[0, 1], [2, 0], [0, 0], [1, 0], [-1, 0], [1e-9, 0], [8, 0]], np.float32)
    for row, rank in enumerate([4, 1, 5, 2, 7, 6, 3]):
        # (1, 0): three copies of its direction by row; then, at 1, the orthogonal one and the two without direction.
        options = {"gallery": gallery, "gallery_labels": np.arange(7) == row, "max_rank": 7}
        curve = cmc([[3.0, 0.0]], [True], **options)
        assert np.argmax(curve) + 1 == rank
        # Without direction, all are at 1.
        assert np.argmax(cmc([[0.0, 1e-8]], [True], **options)) == row


@with_and_without_gallery
def test_embeddings_without_direction_have_no_nearest(gallery):
    """As when units die: half of the embeddings are 0, and rank all others by row."""
    embeddings, labels, others, other_labels = random_embeddings(6, gallery)
    embeddings[::2] = 0
    if gallery:
        others[1::3] = 0

    def cosine_or_1(a, b):
        return cosine(a, b) if any(a) and any(b) else 1

    compare(embeddings, labels, others, other_labels, distance="cosine", loop=cosine_or_1)


def test_negative_zero_is_zero():
    """So that a distance that could tell the two apart, as the angle of (−1, ±0), ties them."""
    zeros = [[0.0], [-0.0]]

    def angle(a, b):
        return 4 + keras.ops.arctan2(b[:, 0], -keras.ops.ones_like(b[:, 0]))

    for gallery in (zeros, zeros[::-1]):
        assert recall_at_k([[0.0]], [1], gallery=gallery, gallery_labels=[2, 1], distance=angle) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_near_duplicates_are_told_apart(dtype):
    """Far from the origin ‖a‖² + ‖b‖² − 2a·b in float32 has no digit left of their distances."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 8, 60)
    embeddings = (1000 + 0.01 * rng.normal(size=(60, 6)) + 0.01 * rng.normal(size=(8, 6))[labels]).astype(dtype)
    compare(embeddings, labels, distance="euclidean")
    embeddings[3], labels[3] = -1e5, 9  # one far away leaves the others their digits
    compare(embeddings, labels, distance="euclidean")
    directions = (np.eye(1, 6) + 1e-4 * rng.normal(size=(60, 6))).astype(dtype)

    def angle(a, b):
        a, b = (np.array(vector) / np.linalg.norm(vector) for vector in (a, b))
        return np.square(a - b).sum()

    compare(directions, labels, distance="cosine", loop=angle)


@pytest.mark.parametrize("exponent", [-660, -100, 100, 660])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_squares_neither_overflow_nor_underflow(distance, exponent):
    for embeddings, labels, *_ in (random_embeddings(4, False), grid_embeddings(4, False, distance)):
        scaled = np.ldexp(embeddings.astype(np.float64), exponent)
        if distance == "euclidean":
            expected = evaluate_retrieval(embeddings, labels, distance=distance)
        elif exponent > 0:
            expected = evaluate_retrieval(embeddings, labels)
        else:  # all without direction: ties by row
            expected = evaluate_retrieval(np.ones((len(labels), 1)), labels)
        found = evaluate_retrieval(scaled, labels, distance=distance)
        assert (found.map_at_r, found.cmc.tolist()) == (expected.map_at_r, expected.cmc.tolist())


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("query_scale, column_scale", [(1, 1), (1000, 1), (1, 1000)])
def test_the_bounds_hold(cosine, query_scale, column_scale):
    """Squares in extended precision lie between the bounds, but for what a query's squares share."""
    rng = np.random.default_rng(3)
    queries = query_scale * rng.normal(size=(40, 24)).astype(np.float32)
    columns = column_scale * rng.normal(size=(300, 24)).astype(np.float32)
    scores, every = neighbours._Squares(queries, columns, cosine=cosine), np.arange(40)
    low = scores.lower_bounds(every).astype(np.float64)
    slack = scores.slack(np.repeat(every, 300), np.tile(np.arange(300), 40)).reshape(40, 300)
    wide = [points.astype(np.float64) for points in (queries, columns)]
    if cosine:
        wide = [points / np.linalg.norm(points, axis=1, keepdims=True) for points in wide]
    squares = np.square(wide[0][:, None] - wide[1]).sum(axis=2)
    centre = wide[1].mean(axis=0)
    # In the unit that the bounds are in, the power of two that brings the largest coordinate below 1.
    largest = max(np.abs(points - centre).max() for points in wide)
    unit = 4.0 ** -np.ceil(np.log2(largest))
    shared = np.square(wide[0] - centre).sum(axis=1, keepdims=True)
    true = (squares - shared) * unit
    shift = scores._query_errors[:, None]
    assert (low - shift <= true).all()
    assert (true <= low - shift + slack).all()
    assert slack.max() < 1e-3


def test_few_distances_are_taken_row_by_row(monkeypatch):
    """Offset and one embedding far away cost no digits, so that few neighbours are left for the slow way."""
    taken, distances_of = [], neighbours._Squares.distances

    def counted(self, query, column):
        taken.append(len(query))
        return distances_of(self, query, column)

    monkeypatch.setattr(neighbours._Squares, "distances", counted)
    rng = np.random.default_rng(0)
    embeddings = 100 + rng.normal(size=(500, 16))
    embeddings[3] = 1000
    evaluate_retrieval(embeddings, np.arange(500) % 250, distance="euclidean")
    assert sum(taken) < 0.05 * 500 * 20


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


@pytest.mark.parametrize("convert", [np.float16, np.float64, "bfloat16"])
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


@settings(deadline=None, max_examples=40)
@given(clouds(), st.sampled_from(["cosine", "euclidean"]))
def test_the_order_of_the_rows_does_not_matter_without_ties(cloud, distance):
    embeddings, labels, rng = cloud
    expected = evaluate_retrieval(embeddings, labels, max_rank=12, distance=distance)
    order = rng.permutation(len(labels))
    found = evaluate_retrieval(embeddings[order], labels[order], max_rank=12, distance=distance)
    np.testing.assert_allclose(everything(found), everything(expected), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(clouds())
def test_the_cosine_ignores_norms(cloud):
    embeddings, labels, rng = cloud
    expected = evaluate_retrieval(embeddings, labels, max_rank=12)
    scaled = embeddings * 10.0 ** rng.integers(-3, 4, (len(labels), 1))
    assert everything(evaluate_retrieval(scaled, labels, max_rank=12)) == everything(expected)


@settings(deadline=None, max_examples=40)
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
        ({"gallery": np.eye(5, 4)}, "`gallery_labels` must be given with `gallery`; got None"),
        ({"gallery_labels": [0]}, "`gallery` must be given with `gallery_labels`; got None"),
        ({**GALLERY, "gallery": np.eye(5, 3)}, r"`gallery` must have the dimension.*\(5, 3\) and \(4, 4\)"),
        ({**GALLERY, "gallery": np.full((5, 4), np.inf)}, "`gallery` must be finite; 20 of its 20 values"),
        (
            {**GALLERY, "gallery_labels": [0, 1]},
            "`gallery_labels` must have one entry for each of the 5 samples; got 2",
        ),
        ({**GALLERY, "gallery_labels": list("abcde")}, "`labels` and `gallery_labels` must name identities alike"),
        ({"distance": "cosinus"}, "`distance` must be one of 'euclidean'.*got 'cosinus'"),
        ({"distance": lambda a, b: a[:, 0] / 0.0}, "`distance` must be finite"),
    ],
)
@pytest.mark.parametrize("function", [evaluate_retrieval, recall_at_k, cmc, r_precision, map_at_r])
def test_refused(function, change, message):
    small = {evaluate_retrieval: {"k": 1, "max_rank": 1}, cmc: {"max_rank": 1}}.get(function, {})
    with pytest.raises(ValueError, match=message):
        function(**{**GOOD, **small, **change})


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory in Linux's unit")
def test_memory_is_bounded():
    """All distances of 20,000 embeddings would be 1.6 GB; the pass over its blocks may take half a GB."""
    code = """
import resource, numpy as np
from keras_siamese.verification.retrieval import map_at_r
rng = np.random.default_rng(0)
embeddings, labels = rng.normal(size=(20_000, 4)).astype(np.float32), np.arange(20_000) // 2
map_at_r(embeddings[:10], labels[:10])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
map_at_r(embeddings, labels)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout.splitlines()[-1]) < 512
