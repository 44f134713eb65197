"""Open-set identification: searches of a gallery that may not hold the person, with a threshold.

Contract: embeddings and identities of probes and of a gallery in, an `OpenSet` out. A probe is *mated* if its identity
is enrolled. A search returns the nearest enrolled samples that reach the threshold T:

    FPIR(T) = non-mated searches that return anything / non-mated searches
    FNIR(T) = mated searches that do not return the mate among the first R / mated searches

the terms of ISO/IEC 19795-1:2021 and of NIST's FRTE 1:N. A search is one trial, so all of `curves` and `intervals`
applies: the score of a mated search is that of its mate, and the score of a non-mated one is its highest. Anything
above `distances` may import it.

    print(evaluate_open_set(probes, probe_labels, gallery, gallery_labels, fpir=(0.1, 0.01)))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from keras_siamese import distances
from keras_siamese._checks import check_number
from keras_siamese._tables import aligned, html_table
from keras_siamese._types import ArrayLike, Axes, DistanceLike, StrPath
from keras_siamese.neighbours import nearest_blocks
from keras_siamese.verification import points as at
from keras_siamese.verification.evidence import rule_of_30
from keras_siamese.verification.intervals import Interval, between, bootstrap
from keras_siamese.verification.plots import plot_det
from keras_siamese.verification.searches import How, check_rank, check_searches, scores_of_pairs, scores_of_rows, search
from keras_siamese.verification.shards import Shards
from keras_siamese.verification.tasks import check_workers


class FNIRFigure(NamedTuple):
    """FNIR at a false positive identification rate, unless the rule of 30 withholds it.

    Attributes:
        fpir: the requested rate, in (0, 1).
        fnir: the smallest FNIR at an FPIR of at most `fpir`; None if withheld.
        threshold: the smallest threshold with such an FPIR; None if withheld.
        interval: `Interval` of the FNIR over identities of probes; None if withheld.
        mark, needed, shown_from: how reliable the figure is, see `RuleOf30`; counts are of non-mated searches.
    """

    fpir: float
    fnir: float | None
    threshold: float | None
    interval: Interval | None
    mark: str
    needed: int
    shown_from: int


@dataclass(frozen=True, eq=False)
class OpenSet:
    """The result of `evaluate_open_set`; `str()` gives a table.

    Attributes:
        mated, non_mated: numbers of searches.
        enrolled, enrolled_identities: number of samples in the gallery, and of their identities.
        rank: the number R of returned samples among which the mate must be.
        figures: a tuple of `FNIRFigure`s.
        missed: FNIR without a threshold: mated searches whose mate is not among the first R.
        is_mated, scores: `(n,)` whether each search is mated, and its score; that of a missed mate is below all others.
    """

    mated: int
    non_mated: int
    enrolled: int
    enrolled_identities: int
    rank: int
    figures: tuple[FNIRFigure, ...]
    missed: float
    is_mated: np.ndarray = field(repr=False)
    scores: np.ndarray = field(repr=False)

    def at(self, threshold: float) -> tuple[float, float]:
        """`(FPIR, FNIR)` at a threshold."""
        accepted = self.scores >= max(check_number("threshold", threshold), self._lowest)
        return float(accepted[~self.is_mated].mean()), float(1 - accepted[self.is_mated].mean())

    @property
    def _lowest(self):
        """The lowest score of a search that returns its mate, or of a non-mated search."""
        return self.scores[self.scores > self.scores.min()].min() if self.missed else self.scores.min()

    def curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`(fpir, fnir, thresholds)`, `(k,)` each: FPIR rising to 1, FNIR falling to `missed`, thresholds falling."""
        points = at.operating_points(self.is_mated, self.scores)
        kept = slice(None, -1) if self.missed else slice(None)
        return points.fmr[kept], points.fnmr[kept], points.thresholds[kept]

    def plot(self, axes: Axes) -> Axes:
        """Draws the DET curve, FNIR over FPIR, on a matplotlib `Axes`, which is returned."""
        plot_det(axes, self.is_mated, self.scores)
        axes.set(xlabel="false positive identification rate, %", ylabel="false negative identification rate, %")
        for text in axes.get_legend().texts:
            text.set_text(text.get_text().replace("FMR = FNMR", "FPIR = FNIR"))
        return axes

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The table as rows of strings, after a head."""
        yield "", "value", "interval", ""
        for one in self.figures:
            name = f"FNIR at FPIR ≤ {one.fpir:g}"
            if one.fnir is None:
                need = f"needs {one.shown_from:,} non-mated searches, {one.needed:,} for a reliable figure"
                yield name, "withheld", "", need
                continue
            unsure = f"uncertain: reliable from {one.needed:,} non-mated searches; " if one.mark == "uncertain" else ""
            ends = between(one.interval) if one.interval.standard_error else ""
            yield name, f"{one.fnir:.4f}", ends, f"{unsure}at threshold {one.threshold:.6g}"
        note = f"the mate is not among the {self.rank} nearest" if self.rank > 1 else "the nearest sample is not a mate"
        yield "FNIR, no threshold", f"{self.missed:.4f}", "", note

    def _heading(self):
        gallery = f"{self.enrolled:,} samples of {self.enrolled_identities:,} identities"
        return f"Searches of {gallery}: {self.mated:,} mated, {self.non_mated:,} non-mated, rank {self.rank}"

    def __str__(self) -> str:
        return "\n".join([self._heading(), *aligned(self.rows(), right=(1,))])

    def _repr_html_(self):
        return f"<p><b>{self._heading()}</b></p>{html_table(self.rows())}"


def evaluate_open_set(
    probes: ArrayLike | Shards,
    probe_labels: ArrayLike,
    gallery: ArrayLike | Shards,
    gallery_labels: ArrayLike,
    *,
    rank: int = 1,
    fpir: ArrayLike = (0.1, 0.01),
    distance: DistanceLike = "cosine",
    confidence: float = 0.95,
    seed: int = 0,
    folder: StrPath | None = None,
    n_jobs: int | None = None,
    progress: bool = False,
) -> OpenSet:
    """FNIR at given FPIRs: how many people are found, and how many strangers are taken for somebody.

    FPIR grows with the number of enrolled samples: evaluate with a gallery as large as the one in use.

    Patrick Grother, Mei Ngan, Kayee Hanaoka, "Face recognition technology evaluation (FRTE) part 2: identification",
    NISTIR 8271, https://doi.org/10.6028/NIST.IR.8271.

    Args:
        probes: `(n, dim)` finite embeddings, one search each, an array or `Shards`. Some identities must be enrolled,
            and some must not.
        probe_labels: `(n,)` their identities, integers or strings.
        gallery: `(m, dim)` finite embeddings of the enrolled samples, an array or `Shards`.
        gallery_labels: `(m,)` their identities.
        rank: R, from 1 to m: a mate counts as found among the R nearest samples (samples, not identities).
        fpir: false positive identification rate or rates in (0, 1).
        distance: name, `Distance`, its config or a function `(a, b) → (n,)`; scores are −distance.
        confidence: nominal coverage of the intervals, in (0, 1).
        seed: integer ≥ 0 for the resamples.
        folder, n_jobs, progress: checkpoints, workers and the progress of searches by tasks, as in
            `evaluate_retrieval`, for `Shards` or where one of the first two is given.

    Returns:
        `OpenSet`.

    Raises:
        ValueError: if all searches are mated, or none is.

    >>> gallery, labels = np.array([[0.0], [10.0], [20.0]]), np.array([0, 1, 2])
    >>> probes, names = np.array([[0.1], [9.0], [16.0], [13.0], [30.0], [5.2]]), np.array([0, 1, 1, 3, 4, 5])
    >>> found = evaluate_open_set(probes, names, gallery, labels, fpir=0.4, distance="euclidean")
    >>> found.mated, found.non_mated, round(found.missed, 3)
    (3, 3, 0.333)
    >>> found.at(-2.0)
    (0.0, 0.33333333333333337)
    """
    if gallery is None:
        raise ValueError("`gallery` must be the embeddings of the enrolled samples, (m, dim); got None")
    inputs = check_searches(probes, probe_labels, gallery, gallery_labels, ("probes", "probe_labels"))
    rank = check_rank("rank", rank, inputs)
    is_mated = inputs.mates > 0
    if is_mated.all() or not is_mated.any():
        found = f"{np.count_nonzero(is_mated)} of {len(is_mated)} searches are mated"
        raise ValueError(f"`probe_labels` must hold enrolled identities and others; {found}")
    rates = [
        check_number("fpir", rate, low=0, high=1, open_low=True, open_high=True) for rate in np.ravel(fpir).tolist()
    ]
    scores = scores_of_searches(inputs, is_mated, rank, distance, How(*check_workers(folder, n_jobs), progress))
    missed = np.isneginf(scores)
    scores[missed] = np.nextafter(scores[~missed].min(), np.float64(-np.inf))
    non_mated = int(np.count_nonzero(~is_mated))
    marks = [rule_of_30(rate, non_mated) for rate in rates]
    shown = [("tar_at_far", rate) for rate, mark in zip(rates, marks, strict=True) if mark.mark != "withheld"]
    identities = {"left": inputs.query_codes, "right": inputs.query_codes}
    found = bootstrap(shown, is_mated, scores, **identities, confidence=confidence, seed=seed) if shown else {}
    points = at.operating_points(is_mated, scores)
    figures = []
    for rate, mark in zip(rates, marks, strict=True):
        reliable = mark.mark, mark.needed, mark.shown_from
        if mark.mark == "withheld":
            figures.append(FNIRFigure(rate, None, None, None, *reliable))
            continue
        hits = found["tar_at_far", rate]
        interval = Interval.of(1 - hits.estimate, 1 - hits.replicates, hits.confidence)
        threshold = float(points.thresholds[at.within(points, rate)])
        figures.append(FNIRFigure(rate, interval.estimate, threshold, interval, *reliable))
    return OpenSet(
        mated=int(np.count_nonzero(is_mated)),
        non_mated=non_mated,
        enrolled=len(inputs.gallery),
        enrolled_identities=len(np.unique(inputs.gallery_codes)),
        rank=rank,
        figures=tuple(figures),
        missed=float(missed[is_mated].mean()),
        is_mated=is_mated,
        scores=scores,
    )


def scores_of_searches(inputs, is_mated, rank, distance, how):
    """Float64 scores `(n,)`: of a mated search that of its nearest mate within `rank`, or −∞; of others the highest."""
    measure = distances.get(distance)
    if how.has_tasks(inputs):
        return search(inputs, read_scores, rank, measure, how, every=True)[0]
    scores = np.full(len(is_mated), -np.inf)
    for block, rows in nearest_blocks(inputs.queries, inputs.gallery, rank, distance):
        chosen, decisive = decided(rows, inputs.gallery_codes, inputs.query_codes[block], is_mated[block])
        scores[block[chosen]] = scores_of_pairs(measure, inputs.queries[block[chosen]], inputs.gallery[decisive])
    return scores


def decided(rows, gallery_codes, codes, is_mated):
    """The searches that have a score, and the gallery rows that decide them, of the nearest `rows (searches, rank)`."""
    hits = gallery_codes[rows] == codes[:, None]
    hits[~is_mated, 0] = True  # a search without a mate is decided by its nearest sample
    chosen = np.flatnonzero(hits.any(axis=1))
    return chosen, rows[chosen, np.argmax(hits, axis=1)[chosen]]


def read_scores(task, found):
    """The scores of the searches of a task, `(searches,)` in a tuple."""
    chosen, decisive = decided(found.nearest, task.gallery_codes, found.codes, found.mates > 0)
    scores = np.full(len(found.codes), -np.inf)
    scores[chosen] = scores_of_rows(task, found.queries, chosen, decisive)
    return (scores,)
