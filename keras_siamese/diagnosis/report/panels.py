"""The health curves of a run: which direction is better, and the values at which they are a warning or an error.

Contract: `PANELS` holds a `Panel` for each curve's name. `lines_of` gives the values that a curve is compared with;
some of them depend on the data (the dimension, the number of identities). Warnings and errors are those of `limits`.

    PANELS["spread"].better          # "higher"
    lines_of("spread", observed)     # [Line("error", 0.1), Line("warning", 0.25), Line("uniform", 1.0)]
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from keras_siamese.diagnosis import limits


class Line(NamedTuple):
    """A value that a curve is compared with: the limit of a "warning" or an "error", or a named reference."""

    name: str
    value: float


@dataclass(frozen=True)
class Panel:
    """What a health curve means."""

    title: str  # the name that the report shows
    better: str | None = None  # "higher", "lower", or None if neither is better
    lines: tuple[Line, ...] = ()  # those that are the same for every run
    logarithmic: bool = False  # whether the axis is logarithmic


def alarms(warning, error=None):
    """The `Line`s of the limit of a warning and, if given, of an error."""
    return (*([] if error is None else [Line("error", float(error))]), Line("warning", float(warning)))


PANELS = {
    "spread": Panel("spread", "higher", (*alarms(limits.POINT, limits.COLLAPSED), Line("uniform", 1.0))),
    "uniformity": Panel("uniformity", "lower"),
    "alignment": Panel("alignment", "lower", (Line("chance", 2.0),)),
    "effective_rank": Panel("effective rank", "higher"),
    "d_prime": Panel("d′", "higher", alarms(limits.LOW_D_PRIME)),
    "intra_inter_ratio": Panel("intra/inter ratio", "lower", (*alarms(limits.HIGH_INTRA_INTER), Line("chance", 1.0))),
    "purity": Panel("neighbour purity", "higher"),
    "active_fraction": Panel("active fraction", None, (*alarms(1 - limits.ALL_ACTIVE), *alarms(limits.ALL_ACTIVE))),
    "update_size": Panel("update size", None, logarithmic=True),
    "learning_rate": Panel("learning rate", None, logarithmic=True),
}
HEALTH = tuple(PANELS)


def panel_of(name):
    """The `Panel` of a curve; a curve that is not in `PANELS` has one with a title alone."""
    return PANELS.get(name, Panel(name.replace("_", " ")))


def lines_of(name, observed):
    """The `Line`s of a curve: those of its panel, and those that depend on the data of `observed`, an `Observed`."""
    dim, identities = observed.valid.embeddings.shape[1], observed.valid.trials.identities
    lines = list(panel_of(name).lines)
    if name == "uniformity":
        lines.append(Line("uniform", uniformity_of_sphere(dim)))
    if name == "effective_rank":
        lines.append(Line("warning", lowest_rank(dim, identities)))
    if name == "purity" and identities is not None:
        lines.append(Line("chance", chance_purity(identities)))
    return lines


def lowest_rank(dim, identities):
    """The effective rank below which embeddings `(items, dim)` use too few dimensions: max(2, .15·min(dim, K − 1))."""
    known = dim if identities is None else len(np.unique(identities)) - 1
    return max(float(limits.LEAST_RANK), limits.RANK_SHARE * min(dim, known))


def uniformity_of_sphere(dim):
    """The uniformity of embeddings that are spread evenly over the unit sphere of `dim` dimensions.

    Their cosines have the mean of exp(κ·cos) = ₀F₁(dim/2; κ²/4), with κ = 4 as in `uniformity`.

    >>> round(uniformity_of_sphere(64), 2)
    -3.88
    """
    from scipy.special import hyp0f1

    return float(np.log(hyp0f1(dim / 2, 4.0)) - 4)


def chance_purity(identities):
    """The neighbour purity to expect by chance: the mean share of a sample's own identity among the other samples.

    >>> chance_purity(np.array([0, 0, 1, 1]))  # one of three others
    0.3333333333333333
    """
    sizes = np.unique(identities, return_counts=True)[1]
    others = len(identities) - 1
    return float(np.sum(sizes * (sizes - 1)) / (len(identities) * others)) if others else 0.0
