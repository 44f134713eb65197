"""The verification report: every figure of a test, and how reliable it is.

Contract: labels and scores in, optionally a threshold chosen on other pairs and the identities of both sides; a frozen
`VerificationReport` out, which prints as a table and converts to a plain dict. Figures that the number of pairs does
not support are marked or withheld. The accuracy is reported at a threshold from other pairs; the best accuracy on the
same pairs is labelled as optimistic. Anything above `distances` may import it.

    report = evaluate(same, scores, threshold=0.6, left=left, right=right)
    print(report)
    report.eer, report.accuracy, report.intervals["eer"].standard_error
    json.dumps(report.to_dict())
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from keras_siamese._checks import check_installed, check_integer, check_labels, check_number, check_writable
from keras_siamese._files import write_text
from keras_siamese._tables import aligned, html_table
from keras_siamese._types import ArrayLike, DataFrame, Figure, StrPath
from keras_siamese.verification import pages, plots
from keras_siamese.verification import points as at
from keras_siamese.verification.costs import cllr, min_cllr_of, min_dcf_of
from keras_siamese.verification.crossfit import cross_fitted_decisions
from keras_siamese.verification.curves import d_prime
from keras_siamese.verification.evidence import (
    auc_floor,
    best_accuracy_floor,
    in_words,
    of_negatives,
    rule_of_3,
    rule_of_30,
    tar_note,
)
from keras_siamese.verification.intervals import Interval, between, bootstrap
from keras_siamese.verification.pairs import check_agreement, check_identities, check_pairs
from keras_siamese.verification.points import OperatingPoint


class TARFigure(NamedTuple):
    """TAR at a false match rate, unless the rule of 30 withholds it.

    Attributes:
        far: the requested false match rate, in (0, 1].
        tar, threshold: the largest TAR at an FMR of at most `far` and the smallest threshold with such an FMR; None if
            withheld (`tar_at_far` and `threshold_at_far` always compute them).
        mark, needed, shown_from: how reliable the figure is, see `RuleOf30`.
    """

    far: float
    tar: float | None
    threshold: float | None
    mark: str
    needed: int
    shown_from: int


@dataclass(frozen=True, eq=False)
class VerificationReport:
    """The result of `evaluate`; `str()` gives a table.

    Attributes:
        genuines, impostors: numbers of pairs.
        identities: number of identities on either side; None if not given.
        eer, eer_point: equal error rate and the operating point nearest to it.
        auc, auc_floor: area under the ROC curve, and the AUC that random scores exceed once in a hundred.
        d_prime: decidability, possibly infinite.
        best_accuracy, best_threshold: the largest accuracy over all thresholds, optimistic, and where it is reached.
        best_accuracy_floor: the best accuracy that random scores exceed once in a hundred.
        min_dcf: see the function of that name, with its default arguments.
        min_cllr: cost of the scores in bits after the best possible calibration.
        cllr: cost in bits with the given calibration; None without one.
        tar: a `TARFigure` for each requested false match rate.
        threshold: the given threshold. Without one it is None, and so are the next three.
        accuracy, fmr, fnmr: share of correct decisions, FMR and FNMR at `threshold`.
        cross_fitted_accuracy: see the function of that name; None if a threshold is given, or if no threshold could be
            chosen.
        confidence: nominal coverage of the intervals.
        intervals: if identities are given, an `Interval` by name: `eer`, `auc`, `accuracy`, `fmr`, `fnmr`, `tar@far=…`
            and `cross_fitted_accuracy` (of the decisions made; it does not include the variation of the thresholds). A
            figure that is the same on all resamples, for example without any error, has no interval.
        pairs: the evaluated pairs, for `plot`: `same`, `scores`, `left`, `right` and `calibration` as given; `negated`
            is "distance" or "output" if the scores are known to be its negative.
    """

    genuines: int
    impostors: int
    identities: int | None
    eer: float
    eer_point: OperatingPoint
    auc: float
    auc_floor: float
    d_prime: float
    best_accuracy: float
    best_threshold: float
    best_accuracy_floor: float
    min_dcf: float
    min_cllr: float
    cllr: float | None
    tar: tuple[TARFigure, ...]
    threshold: float | None
    accuracy: float | None
    fmr: float | None
    fnmr: float | None
    cross_fitted_accuracy: float | None
    confidence: float
    intervals: dict[str, Interval] = field(repr=False)
    pairs: dict[str, Any] = field(repr=False)

    @property
    def balanced_accuracy(self) -> float | None:
        """1 − (FMR + FNMR) / 2 at `threshold`: the accuracy with equal weights for both classes; or None."""
        return None if self.threshold is None else 1 - (self.fmr + self.fnmr) / 2

    @property
    def meaning(self) -> str:
        """How many of 100 genuine and of 100 impostor pairs are accepted at `threshold`, else at that of the EER."""
        at = self.eer_point if self.threshold is None else (self.threshold, self.fmr, self.fnmr)
        negated = self.pairs.get("negated")
        return in_words(*at) if negated is None else f"{in_words(*at)} {of_negatives(at[0], negated)}"

    def to_dict(self) -> dict[str, Any]:
        """The report as numbers, strings, lists and dicts for JSON; infinite numbers become None."""
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "pairs"}
        plain["balanced_accuracy"] = self.balanced_accuracy
        plain["eer_point"] = self.eer_point._asdict()
        plain["tar"] = [figure._asdict() for figure in self.tar]
        ends = ("low", "high", "standard_error")
        intervals = self.intervals.items()
        plain["intervals"] = {name: {end: getattr(interval, end) for end in ends} for name, interval in intervals}
        return _finite(plain)

    def to_frame(self) -> DataFrame:
        """The table as a pandas `DataFrame`: one row per figure, columns value, low, high and note; NaN if missing.

        Raises `ImportError` without pandas.
        """
        import pandas

        rows = []
        for name, key, value, note in self._figures():
            interval = self.intervals.get(key)
            rows.append((name, value, *((interval.low, interval.high) if interval else (None, None)), note))
        frame = pandas.DataFrame(rows, columns=["figure", "value", "low", "high", "note"]).set_index("figure")
        return frame.astype({"value": float, "low": float, "high": float})

    def plot(self) -> Figure:
        """A matplotlib `Figure` of the scores, the ROC and DET curves and, with a calibration, a reliability diagram.

        Raises `ImportError` without the extra `report`.
        """
        check_installed("matplotlib", "report")
        from matplotlib.figure import Figure
        from scipy.special import expit

        same, scores, calibration = (self.pairs[name] for name in ("same", "scores", "calibration"))
        figure = Figure(figsize=(11, 8) if calibration else (15, 4.2), layout="constrained")
        axes = figure.subplots(*((2, 2) if calibration else (1, 3))).ravel()
        thresholds = {"EER": self.eer_point.threshold}
        if self.threshold is not None:
            thresholds["given"] = self.threshold
        plots.plot_scores(axes[0], same, scores, thresholds)
        plots.plot_roc(axes[1], same, scores, self.pairs["left"], self.pairs["right"])
        plots.plot_det(axes[2], same, scores)
        if calibration:
            slope, offset = calibration
            plots.plot_reliability(axes[3], same, expit(slope * scores.astype(np.float64) + offset))
        return figure

    def to_html(self, path: StrPath, title: str = "Verification", groups: ArrayLike | None = None) -> None:
        """Writes the table and the figure as one self-contained HTML page.

        With `groups` `(n,)`, the group of each pair as `compare_groups` takes it, integers or strings, a reader can
        choose a group: counts, FMR, FNMR and curves over the threshold, and the examples, are then those of its pairs.
        Of more than a hundred groups, the smallest are put together.

        Raises `ImportError` without the extra `report`, and `ValueError` if `path` cannot be written or if `groups` has
        not one group for each pair.
        """
        path = check_writable("path", path)
        if groups is not None:
            groups = check_labels("groups", groups, length=len(self.pairs["same"]))
        write_text(path, pages.render(self, title, groups))

    def __str__(self) -> str:
        pairs = self.genuines + self.impostors
        heading = f"Verification of {pairs:,} pairs: {self.genuines:,} genuine, {self.impostors:,} impostor"
        if self.identities is not None:
            heading += f", {self.identities:,} identities"
        return "\n".join([heading, self.meaning, *aligned(self.rows(), right=(1,))])

    def _repr_html_(self):
        heading, meaning, *_ = str(self).splitlines()
        return f"<p><b>{heading}</b><br>{meaning}</p>{html_table(self.rows())}"

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Name, value, interval and note of each line as text; the first line is the head of the table."""
        yield "", "value", f"{100 * self.confidence:.4g} % interval" if self.intervals else "", ""
        for name, key, value, note in self._figures():
            interval = self.intervals.get(key)
            ends = between(interval) if interval else ""
            missing = "withheld" if name.startswith("TAR") else "–"
            yield name, missing if value is None else f"{value:.4f}", ends, note

    def _figures(self):
        """Name, key of the interval, value (None if there is none to show) and note of each line."""
        if self.threshold is not None:
            share = 100 * self.impostors / (self.genuines + self.impostors)
            yield "FMR", "fmr", self.fmr, _no_error_note(self.fmr, self.impostors)
            yield "FNMR", "fnmr", self.fnmr, _no_error_note(self.fnmr, self.genuines)
            yield "accuracy, balanced", "", self.balanced_accuracy, "1 − (FMR + FNMR) / 2"
            yield "accuracy", "accuracy", self.accuracy, f"of these pairs, {share:.3g} % of which are impostor pairs"
        inverted = "; worse than random: are labels or scores inverted?" if self.auc < 1 - self.auc_floor else ""
        without_error = _no_error_note(self.eer, min(self.genuines, self.impostors))
        note = f"at threshold {self.eer_point.threshold:.6g}{'; ' if without_error else ''}{without_error}"
        yield "EER", "eer", self.eer, note
        yield "AUC", "auc", self.auc, f"random scores reach {self.auc_floor:.4f}{inverted}"
        yield "d′", "d_prime", self.d_prime, ""
        if self.threshold is None:
            why = "too few pairs or identities to choose thresholds on other folds"
            note = why if self.cross_fitted_accuracy is None else "each pair at a threshold chosen on other folds"
            yield "accuracy, cross-fitted", "cross_fitted_accuracy", self.cross_fitted_accuracy, note
            note = f"at threshold {self.best_threshold:.6g}, best for these pairs; "
            note += f"random scores reach {self.best_accuracy_floor:.4f}"
            yield "best accuracy", "best_accuracy", self.best_accuracy, note
        yield "minDCF", "min_dcf", self.min_dcf, "if 1 pair in 100 is genuine; a constant answer costs 1"
        if self.cllr is not None:
            note = "cost of the calibrated scores in bits; 0 is perfect, a constant answer costs 1"
            yield "Cllr", "cllr", self.cllr, note
        yield "min Cllr", "min_cllr", self.min_cllr, "cost in bits after the best possible calibration"
        for figure in self.tar:
            note = tar_note(figure, figure.threshold)
            yield f"TAR at FMR ≤ {figure.far:g}", f"tar@far={figure.far:g}", figure.tar, note


def evaluate(
    same: ArrayLike,
    scores: ArrayLike,
    *,
    far: ArrayLike = (0.01, 0.001),
    threshold: float | None = None,
    left: ArrayLike | None = None,
    right: ArrayLike | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    calibration: tuple[float, float] | None = None,
) -> VerificationReport:
    """Evaluates a set of pairs: all figures, with their intervals, in a `VerificationReport`.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        far: false match rate or rates in (0, 1] at which the TAR is reported.
        threshold: a threshold chosen on other pairs, at which accuracy, FMR and FNMR are reported. Without one, the
            accuracy is cross-fitted (`cross_fitted_accuracy`, ten folds).
        left: `(n,)` identity of each pair's left side, integers or strings. If `left` and `right` are given, the report
            has intervals (200 resamples of `bootstrap`), and no identity is in two folds. They must be equal in
            genuine pairs; an impostor pair may have one identity twice, such as that of a skilled forgery.
        right: `(n,)` identity of the right side.
        confidence: nominal coverage of the intervals, in (0, 1).
        seed: integer ≥ 0 for resamples and folds.
        calibration: `(slope, offset)` of `platt` on other pairs, used for `cllr`.

    >>> rng = np.random.default_rng(0)
    >>> same = np.arange(2000) % 2
    >>> report = evaluate(same, rng.normal(size=2000) + 3 * same, far=(0.01, 0.001), threshold=1.5)
    >>> [figure.mark for figure in report.tar]
    ['uncertain', 'withheld']
    >>> print(report)
    Verification of 2,000 pairs: 1,000 genuine, 1,000 impostor
    At threshold 1.5: of 100 genuine pairs ... are accepted; of 100 impostor pairs ... are accepted.
                           value
    FMR                   ...
    ...
    TAR at FMR ≤ 0.001  withheld    needs 3,000 impostor pairs, 30,000 for a reliable figure
    """
    same, scores = check_pairs(same, scores)
    identities = check_identities(left, right, len(same))
    if identities is not None:
        check_agreement(same, *identities[:2])
    genuines, impostors = int(np.count_nonzero(same)), int(np.count_nonzero(~same))
    confidence = check_number("confidence", confidence, low=0, high=1, open_low=True, open_high=True)
    seed = check_integer("seed", seed, low=0)
    line = None if calibration is None else _check_calibration(calibration)
    points = at.operating_points(same, scores)
    tar = tuple(_tar_figure(points, rate, impostors) for rate in np.ravel(far).tolist())

    figures, statistics = _at_threshold(points, threshold)
    accepted = None
    if threshold is None:
        accepted = cross_fitted_decisions(same, scores, identities, folds=10, seed=seed)
    statistics |= {f"tar@far={figure.far:g}": ("tar_at_far", figure.far) for figure in tar if figure.mark != "withheld"}

    intervals = {}
    if identities is not None:
        draws = {"left": identities[0], "right": identities[1], "confidence": confidence, "seed": seed}
        intervals = _intervals(same, scores, statistics, accepted, draws)

    best_accuracy, best_threshold = at.best_point(points)
    return VerificationReport(
        genuines=genuines,
        impostors=impostors,
        identities=None if identities is None else identities[2],
        eer=float(at.eer(points)),
        eer_point=at.nearest_to_eer(points),
        auc=float(at.auc(points)),
        auc_floor=auc_floor(genuines, impostors),
        d_prime=d_prime(same, scores),
        best_accuracy=best_accuracy,
        best_threshold=best_threshold,
        best_accuracy_floor=best_accuracy_floor(genuines, impostors),
        min_dcf=min_dcf_of(points),
        min_cllr=min_cllr_of(points),
        cllr=None if line is None else cllr(same, line[0] * scores.astype(np.float64) + line[1]),
        tar=tar,
        **figures,
        cross_fitted_accuracy=None if accepted is None else float((accepted == same).mean()),
        confidence=confidence,
        intervals={name: interval for name, interval in intervals.items() if interval.standard_error > 0},
        pairs={"same": same, "scores": scores, "left": left, "right": right, "calibration": calibration},
    )


def _at_threshold(points, threshold):
    """The figures at a given `threshold`, None without one, and the statistics that get intervals, both by name."""
    figures, statistics = dict.fromkeys(("threshold", "accuracy", "fmr", "fnmr")), {"eer": "eer", "auc": "auc"}
    if threshold is not None:
        threshold = check_number("threshold", threshold)
        readings = {"accuracy": at.accuracy_at, "fmr": at.fmr_at, "fnmr": at.fnmr_at}
        figures = {"threshold": threshold, **{name: float(read(points, threshold)) for name, read in readings.items()}}
        statistics |= {name: (read.__name__, threshold) for name, read in readings.items()}
    return figures, statistics


def _check_calibration(calibration):
    if not isinstance(calibration, (tuple, list, np.ndarray)) or len(calibration) != 2:
        raise TypeError(f"`calibration` must be (slope, offset); got {calibration!r}")
    return tuple(check_number("calibration", value) for value in calibration)


def _intervals(same, scores, statistics, accepted, draws):
    """Intervals by the names of `statistics`, and that of the cross-fitted decisions `accepted` `(n,)`, if given."""
    found = bootstrap(list(statistics.values()), same, scores, **draws)
    intervals = {name: found[statistic] for name, statistic in statistics.items()}
    if accepted is not None:
        decided = bootstrap([("accuracy_at", 0.5)], same, accepted.astype(np.float64), **draws)
        intervals["cross_fitted_accuracy"] = decided["accuracy_at", 0.5]
    return intervals


def _tar_figure(points, far, impostors):
    rule = rule_of_30(far, impostors)
    index = at.within(points, far)
    shown = (None, None) if rule.mark == "withheld" else (float(points.tar[index]), float(points.thresholds[index]))
    return TARFigure(far, *shown, rule.mark, rule.needed, rule.shown_from)


def _no_error_note(rate, pairs):
    return f"no error in {pairs:,} pairs: below {rule_of_3(pairs):.2g} if they are independent" if rate == 0 else ""


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
