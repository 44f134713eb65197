"""Facts of the curves of training; an untrained copy of the encoder changes neither the original nor the generators."""

import random
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

import keras_siamese as ks
from keras_siamese import verification
from keras_siamese.attach.anatomy import dissect
from keras_siamese.diagnosis.facts.training import (
    copied_embeddings,
    distance_of_loss,
    impostor_distance,
    of_history,
    untrained_copy,
)
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.run import Run
from keras_siamese.losses.character import character_of
from keras_siamese.scoring import Trials, score
from tests.support import plantings
from tests.support.measured import encoder

NAN = float("nan")


def untrained_embeddings(encoder, x):
    return copied_embeddings(untrained_copy(encoder, x), x)


class Unrepeatable(keras.layers.Dense):
    def get_config(self):
        raise NotImplementedError("no configuration")


def test_why_there_is_no_untrained_copy_is_logged(caplog):
    x, one = np.ones((3, 4), "float32"), keras.Sequential([keras.Input((4,)), Unrepeatable(2)])
    with caplog.at_level("INFO", logger="keras_siamese"):
        assert untrained_copy(one, x) is None
        assert copied_embeddings(keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)], name="five"), x) is None
    assert f"There is no untrained copy of {one.name!r} to compare with: NotImplementedError" in caplog.text
    assert "The untrained copy of 'five' gives no embeddings: ValueError" in caplog.text


def curves_of(history, **options):
    given = {"flags": [3, 4], "recovered": False, "verifies_badly": True, "probed": {}, "history": history}
    given |= {"train": None, "siamese": None}
    epoch = len(history["loss"]) - 1 if history else None
    return of_history(SimpleNamespace(**{**given, "epoch": epoch, **options}))


def test_the_loss_curve():
    facts = curves_of({"loss": [4.0, NAN, 2.0, 3.0, 1.0], "eer": [0.5, 0.3, NAN, 0.2, 0.4]})
    assert (facts["loss_first"], facts["loss_last"], facts["epochs"], facts["flagged"]) == (4.0, 1.0, 5, 2)
    assert facts["loss_fallen"] == 0.75 and facts["loss_rises"] == pytest.approx(1 / 3)
    assert (facts["best_eer"], facts["best_eer_epoch"]) == (0.2, 4)
    assert (facts["recovered"], facts["verifies_badly"]) == (0.0, 1.0) and "update_size_first" not in facts


def test_a_loss_that_is_not_finite_counts_if_it_stays_so():
    for losses, since, share in (([NAN, NAN], 1, 1.0), ([1.0, NAN, 0.5, NAN], 4, 0.5), ([NAN, 1.0], None, None)):
        facts = curves_of({"loss": losses, "eer": [0.3] * len(losses)})
        assert (facts.get("loss_not_finite_since"), facts.get("losses_not_finite")) == (since, share)


def test_the_accuracy_of_validation_pairs_counts_where_the_training_pairs_are_not_known():
    curves = {"loss": [1.0, 0.5], "eer": [0.3, 0.2], "logged_accuracy": [0.4, 0.3], "logged_val_accuracy": [0.2, 0.1]}
    pairs, items = (SimpleNamespace(direction=SimpleNamespace(wanted=wanted)) for wanted in (-1, 0))
    scored = {"scores": np.array([-0.1, -0.9, -0.2, -0.3]), "same": np.array([True, False, True, False])}
    given = {"valid": SimpleNamespace(accuracy=(0.9, -0.5), **scored), "siamese": pairs, "output_kind": "distance"}
    given["positive_fraction"] = None
    facts = curves_of(curves, **given)
    assert (facts["logged_accuracy"], facts["logged_val_accuracy"], facts["val_best_accuracy"]) == (0.3, 0.1, 0.9)
    assert "logged_val_accuracy" not in curves_of(curves, **given | {"siamese": items}), "of identities, not of pairs"
    assert facts["accuracy_at_half"] == 0.75 and facts["accuracy_mixed"] == 0.5
    train = SimpleNamespace(accuracy=(0.8, -0.5), **scored)
    facts = curves_of(curves, **given, train=train)
    assert facts["train_best_accuracy"] == 0.8 and "logged_val_accuracy" not in facts
    facts = curves_of(curves, **given | {"positive_fraction": 0.1}, train=train)
    accepted = 0.1 * 1 + 0.9 * 0.5  # shares of the genuine pairs, all of them accepted, and of the impostors, half
    assert facts["accuracy_mixed"] == pytest.approx(0.1 * accepted + 0.9 * (1 - accepted))
    several = {"loss": [1.0], "eer": [0.3], "logged_val_kind_accuracy": [0.1]}
    assert "logged_val_accuracy" not in curves_of(several, **given), "of one of several outputs"


def test_a_constant_loss_does_not_rise_and_one_epoch_has_no_curve():
    facts = curves_of({"loss": [2.0, 2.0], "eer": [NAN, NAN]})
    assert facts["loss_rises"] == 0.0 and facts["loss_fallen"] == 0.0 and "best_eer" not in facts
    assert "loss_first" not in curves_of({"loss": [2.0], "eer": [0.5]})


def test_sizes_of_steps():
    sizes = [NAN, 0.3, 0.5, 0.1, 0.2, 0.04, 0.06]
    facts = curves_of({"loss": [1.0] * 7, "eer": [NAN] * 7, "update_size": sizes})
    assert (facts["update_size_first"], facts["update_size_largest"]) == (0.3, 0.5)
    assert facts["update_size_last"] == pytest.approx(0.05)  # the median of the last third


def test_without_a_history_only_what_was_probed_is_known():
    assert curves_of({}, probed={"update_size_first": 0.1}) == {
        "flagged": 2, "recovered": 0.0, "verifies_badly": 1.0, "update_size_first": 0.1
    }  # fmt: skip


def test_training_identities_beside_held_out_ones_and_the_inputs():
    x, labels = plantings.train_part()
    model = ks.SiameseWrapper(encoder())
    trained = score(model, Trials.from_labels(x[:40], labels[:40]))
    held_out = score(model, Trials.from_labels(*[part[:60] for part in plantings.held_out_part()]))
    run = Observed(Run(), held_out, trained, siamese=model)
    facts = run.facts
    assert facts["train_eer"] == verification.eer(trained.same, trained.scores) and facts["train_identities"] == 4
    assert facts["train_auc"] == verification.auc(trained.same, trained.scores)
    assert facts["gap"] == pytest.approx(facts["eer"] - facts["train_eer"])
    assert facts["gap_error"] == pytest.approx(run.eer_gap.standard_error)
    assert facts["train_eer_se"] == pytest.approx(run.train_intervals["eer"].standard_error)
    assert facts["train_below_chance"] < 0 < facts["train_below_chance_critical"]
    for name, scored in (("input_eer", held_out), ("train_input_eer", trained)):
        trials = scored.trials
        distances = np.linalg.norm(trials.items[trials.left] - trials.items[trials.right], axis=1)
        assert facts[name] == pytest.approx(verification.eer(trials.same, -distances), abs=1e-3)
    z, impostor = trained.embeddings, ~trained.same
    rows = trained.trials.left[impostor], trained.trials.right[impostor]
    assert facts["impostor_distance"] == pytest.approx(np.median(np.linalg.norm(z[rows[0]] - z[rows[1]], axis=1)))
    assert 0 < facts["untrained_eer"] < 1 and facts["untrained_distance"] > 0


@pytest.mark.each_backend
def test_an_untrained_copy_leaves_the_original_and_the_generator_alone():
    model = encoder()
    x = np.ones((3, 24), "float32")
    own, state = ops.convert_to_numpy(model(x)), random.getstate()
    copied = untrained_embeddings(model, x)
    assert copied.shape == (3, 6) and not np.allclose(copied, own)
    assert random.getstate() == state
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), own)
    model.trainable = False
    np.testing.assert_allclose(untrained_embeddings(model, x), own, rtol=1e-5)


@pytest.mark.each_backend
def test_a_subclassed_encoder_is_copied_from_its_config_or_not_at_all():
    class Own(keras.Model):
        def __init__(self, size):
            super().__init__()
            self.dense = keras.layers.Dense(size)

        def call(self, x):
            return self.dense(x)

    x = np.ones((2, 4), "float32")
    assert untrained_embeddings(Own(3), x) is None

    class Configured(Own):
        def get_config(self):
            return {"size": self.dense.units}

    model = Configured(3)
    assert untrained_embeddings(model, x) is None  # not built, so it has no weights to compare
    own = ops.convert_to_numpy(model(x))
    assert untrained_embeddings(model, x).shape == own.shape


@pytest.mark.parametrize(
    ("loss", "apart"),
    [
        (ks.losses.BatchTripletLoss(distance="manhattan"), 7.0),
        (ks.losses.BatchTripletLoss(), 5.0),
        (ks.losses.ContrastiveLoss(), 25.0),  # of what the model puts out
    ],
)
def test_impostors_are_apart_by_the_distance_of_the_loss(loss, apart):
    model = ks.SiameseWrapper(encoder(), distance="squared_euclidean")
    known = SimpleNamespace(loss=loss, siamese=dissect(model), output_kind="distance", character=character_of(loss))
    z = np.array([[0.0, 0.0], [3.0, 4.0]])
    trials = SimpleNamespace(same=np.array([False]), left=np.array([0]), right=np.array([1]))
    assert impostor_distance(z, trials, distance_of_loss(known)) == pytest.approx(apart)
