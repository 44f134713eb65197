"""What is known of a run: when it verifies badly, whose items and labels it has, and what is computed once."""

import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.run import Run
from keras_siamese.scoring import ScoredTrials, Trials


def scored(noise, identities=12, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities), 5)
    z = rng.normal(size=(identities, 8))[labels] + noise * rng.normal(size=(len(labels), 8))
    trials = Trials.from_labels(z, labels)
    return ScoredTrials(trials, z, -np.linalg.norm(z[trials.left] - z[trials.right], axis=1))


def test_a_run_verifies_badly_above_a_quarter_or_above_the_target():
    middling, bad = scored(0.8), scored(9.0)
    eer = Observed(Run(), middling).eer.estimate
    assert 0.05 < eer < 0.25 < Observed(Run(), bad).eer.estimate
    assert Observed(Run(), bad).verifies_badly and not Observed(Run(), middling).verifies_badly
    assert Observed(Run(), middling, target_eer=eer - 0.01).verifies_badly
    assert not Observed(Run(), middling, target_eer=eer + 0.01).verifies_badly
    assert not Observed(Run(), scored(0.01), target_eer=1e-6).verifies_badly  # nothing left to gain


def test_without_training_trials_nothing_is_said_about_them():
    run = Observed(Run(), scored(0.8))
    assert run.train_intervals is run.eer_gap is run.train_below_chance is run.train_names is None
    assert run.epoch is None and run.flags == [] and run.why_no_flags == "no history" and run.batches == []


def test_the_gap_is_held_out_less_training():
    run = Observed(Run(), scored(0.8), scored(0.3, seed=1))
    assert run.eer_gap.estimate == pytest.approx(run.eer.estimate - run.train_intervals["eer"].estimate)


def test_batches_are_drawn_from_items_or_taken_from_the_sequence():
    train = scored(0.3, identities=40)
    drawn = Observed(Run(), scored(0.8), train).batches
    assert [len(labels) for _, labels in drawn] == [64, 64, 64, 8]
    sequence = ks.data.PairSequence(np.zeros((8, 3)), np.arange(8) // 2, batch_size=4, pairs_per_epoch=8)
    assert len(Observed(Run(), scored(0.8), train, source=sequence).batches) == 2


def test_what_is_asked_twice_is_computed_once():
    run = Observed(Run(), scored(0.8))
    assert run.facts is run.facts and run.intervals is run.intervals and run.genuine_label == 1
    assert Observed(Run(), scored(0.8), data_similar_label=0).genuine_label == 0
