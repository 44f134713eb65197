"""All pairs of embeddings in files: the figures are those of `compare_embeddings`, whoever works and dies."""

import os
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest

from keras_siamese.verification import (
    compare_embeddings,
    compare_shards,
    evaluate_retrieval,
    search_embeddings,
    spread,
    tasks,
)

ROOT = Path(__file__).resolve().parents[2]
N, DIM = 700, 6


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 90, N)
    return rng.normal(size=(90, DIM))[labels] + 0.5 * rng.normal(size=(N, DIM)), labels


def assert_equal(found, expected):
    for name, array in expected._state().items():
        np.testing.assert_array_equal(found._state()[name], array, err_msg=name)


def centred(embeddings):
    """With an opposite of each, so that the largest norm about the mean is that about the origin."""
    return np.concatenate([embeddings, -embeddings])


@pytest.mark.parametrize("rows", [100, 333, 5000])
def test_the_counts_are_those_of_one_machine(data, tmp_path, rows):
    embeddings, labels = data
    embeddings, labels = centred(embeddings), np.concatenate([labels, 90 + labels])
    options = {"distance": "squared_euclidean", "far": 1e-3}
    expected = compare_embeddings(embeddings, labels, **options)  # other blocks are rounded in another way
    np.save(tmp_path / "one.npy", embeddings[:600])
    np.save(tmp_path / "two.npy", embeddings[600:])
    files = [tmp_path / "one.npy", str(tmp_path / "two.npy")]
    with joblib.parallel_config("threading", n_jobs=2):
        found = compare_shards(files, labels, rows=rows, progress=False, **options)
    assert (found.genuines, found.impostors, found.low) == (expected.genuines, expected.impostors, expected.low)
    for own, others in ((found._genuine, expected._genuine), (found._impostor, expected._impostor)):
        assert np.abs(np.cumsum(own.counts - others.counts)).max() <= 1 and abs(own.counts - others.counts).sum() <= 20
    np.testing.assert_allclose(found._tail.values(), expected._tail.values(), rtol=1e-9)
    assert found.d_prime() == pytest.approx(expected.d_prime(), rel=1e-9)


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "angular"])
def test_other_distances_agree(data, distance):
    embeddings, labels = centred(data[0]), np.concatenate([data[1], 90 + data[1]])
    expected = compare_embeddings(embeddings, labels, distance)
    found = compare_shards(embeddings, labels, distance, rows=500, progress=False)
    assert (found.genuines, found.impostors, found.low) == (expected.genuines, expected.impostors, expected.low)
    assert found.eer() == pytest.approx(expected.eer(), abs=2e-4)
    assert found.tar_at_far(1e-3) == pytest.approx(expected.tar_at_far(1e-3), abs=2e-3)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="`distance` must be .* so that the bounds of the scores are known"):
        compare_shards(np.ones((5, 2)), [0, 0, 1, 1, 2], "manhattan")
    with pytest.raises(ValueError, match="`labels` must name at least two identities"):
        compare_shards(np.ones((5, 2)), [0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="`files`"):
        compare_shards(np.full((5, 2), np.nan), [0, 0, 1, 1, 2], progress=False)


def test_a_run_that_was_ended_goes_on_and_counts_no_pair_twice(data, tmp_path, monkeypatch):
    embeddings, labels = data
    options = {"rows": 100, "folder": tmp_path, "progress": False, "groups": 5}
    expected = compare_shards(embeddings, labels, rows=100, progress=False, groups=5)
    monkeypatch.setattr(tasks, "SECONDS", 0.0)
    compared, calls = spread.compared, []

    def dies(*given):
        calls.append(given)
        if len(calls) == 11:
            raise KeyboardInterrupt
        return compared(*given)

    monkeypatch.setattr(spread, "compared", dies)
    with pytest.raises(KeyboardInterrupt):
        compare_shards(embeddings, labels, **options)
    assert_equal(compare_shards(embeddings, labels, **options), expected)
    assert len(calls) == 28 + 1, "of 28 tasks, only the eleventh was begun twice"
    assert_equal(compare_shards(embeddings, labels, **options), expected)
    assert len(calls) == 28 + 1, "a finished comparison is read"
    for wrong in ((embeddings, labels[::-1]), (embeddings + 1, labels)):
        with pytest.raises(ValueError, match="`folder` holds another comparison"):
            compare_shards(*wrong, **options)


def test_the_work_is_estimated_before_it_begins(data, capsys):
    compare_shards(*data, rows=100)
    said = capsys.readouterr().out
    assert said.startswith("2.45e+05 pairs in 28 tasks, which read 0.000235 GB: about 0 seconds with 1 worker\n")
    assert "28/28" in said


KILLED = """
import os, signal, sys
import joblib, numpy as np
from keras_siamese.verification import Shards, compare_shards, evaluate_retrieval, search_embeddings, searches

class Dies(Shards):
    '''Embeddings whose reader kills its own process once.'''
    def __init__(self, file, flag):
        super().__init__(file)
        self.flag, self.main = flag, os.getpid()
    def __getitem__(self, rows):
        if rows.start == 300 and os.getpid() != self.main:
            try:
                os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(rows)

if __name__ == "__main__":
    folder, labels = sys.argv[1], np.load(sys.argv[1] + "/labels.npy")
    searches.ROWS = searches.PART = 300
    def compare():
        source = Dies(folder + "/embeddings.npy", folder + "/flag1")
        found = compare_shards(source, labels, "squared_euclidean", rows=300, progress=False)
        np.savez(folder + "/found.npz", **found._state())
    def retrieve():
        source = Dies(folder + "/embeddings.npy", folder + "/flag2")
        np.savez(folder + "/retrieval.npz", **vars(evaluate_retrieval(source, labels)))
    def search():
        source = Dies(folder + "/embeddings.npy", folder + "/flag3")
        np.savez(folder + "/search.npz", *search_embeddings(source, k=3))
    for run in (compare, retrieve, search):
        if sys.argv[2] == "ray":
            import ray
            from ray.util.joblib import register_ray
            ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
            register_ray()
            with joblib.parallel_backend("ray"):
                assert joblib.effective_n_jobs() == 2
                run()
            break  # Ray takes twenty seconds to see that a worker has died
        elif sys.argv[2] == "dask":  # a new cluster, because joblib works in the main process if one worker is left
            from distributed import Client, LocalCluster
            with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
                with Client(cluster), joblib.parallel_config("dask"):
                    run()
        else:
            with joblib.parallel_config("loky", n_jobs=2):
                run()
"""


@pytest.mark.deep
@pytest.mark.parametrize("backend", ["loky", "dask", pytest.param("ray", marks=pytest.mark.partner("ray"))])
def test_a_killed_worker_changes_nothing(data, tmp_path, backend):
    if backend == "dask":
        pytest.importorskip("distributed")
    embeddings, labels = data
    np.save(tmp_path / "embeddings.npy", embeddings)
    np.save(tmp_path / "labels.npy", labels)
    (tmp_path / "killed.py").write_text(KILLED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-W", "ignore", tmp_path / "killed.py", tmp_path, backend]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for flag in ("flag1", "flag2", "flag3")[: 1 if backend == "ray" else 3]:
        assert (tmp_path / flag).exists(), "no worker was killed"
    expected = compare_shards(embeddings, labels, "squared_euclidean", rows=300, progress=False)._state()
    with np.load(tmp_path / "found.npz") as found:
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    if backend == "ray":
        return
    with np.load(tmp_path / "retrieval.npz", allow_pickle=True) as found:
        for name, value in vars(evaluate_retrieval(embeddings, labels)).items():
            np.testing.assert_equal(found[name][()], value, err_msg=name)
    rows, scores = search_embeddings(embeddings, k=3)
    with np.load(tmp_path / "search.npz") as found:
        np.testing.assert_array_equal(found["arr_0"], rows)
        np.testing.assert_array_equal(found["arr_1"], scores)
