"""The table of facts: numbers by name, words and rows beside them; facts that cannot be measured are missing."""

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.facts.table import Facts
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.run import Run
from keras_siamese.scoring import Trials, score
from tests.support import plantings
from tests.support.measured import encoder, facts_of


def test_numbers_are_read_by_name():
    facts = Facts({"eer": 0.25}, {"loss": "ContrastiveLoss"}, {"duplicates": [3]})
    assert facts["eer"] == 0.25 and facts.get("eer") == 0.25 and "eer" in facts
    assert facts.get("gap") is None and facts.get("gap", 1.0) == 1.0 and "gap" not in facts
    assert facts.to_dict() == {
        "numbers": {"eer": 0.25}, "words": {"loss": "ContrastiveLoss"}, "rows": {"duplicates": [3]}
    }  # fmt: skip
    with pytest.raises(KeyError, match="gap"):
        facts["gap"]


def test_facts_of_two_encoders_say_so():
    left, right = keras.Input((24,)), keras.Input((24,))
    model = keras.Model([left, right], ks.layers.DistanceLayer("euclidean")([encoder()(left), encoder()(right)]))
    x, labels = plantings.train_part()
    facts = facts_of(model, (x[:100], labels[:100]))
    assert facts["unshared"] == 1.0 and "swap_gain" not in facts


@pytest.mark.deep
@pytest.mark.each_backend
def test_a_diagnosed_encoder_with_running_statistics_trains_on():
    """On JAX, the untrained copy shared the buffers of moving means, so the next `fit` or `predict` failed."""
    x, labels = plantings.train_part()
    model = encoder(batch_normalization=True)
    model.compile("adam", loss=ks.losses.SupConLoss())
    batches = ks.data.BalancedBatchSequence(x, labels, classes_per_batch=4, samples_per_class=4, batches_per_epoch=2)
    monitor = ks.callbacks.DivergenceMonitor(plantings.held_out_part())
    for epoch in range(2):
        model.fit(batches, initial_epoch=epoch, epochs=epoch + 1, callbacks=[monitor], verbose=0)
        assert monitor.diagnosis is not None
        assert np.isfinite(model.predict(x[:8], verbose=0)).all()


def test_triplets_and_dicts_are_no_hindrance():
    x, labels = plantings.train_part()
    triplets = ks.data.TripletSequence(x, labels, batch_size=20)
    facts = facts_of(ks.SiameseWrapper(encoder()), (x, labels), triplets)
    assert "drawn_auc" not in facts and facts["train_eer"] > 0
    named = keras.Input((24,), name="a")
    model = keras.Model({"a": named}, encoder()(named))
    trials = Trials.from_labels({"a": x[:60]}, labels[:60])
    siamese = ks.SiameseWrapper(model)
    observed = Observed(
        Run(),
        score(siamese, trials),
        score(siamese, trials),
        siamese=siamese,
        source=ks.data.PairSequence({"a": x}, labels),
    )
    assert "eer" in observed.facts and "input_scale" not in observed.facts and "drawn_auc" in observed.facts
