"""Sources: what is accepted, which rows are read and when, and what happens if reading fails in a worker."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_siamese.data import PairSequence, sources, split_identities
from keras_siamese.data.sources import Rows, check_source, count_samples, subset, take
from keras_siamese.scoring import Trials, embed
from keras_siamese.verifier import Verifier

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = np.random.default_rng(3).normal(size=(12, 3, 2)).astype("float32")
LABELS = np.array(list("aabbbccddddd"))


class Lazy:
    """A source with only the two required methods; it records the rows that are read."""

    def __init__(self, samples=SAMPLES, change=lambda samples, rows: samples):
        self.samples, self.change, self.asked = samples, change, []

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, rows):
        assert rows.dtype.kind == "i" and rows.min() >= 0, "what counts from the end need not mean the same to all"
        self.asked.append(np.array(rows))
        return self.change(self.samples[rows], rows)


def assert_same_batches(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for a, b in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


# What is lazy and what is an array


@pytest.mark.parametrize(
    "x", [SAMPLES, SAMPLES.tolist(), tuple(SAMPLES.tolist()), range(5), ["a", "b"], np.float64(3) * np.ones(4)]
)
def test_arrays_and_what_turns_into_one_are_arrays(x):
    checked = check_source("x", x)
    assert type(checked) is np.ndarray
    np.testing.assert_array_equal(checked, x)


def test_arrays_are_not_copied():
    assert check_source("x", SAMPLES) is SAMPLES
    assert check_source("x", {"a": SAMPLES})["a"] is SAMPLES
    assert PairSequence(SAMPLES, LABELS).x is SAMPLES


def test_frames_and_tensors_are_arrays():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"height": [1.0, 2.0], "width": [3.0, 4.0]}, index=[7, 9])
    np.testing.assert_array_equal(check_source("x", frame), [[1, 3], [2, 4]])
    np.testing.assert_array_equal(check_source("x", keras.ops.convert_to_tensor(SAMPLES)), SAMPLES)


def test_mappings_become_dicts(tmp_path):
    np.savez(tmp_path / "x.npz", image=SAMPLES, row=np.arange(12))
    with np.load(tmp_path / "x.npz") as file:
        checked = check_source("x", file)
    assert type(checked) is dict
    np.testing.assert_array_equal(checked["image"], SAMPLES)


def test_lazy_leaves_are_read_for_their_ends_alone_and_twice_checked_once():
    lazy = Lazy()
    checked = check_source("x", {"a": {"b": lazy}, "c": SAMPLES})["a"]["b"]
    assert (checked.shape, checked.dtype, checked.ndim, len(checked)) == ((12, 3, 2), np.float32, 3, 12)
    assert check_source("x", checked) is checked
    assert [rows.tolist() for rows in lazy.asked] == [[11, 0, 0]]


def test_rows_index_as_arrays_do():
    rows = Rows(Lazy())
    for key in ([3, 1, 1, -1], slice(2, 9, 3), slice(None), LABELS == "b", np.array([0]), slice(5, 2)):
        np.testing.assert_array_equal(rows[key], SAMPLES[key])
    assert rows[[]].shape == (0, 3, 2)
    np.testing.assert_array_equal(rows[4], SAMPLES[4])
    np.testing.assert_array_equal(rows[-1], SAMPLES[-1])
    for wrong in ([12], [-13], 12):
        with pytest.raises(IndexError, match="below 12"):
            rows[wrong]
    for wrong in ([0.5], [[1]], "ab"):
        with pytest.raises(TypeError, match="must be integers"):
            rows[wrong]


@settings(max_examples=60, deadline=None)
@given(
    first=st.lists(st.integers(0, 11), min_size=1, max_size=15),
    data=st.data(),
)
def test_views_of_views_are_the_rows_of_rows(first, data):
    second = data.draw(st.lists(st.integers(0, len(first) - 1), min_size=1, max_size=15))
    lazy = Lazy()
    view = Rows(lazy).view(first).view(second)
    expected = [SAMPLES[first[i]] for i in second]
    np.testing.assert_array_equal(view[:], expected)
    assert view.shape == (len(second), 3, 2)
    assert len(lazy.asked) == 2, "the probe and the reading: making views reads nothing"


# Batches


def test_lazy_sources_and_arrays_give_the_same_batches():
    lazy = Lazy()
    x = {"image": SAMPLES, "more": {"again": SAMPLES[:, 0]}}
    lazily = PairSequence({"image": lazy, "more": {"again": Lazy(SAMPLES[:, 0])}}, LABELS, batch_size=5, seed=2)
    assert_same_batches(list(lazily), list(PairSequence(x, LABELS, batch_size=5, seed=2)))


def test_a_batch_is_one_reading_a_tower():
    lazy = Lazy()
    sequence = PairSequence(lazy, LABELS, batch_size=5)
    del lazy.asked[:]
    sequence[1]
    left, right, _ = sequence.pairs()
    assert [rows.tolist() for rows in lazy.asked] == [left[5:10].tolist(), right[5:10].tolist()]


def test_a_sequence_holds_indices_alone():
    x = Rows(Lazy(np.zeros((1, 100, 100))), np.zeros(40_000, int))
    sequence = PairSequence(x, np.arange(40_000) // 4)
    tracemalloc.start()
    try:
        for index in range(20):
            sequence[index]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    batch, table = 2 * 32 * 100 * 100 * 8, 17 * 40_000
    assert peak < 2 * batch + 5 * table, "the samples are 625 batches"


def test_splits_of_lazy_sources_are_views():
    lazy, arrays = Lazy(), split_identities(SAMPLES, LABELS, (0.5, 0.5), seed=1)
    views = split_identities(lazy, LABELS, (0.5, 0.5), seed=1)
    assert len(lazy.asked) == 1
    for (view, labels), (array, expected) in zip(views, arrays, strict=True):
        assert labels.tolist() == expected.tolist()
        assert view.source is lazy
        np.testing.assert_array_equal(LABELS[view.rows], labels)
        assert_same_batches(
            list(PairSequence(view, labels, positive_fraction=0.6)),
            list(PairSequence(array, expected, positive_fraction=0.6)),
        )


def test_subset_gathers_arrays_and_take_reads():
    part = subset({"a": SAMPLES, "b": Rows(Lazy())}, [3, 1])
    assert type(part["a"]) is np.ndarray
    assert type(part["b"]) is Rows
    batch = take(part, slice(0, 1))
    np.testing.assert_array_equal(batch["a"], SAMPLES[3:4])
    np.testing.assert_array_equal(batch["b"], SAMPLES[3:4])
    assert count_samples(part) == 2


def test_trials_stay_lazy_and_embed_as_arrays_do():
    encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4)])
    lazy = Lazy()
    for validation in ((lazy, LABELS), PairSequence(lazy, LABELS, frozen=True)):
        trials = Trials.of(validation)
        assert type(trials.items) is Rows
        np.testing.assert_allclose(embed(encoder, trials.items, 5), embed(encoder, trials.items[:], 5), atol=1e-6)
    assert max(len(rows) for rows in lazy.asked) == 12, "once, by the line above, as an array"
    same = np.arange(12) % 2
    sides = [Trials.of((x, x, same)) for x in (SAMPLES, Lazy())]
    np.testing.assert_array_equal(sides[0].items, sides[1].items)


@pytest.mark.deep
def test_verifiers_take_lazy_sources_as_arrays(rng):
    centres = rng.normal(size=(6, 4))
    labels = np.repeat(np.arange(6), 4)
    x = (centres[labels] + 0.3 * rng.normal(size=(24, 4))).astype("float32")
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, kernel_initializer="identity")])
    verifiers = [Verifier.calibrate(encoder, source, labels) for source in (x, Lazy(x))]
    assert verifiers[0].threshold == verifiers[1].threshold
    sides = [[source[:12], source[12:]] for source in (x, Rows(Lazy(x)))]
    sides.append([Rows(Lazy(x)).view(np.arange(12)), Lazy(x[12:])])
    scores = [verifiers[0].score(*pair) for pair in sides]
    for other in scores[1:]:
        np.testing.assert_array_equal(scores[0], other)


# HDF5


@pytest.fixture
def file(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["image"] = SAMPLES
        file.create_dataset("chunked", data=SAMPLES, chunks=(2, 3, 2), compression="gzip")
        file["group/row"] = np.arange(12)
        file["scalar"] = 3.0
    with h5py.File(tmp_path / "x.h5", "r") as file:
        yield file


@pytest.mark.parametrize("name", ["image", "chunked"])
@pytest.mark.parametrize("rows", [[5, 2, 9, 2], [0, 1, 2], [3], [4, 4], [11, 0, 0], [1, 5, 7], list(range(12))])
def test_hdf5_gives_any_rows(file, name, rows):
    np.testing.assert_array_equal(check_source("x", file[name])[rows], SAMPLES[rows])


def test_hdf5_groups_and_batches(file):
    x = {"image": file["image"], "group": file["group"]}
    lazily = PairSequence(x, LABELS, batch_size=5)
    assert_same_batches(
        list(lazily), list(PairSequence({"image": SAMPLES, "group": {"row": np.arange(12)}}, LABELS, batch_size=5))
    )
    with pytest.raises(ValueError, match=r"`x\['scalar'\]` must be an array with samples along its first axis"):
        check_source("x", file)


def test_hdf5_travels_by_name_and_outlives_its_file(file):
    sequence = PairSequence(file["image"], LABELS, batch_size=5)
    expected = list(PairSequence(SAMPLES, LABELS, batch_size=5))
    for other in (pickle.loads(pickle.dumps(sequence)), copy.deepcopy(sequence)):
        assert_same_batches(list(other), expected)
    assert len(pickle.dumps(check_source("x", file["image"]))) < 600, "no samples in it"
    file.close()
    assert_same_batches(list(sequence), expected)


@pytest.mark.deep
def test_hdf5_is_read_in_processes(file):
    sequence = PairSequence(file["image"], LABELS, batch_size=5)
    expected = list(PairSequence(SAMPLES, LABELS, batch_size=5))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert_same_batches(list(pool.map(sequence.__getitem__, range(3), timeout=120)), expected)


def test_hdf5_is_opened_again_in_a_forked_process(file, monkeypatch):
    rows = check_source("x", file["image"]).source
    monkeypatch.setattr("keras_siamese.data.sources.os.getpid", lambda: -1)  # as a forked process would see it
    opened = []
    monkeypatch.setattr("h5py.File", lambda *arguments: opened.append(arguments) or file)
    for _ in range(2):
        np.testing.assert_array_equal(rows[np.array([4, 1])], SAMPLES[[4, 1]])
    assert opened == [(file.filename, "r")], "once, and not as the parent had it"


# Bad sources


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Lazy(change=lambda samples, rows: samples[:1]), r"raised ValueError: .*each of the 3 rows .*got shape \(1,"),
        (Lazy(change=lambda samples, rows: 3.0), r"raised ValueError: .* got shape \(\)"),
        (Lazy(change=lambda samples, rows: samples[np.diff(rows, prepend=-1) > 0]), "any order, repeated"),
        ([SAMPLES[0]] * 3 + [SAMPLES[0][:1]], "inhomogeneous"),
        (Lazy(SAMPLES[:0]), "`x` must hold at least one sample"),
        (Lazy(np.full((6, 2), np.nan)), r"must be finite; NaN or infinite values in its rows 0, 5"),
    ],
)
def test_sources_that_cannot_be_read_by_rows_are_refused_before_training(source, message):
    with pytest.raises(ValueError, match=message):
        check_source("x", source)


def test_what_takes_one_index_only_is_refused_before_training():
    class OneByOne(Lazy):
        def __getitem__(self, index):
            return self.samples[int(index)]

    message = r"`x\['image'\]` must give samples.*OneByOne of 12, asked for 11, 0, 0, raised TypeError"
    with pytest.raises(ValueError, match=message) as caught:
        PairSequence({"image": OneByOne()}, LABELS)
    assert isinstance(caught.value.__cause__, TypeError)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match=r"one length; got x\['a'\] 12, x\['b'\] 5"):
        check_source("x", {"a": Lazy(), "b": Lazy(SAMPLES[:5])})
    with pytest.raises(ValueError, match="`labels` must have one entry for each of the 12 samples; got 3"):
        PairSequence(Lazy(), [0, 0, 1])


def test_not_finite_values_of_a_lazy_source_name_their_rows():
    samples = np.array(SAMPLES)
    samples[[3, 7], 1] = np.nan, np.inf
    (left, _), (right, _) = split_identities(Lazy(samples), LABELS, (0.5, 0.5), seed=1)
    bad = {row for row in (3, 7) if row in left.rows}
    rest = {3, 7} - bad
    for part, rows in ((left, bad), (right, rest)):
        assert rows, "else the test shows less than it says"
        with pytest.raises(ValueError, match=f"`x` must be finite; .* in its rows {', '.join(map(str, sorted(rows)))}"):
            part[:]
    sequence = PairSequence(Lazy(samples), LABELS, batch_size=12)
    with pytest.raises(ValueError, match="in its rows 3, 7$"):
        sequence[0]


# Failing in a worker


SCRIPT = """
import multiprocessing, sys
sys.path[:0] = {paths!r}
import keras, numpy as np
import keras_siamese as ks


class TornPage(Exception):
    def __init__(self, path, row):  # pickles, and does not unpickle
        super().__init__(f"{{path}} tore at row {{row}}")


class Torn:
    def __len__(self):
        return 4000

    def __getitem__(self, rows):
        return read_page(rows)


def read_page(rows):
    if {failing} in rows and len(rows) > 3:
        raise TornPage("page", {failing})
    return np.zeros((len(rows), 3), "float32") + rows[:, None] % 7


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    train = ks.data.PairSequence(Torn(), np.arange(4000) // 4, batch_size=16, {options})
    siamese = ks.SiameseWrapper(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
    siamese.compile("sgd", loss=ks.losses.ContrastiveLoss())
    siamese.fit(train, epochs=2, verbose=0)
    print("trained to the end")
"""


def run_script(tmp_path, failing, options):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(paths=[str(ROOT)], failing=failing, options=options))
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend(), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=240, cwd=tmp_path
    )


@pytest.mark.deep
@pytest.mark.parametrize(
    "options",
    ["workers=1", "workers=3, max_queue_size=4", "workers=2, use_multiprocessing=True, max_queue_size=4"],
)
def test_a_source_that_raises_stops_fit_with_its_traceback(tmp_path, options):
    run = run_script(tmp_path, 1234, options)
    assert run.returncode == 1, run.stderr
    assert "trained to the end" not in run.stdout
    assert "TornPage" in run.stderr
    assert "page tore at row 1234" in run.stderr
    assert "in read_page" in run.stderr, "the traceback of the source itself"


@pytest.mark.deep
def test_the_same_script_trains_where_nothing_raises(tmp_path):
    run = run_script(tmp_path, -1, "workers=2, use_multiprocessing=True, max_queue_size=4")
    assert "trained to the end" in run.stdout, run.stderr


def test_blocks_of_arrays_are_still_checked(monkeypatch):
    monkeypatch.setattr(sources, "_BLOCK", 8)
    x = np.zeros((20, 3))
    x[[1, 7, 19], 2] = np.inf
    with pytest.raises(ValueError, match="3 of its 20 samples"):
        check_source("x", x)
