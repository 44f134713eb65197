"""Tests of the probes: a healthy program overfits a few samples, and a sweep finds the rate that is missing."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.experiments.batches import Sequence
from keras_siamese.diagnosis.experiments.probes import (
    Repeated,
    against_half,
    left_of,
    overfit,
    probed,
    sweep,
    unaugmented,
)
from keras_siamese.diagnosis.experiments.program import program_of
from tests.support import small_programs


@pytest.fixture(scope="module")
def program():
    return program_of(small_programs.fitted(epochs=1)[1].diagnosis.observed)


def test_a_healthy_program_overfits_eight_pairs_and_a_standing_one_does_not(program):
    assert overfit(program, steps=60) < 0.3
    assert overfit(replace(program, rate=1e-9), steps=20) == pytest.approx(1.0, abs=1e-3)


def test_a_sweep_finds_the_rate_that_is_missing(program):
    slow = replace(program, rate=1e-2)
    found = sweep(slow, factors=(1.0, 100.0), steps=20)
    assert found[1.0] > 0.9 and found[100.0] < 0.8 * found[1.0]


def test_a_sweep_goes_on_while_its_last_factor_is_the_best(program, monkeypatch):
    import keras_siamese.diagnosis.experiments.probes as probes

    def tried(best):
        monkeypatch.setattr(
            probes, "run", lambda one, steps: SimpleNamespace(losses=[1.0, 1 + abs(np.log10(one.rate / best))])
        )
        return sorted(sweep(replace(program, rate=1.0)))

    assert tried(best=10.0) == sorted(probes.FACTORS)
    assert tried(best=1e3) == [*sorted(probes.FACTORS), 1e3, 1e4]
    assert tried(best=1e9) == [*sorted(probes.FACTORS), 1e3, 1e4]
    assert tried(best=1e-3) == [1e-4, 1e-3, *sorted(probes.FACTORS)]


def test_all_identities_are_held_against_half_of_them(program, monkeypatch):
    """The sides have the same samples in each identity; the same data on both sides gain nothing."""
    import keras_siamese.diagnosis.experiments.probes as probes

    shown, (x, labels) = [], small_programs.identities()
    source = ks.data.PairSequence(x, labels, batch_size=30, pairs_per_epoch=60, seed=0)
    train = probes.run

    def watched(program, steps):
        shown.append(program.batches.source.labels)
        return train(program, steps)

    monkeypatch.setattr(probes, "run", watched)
    found = against_half(program, source, steps=60)
    half, whole = (np.unique(labels, return_counts=True)[1].tolist() for labels in shown)
    assert half == 15 * [6] and whole == 30 * [6]
    assert found.gain == pytest.approx(found.before - found.after) and found.low < found.gain < found.high
    few = ks.data.PairSequence(x[:36], labels[:36], batch_size=30, pairs_per_epoch=60)
    assert against_half(program, few) is None and against_half(program, None) is None


def test_an_augmentation_that_hides_the_identities_is_told(program):
    x, labels = small_programs.identities()
    sources = [
        ks.data.PairSequence(x, labels, batch_size=30, pairs_per_epoch=300, augment=augment, seed=0)
        for augment in (None, lambda x, rng: rng.normal(size=x.shape).astype("float32"))
    ]
    assert unaugmented(program, sources[0]) is None
    found = unaugmented(replace(program, batches=Sequence(sources[1])), sources[1], steps=60)
    assert found.verdict == "confirmed" and found.before > 0.3


def test_repeated_samples_have_both_labels(program):
    repeated = Repeated(program.batches)
    assert repeated.at(0) is repeated.at(9)
    (left, _), y = repeated.at(0)
    assert len(left) == 8 and y.sum() == 4


def test_repeated_identities_have_two_samples_each():
    class Batches:
        def at(self, step):
            return np.arange(12.0), np.arange(12) // 3

    x, labels = Repeated(Batches()).at(0)
    assert np.unique(labels, return_counts=True)[1].tolist() == [2, 2, 2, 2] and len(x) == 8


def test_what_is_left_is_the_end_over_the_begin():
    assert left_of([4.0] * 5 + [3.0] * 10 + [1.0] * 5) == 0.25
    assert left_of([2.0, 1.0]) == pytest.approx(0.75)
    assert left_of([2.0, np.nan]) == np.inf


def test_diagnose_probes_and_names_a_rate_that_is_far_too_small():
    model, _, train, valid = small_programs.fitted(rate=3e-6, epochs=2)
    found = ks.diagnose(model, validation=valid, train=train, probe=True)
    assert found.facts["best_rate_factor"] >= 100 and found.findings[0].cause == "learning_rate"
    assert {"overfit_loss_left", "rate_loss_left", "best_rate_loss_left"} <= set(found.facts.numbers)
    assert found.facts["identities_gain_low"] <= found.facts["identities_gain"]
    assert "unaugmented_gain" not in found.facts


def test_all_probes_leave_out_what_is_not_finite(program, monkeypatch):
    import keras_siamese.diagnosis.experiments.probes as probes

    monkeypatch.setattr(probes, "sweep", lambda program: {1.0: np.inf, 0.1: 0.5})
    monkeypatch.setattr(probes, "overfit", lambda program: 0.1)
    assert probed(program) == {"overfit_loss_left": 0.1, "best_rate_loss_left": 0.5, "best_rate_factor": 0.1}
