"""Tests of `recompiled`: the user's encoder under another comparison or loss starts from the same weights."""

from dataclasses import replace

import keras
import numpy as np

import keras_siamese as ks
from keras_siamese.diagnosis.experiments.comparison import all_trainable, differing, recompiled, usual_encoder
from keras_siamese.diagnosis.experiments.program import run
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
