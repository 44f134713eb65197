"""Finds out what a loss is: its kind, which label means "same", its margin and its minimum.

Contract: `character_of(loss)` takes a loss of the package, any other `keras.losses.Loss`, a function `(y_true, y_pred)`
or a Keras name. A loss of the package states its properties; any other loss is called on single pairs at chosen
distances. A property that cannot be found out is None; `character_of` never raises.

    character_of("binary_crossentropy", expects="score").similar_label      # 1
    character_of(ContrastiveLoss(margin=2.0)).margin                        # 2.0
"""

import dataclasses
import logging
import math

import keras
import numpy as np
from keras import ops

from keras_siamese.losses.base import KINDS, RANGES, SiameseLoss

logger = logging.getLogger(__name__)

# Each call has the same number of rows, so that JAX compiles once: distance 0, and 1e-3 to 1e4 with 8 per decade.
DECADES = 7
POINTS = 8 * DECADES + 2
REFINEMENTS = 4  # each divides the interval around the margin by the number of points
EQUAL = 1e-12  # losses that differ by less count as equal


@dataclasses.dataclass(frozen=True)
class LossCharacter:
    """Properties of a loss; None where one is not known.

    Attributes:
        kind, expects, expected_range, mining, margin_is_gap, cosine_temperature: as in `SiameseLoss`.
        similar_label: for a pair loss, the label of genuine pairs: the one whose loss pulls the distance down.
        margin: in units of the distance: where the loss of an impostor pair ends, or the gap between two distances.
        minimum: a lower bound of the loss; −inf if it falls without end.
        at_zero: for a pair loss on distances, the losses `(impostor, genuine)` at distance 0.
        collapsed: the value at collapse of a loss for which it does not depend on the pairs.
        is_stated: True if the loss states all this, False if it was measured.
    """

    kind: str | None = None
    expects: str | None = None
    similar_label: int | None = None
    margin: float | None = None
    margin_is_gap: bool = False
    expected_range: tuple | None = None
    mining: tuple | None = None
    minimum: float | None = None
    at_zero: tuple | None = None
    collapsed: float | None = None
    cosine_temperature: float | None = None
    is_stated: bool = False

    def value_at_collapse(self, positive_fraction=None):
        """As `SiameseLoss.value_at_collapse`."""
        if self.at_zero is None or positive_fraction is None:
            return self.collapsed
        impostor, genuine = self.at_zero
        return float((1.0 - positive_fraction) * impostor + positive_fraction * genuine)


def character_of(loss, expects="distance"):
    """Returns the `LossCharacter` of any loss.

    Args:
        loss: a `SiameseLoss`, another `keras.losses.Loss`, a function `(y_true, y_pred)`, or a name that
            `keras.losses.get` knows.
        expects: what the model returns, for losses that do not state what they expect: "distance", "score", "embedding"
            or "cosine". Losses on distances and scores are measured.

    >>> from keras_siamese import losses
    >>> character_of(losses.TripletLoss(margin=0.2)).margin_is_gap
    True
    """
    if isinstance(loss, SiameseLoss):
        return stated(loss)
    if expects not in ("distance", "score"):
        return LossCharacter(kind=KINDS.get(expects), expects=expects, expected_range=RANGES.get(expects))
    unknown = LossCharacter(expects=expects)
    try:
        function = keras.losses.get(loss)
        return unknown if function is None else measured(function, expects)
    except Exception as error:  # a user's loss may raise anything
        logger.debug("The loss %r could not be measured: %s", loss, error)
        return unknown


def stated(loss):
    """`LossCharacter` of a `SiameseLoss`, from its attributes."""
    pairs = loss.kind == "pair" and loss.expects == "distance"
    ends = [loss.value_at_collapse(fraction) for fraction in (0.0, 1.0)] if pairs else (None, None)
    same = "kind", "expects", "expected_range", "mining", "margin_is_gap", "minimum", "cosine_temperature"
    return LossCharacter(
        **{name: getattr(loss, name) for name in same},
        similar_label=getattr(loss, "similar_label", None),
        margin=None if loss.distance_margin is None else float(loss.distance_margin),
        at_zero=None if None in ends else tuple(ends),
        collapsed=None if pairs else loss.value_at_collapse(),
        is_stated=True,
    )


def measured(function, expects):
    """`LossCharacter` of a loss on pairs, from its values at many distances (or scores) for labels 0 and 1."""
    if isinstance(function, keras.losses.Loss):
        function = function.call
    if expects == "score":
        points = np.linspace(0.0, 1.0, POINTS)
    else:
        points = np.concatenate([[0.0], np.geomspace(1e-3, 10.0 ** (DECADES - 3), POINTS - 1)])
    values = [costs_of(function, label, points) for label in (0, 1)]
    finite = np.isfinite(values).all(axis=0)
    # Losses may overflow at large distances: keeps the points before the first overflow.
    last = len(points) if finite.all() else int(np.argmin(finite))
    if last < 3:
        return LossCharacter(expects=expects)
    points, values = points[:last], [one[:last] for one in values]
    rise = rise_of(values[1] - values[0], values)
    genuine = None if rise == 0 else int((rise > 0) == (expects == "distance"))
    kind = "pair" if max(map(np.ptp, values)) > 0 else None
    found = LossCharacter(kind, expects, genuine, expected_range=RANGES[expects], minimum=minimum_of(values))
    if genuine is None or expects == "score":
        return found
    margin = end_of(lambda at: costs_of(function, 1 - genuine, at), points, values[1 - genuine])
    at_zero = float(values[1 - genuine][0]), float(values[genuine][0])
    return dataclasses.replace(found, margin=margin, at_zero=at_zero)


def costs_of(function, label, points):
    """The losses `(n,)` of single pairs with one label at `points` `(n,)`."""
    column = np.asarray(points, "float32")[:, None]
    y_true, y_pred = ops.convert_to_tensor(np.full_like(column, label)), ops.convert_to_tensor(column)
    with np.errstate(all="ignore"):
        values = ops.convert_to_numpy(ops.cast(function(y_true, y_pred), "float32"))
    values = np.asarray(values, "float64").reshape(-1)
    if len(values) == len(points) or len(points) == 1:
        return values
    # The loss returns one number for a batch, so each pair is passed as a batch.
    return np.array([costs_of(function, label, points[i : i + 1])[0] for i in range(len(points))])


def rise_of(difference, values):
    """+1 if `difference` (loss of label 1 minus loss of label 0) rises with y_pred, −1 if it falls, else 0."""
    change = difference[-1] - difference[0]
    return 0 if abs(change) <= 1e-6 * max(np.abs(values).max(), 1e-30) else int(np.sign(change))


def minimum_of(values):
    """The smallest loss of either label, or −inf if one falls in the last decade about as fast as in the one before."""
    lowest = float(min(one.min() for one in values))
    for one in values:
        if len(one) < POINTS or one.argmin() != len(one) - 1:
            continue
        earlier, later = one[-17] - one[-9], one[-9] - one[-1]
        if later > 0.9 * earlier > 0:
            return -math.inf
    return lowest


def end_of(costs, points, values):
    """The distance from which `costs` are constant, or None if they never are, or always."""
    flat = np.abs(values - values[-1]) <= EQUAL
    start = len(values) - int(np.argmin(flat[::-1])) if not flat.all() else 0
    if start == 0 or len(values) - start < 4:
        return None
    low, high = points[start - 1], points[start]
    for _ in range(REFINEMENTS):
        inside = np.linspace(low, high, POINTS)
        changes = np.flatnonzero(np.abs(costs(inside) - values[-1]) > EQUAL)
        if not len(changes) or changes[-1] == POINTS - 1:
            break
        low, high = inside[changes[-1]], inside[changes[-1] + 1]
    # Just below its margin, a hinge or its square is clearly above the end value; an exponential tail has no margin.
    before = abs(costs(np.full(POINTS, 0.9 * high))[0] - values[-1])
    return float(f"{high:.5g}") if before > 1e-4 * np.ptp(values) else None
