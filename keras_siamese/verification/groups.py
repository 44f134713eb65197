"""Error rates by group of pairs: whether a system works equally well for all, and how templates age.

Contract: labels, scores, a threshold from other pairs and the group of each pair in; a `GroupReport` out. All groups
are counted in the same resamples of identities, so differences between groups are right where they share identities.
Only NumPy and SciPy; anything above `distances` may import it.

    report = compare_groups(same, scores, device, threshold=0.6, left=left, right=right)
    print(report)
    compare_groups(same, scores, days_between, edges=[30, 365], threshold=0.6)      # template ageing
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from keras_siamese._checks import check_column, check_finite, check_integer, check_labels, check_number, check_reals
from keras_siamese._tables import aligned, html_table
from keras_siamese._types import ArrayLike, Axes
from keras_siamese.verification.intervals import Interval, between, draw_counts
from keras_siamese.verification.pairs import check_agreement, check_identities, check_pairs

LEAST = 30  # pairs of a class without which a group's rate takes no part in the largest gap
ROWS = 50  # resamples that are counted at a time
RATES = ("fmr", "fnmr")


class GroupFigures(NamedTuple):
    """The error rates of one group.

    Attributes:
        name: the group.
        genuines, impostors: numbers of pairs.
        fmr, fnmr: an `Interval` each, or None without pairs of that class.
    """

    name: str
    genuines: int
    impostors: int
    fmr: Interval | None
    fnmr: Interval | None


class Gap(NamedTuple):
    """The largest difference of a rate between two groups.

    Attributes:
        lowest, highest: the names of the groups with the lowest and the highest rate.
        difference: highest − lowest.
        low, high: ends of its interval, which holds for all pairs of groups at once (Bonferroni).
        ratio: highest / lowest; infinite if the lowest rate is 0.
    """

    lowest: str
    highest: str
    difference: float
    low: float
    high: float
    ratio: float


@dataclass(frozen=True, eq=False)
class GroupReport:
    """The result of `compare_groups`; `str()` gives a table.

    Attributes:
        threshold: as given.
        confidence: nominal coverage of the intervals.
        groups: a tuple of `GroupFigures`, in order of their names.
        gaps: dict from "fmr" and "fnmr" to a `Gap`, or to None if fewer than two groups have enough pairs.
    """

    threshold: float
    confidence: float
    groups: tuple[GroupFigures, ...]
    gaps: dict[str, Gap | None]

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The table as rows of strings, after a head."""
        interval = f"{100 * self.confidence:.4g} % interval"
        yield "group", "genuine pairs", "FNMR", interval, "impostor pairs", "FMR", interval
        for one in self.groups:
            cells = [one.name]
            for count, rate in ((one.genuines, one.fnmr), (one.impostors, one.fmr)):
                cells += [f"{count:,}", *(("–", "") if rate is None else (f"{rate.estimate:.4f}", between(rate)))]
            yield tuple(cells)

    def _notes(self):
        yield f"At threshold {self.threshold:.6g}."
        for name, gap in self.gaps.items():
            if gap is None:
                kind = {"fmr": "impostor", "fnmr": "genuine"}[name]
                yield f"{name.upper()}: fewer than two groups have {LEAST} {kind} pairs, so they are not compared."
                continue
            rate = {one.name: getattr(one, name).estimate for one in self.groups if getattr(one, name) is not None}
            known = "the groups differ" if gap.low > 0 else "this may be chance"
            yield (
                f'{name.upper()} is lowest in "{gap.lowest}" ({rate[gap.lowest]:.4f}) and highest in "{gap.highest}" '
                f"({rate[gap.highest]:.4f}). The difference is {gap.difference:.4f} {between(gap)}: {known}."
            )

    def __str__(self) -> str:
        return "\n".join([*aligned(self.rows(), right=(1, 2, 4, 5)), *self._notes()])

    def _repr_html_(self):
        return html_table(self.rows()) + html_table([("",), *((note,) for note in self._notes())])

    def to_dict(self) -> dict[str, Any]:
        """The figures as numbers, strings, lists and dicts for JSON; an infinite ratio becomes None."""

        def plain(rate):
            return None if rate is None else {end: getattr(rate, end) for end in ("estimate", "low", "high")}

        groups = [one._asdict() | {name: plain(getattr(one, name)) for name in RATES} for one in self.groups]
        gaps = {name: gap and gap._asdict() for name, gap in self.gaps.items()}
        for gap in filter(None, gaps.values()):
            gap["ratio"] = gap["ratio"] if np.isfinite(gap["ratio"]) else None
        return {"threshold": self.threshold, "confidence": self.confidence, "groups": groups, "gaps": gaps}

    def plot(self, axes: Axes, rate: Literal["fnmr", "fmr"] = "fnmr") -> Axes:
        """Draws a rate of all groups, "fnmr" or "fmr", with intervals on a matplotlib `Axes`, which is returned."""
        shown = [one for one in self.groups if getattr(one, rate) is not None]
        for place, one in enumerate(shown):
            interval = getattr(one, rate)
            axes.plot([interval.low, interval.high], [place, place], color="#1f77b4", linewidth=2, alpha=0.5)
            axes.plot([interval.estimate], [place], "o", color="#1f77b4")
        axes.set_yticks(range(len(shown)), [one.name.replace("$", r"\$") for one in shown])
        axes.set(xlabel={"fnmr": "false non-match rate", "fmr": "false match rate"}[rate], xlim=(0, None))
        axes.set_ylim(len(shown) - 0.5, -0.5)
        return axes


def compare_groups(
    same: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    *,
    threshold: float,
    edges: ArrayLike | None = None,
    left: ArrayLike | None = None,
    right: ArrayLike | None = None,
    samples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> GroupReport:
    """FMR and FNMR of each group of pairs at one threshold, with intervals, and the largest gaps between groups.

    Use it for demographic groups, devices, alphabets or sites: *differential performance* in the terms of ISO/IEC
    19795-10:2024. The group of a genuine pair is that of its identity. For impostor pairs choose those with both sides
    in the group, or give pairs across groups a name of their own. With `edges`, `groups` are numbers, such as the days
    between two samples: the rates then show the *ageing* of templates (ISO/IEC 19795-1:2021).

    A group takes part in the gap if it has at least 30 pairs of that class. The interval of the gap takes into
    account that the largest among all pairs of groups was chosen.

    Patrick Grother, Mei Ngan, Kayee Hanaoka, "Face recognition vendor test part 3: demographic effects", NISTIR 8280,
    2019, https://doi.org/10.6028/NIST.IR.8280.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        groups: `(n,)` group of each pair, integers or strings; with `edges`, finite numbers.
        threshold: a threshold chosen on other pairs.
        edges: rising numbers, by which numeric `groups` are divided: below the first, from each to the next, from the
            last on.
        left, right: `(n,)` identities of the two sides, for the resamples; without them pairs are drawn.
        samples: number of resamples, at least 2.
        confidence: nominal coverage, in (0, 1).
        seed: integer ≥ 0 for the resamples.

    Returns:
        `GroupReport`.

    >>> rng = np.random.default_rng(0)
    >>> same, camera = np.arange(4000) % 2, np.arange(4000) % 3
    >>> scores = rng.normal(size=4000) + same * (3 - (camera == 2))
    >>> print(compare_groups(same, scores, np.array(["a", "b", "c"])[camera], threshold=1.5))
    group  genuine pairs    FNMR  95 % interval     impostor pairs     FMR  95 % interval
    a      ...
    FNMR is lowest in "b" (...) and highest in "c" (...). The difference is ...: the groups differ.
    """
    same, scores = check_pairs(same, scores)
    names, codes = groups_of(groups, edges, len(same))
    identities = check_identities(left, right, len(same))
    if identities is not None:
        check_agreement(same, *identities[:2])
    threshold = check_number("threshold", threshold)
    samples = check_integer("samples", samples, low=2)
    confidence = check_number("confidence", confidence, low=0, high=1, open_low=True, open_high=True)
    rng = np.random.default_rng(check_integer("seed", seed, low=0))
    # Four counts for each group: impostor pairs rejected and accepted, genuine pairs rejected and accepted.
    cells = 4 * codes + 2 * same + (scores >= threshold)
    found = rates(np.bincount(cells, minlength=4 * len(names))[None])
    replicates = rates(resampled(cells, 4 * len(names), identities, samples, rng))
    totals = np.bincount(2 * codes + same, minlength=2 * len(names)).reshape(-1, 2)
    figures = []
    for group, name in enumerate(names):
        intervals = (
            Interval.of(found[rate][0, group], known(replicates[rate][:, group], found[rate][0, group]), confidence)
            if totals[group, kind]
            else None
            for kind, rate in enumerate(RATES)
        )
        figures.append(GroupFigures(name, int(totals[group, 1]), int(totals[group, 0]), *intervals))
    gaps = {
        rate: largest_gap(names, found[rate][0], replicates[rate], totals[:, kind] >= LEAST, confidence)
        for kind, rate in enumerate(RATES)
    }
    return GroupReport(threshold, confidence, tuple(figures), gaps)


def groups_of(groups, edges, pairs):
    """The names of the groups, a list of strings, and the group of each pair as a code `(n,)`."""
    if edges is None:
        names, codes = np.unique(check_labels("groups", groups, length=pairs), return_inverse=True)
        return [str(name) for name in names], codes
    values = check_reals("groups", check_column("groups", groups, "number", "pair", pairs))
    check_finite("groups", values)
    edges = check_finite("edges", check_reals("edges", np.ravel(edges)))
    if not len(edges) or (np.diff(edges) <= 0).any():
        raise ValueError(f"`edges` must be rising numbers; got {edges.tolist()}")
    inner = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    names, codes = [f"below {edges[0]:g}", *inner, f"{edges[-1]:g} and more"], np.digitize(values, edges)
    present = np.unique(codes)
    return [names[code] for code in present], np.searchsorted(present, codes)


def resampled(cells, count, identities, samples, rng):
    """The weight of each of `count` cells in each resample, `(samples, count)`; `cells (n,)` are those of the pairs."""
    if identities is None:
        left, right, things = np.arange(len(cells)), np.full(len(cells), len(cells)), len(cells)
    else:
        left, right, things = identities
        right = np.where(left == right, things, right)  # the last count is always 1
    rows = []
    for start in range(0, samples, ROWS):
        counts = np.ascontiguousarray(draw_counts(min(ROWS, samples - start), things, rng).T.astype(np.float64))
        rows += [np.bincount(cells, drawn[left] * drawn[right], count) for drawn in counts]
    return np.stack(rows)


def rates(sums):
    """FMR and FNMR, `(rows, groups)` each, NaN without pairs, from the weights of the cells `(rows, 4 · groups)`."""
    sums = sums.reshape(len(sums), -1, 2, 2)
    with np.errstate(invalid="ignore"):
        return {"fmr": sums[:, :, 0, 1] / sums[:, :, 0].sum(-1), "fnmr": sums[:, :, 1, 0] / sums[:, :, 1].sum(-1)}


def known(replicates, estimate):
    """The replicates that have pairs of the class; two copies of the estimate if fewer than two do."""
    finite = replicates[np.isfinite(replicates)]
    return finite if len(finite) > 1 else np.full(2, estimate)


def largest_gap(names, estimates, replicates, enough, confidence):
    """The `Gap` between the groups with the lowest and the highest rate among those with `enough` pairs, or None."""
    from scipy.special import ndtri  # slow to import, and needed here only

    taking_part = np.flatnonzero(enough)
    if len(taking_part) < 2:
        return None
    rising = taking_part[np.argsort(estimates[taking_part], kind="stable")]
    low, high = rising[0], rising[-1]  # two groups, also if all rates are equal
    difference = float(estimates[high] - estimates[low])
    spread = np.nanstd(replicates[:, high] - replicates[:, low], ddof=1)
    comparisons = len(taking_part) * (len(taking_part) - 1) / 2
    reach = float(-ndtri((1 - confidence) / 2 / comparisons) * spread)
    ratio = float(estimates[high] / estimates[low]) if estimates[low] else np.inf if estimates[high] else 1.0
    return Gap(names[low], names[high], difference, difference - reach, difference + reach, ratio)
