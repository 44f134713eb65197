"""The panels of the health curves: titles, directions, and the values that a curve is compared with."""

import numpy as np
import pytest

from keras_siamese.diagnosis.facts.embeddings import uniformity
from keras_siamese.diagnosis.report.panels import (
    HEALTH,
    Line,
    chance_purity,
    lines_of,
    lowest_rank,
    panel_of,
    uniformity_of_sphere,
)
from tests.support.diagnoses import made


def test_each_curve_has_its_title_direction_and_alarms():
    expected = {
        "spread": ("spread", "higher", {"warning": 0.25, "error": 0.1, "uniform": 1.0}),
        "uniformity": ("uniformity", "lower", {}),
        "alignment": ("alignment", "lower", {"chance": 2.0}),
        "effective_rank": ("effective rank", "higher", {}),
        "d_prime": ("d′", "higher", {"warning": 0.5}),
        "intra_inter_ratio": ("intra/inter ratio", "lower", {"warning": 0.9, "chance": 1.0}),
        "purity": ("neighbour purity", "higher", {}),
        "update_size": ("update size", None, {}),
        "learning_rate": ("learning rate", None, {}),
    }
    assert set(HEALTH) == {*expected, "active_fraction"}
    for name, (title, better, lines) in expected.items():
        panel = panel_of(name)
        assert (panel.title, panel.better, dict(panel.lines)) == (title, better, lines)
        assert panel.logarithmic == (name in ("update_size", "learning_rate"))
    none, every = panel_of("active_fraction").lines
    assert none == ("warning", pytest.approx(0.01)) and every == Line("warning", 0.99)
    unknown = panel_of("my_curve")
    assert (unknown.title, unknown.better, unknown.lines) == ("my curve", None, ())


def test_references_that_depend_on_the_data():
    identities = np.repeat(np.arange(200), [3, 2] * 100)
    same = identities[:, None] == identities
    np.fill_diagonal(same, False)
    assert chance_purity(identities) == pytest.approx(same.sum() / (500 * 499))
    assert chance_purity(np.zeros(1, int)) == 0
    assert lowest_rank(512, identities) == pytest.approx(0.15 * 199)
    assert lowest_rank(64, None) == pytest.approx(0.15 * 64)
    assert lowest_rank(8, identities) == 2


@pytest.mark.parametrize("dim", [1, 2, 3, 64])
def test_uniformity_of_a_sphere_is_that_of_random_directions(dim):
    z = np.random.default_rng(0).normal(size=(2000, dim))
    assert uniformity_of_sphere(dim) == pytest.approx(uniformity(z), abs=0.03)


def test_lines_of_a_run_include_those_of_its_data():
    observed, unlabelled = made(curves={}).observed, made(curves={}, labelled=False).observed
    assert lines_of("effective_rank", observed) == [Line("warning", 2.0)]  # 0.15 · min(6, 13) is less
    assert lines_of("purity", observed) == [Line("chance", pytest.approx(3 / 55))]  # 14 identities of 4 samples
    assert lines_of("purity", unlabelled) == []
    assert lines_of("uniformity", observed) == [Line("uniform", pytest.approx(uniformity_of_sphere(6)))]
    assert lines_of("spread", observed) == list(panel_of("spread").lines)
