"""Tasks for workers: their results in order, again where a worker dies, and kept in a folder."""

import joblib
import numpy as np
import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError

from keras_siamese.verification import tasks
from keras_siamese.verification.tasks import Ledger, Plan, check_workers, key_of, results_of


class Order:
    """A total that remembers what was merged, in which order."""

    def __init__(self):
        self.merged = np.zeros(0, int)

    def merge(self, found):
        self.merged = np.append(self.merged, found)

    def _state(self):
        return {"merged": self.merged}

    def _set_state(self, state):
        self.merged = state["merged"]


def test_a_plan_says_what_it_costs():
    assert str(Plan(2_000_000, 12, 3 * 10**9, 20.0, 1)) == (
        "2e+06 pairs in 12 tasks, which read 3 GB: about 20 seconds with 1 worker"
    )
    assert str(Plan(10, 1, 0, 300.0, 8)) == "10 pairs in 1 task, which reads 0 GB: about 5.0 minutes with 8 workers"


def test_mistakes_are_named(tmp_path):
    assert check_workers(tmp_path, -1) == (tmp_path, -1) and check_workers(None, None) == (None, None)
    with pytest.raises(TypeError, match="`folder` must be a path; got 3"):
        check_workers(3, None)
    with pytest.raises(TypeError, match="`n_jobs` must be an integer; got 'all'"):
        check_workers(None, "all")
    with pytest.raises(ValueError, match="`n_jobs` must not be 0"):
        check_workers(None, 0)


def test_results_come_in_order_and_dead_workers_are_replaced(monkeypatch, caplog):
    begun = []

    def in_turn(call, numbers, n_jobs):
        for number in numbers:
            begun.append(number)
            if number == 2 and begun.count(2) < 3:
                raise TerminatedWorkerError("died")
            yield 10 * number

    monkeypatch.setattr(tasks, "results_in_turn", in_turn)
    assert list(results_of(None, range(4))) == [0, 10, 20, 30]
    assert begun == [0, 1, 2, 2, 2, 3], "what has a result is not done again"
    assert "its tasks are done again" in caplog.text


def test_tasks_that_never_succeed_end_the_run(monkeypatch):
    def in_turn(call, numbers, n_jobs):
        raise TerminatedWorkerError("died")
        yield

    monkeypatch.setattr(tasks, "results_in_turn", in_turn)
    with pytest.raises(TerminatedWorkerError):
        list(results_of(None, range(4)))


def test_a_ledger_goes_on_where_it_ended(tmp_path):
    def call(number):
        return joblib.delayed(int)(number)

    moves = []
    Ledger(tmp_path, "key", Order()).fill(call, 3, 1, moves.append)
    again = Ledger(tmp_path, "key", Order())
    assert again.done == 3 and again.total.merged.tolist() == [0, 1, 2]
    again.fill(call, 5, 1, moves.append)
    assert again.total.merged.tolist() == [0, 1, 2, 3, 4]
    assert moves == [0, 1, 1, 1, 3, 1, 1], "first how many are done already, then each"
    with pytest.raises(ValueError, match="`folder` holds another comparison"):
        Ledger(tmp_path, "other", Order())


def test_the_key_follows_from_embeddings_identities_and_options():
    x, codes = np.arange(12.0).reshape(6, 2), np.arange(6)
    key = key_of([x], [codes], 2, "cosine")
    assert key == key_of([x.copy()], [codes.copy()], 2, "cosine")
    changed = np.where(np.arange(6)[:, None] == 5, 9.0, x)  # the last row
    others = [key_of([changed], [codes], 2, "cosine"), key_of([x], [codes[::-1]], 2, "cosine")]
    others += [key_of([x], [codes], 2, "euclidean"), key_of([x], [codes], 3, "cosine")]
    assert len({key, *others}) == 5
