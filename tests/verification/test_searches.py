"""Searches by tasks, of embeddings in files: the figures are those of arrays, whoever works."""

import joblib
import numpy as np
import pytest

from keras_siamese.verification import (
    Shards,
    cmc,
    evaluate_open_set,
    evaluate_retrieval,
    map_at_r,
    r_precision,
    recall_at_k,
    search_embeddings,
    searches,
    tasks,
)
from tests.oracles.retrieval import DISTANCES, figures, ranked_hits
from tests.support.retrievals import (
    assert_same,
    every_distance,
    grid_embeddings,
    random_embeddings,
    with_and_without_gallery,
)

OPTIONS = {"k": (1, 2, 5), "max_rank": 6}


@pytest.fixture
def small(monkeypatch):
    """Tasks of seven queries, and parts of the gallery of five rows."""
    monkeypatch.setattr(searches, "ROWS", 7)
    monkeypatch.setattr(searches, "PART", 5)


def shards(folder, embeddings, name):
    """`Shards` of three files, one of them empty."""
    files = [folder / f"{name}{number}.npy" for number in range(3)]
    for file, rows in zip(files, (embeddings[:8], embeddings[8:8], embeddings[8:]), strict=True):
        np.save(file, rows)
    return Shards(files)


def in_files(folder, embeddings, labels, gallery, gallery_labels):
    queries, others = shards(folder, embeddings, "query"), None if gallery is None else shards(folder, gallery, "other")
    return (queries, labels), {"gallery": others, "gallery_labels": gallery_labels}


def assert_equal(found, expected):
    for name, value in vars(expected).items():
        np.testing.assert_equal(vars(found)[name], value, err_msg=name)


@every_distance
@with_and_without_gallery
@pytest.mark.parametrize("ties", [False, True])
def test_retrieval_is_that_of_arrays_and_of_loops(small, tmp_path, ties, gallery, distance):
    data = grid_embeddings(3, gallery, distance) if ties else random_embeddings(3, gallery)
    given, options = in_files(tmp_path, *data)
    found = evaluate_retrieval(*given, **options, **OPTIONS, distance=distance)
    whole = {"gallery": data[2], "gallery_labels": data[3], "distance": distance}
    assert_equal(found, evaluate_retrieval(*data[:2], **OPTIONS, **whole))
    assert_same(found, figures(ranked_hits(*data, DISTANCES[distance]), OPTIONS["k"], OPTIONS["max_rank"]))


def test_single_functions_take_files(small, tmp_path):
    (files, labels), _ = in_files(tmp_path, *random_embeddings(1, gallery=False))
    found = evaluate_retrieval(files, labels, k=[1, 3], max_rank=7)
    assert recall_at_k(files, labels, [1, 3]).tolist() == list(found.recall.values())
    assert (r_precision(files, labels), map_at_r(files, labels)) == (found.r_precision, found.map_at_r)
    assert cmc(files, labels, max_rank=7).tolist() == found.cmc.tolist()


def test_arrays_are_divided_for_workers_too(small):
    embeddings, labels, gallery, gallery_labels = random_embeddings(2, gallery=True)
    options = {"gallery": gallery, "gallery_labels": gallery_labels, **OPTIONS}
    with joblib.parallel_config("threading"):
        found = evaluate_retrieval(embeddings, labels, n_jobs=2, **options)
    assert_equal(found, evaluate_retrieval(embeddings, labels, **options))


def test_a_search_that_was_ended_goes_on(small, tmp_path, monkeypatch):
    (files, labels), _ = in_files(tmp_path, *random_embeddings(0, gallery=False))
    expected = evaluate_retrieval(files, labels, **OPTIONS)
    monkeypatch.setattr(tasks, "SECONDS", 0.0)
    searched, calls = searches.searched, []

    def dies(*given):
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return searched(*given)

    monkeypatch.setattr(searches, "searched", dies)
    with pytest.raises(KeyboardInterrupt):
        evaluate_retrieval(files, labels, folder=tmp_path / "run", **OPTIONS)
    for _ in range(2):  # the second time, it is read
        assert_equal(evaluate_retrieval(files, labels, folder=tmp_path / "run", **OPTIONS), expected)
        assert len(calls) == 7 + 1, "of 7 tasks, only the fourth was begun twice"
    with pytest.raises(ValueError, match="`folder` holds another comparison"):
        evaluate_retrieval(files, labels[::-1], folder=tmp_path / "run", **OPTIONS)


def test_the_work_is_estimated(small, tmp_path, capsys):
    (files, labels), _ = in_files(tmp_path, *random_embeddings(0, gallery=False))
    evaluate_retrieval(files, labels, progress=True, **OPTIONS)
    said = capsys.readouterr().out
    assert said.startswith("1.94e+03 pairs in 7 tasks, which read 7.04e-06 GB: about 0 seconds with 1 worker\n")
    assert "7/7" in said


@every_distance
@with_and_without_gallery
@pytest.mark.parametrize("ties", [False, True])
def test_the_nearest_are_those_of_a_loop(small, tmp_path, ties, gallery, distance):
    data = grid_embeddings(3, gallery, distance) if ties else random_embeddings(3, gallery)
    (queries, _), options = in_files(tmp_path, *data)
    found = search_embeddings(queries, options["gallery"], 12, distance=distance)
    others = data[0] if data[2] is None else data[2]
    for number, query in enumerate(data[0]):
        away = [(DISTANCES[distance](query, other), row) for row, other in enumerate(others)]
        nearest = sorted(pair for pair in away if gallery or pair[1] != number)[:12]
        assert found.rows[number].tolist() == [row for _, row in nearest]
        values = np.array(nearest)[:, 0]  # the loop's Euclidean distance is squared
        np.testing.assert_allclose(-found.scores[number], np.sqrt(values) if distance == "euclidean" else values, 1e-5)


@pytest.mark.parametrize("rank", [1, 3])
def test_an_open_set_in_files_is_that_of_arrays(small, tmp_path, rank):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(70, 8))
    labels, gallery_labels = np.concatenate([np.repeat(np.arange(20), 2), np.arange(20, 70)]), np.arange(40) // 2
    probes, gallery = (centres[each] + 0.7 * rng.normal(size=(len(each), 8)) for each in (labels, gallery_labels))
    options = {"rank": rank, "fpir": (0.3, 0.1), "distance": "euclidean"}
    expected = evaluate_open_set(probes, labels, gallery, gallery_labels, **options)
    files = shards(tmp_path, probes, "probe"), labels, shards(tmp_path, gallery, "gallery"), gallery_labels
    found = evaluate_open_set(*files, folder=tmp_path / "run", **options)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)
    assert (found.missed, str(found)) == (expected.missed, str(expected))
    assert 0 < found.missed < 1


def test_rows_that_are_no_numbers_are_refused_when_they_are_read(small, tmp_path):
    embeddings, labels, *_ = random_embeddings(0, gallery=False)
    embeddings[20] = np.nan
    with pytest.raises(ValueError, match="`embeddings` must"):
        evaluate_retrieval(shards(tmp_path, embeddings, "bad"), labels, **OPTIONS)
