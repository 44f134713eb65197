"""The table of facts: numbers by name, words and rows beside them; facts that cannot be measured are missing."""

from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese._files import SideWork, SideWorkWarning
from keras_siamese.diagnosis import causes
from keras_siamese.diagnosis.causes import CAUSES
from keras_siamese.diagnosis.facts import table
from keras_siamese.diagnosis.facts.table import NEEDED, Facts
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.run import ALWAYS, Run
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


def test_what_a_cause_needs_is_known_by_the_function_that_measures_it(monkeypatch):
    needed = {name for names in NEEDED.values() for name in names}
    assert needed >= {name for cause in CAUSES for name in cause.reads}
    assert len(needed) == sum(map(len, NEEDED.values()))
    asked = "".join(path.read_text(encoding="utf-8") for path in Path(causes.__file__).parent.glob("*.py"))
    assert [name for name in needed if f'"{name}"' not in asked] == []
    found = {}

    def recorded(part):
        def measured(observed):
            given = part(observed)
            numbers = given[0] if isinstance(given, tuple) else given
            found.update(dict.fromkeys(numbers, part.__name__))
            return given

        return measured

    monkeypatch.setattr(table, "NEEDED", {recorded(part): names for part, names in NEEDED.items()})
    x, labels = plantings.train_part()
    model, history = ks.SiameseWrapper(encoder(), head="logistic"), {name: [0.5, 0.4] for name in ALWAYS}
    options = {"source": ks.data.PairSequence(x, labels), "threshold": 0.5, "output_kind": "score"}
    facts_of(model, (x, labels), history=history, loss=keras.losses.BinaryCrossentropy(), **options)
    owners = {name: part.__name__ for part, names in NEEDED.items() for name in names}
    assert {name: part for name, part in found.items() if name in owners and owners[name] != part} == {}
    assert len(owners.keys() & found.keys()) > 20


def test_the_facts_of_a_function_that_raises_are_missing_with_its_error():
    side = SideWork()

    def of_loss(observed):
        raise ZeroDivisionError("no loss")

    with pytest.warns(SideWorkWarning, match="Measuring the facts of_loss failed"):
        errors = {}
        assert table.measured(of_loss, SimpleNamespace(side=side), errors, {}) == {}
    facts = Facts({"eer": 0.25}, errors=errors)
    assert facts.error_of("margin").startswith("ZeroDivisionError: no loss (table.py, line ")
    assert facts.error_of("spread") is None and facts.error_of("eer_of_nothing") is None
    assert facts.to_dict()["errors"] == errors


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
