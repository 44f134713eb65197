"""In a notebook, results show themselves as HTML: what their text says, escaped, and well-formed."""

import keras
import numpy as np
import pytest

import keras_siamese as ks
from tests.support.fragments import text_of, words


def test_a_verification_report(rng):
    same = np.arange(400) % 2
    report = ks.verification.evaluate(same, rng.normal(size=400) + 3 * same, threshold=1.5)
    assert text_of(report._repr_html_()) == words(str(report))


def test_an_anatomy():
    encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="tower")
    anatomy = ks.dissect(ks.SiameseWrapper(encoder, name="a<b"))
    assert text_of(anatomy._repr_html_()) == words(str(anatomy)) and "a<b" in str(anatomy)


def test_the_results_of_a_search():
    pytest.importorskip("keras_tuner")
    from keras_siamese.tuning.results import SearchResults, TrialResult

    records = [{"logs": {"val_eer": 0.25}, "epoch": 3, "seconds": 1.0}]
    trials = [
        TrialResult("0", {"distance": "cosine"}, records, 0.25),
        TrialResult("1", {"distance": "<p>"}, [], np.nan, error="ValueError: 1 < 2"),
    ]
    results = SearchResults(trials, ks.tuning.objective("val_eer"), 1)
    shown = text_of(results._repr_html_())
    assert shown.startswith(results.summary())
    assert all(words(cell) in shown for row in results.rows() for cell in row)
