"""The arrays beside a run log: what is read is what was written, and what does not belong to the run is not used."""

import numpy as np
import pytest

from keras_siamese._files import write_arrays
from keras_siamese.diagnosis import resuming
from keras_siamese.scoring import ScoredTrials, Trials

KERNELS = [("dense", 6, np.arange(6.0, dtype="float32")), ("dense_1", 4, np.ones(4, "float32"))]


@pytest.fixture
def path(tmp_path):
    return resuming.beside(tmp_path / "run.jsonl")


def test_the_file_is_beside_the_log(path):
    assert path.name == "run.jsonl.npz"


def test_kernels_and_first_values_are_read_as_they_were_written(path):
    write_arrays(path, resuming.arrays_of(KERNELS, {5: np.arange(3), 9: np.zeros((2, 2))}))
    arrays = resuming.kept(path)
    like = [(f"other_{name}", size, values * 0) for name, size, values in KERNELS]
    found = resuming.kernels_in(arrays, like)
    assert [one[:2] for one in found] == [("other_dense", 6), ("other_dense_1", 4)]  # names of the present model
    assert all((one[2] == other[2]).all() for one, other in zip(found, KERNELS, strict=True))
    initial = resuming.initial_in(arrays, {1: np.zeros(3, int), 2: np.ones((2, 2))})
    assert initial[1].tolist() == [0, 1, 2] and initial[2].tolist() == [[0, 0], [0, 0]]


def test_types_that_numpy_does_not_know_keep_their_bits(path):
    half = pytest.importorskip("ml_dtypes").bfloat16
    write_arrays(path, resuming.arrays_of([], {1: np.array([1.5, -2], half)}))
    (found,) = resuming.initial_in(resuming.kept(path), {7: np.zeros(2, half)}).values()
    assert found.dtype == half and found.astype(float).tolist() == [1.5, -2]


@pytest.mark.parametrize("like", [KERNELS[:1] * 3, [("dense", 6, np.zeros(5)), KERNELS[1]]])
def test_those_of_another_model_are_not_used(path, like):
    write_arrays(path, resuming.arrays_of(KERNELS))
    assert resuming.kernels_in(resuming.kept(path), like) is None
    assert resuming.initial_in(resuming.kept(path), {1: np.zeros(2)}) is None


def test_what_cannot_be_read_is_nothing(path, caplog):
    assert resuming.kept(path) == {} and not caplog.records  # a missing file
    write_arrays(path, resuming.arrays_of(KERNELS))
    path.write_bytes(path.read_bytes()[:-30])
    assert resuming.kept(path) == {} and f"{path} cannot be read" in caplog.text
    np.savez(path, kernel_0=np.array([print], object))  # would have to be unpickled
    assert resuming.kept(path) == {}
    np.savez_compressed(path, kernel_0=np.zeros(10))  # may need far more memory than the file has bytes
    assert resuming.kept(path) == {} and "its parts are compressed" in caplog.text


def test_the_last_finite_embeddings_belong_to_the_same_trials():
    trials = Trials.from_labels(np.eye(4), [0, 0, 1, 1])
    arrays = {"embeddings": np.ones((4, 2)), "scores": np.arange(float(len(trials)))}
    found = resuming.scored_in(arrays, trials)
    assert isinstance(found, ScoredTrials) and found.scores is arrays["scores"] and found.is_finite
    assert resuming.scored_in(arrays, None) is None and resuming.scored_in({}, trials) is None
    assert resuming.scored_in({**arrays, "scores": np.ones(2)}, trials) is None


def test_a_run_that_does_not_go_on_where_the_log_ends_has_holes():
    kernels = np.arange(3.0)
    last = {"epoch": 4, "state": {"weights": resuming.fingerprint(kernels)}}
    assert resuming.holes_of(last, 5, kernels) == []
    assert resuming.holes_of({"epoch": 4}, 5, kernels) == []  # a log of an earlier version does not tell
    assert "the log ends after epoch 5, and epoch 8 begins" in resuming.holes_of(last, 7, kernels)[0]
    assert "epoch 6 begins with other weights" in resuming.holes_of(last, 5, kernels + 1e-9)[0]
