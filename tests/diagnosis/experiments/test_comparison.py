"""Tests of `recompiled`: the user's encoder under another comparison or loss starts from the same weights."""

from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese import scoring
from keras_siamese.diagnosis.experiments.comparison import (
    all_trainable,
    differing,
    of_pairs,
    recompiled,
    usual_encoder,
    with_towers,
)
from keras_siamese.diagnosis.experiments.program import program_of, run
from tests.support import small_programs


def test_the_encoder_is_the_users_own(pairs, plain):
    for (program, observed), options in ((pairs, {"margin": 0.5}), (plain, {"head": "logistic"})):
        found = recompiled(program, options, observed)
        own = {id(one) for one in program.anatomy.encoder.variables}
        assert own <= {id(one) for one in found.model.variables} and found.start is program.start


def test_the_loss_gets_the_margin_and_the_comparison_the_distance(pairs):
    program, observed = pairs
    found = recompiled(program, {"margin": 0.5, "distance": "cosine"}, observed)
    assert found.model.loss.margin == 0.5 and repr(found.model.distance) == "CosineDistance()"
    assert isinstance(found.model.loss, ks.losses.ContrastiveLoss)


def test_a_plain_program_is_shown_the_same_pairs_by_their_sides(plain):
    program, observed = plain
    found = recompiled(program, {"loss": "contrastive"}, observed)
    (left, right), same = found.batches.at(2)
    inputs, y = program.batches.at(2)
    assert np.array_equal(left, inputs[0]) and np.array_equal(right, inputs[1]) and np.array_equal(same, y)
    assert run(found, 12).scored.is_finite


def test_why_a_comparison_cannot_be_tried_is_logged(pairs, caplog):
    program, observed = pairs
    with caplog.at_level("INFO", logger="keras_siamese"):
        found = of_pairs(program, keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), {}, observed)
    assert found is None and "The comparison {} cannot be tried: ValueError" in caplog.text


def test_normalised_embeddings_have_unit_norm(pairs):
    program, observed = pairs
    z = recompiled(program, {"normalize": True}, observed).anatomy.encoder(program.trials.items[:5])
    assert np.allclose(np.linalg.norm(keras.ops.convert_to_numpy(z), axis=1), 1, atol=1e-5)


def test_a_loss_over_batches_keeps_its_other_options(batchwise):
    program, observed = batchwise
    found = recompiled(program, {"negatives": "hard", "margin": 0.1}, observed)
    config = found.model.loss.get_config()
    assert (config["margin"], config["negatives"], config["positives"]) == (0.1, "hard", "all")
    assert found.model is not program.model and program.model.loss.get_config()["margin"] == 0.2
    assert len(run(found, 3).losses) == 3


def test_verification_alone_gets_another_distance_or_that_of_the_loss(batchwise):
    program, observed = batchwise
    given = recompiled(program, {"verify_distance": "chebyshev"}, observed)
    assert repr(given.anatomy.distance) == "ChebyshevDistance()"
    assert given.model.loss.get_config() == program.model.loss.get_config()
    back = recompiled(given, {"verify_distance": None}, observed)
    assert repr(back.anatomy.distance) == repr(observed.loss.distance) != "ChebyshevDistance()"


def test_a_loss_over_batches_trains_another_encoder(batchwise):
    program, observed = batchwise
    found = recompiled(program, {"width": 128}, observed)
    assert found.anatomy.encoder is not program.anatomy.encoder and run(found, 3).scored.is_finite


def test_only_what_the_program_has_is_changed(pairs, plain, batchwise):
    asked = {"positives": "all", "negatives": "hard", "online": False, "margin": 0.5, "normalize": True, "shared": True}
    for (program, observed), made in ((pairs, ["margin"]), (batchwise, ["margin", "negatives"]), (plain, ["margin"])):
        assert sorted(differing(program, asked, observed)) == made  # embeddings have unit norm already


def test_a_loss_that_mines_is_replaced_by_one_over_all_pairs(pairs):
    program, observed = pairs
    mines = replace(observed, loss=ks.losses.OnlineContrastiveLoss(margin=0.7))
    assert differing(program, {"online": False}, mines) == {"online": False}
    loss = recompiled(program, {"online": False}, mines).model.loss
    assert type(loss) is ks.losses.ContrastiveLoss and loss.margin == 0.7


def test_of_a_matryoshka_loss_the_whole_embeddings_are_compared(pairs):
    program, observed = pairs
    cuts = ks.losses.MatryoshkaLoss(ks.losses.OnlineContrastiveLoss(margin=0.7), [8, 4])
    mines = replace(observed, loss=cuts)
    assert differing(program, {"online": False, "margin": 0.5}, mines) == {"online": False, "margin": 0.5}
    loss = recompiled(program, {"online": False}, mines).model.loss
    assert type(loss) is ks.losses.ContrastiveLoss and loss.margin == 0.7
    encoder = program.anatomy.encoder
    two_towers = with_towers(program, observed, encoder, encoder, loss=cuts)  # no SiameseWrapper, so that it cannot cut
    assert two_towers.model.loss is cuts.loss
    wide = recompiled(program, {"width": 128}, mines)
    assert wide.model.loss is cuts and run(wide, 2).scored.is_finite


def test_all_layers_can_be_trained_within_the_block():
    model = small_programs.encoder(norm=True)
    model.layers[0].trainable = False
    before = [one.trainable for one in model.variables]
    count = len(model.trainable_variables)
    with all_trainable(model):
        assert len(model.trainable_variables) == count + 2
    assert [one.trainable for one in model.variables] == before and len(model.trainable_variables) == count


def test_a_usual_encoder_normalises_its_inputs_and_is_refused_what_it_does_not_suit():
    sample = np.random.default_rng(0).normal(100, 20, (50, 8, 8, 1)).astype("float32")
    unit, free = np.eye(8), 3 * np.ones((8, 4))
    z = keras.ops.convert_to_numpy(usual_encoder(sample, unit, is_free=True)(sample))
    assert z.shape == (50, 32) and np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    z = keras.ops.convert_to_numpy(usual_encoder(sample, free, is_free=False)(sample))
    assert z.shape == (50, 4) and not np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-2)
    assert usual_encoder(None, unit, True) is None and usual_encoder(np.zeros((4, 3, 2), "f4"), unit, True) is None


def test_only_the_encoder_is_replaced(pairs, plain):
    for program, observed in (pairs, plain):
        found = recompiled(program, {"width": 128}, observed)
        own = {id(one) for one in program.anatomy.encoder.variables}
        assert not own & {id(one) for one in found.model.variables}
        assert found.model.loss is program.model.loss and found.batches is program.batches
        assert found.anatomy.output_kind == program.anatomy.output_kind and run(found, 2).scored.is_finite


def test_a_model_without_embeddings_cannot_be_recompiled(pairs):
    program, observed = pairs

    class Whole:
        has_embeddings, encoder = False, None

    assert recompiled(replace(program, anatomy=Whole()), {"margin": 1.0}, observed) is None


def test_inputs_are_standardised_by_a_layer_before_the_users_encoder(pairs, plain):
    for program, observed in (pairs, plain):
        large = replace(program, batches=program.batches.changed(x=lambda a: 50 * a + 7))
        found = recompiled(large, {"input_scale": 1.0}, observed)
        given = large.batches.at(0)[0][0]
        scaled = (given - np.mean(large.batches.at(0)[0])) / np.std(large.batches.at(0)[0])
        ours, theirs = found.anatomy.encoder(given), program.anatomy.encoder(scaled)
        assert np.allclose(*map(keras.ops.convert_to_numpy, (ours, theirs)), atol=1e-4)
        assert found.batches is large.batches and found.start is program.start and len(run(found, 3).losses) == 3
        attached, _ = scoring.attach(found.model, (list(given[None].repeat(2, 0)), np.arange(len(given)) % 2))
        assert len(attached.towers) == 1


def test_inputs_of_a_loss_over_batches_are_standardised(batchwise):
    program, observed = batchwise
    found = recompiled(program, {"input_scale": 1.0}, observed)
    assert found.anatomy.encoder.count_params() == program.anatomy.encoder.count_params()
    assert run(found, 3).scored.is_finite


@pytest.mark.parametrize(
    ("loss", "name", "value"),
    [
        (ks.losses.SupConLoss(5.0), "temperature", 0.1),
        (ks.losses.ProxyAnchorLoss(scale=0.2), "scale", 10.0),
        (ks.losses.MultiSimilarityLoss(alpha=0.4, beta=0.2), "alpha", 20.0),
    ],
)
def test_a_loss_gets_the_temperature(batchwise, loss, name, value):
    program, observed = batchwise
    before, observed = loss.get_config(), replace(observed, loss=loss)
    asked = differing(program, {"temperature": 0.1}, observed)
    found = recompiled(program, asked, observed).model.loss
    assert getattr(found, name) == pytest.approx(value) and found.cosine_temperature == pytest.approx(0.1)
    assert loss.get_config() == before


def test_a_model_with_class_weights_keeps_them():
    model, x, labels = small_programs.encoder(norm=True), *small_programs.identities()
    model = keras.Sequential([model, ks.layers.ProxyLogits(int(labels.max()) + 1)])
    model.compile(keras.optimizers.Adam(1e-2), loss=ks.losses.ArcFaceLoss(margin=0.1))
    observed = ks.diagnose(model, validation=small_programs.identities(20, seed=1), train=(x, labels)).observed
    program = program_of(observed)
    for options in ({"width": 128}, {"trainable": True}, {"input_scale": 1.0}, {"margin": 0.2}):
        found = recompiled(program, differing(program, options, observed), observed)
        assert found.model.layers[-1] is model.layers[-1], options
        assert found.model.loss.margin == options.get("margin", 0.1) and len(run(found, 2).losses) == 2
