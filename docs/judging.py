"""Draws docs/assets/judging.png: errors by group, by age and by quality of the samples, and an open-set search.

The embeddings are drawn at random: each person has a place, which moves with the years, and one of two cameras adds
more noise than the other.

    python docs/judging.py
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from keras_siamese import verification  # noqa: E402

PEOPLE, VISITS, DIM = 2000, 6, 24
EDGES = [1, 2, 3, 4]  # years


def samples(seed=0):
    """Embeddings `(n, dim)`, and of each sample the person, the camera, the year and the quality."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(PEOPLE), VISITS)
    camera, year = rng.integers(2, size=len(person)), rng.uniform(0, 5, len(person))
    noise = np.where(camera == 0, 0.55, 0.75) * rng.uniform(0.5, 1.6, len(person))
    drift = rng.normal(size=(PEOPLE, DIM))[person] * 0.18 * year[:, None]
    z = rng.normal(size=(PEOPLE, DIM))[person] + drift + noise[:, None] * rng.normal(size=(len(person), DIM))
    return z / np.linalg.norm(z, axis=1, keepdims=True), person, camera, year, -noise


def figure_of(seed=0):
    """The figure, with a panel for each question."""
    z, person, camera, year, quality = samples(seed)
    first, second = np.triu_indices(VISITS, 1)
    genuine = [VISITS * np.arange(PEOPLE)[:, None] + visit for visit in (first, second)]
    drawn = np.random.default_rng(seed).integers(len(z), size=(2, 100_000))
    left, right = (np.concatenate([own.ravel(), others]) for own, others in zip(genuine, drawn, strict=True))
    same, scores = person[left] == person[right], (z[left] * z[right]).sum(axis=1)
    threshold = verification.threshold_at_far(same, scores, 0.01)
    rule = {"threshold": threshold, "left": person[left], "right": person[right]}
    cameras = np.array(["both old", "old and new", "both new"])[2 - camera[left] - camera[right]]
    ages = np.abs(year[left] - year[right])
    is_probe = np.arange(len(z)) % VISITS == 0
    enrolled = ~is_probe & (person < PEOPLE // 2)
    searches = verification.evaluate_open_set(z[is_probe], person[is_probe], z[enrolled], person[enrolled])

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    (groups, age), (discarded, open_set) = figure.subplots(2, 2)
    verification.compare_groups(same, scores, cameras, **rule).plot(groups).set_title("By camera")
    verification.compare_groups(same, scores, ages, edges=EDGES, **rule).plot(age)
    age.set_title("By years between the samples")
    worse = np.minimum(quality[left], quality[right])
    curve = verification.error_versus_discard(same, scores, worse, threshold=threshold)
    verification.plot_discard(discarded, curve).set_title("Without the samples of lowest quality")
    searches.plot(open_set).set_title("Searches of a gallery")
    return figure


if __name__ == "__main__":
    figure_of().savefig(HERE / "assets" / "judging.png", dpi=80, metadata={"Software": None})
