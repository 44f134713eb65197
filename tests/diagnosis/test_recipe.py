"""Tests of what is read of a model's training data and compile: forms of data, trials, the loss as text."""

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.attach.anatomy import dissect
from keras_siamese.diagnosis.recipe import MAX_TRAIN_ITEMS, fed_of, recipe_of, settings_of, training_of
from tests.support import small_programs

X, LABELS = small_programs.identities()


def wrapper():
    model = ks.SiameseWrapper(small_programs.encoder())
    model.compile(keras.optimizers.Adam(0.003), ks.losses.ContrastiveLoss(margin=0.7))
    return model


def test_items_with_identities_become_trials_of_them():
    source, trials = training_of(dissect(wrapper(), X[:4]), (X, LABELS))
    assert source[0] is X and np.array_equal(trials.same, LABELS[trials.left] == LABELS[trials.right])
    assert training_of(None, None) == (None, None)


def test_of_many_items_some_of_each_identity_are_taken():
    x, labels = small_programs.identities(count=400)
    _, trials = training_of(dissect(wrapper(), x[:4]), (x, labels))
    assert len(trials.items) == MAX_TRAIN_ITEMS and len(np.unique(trials.identities)) == 400


@pytest.mark.parametrize("similar", [1, 0])
def test_pairs_become_a_source_that_knows_which_label_means_the_same(similar):
    right = np.concatenate([X[:60][::-1] + 5, X[60:] + 0.01]).astype("float32")
    same = np.arange(len(X)) >= 60
    y = np.where(same, similar, 1 - similar)
    source, trials = training_of(dissect(wrapper(), X[:4]), ([X, right], y))
    assert np.array_equal(trials.same, same) and source.similar_label == similar
    assert source.positive_fraction == pytest.approx(same.mean())
    settings = recipe_of(dissect(wrapper(), X[:4]), source, ([X, right], y))["settings"]
    assert settings["train"] == f"{len(same)} pairs, {same.mean():.0%} of them genuine"  # nothing of batches


def test_of_many_pairs_the_rare_genuine_ones_are_taken():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 3 * MAX_TRAIN_ITEMS, *X.shape[1:])).astype("float32")
    y = np.zeros(len(left), int)
    y[[7, 2000, 2999]] = 1
    right[y == 1] = left[y == 1] + 0.01
    _, trials = training_of(dissect(wrapper(), X[:4]), ([left, right], y))
    assert len(trials.same) == MAX_TRAIN_ITEMS and trials.rows[trials.left[trials.same]].tolist() == [7, 2000, 2999]


def test_data_without_identities_are_refused():
    with pytest.raises(
        ValueError, match=r"`train` must be \(x, labels\) or a sequence with `x` and `labels`; got a dict"
    ):
        training_of(dissect(wrapper(), X[:4]), {"x": X})


def test_a_data_set_is_given_as_fit_takes_it():
    sequence = ks.data.PairSequence(X, LABELS, batch_size=30, pairs_per_epoch=60)
    assert fed_of((sequence, None)) is sequence and fed_of(None) is None


def test_the_recipe_says_how_a_model_is_trained():
    sequence = ks.data.PairSequence(X, LABELS, batch_size=30, pairs_per_epoch=60, positive_fraction=0.3)
    recipe = recipe_of(dissect(wrapper(), X[:4]), sequence)
    assert recipe["fed"] is recipe["source"] is sequence and recipe["positive_fraction"] == 0.3
    assert recipe["learning_rate"] == pytest.approx(0.003) and recipe["settings"]["loss"]["margin"] == 0.7
    assert recipe["settings"]["distance"] == "EuclideanDistance()"


def test_a_loss_as_text():
    def mine(y_true, y_pred):
        return y_pred

    assert settings_of(mine) == "mine" and settings_of("mse") == "mse" and settings_of(None) is None
    assert settings_of(ks.losses.ContrastiveLoss(margin=2.0))["class"] == "ContrastiveLoss"


class OwnPairs(keras.utils.PyDataset):
    """A user's pairs, with attributes that have the names of this package's sequences and mean something else."""

    def __init__(self, left, right, labels):
        super().__init__()
        self.x, self.left, self.right, self.labels, self.batch, self.epoch = left, left, right, labels, 16, 0
        self.pairs, self.identities, self.positive_fraction, self.rows, self.same = [], 7, 0.1, [], labels
        self.similar_label, self.classes_per_batch, self.augment, self.batch_size = 5, 3, "none", "16"

    def __len__(self):
        return len(self.labels) // self.batch

    def __getitem__(self, index):
        rows = slice(index * self.batch, (index + 1) * self.batch)
        return (self.left[rows], self.right[rows]), self.labels[rows]


def test_a_data_set_of_the_user_may_have_attributes_of_any_name():
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2, 96)
    right = np.where(kinds[:, None] == 1, X[:96] + 0.01, X[:96][::-1] + 5).astype("float32")
    data = OwnPairs(X[:96], right, kinds.astype("float32"))
    inputs = keras.Input((X.shape[1],)), keras.Input((X.shape[1],))
    encoder = small_programs.encoder()
    output = keras.layers.Dense(1, "sigmoid")(abs(encoder(inputs[0]) - encoder(inputs[1])))
    model = keras.Model(inputs, output)
    model.compile("adam", "binary_crossentropy")
    monitor = ks.callbacks.DivergenceMonitor(data, train=(data, None))
    model.fit(data, epochs=1, verbose=0, callbacks=[monitor])
    for given in (data, (data, None)):
        (left, _), y = fed_of(given)
        assert np.array_equal(left, X[:96]) and np.array_equal(y, data.labels)
        facts = ks.diagnose(model, train=given, validation=given, confirm=True, budget_epochs=1).facts
        assert facts["pairs"] == 96 and facts["positive_fraction"] == pytest.approx(kinds.mean())
    siamese = wrapper()  # it shows what it is fitted on
    siamese.fit(data, epochs=1, verbose=0, callbacks=[ks.callbacks.DivergenceMonitor(data)])
