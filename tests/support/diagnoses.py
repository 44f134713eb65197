"""Diagnoses made by hand, without training, with every piece that a report may have, or with some of them missing.

`made()` has all; identities bear `HOSTILE` names. `made(images=False, history=False)` has what is left.
"""

import numpy as np

from keras_siamese.data.sources import check_source
from keras_siamese.diagnosis.diagnosis import diagnosis_of
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.report.panels import PANELS
from keras_siamese.diagnosis.run import Run
from keras_siamese.scoring import ScoredTrials, Trials

HOSTILE = (
    "<script>alert(1)</script>",
    "</title><img src=x onerror=alert(1)>",
    "\"double\" & 'single' `quoted`",
    "$\\frac{a}{b}$ {{ 7*7 }} {% raw %}",
    "émilie 🎉 \u202eright to left",
    "long" * 100,
    "not text \udcff",
)
EPOCHS = 20


class Images:
    """Images that are read lazily, as those of a folder are, from paths with hostile names."""

    def __init__(self, images):
        self.images = images
        self.paths = tuple(f"/photos/{HOSTILE[i % len(HOSTILE)]}/{i}.png" for i in range(len(images)))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        return self.images[rows]


def samples(kind, codes, rng):
    """Samples of the identities `codes` `(n,)`: "images", "lazy", "dict" of images and numbers, or "numbers" alone."""
    noise = rng.random((len(codes), 7, 9, 3))
    images = (255 * (0.6 * rng.random((codes.max() + 1, 7, 9, 3))[codes] + 0.4 * noise)).astype("uint8")
    numbers = images.reshape(len(codes), -1)[:, :5].astype("float32")
    return {
        "images": images,
        "lazy": Images(images),
        "dict": {"height": numbers, "photo": images},
        "numbers": numbers,
        "words": {"words": numbers.astype(int), "length": numbers[:, 0]},
    }[kind]


def history(epochs=EPOCHS, health=tuple(PANELS)):
    """Curves of a run whose loss falls and whose verification gets worse, with the given ones of health."""
    rng = np.random.default_rng(1)
    worse = np.r_[np.linspace(0.4, 0.2, 8), np.linspace(0.22, 0.4, 12)][:epochs]
    curves = {"loss": np.geomspace(1, 0.05, epochs), "eer": worse, "auc": 1 - 0.9 * worse}
    curves |= {"auc_se": np.full(epochs, 0.01), "eer_se": np.full(epochs, 0.01)}
    curves |= {name: rng.uniform(0.01, 1, epochs) for name in health}
    return {name: curve.tolist() for name, curve in curves.items()}


def made(
    kind="images", *, identities=14, labelled=True, dim=6, curves=None, noise=1.0, not_finite_since=None, **options
):
    """A `Diagnosis` of random identities, 4 samples each, `noise` as large as what tells them apart."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(identities), 4)
    z = rng.normal(size=(identities, dim))[codes] + noise * rng.normal(size=(len(codes), dim))
    names = np.array([HOSTILE[code] if code < len(HOSTILE) else f"person {code}" for code in codes])
    trials = Trials.from_labels(check_source("x", samples(kind, codes, rng)), names)
    if not labelled:
        trials = Trials(trials.items, trials.left, trials.right, trials.same, None)
    scored = ScoredTrials(trials, z, -np.linalg.norm(z[trials.left] - z[trials.right], axis=1))
    settings = {HOSTILE[0]: HOSTILE[1], "loss": {"class": "ContrastiveLoss", "margin": 1.0, "name": None}}
    run = Run(history() if curves is None else curves, not_finite_since=not_finite_since)
    return diagnosis_of(Observed(run, scored, settings=settings, **options))
