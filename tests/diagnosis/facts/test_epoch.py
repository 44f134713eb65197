"""What the monitor measures in every epoch."""

import math

import numpy as np
import pytest

from keras_siamese import verification
from keras_siamese.diagnosis.facts import embeddings
from keras_siamese.diagnosis.facts.epoch import HEALTH, health_of, quick_errors
from keras_siamese.diagnosis.facts.verification import standard_errors
from keras_siamese.scoring import ScoredTrials, Trials


@pytest.fixture
def scored(rng):
    labels = np.repeat(np.arange(6), 4)
    z = rng.normal(size=(6, 5))[labels] + rng.normal(size=(24, 5))
    trials = Trials.from_labels(z, labels)
    return ScoredTrials(trials, z, -np.linalg.norm(z[trials.left] - z[trials.right], axis=1))


def unlabelled(scored):
    trials = scored.trials
    return ScoredTrials(
        Trials(trials.items, trials.left, trials.right, trials.same, None), scored.embeddings, scored.scores
    )


def test_health_is_that_of_the_embeddings(scored):
    found, same = health_of(scored), scored.trials.same
    assert tuple(found) == HEALTH and found["spread"] == embeddings.spread(scored.embeddings)
    assert found["effective_rank"] == embeddings.effective_rank(scored.embeddings)
    assert found["uniformity"] == embeddings.uniformity(scored.embeddings)
    genuine = scored.trials.left[same], scored.trials.right[same]
    assert found["alignment"] == embeddings.alignment(scored.embeddings, *genuine)
    assert found["d_prime"] == verification.d_prime(scored.same, scored.scores)
    assert found["purity"] == embeddings.purity(scored.embeddings, scored.trials.identities, permutations=2)[0]
    assert math.isnan(health_of(unlabelled(scored))["purity"])


def test_errors_of_unknown_identities_are_widened(scored):
    known, unknown = quick_errors(scored), quick_errors(unlabelled(scored))
    assert known == standard_errors(scored.same, scored.scores, *scored.trials.pair_identities)
    independent = standard_errors(scored.same, scored.scores)
    assert unknown == pytest.approx({name: 3.6 * error for name, error in independent.items()})
