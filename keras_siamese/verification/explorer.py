"""The part of a page in which a reader moves the threshold and sees what it does.

Contract: pairs in, plain values out, which the macro of `explorer.html.jinja` shows. Without scripts the page says what
the given threshold does; `explorer.js` lets the reader move it. Counts are exact at each threshold that can be chosen.

    found = explore(same, scores, threshold, [Example(0.91, True, ("anna", "anna"))])

A reader can also choose a group of pairs, whose counts are exact, too:

    groups = grouped(device, "Each pair is in the group of its device.")
    found = explore(same, scores, threshold, [Example(0.91, True, group=0)], groups)
"""

from typing import NamedTuple

import numpy as np

from keras_siamese.verification import points as at
from keras_siamese.verification.evidence import in_words

STEPS = 300  # thresholds that can be chosen, at most
BINS = 64  # of the histograms
WIDTH, MIDDLE, BOTTOM = 640, 150, 280  # of the picture: its width, and where its two parts end
EXAMPLES = 12  # of each class
GROUPS = 100  # that can be chosen, at most
LARGEST = np.finfo(np.float64).max


class Example(NamedTuple):
    """A pair that is shown: its score, whether it is genuine, what is said of its sides, their pictures, its group.

    The group is its place among the names of `Groups`.
    """

    score: float
    same: bool
    sides: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    group: int | None = None


class Groups(NamedTuple):
    """The groups of pairs that a reader can choose.

    Attributes:
        names: list of strings.
        codes: `(n,)` the place of each pair's group among the names.
        about: which pairs are in a group, in a sentence or two.
    """

    names: list
    codes: np.ndarray
    about: str


def grouped(labels, about):
    """The `Groups` of pairs with `labels` `(n,)`; of more than `GROUPS` groups, the smallest are put together."""
    names, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    codes, others = codes.reshape(-1), len(names) - GROUPS + 1
    if others > 1:
        kept = np.sort(np.argsort(-sizes, kind="stable")[: GROUPS - 1])
        places = np.full(len(names), len(kept))
        places[kept] = np.arange(len(kept))
        names, codes = [*names[kept], f"{others:,} other groups"], places[codes]
        about += f" The {others:,} groups with the fewest pairs are put together."
    return Groups([str(name) for name in names], codes, about)


def explore(same, scores, threshold, examples=(), groups=None, negated=None):
    """What the macro `explore` shows, as a dict.

    Args:
        same, scores: `(n,)` booleans and finite floats.
        threshold: the threshold that is shown first; pairs from this score on are accepted.
        examples: `Example`s.
        groups: `Groups` of the pairs, or None.
        negated: "distance" or "output", if scores are its negative.
    """
    points = at.operating_points(same, scores)
    kept = thinned(points)[::-1]
    start = int(np.searchsorted(points.thresholds[kept], threshold))
    accepted = scores >= threshold
    here = threshold, np.count_nonzero(accepted & ~same), np.count_nonzero(accepted & same)
    thresholds, impostor, genuine = (
        np.insert(column[kept], start, value) for column, value in zip(points, here, strict=True)
    )
    edges = edges_of(scores)
    low, high = float(edges[0]), float(edges[-1])
    genuines, impostors = int(points.genuines[-1]), int(points.impostors[-1])
    x = np.clip(WIDTH * (thresholds - low) / (high - low), 0, WIDTH)
    fmr, fnmr = impostor / impostors, 1 - genuine / genuines
    return {
        "sentence": in_words(threshold, fmr[start], (genuines - genuine[start]) / genuines),
        "rows": [
            row("genuine", genuines, int(genuine[start]), genuines - int(genuine[start])),
            row("impostor", impostors, int(impostor[start]), int(impostor[start])),
        ],
        "negated": negated,
        "low": low,
        "high": high,
        "at": round(float(x[start]), 2),
        "genuine": outline(np.histogram(scores[same], edges)[0]),
        "impostor": outline(np.histogram(scores[~same], edges)[0]),
        "fmr": line(x, MIDDLE + (BOTTOM - MIDDLE) * (1 - fmr)),
        "fnmr": line(x, MIDDLE + (BOTTOM - MIDDLE) * (1 - fnmr)),
        "groups": groups.names if groups else [],
        "about": groups.about if groups else "",
        "examples": [shown(example, threshold, groups) for example in examples],
        "data": {
            "thresholds": np.clip(thresholds, -LARGEST, LARGEST).tolist(),  # JSON has no infinity
            "genuine": genuine.tolist(),
            "impostor": impostor.tolist(),
            "genuines": genuines,
            "impostors": impostors,
            "low": low,
            "high": high,
            "start": start,
            "groups": of_groups(groups, same, scores, accepted, thresholds, start) if groups else [],
        },
    }


def of_groups(groups, same, scores, accepted, thresholds, start):
    """The figures of each group, a list of dicts: numbers of pairs, those accepted at each threshold, histograms.

    Args:
        accepted: `(n,)` whether the pairs are accepted at the threshold of number `start`; it may be of another dtype.
        thresholds: rising, `(k,)`.
    """
    count = len(groups.names)
    cells = 2 * groups.codes + same

    def counted(places, size):
        return np.bincount(cells * size + places, minlength=2 * count * size).reshape(count, 2, size)

    others = np.delete(thresholds, start)
    steps = counted(np.searchsorted(others, scores, "right"), len(others) + 1)
    steps = steps[..., :0:-1].cumsum(-1)[..., ::-1]  # what is accepted at one threshold is accepted at all below
    steps = np.insert(steps, start, counted(accepted, 2)[..., 1], axis=2)
    bars = counted(np.searchsorted(edges_of(scores)[1:-1], scores, "right"), BINS)
    return [
        {
            "genuine": genuine.tolist(),
            "impostor": impostor.tolist(),
            "genuines": int(of_genuine.sum()),
            "impostors": int(of_impostor.sum()),
            "bars": [of_genuine.tolist(), of_impostor.tolist()],
        }
        for (impostor, genuine), (of_impostor, of_genuine) in zip(steps, bars, strict=True)
    ]


def thinned(points):
    """Indices of at most `STEPS` operating points: both error rates are followed evenly, and closely where small."""
    last = len(points.thresholds) - 1
    if last < STEPS:
        return np.arange(last + 1)
    found = [0, last]
    for rising in (points.impostors / points.impostors[-1], points.genuines / points.genuines[-1]):
        wanted = np.concatenate(
            [np.geomspace(1 / points.impostors[-1], 1, STEPS // 6), np.linspace(0, 1, STEPS // 3 - 1)]
        )
        found.append(np.minimum(np.searchsorted(rising, wanted), last))
    return np.unique(np.minimum(np.hstack(found), last))


def edges_of(scores):
    """The edges `(BINS + 1,)` of the histograms, from the lowest to the highest score."""
    low, high = float(scores.min()), float(scores.max())
    return np.linspace(*((low, high) if low < high else (low - 0.5, high + 0.5)), BINS + 1)


def outline(heights):
    """The outline of a histogram with bars `(BINS,)` in the upper half, as the path of an SVG."""
    tops = MIDDLE - (MIDDLE - 20) * heights / heights.max()
    edges = np.linspace(0, WIDTH, BINS + 1)
    return line(np.r_[0, np.repeat(edges, 2)[1:-1], WIDTH], np.r_[MIDDLE, np.repeat(tops, 2), MIDDLE])


def line(x, y):
    """The path of an SVG through points `(n,)`, `(n,)`."""
    return "M" + " ".join(f"{across:.1f},{down:.1f}" for across, down in zip(x, y, strict=True))


def row(kind, total, accepted, wrong):
    return f"{kind} pairs", f"{total:,}", f"{accepted:,}", f"{total - accepted:,}", f"{100 * wrong / total:.3g} %"


def shown(example, threshold, groups):
    """An `Example` as the macro shows it: with its outcome at the threshold, and the name of its group."""
    accepted = example.score >= threshold
    wrong = bool(accepted != example.same)
    outcome = f"{'genuine' if example.same else 'impostor'} pair {'accepted' if accepted else 'rejected'}"
    outcome += ": wrong" * wrong
    name = "" if example.group is None else groups.names[example.group]
    return example._asdict() | {"wrong": wrong, "outcome": outcome, "who": " ".join(example.sides), "of": name}


def spread(same, scores, groups=None, count=EXAMPLES):
    """Indices of pairs that stand for all scores: `count` of each class, at even ranks, highest score first.

    With `groups` `(n,)`, `count` is divided among the groups, each of which has at least two pairs of each class.
    """
    codes = np.zeros(len(same), int) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    each, found = max(2, count // (codes.max() + 1)), []
    for code in range(codes.max() + 1):
        for chosen in (same, ~same):
            rows = np.flatnonzero(chosen & (codes == code))
            rows = rows[np.argsort(-scores[rows], kind="stable")]
            if len(rows):
                found.append(rows[np.unique(np.linspace(0, len(rows) - 1, each).round().astype(int))])
    rows = np.concatenate(found)
    return rows[np.argsort(-scores[rows], kind="stable")]
