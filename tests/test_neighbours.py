"""The nearest neighbours: ties, blocks, digits and memory, through the figures that are read from them."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_siamese import neighbours
from keras_siamese.verification.retrieval import cmc, evaluate_retrieval, recall_at_k
from tests.oracles.retrieval import cosine, euclidean, figures
from tests.support.retrievals import (
    assert_same,
    compare,
    every_distance,
    grid_embeddings,
    random_embeddings,
    with_and_without_gallery,
)


def nearest(distance, queries, gallery, depth, own=False):
    queries, gallery = (np.asarray(each, np.float32) for each in (queries, gallery))
    found = np.empty((len(queries), depth), int)
    for block, rows in neighbours.nearest_blocks(queries, gallery, depth, distance, own=own):
        found[block] = rows
    return found.tolist()


@every_distance
def test_rows_by_distance_and_at_equal_distance_by_number(distance):
    gallery = [[3.0, 3.0], [1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 0.2]]
    assert nearest(distance, [[1.0, 0.15]], gallery, depth=4) == [{"cosine": [4, 1, 3, 0]}.get(distance, [4, 1, 3, 2])]
    # Of its own gallery each row leaves out itself, not its copy.
    expected = {"cosine": [[4], [3], [0], [1], [1]]}.get(distance, [[2], [3], [4], [1], [1]])
    assert nearest(distance, gallery, gallery, depth=1, own=True) == expected


def test_identical_rows_share_a_column():
    columns = neighbours.Columns(np.array([[2.0, 1.0], [0.0, 0.0], [2.0, 1.0], [2.0, 1.0]]))
    assert columns.count == 2
    assert sorted(columns.sizes.tolist()) == [1, 3]
    place = int(np.argmax(columns.sizes))
    assert columns.values[place].tolist() == [2.0, 1.0]
    assert columns.rows[columns.starts[place] :][:3].tolist() == [0, 2, 3]


def test_only_the_chosen_queries_are_searched_for(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 8)
    places = np.array([[0.0], [1.0], [3.0], [7.0], [12.0]])
    blocks = list(neighbours.nearest_blocks(places, places[1:], 2, chosen=np.array([4, 0, 2])))
    assert [block.tolist() for block, _ in blocks] == [[4], [0], [2]]
    assert [rows.tolist() for _, rows in blocks] == [[[3, 2]], [[0, 1]], [[1, 0]]]


@every_distance
@with_and_without_gallery
@pytest.mark.parametrize(
    ("block", "candidates", "values"),
    [
        (100, 40, 8),
        pytest.param(1, 2**21, 2**22, marks=pytest.mark.deep),
        pytest.param(173, 1, 1, marks=pytest.mark.deep),
    ],
)
def test_blocks_do_not_matter(monkeypatch, gallery, distance, block, candidates, values):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "CANDIDATES", candidates)
    monkeypatch.setattr(neighbours, "VALUES", values)
    compare(*random_embeddings(5, gallery), distance=distance)
    compare(*grid_embeddings(5, gallery, distance), distance=distance)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("distance", ["cosine", "euclidean", "manhattan"])
def test_parts_of_the_gallery_do_not_matter(distance, own, rng):
    for trial in range(8):
        gallery = rng.integers(-1, 2, (40, 3)) * 1.0 if trial % 2 else rng.normal(size=(40, 3))
        gallery *= 10.0 ** rng.integers(-30, 30, (40, 1)) if trial % 4 > 1 else 1.0
        gallery[25:32] = gallery[:7]
        gallery = (gallery + 0.0).astype(np.float32)  # no negative zeros
        queries = gallery if own else rng.normal(size=(9, 3)).astype(np.float32)
        depth = int(rng.integers(1, 39))
        parts = np.split(gallery, [1, 20, 33])
        found = neighbours.nearest_in_parts(queries, parts, depth, distance, own=np.arange(40) if own else None)
        np.testing.assert_array_equal(found, nearest(distance, queries, gallery, depth, own))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_more_than_one_block_of_the_size_in_use(monkeypatch, distance):
    """There are so many embeddings that the search looks at the minima of groups first."""
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


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_identical_embeddings_tie_wherever_they_stand(distance):
    """Matrix products may round equal rows differently at the edges of their tiles; this must not change the ranks."""
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
    """Half of the embeddings are 0, as with dead units, so they rank all others by row number."""
    embeddings, labels, others, other_labels = random_embeddings(6, gallery)
    embeddings[::2] = 0
    if gallery:
        others[1::3] = 0

    def cosine_or_1(a, b):
        return cosine(a, b) if any(a) and any(b) else 1

    compare(embeddings, labels, others, other_labels, distance="cosine", loop=cosine_or_1)


@pytest.mark.each_backend
def test_negative_zero_is_zero():
    """Otherwise a distance that distinguishes them, such as the angle of (−1, ±0), would not tie them."""
    zeros = [[0.0], [-0.0]]

    def angle(a, b):
        return 4 + keras.ops.arctan2(b[:, 0], -keras.ops.ones_like(b[:, 0]))

    for gallery in (zeros, zeros[::-1]):
        assert recall_at_k([[0.0]], [1], gallery=gallery, gallery_labels=[2, 1], distance=angle) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_near_duplicates_are_told_apart(dtype):
    """Far from the origin, ‖a‖² + ‖b‖² − 2a·b in float32 has no correct digit of the distances."""
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


@pytest.mark.parametrize("exponent", [-660, pytest.param(-100, marks=pytest.mark.deep), 660])
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
@pytest.mark.parametrize(("query_scale", "column_scale"), [(1, 1), (1000, 1), (1, 1000)])
def test_the_bounds_hold(cosine, query_scale, column_scale):
    """Exact squares lie between the bounds, up to the term that all squares of a query share."""
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
    """An offset and a distant embedding cost no precision, so few distances are computed row by row."""
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


@pytest.mark.deep
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory in Linux's unit")
def test_memory_is_bounded():
    """All distances of 20,000 embeddings would take 1.6 GB; the search in blocks may take half a GB."""
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
