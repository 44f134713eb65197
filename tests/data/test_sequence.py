"""Batches as a pure function of (seed, epoch, index), in threads, copies and processes; errors in a batch."""

import copy
import copyreg
import itertools
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import keras
import numpy as np
import pytest

from keras_siamese.data import BalancedBatchSequence, PairSequence, TripletSequence, from_pairs
from keras_siamese.data.sequence import EpochSequence

X = np.arange(60)
LABELS = X // 4
PLACES = np.arange(30)

KINDS = {
    "pairs": lambda **options: PairSequence(X, LABELS, batch_size=7, **options),
    "triplets": lambda **options: TripletSequence(X, LABELS, batch_size=7, **options),
    "balanced": lambda **options: BalancedBatchSequence(
        X, LABELS, classes_per_batch=4, samples_per_class=3, batches_per_epoch=5, **options
    ),
    "explicit": lambda **options: from_pairs(X, PLACES, PLACES + 4, np.zeros(30), batch_size=7, **options),
}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def assert_same_batches(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for a, b in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def table(sequence, epoch):
    return np.stack(sequence._table_of(epoch)).tobytes()


@pytest.fixture(scope="module")
def process():
    """One worker process; starting it takes seconds, in which it imports Keras."""
    # An executor, not a Pool: if a worker dies, an executor raises and a Pool waits for ever.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


# Purity


@every_kind
def test_batches_do_not_depend_on_order_or_threads(make):
    shared = make(seed=3)
    for epoch in (2, 0, 1, 0):
        fresh = make(seed=3)
        fresh.set_epoch(epoch)
        expected = list(fresh)
        shared.set_epoch(epoch)
        assert shared.epoch == epoch
        order = np.random.default_rng(epoch).permutation(np.tile(np.arange(len(shared)), 5))
        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(shared.__getitem__, order))
        assert_same_batches(got, [expected[i] for i in order])


@every_kind
def test_batches_do_not_depend_on_the_process(make, process):
    sequence = make(seed=3)
    sequence.set_epoch(2)
    indices = (4, 0, 2)
    assert_same_batches(list(process.map(sequence.__getitem__, indices, timeout=120)), [sequence[i] for i in indices])


@every_kind
def test_copies_keep_epoch_and_batches(make):
    sequence = make(seed=3)
    sequence.set_epoch(4)
    for other in (copy.deepcopy(sequence), pickle.loads(pickle.dumps(sequence))):
        assert other.epoch == 4
        assert_same_batches(list(other), list(sequence))
        other.set_epoch(5)
        assert sequence.epoch == 4


@every_kind
def test_epochs_and_seeds_differ(make):
    tables = {table(make(seed=seed), epoch) for seed, epoch in itertools.product(range(3), range(3))}
    assert len(tables) == 9


@every_kind
def test_frozen_sequences_ignore_the_epoch(make):
    frozen = make(seed=3, frozen=True)
    first = list(frozen)
    frozen.set_epoch(7)
    assert frozen.epoch == 7
    assert_same_batches(list(frozen), first)
    assert_same_batches([frozen.batch(5, 1)], first[1:2])
    assert table(frozen, 3) == table(frozen, 9) == table(frozen, None)


def test_global_generators_are_neither_used_nor_touched():
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    first = list(KINDS["pairs"]())
    assert np.random.random() == expected
    assert_same_batches(list(KINDS["pairs"]()), first)


def test_a_batch_of_any_epoch_is_served_without_setting_it():
    sequence, other = KINDS["pairs"](), KINDS["pairs"]()
    other.set_epoch(3)
    assert_same_batches([sequence.batch(3, 2), sequence.batch(3, -1)], [other[2], other[len(other) - 1]])
    assert sequence.epoch == 0


class Counted(EpochSequence):
    """Counts how often an epoch is drawn."""

    drawn = 0

    def __len__(self):
        return 4

    def _draw(self, epoch):
        self.drawn += 1
        return self.rng(epoch).permutation(8)

    def _batch(self, table, epoch, index):
        return table[2 * index : 2 * (index + 1)], epoch


def test_an_epoch_is_drawn_once_and_the_latest_is_kept():
    sequence = Counted(seed=1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(sequence.__getitem__, [0, 1, 2, 3] * 5))
    assert sequence.drawn == 1
    sequence.set_epoch(1)
    assert sequence[0][1] == 1
    assert sequence.drawn == 2
    sequence.batch(0, 0)
    assert sequence.drawn == 3


def test_the_generator_depends_on_the_seed_and_the_whole_key():
    keys = [(), (0,), (0, 0), (1,), (0, 1), (1, 0)]
    first = {Counted(seed=seed).rng(*key).random() for seed in (0, 1, 2**32 + 1) for key in keys}
    assert len(first) == 18
    assert (
        Counted(seed=4).rng(2, 3).random()
        == np.random.default_rng(np.random.SeedSequence(4, spawn_key=(2, 3))).random()
    )


# Errors


class Misread(Exception):
    """An error that can be pickled and not unpickled: its class wants two arguments and keeps one."""

    def __init__(self, path, row):
        super().__init__(f"{path} broke at row {row}")


class Broken:
    """A source that reads its first and last sample and nothing else."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 12

    def __getitem__(self, rows):
        if set(rows.tolist()) - {0, 11}:
            raise Misread("disk", 7) if self.error is None else self.error
        return rows


def broken_sequence(error=None):
    return PairSequence(Broken(error), np.arange(12) // 3, batch_size=12)


def test_an_error_that_cannot_be_unpickled_comes_back_from_a_process(process):
    if Misread not in copyreg.dispatch_table:  # `tblib`, which comes with dask, pickles any error
        with pytest.raises(TypeError):
            pickle.loads(pickle.dumps(Misread("disk", 7)))
    message = "(?s)Batch 0 of epoch 0 failed:.*in __getitem__.*Misread: disk broke at row 7"
    with pytest.raises(RuntimeError, match=message):
        process.submit(broken_sequence().__getitem__, 0).result(timeout=120)
    assert process.submit(abs, -3).result(timeout=120) == 3, "the pool still works"


def test_a_process_sends_no_error_but_its_own(monkeypatch):
    """`tblib`, where it is installed, pickles the cause and the context of an error as well."""
    monkeypatch.setattr("keras_siamese.data.sequence.multiprocessing.parent_process", lambda: "a parent")
    for error in (None, IndexError("row 7 is not there"), SystemExit("row 7 is not there")):
        with pytest.raises(RuntimeError, match="(?s)Batch 0 of epoch 0 failed:.*at row 7|row 7 is not") as caught:
            broken_sequence(error)[0]
        assert type(caught.value) is RuntimeError
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


@pytest.mark.parametrize("error", [IndexError("row 7 is not there"), StopIteration("row 7 is not there")])
def test_an_index_error_in_a_source_does_not_end_the_epoch(error):
    message = f"Batch 0 of epoch 0 raised {type(error).__name__}: row 7 is not there"
    with pytest.raises(RuntimeError, match=message) as caught:
        list(broken_sequence(error))
    assert caught.value.__cause__ is error


def test_other_errors_are_raised_as_they_are(monkeypatch):
    with pytest.raises(Misread, match="disk broke at row 7"):
        broken_sequence()[0]
    with pytest.raises(SystemExit):
        broken_sequence(SystemExit(3))[0]
    with ThreadPool(1) as pool, pytest.raises(RuntimeError, match="Batch 0 of epoch 0 raised SystemExit: 3"):
        pool.apply_async(broken_sequence(SystemExit(3)).__getitem__, (0,)).get(timeout=20)
    monkeypatch.setattr("keras_siamese.data.sequence.multiprocessing.parent_process", lambda: "a parent")
    with pytest.raises(KeyboardInterrupt):
        broken_sequence(KeyboardInterrupt())[0]


def test_refuses():
    with pytest.raises(ValueError, match=r"`augment` must be None when frozen=True.*; got <function"):
        Counted(frozen=True, augment=lambda batch: batch)
    with pytest.raises(ValueError, match="`seed` must be at least 0; got -3"):
        Counted(seed=-3)
    with pytest.raises(ValueError, match="`epoch` must be at least 0; got -1"):
        Counted().set_epoch(-1)
    with pytest.raises(TypeError, match=r"Counted knows no option 'batchsize'; it knows .*seed, workers"):
        Counted(batchsize=4)
    with pytest.raises(IndexError):
        Counted()[4]
    sequence = Counted(workers=2, use_multiprocessing=True, max_queue_size=3)
    assert (sequence.workers, sequence.use_multiprocessing, sequence.max_queue_size) == (2, True, 3)
