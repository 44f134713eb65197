"""Each name that evidence can have is explained, and no other."""

from collections import defaultdict

import numpy as np

from keras_siamese.diagnosis.causes import CAUSES
from keras_siamese.diagnosis.meanings import MEANINGS

OF_NO_CAUSE = {"genuine_over_impostor_distance"}  # of the finding that no cause explains the run


# The values that a fact may have, by a part of its name; the first that fits.
VALUES = {
    "for_ever": [0, 1],
    "learned_head": [0, 1],
    "identities": [2, 30],
    "_end": [-1, 1],
    "eer": [0.04, 0.2, 0.45],
    "accuracy": [0.5, 0.9],
    "gain": [-0.1, 0.005, 0.03],
    "": [0.04, 0.3, 0.6, 1, 30],
}


class AnyFacts:
    """Facts of a run that cannot be: each is missing, or has one of some values, by chance."""

    def __init__(self, rng):
        self.numbers, self.rng = {}, rng
        self.words, self.rows = defaultdict(lambda: "word"), defaultdict(list)

    def __contains__(self, name):
        if name not in self.numbers:
            values = next(values for part, values in VALUES.items() if part in name)
            self.numbers[name] = float(self.rng.choice(values)) if self.rng.uniform() < 0.9 else None
        return self.numbers[name] is not None

    def get(self, name, default=None):
        return self.numbers[name] if name in self else default

    def __getitem__(self, name):
        return self.get(name, 0.5)


def test_each_name_is_explained():
    found = set()
    for draw in range(300):
        facts = AnyFacts(np.random.default_rng(draw))
        for cause in CAUSES:
            found |= set(getattr(cause.judge(facts), "evidence", ()))
    assert found | OF_NO_CAUSE == set(MEANINGS)


def test_a_meaning_is_one_line():
    for name, meaning in MEANINGS.items():
        assert meaning[0].islower() or meaning[0].isupper() or meaning[0] == "1", name
        assert len(meaning) <= 100 and not meaning.endswith(".") and "\n" not in meaning, name
    assert list(MEANINGS) == sorted(MEANINGS)
