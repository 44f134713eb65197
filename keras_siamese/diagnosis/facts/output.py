"""Facts of the model's output: which values it can take, what the loss wants of it, and whether these fit.

A loss of one pair, L(label, output), is a curve over the output for each label. Its lowest point is what the loss wants
for this label. Two other points tell what the model can win: the lowest one among the outputs that the comparator can
reach, and the loss of a *guess*, the one output for both labels with the least loss for the worse of the two.

Contract: pure functions of arrays and of a loss `(label, output) → float`; `of_output` asks the run's `Anatomy` for
both. Imports Keras and NumPy.

    curve = Curve(loss, label=0)
    out_of_reach(curves, low=0.5, high=1.0)      # for each label, the share of a guess's loss that cannot be won
    stuck_cells(curves, guess=0.5)               # in which parts of the outputs there is a loss and no slope
"""

from functools import cache

import keras
import numpy as np
from keras import ops

from keras_siamese.data.sources import take
from keras_siamese.diagnosis import limits
from keras_siamese.scoring import to_numpy

PAIRS = 256  # with which the reach is probed
DRAWS = 6  # of weights that follow the comparison
SCALES = (0.0, 0.1, 10.0, 1000.0)  # of embeddings whose norms are free
FARTHEST = 1000.0  # output at which a loss is evaluated
FAR = np.geomspace(0.01, FARTHEST, 26)
GRID = np.unique(np.concatenate([np.linspace(-1, 2, 31).round(6), FAR, -FAR]))  # 0 and 1 are among them


def of_output(observed):
    """What is known of the output of the model, by name; {} for a model that does not compare by itself."""
    anatomy = observed.siamese
    direction = getattr(anatomy, "direction", None)
    compares = getattr(anatomy, "compares_itself", None)
    if direction is None or not compares or observed.valid is None:
        return {"compares_itself": compares}
    found = {
        "compares_itself": 1.0,
        "head_is_scalar": float(anatomy.has_scalar_head),
        "learned_head": float(bool(anatomy.learned)),
        "equal_end": direction.end,
        "wanted_end": direction.wanted,
    }
    if anatomy.pair_loss is None:
        return found
    return found | of_loss_curves(observed, anatomy)


def of_loss_curves(observed, anatomy):
    """What the loss wants for each label, against what the output can be and is."""
    low, high = reach_of(anatomy, *embeddings_of(observed))
    labels = [anatomy.direction.similar_label]
    labels += [one for one in anatomy.labels if one != labels[0]]
    curves = [Curve(anatomy.pair_loss, label) for label in labels]
    if not all(np.isfinite(curve.values).all() for curve in curves) or not np.isfinite([low, high]).all():
        return {}
    if not all(curve.is_bounded for curve in curves):
        return {"loss_falls_for_ever": float(max(-low, high) >= FARTHEST / 10)}
    guess = best_guess(curves)
    missed = out_of_reach(curves, guess, low, high)
    worst = int(np.argmax(missed))
    found = {
        "output_low": low,
        "output_high": high,
        "out_of_reach": missed[worst],
        "out_of_reach_least": min(missed),
        "out_of_reach_label": labels[worst],
        "loss_falls_for_ever": 0.0,
        "least_loss": min(curve.least for curve in curves),
        "guess": guess,
        "guess_loss": float(np.mean([curve(guess) for curve in curves])),
        "wants_distance": float(wants_distance(curves)),
        "wants_probability": float(wants_probability(curves)),
    }
    scored = observed.valid if observed.train is None else observed.train
    outputs = scored.scores if anatomy.output_kind == "score" else -scored.scores
    kinds = zip(curves, (scored.same, ~scored.same), strict=True)
    found["stuck_share"] = float(np.mean([is_stuck([curve], guess, outputs[kind]).mean() for curve, kind in kinds]))
    found["cut_off_share"] = float(is_stuck(curves, guess, outputs).mean())
    return found


class Curve:
    """The loss of one `label` over the output, less the least; each value is computed once."""

    def __init__(self, loss, label):
        self.value = cache(lambda output: loss(label, output))
        self.values = np.array([self.value(float(output)) for output in GRID])
        self.least = self.values.min()

    def __call__(self, output):
        return self.value(float(output)) - self.least

    @property
    def excess(self):
        return self.values - self.least

    @property
    def is_bounded(self):
        """Whether the loss has a least value: it does not fall for ever."""
        ends = (self.values[0], self.values[1]), (self.values[-1], self.values[-2])
        at_end = [end <= self.least and end < inner - float(limits.FLAT) * np.ptp(self.values) for end, inner in ends]
        return not any(at_end)


def best_guess(curves):
    """The one output at which the larger of the curves is least."""
    return float(GRID[np.argmin(np.max([curve.excess for curve in curves], axis=0))])


def out_of_reach(curves, guess, low, high):
    """For each curve, its least value on [low, high] over its value at the `guess`; 0 if nothing can be lost."""
    inside = np.concatenate([GRID[(low <= GRID) & (high >= GRID)], np.linspace(low, high, 9)])
    missed = []
    for curve in curves:
        least, guessed = min(map(curve, inside)), curve(guess)
        missed.append(min(least / guessed, float(limits.STRONGEST)) if guessed > 0 else 0.0)
    return missed


def stuck_cells(curves, guess):
    """For each cell between neighbours of `GRID`, whether no curve changes in it although one is above its least."""
    has_loss = [curve.excess[:-1] > float(limits.STUCK_LOSS) * curve(guess) for curve in curves]
    is_flat = [np.abs(np.diff(curve.values)) <= float(limits.FLAT) * curve(guess) for curve in curves]
    return np.all(is_flat, axis=0) & np.any(has_loss, axis=0)


def is_stuck(curves, guess, outputs):
    """Whether each of `outputs` `(n,)` lies where the curves are stuck; at a corner, on both of its sides."""
    cells = stuck_cells(curves, guess)
    sides = [np.clip(np.searchsorted(GRID, outputs, side) - 1, 0, len(cells) - 1) for side in ("left", "right")]
    return cells[sides[0]] & cells[sides[1]]


def wants_distance(curves):
    """Whether the loss is one of distances: it wants 0 for one label, and for the other anything beyond a margin."""
    positive = GRID >= 0
    guess = best_guess(curves)
    flat = float(limits.FLAT) * min(curve(guess) for curve in curves)
    for near, far in (curves, curves[::-1]):
        near, far = near.excess[positive], far.excess[positive]
        is_pulled = near[0] <= flat and (np.diff(near) >= -flat).all() and near[-1] > near[-2] + flat
        is_pushed = far[0] > flat and (np.diff(far) <= flat).all() and far[-2] <= flat
        if is_pulled and is_pushed:
            return True
    return False


def wants_probability(curves):
    """Whether the loss is one of probabilities: it changes within [0, 1] only."""
    for curve in curves:
        flat = float(limits.FLAT) * np.ptp(curve.values)
        if flat == 0 or any(np.ptp(curve.values[side]) > flat for side in (GRID <= 0, GRID >= 1)):
            return False
    return True


def embeddings_of(observed):
    """Held-out embeddings of some pairs, `(left, right)`; what stands for them in a model that has none."""
    trials, z = observed.valid.trials, observed.valid.embeddings
    rows = np.random.default_rng(0).permutation(len(trials))[:PAIRS]
    sides = trials.left[rows], trials.right[rows]
    if z.shape[1]:
        return tuple(z[side] for side in sides)
    return tuple(map(to_numpy, observed.siamese.embed([take(trials.items, side) for side in sides])))


def reach_of(anatomy, left, right):
    """The lowest and highest output that the comparator can give: of real embeddings, of equal ones, of scaled ones if
    their norms are free, and with other weights after the comparison.
    """
    inputs = probes(left, right) if anatomy.has_embeddings else [(left, right)]

    def outputs():
        values = [ops.convert_to_numpy(anatomy.compare(*map(ops.convert_to_tensor, one))).ravel() for one in inputs]
        return np.concatenate(values).astype("float64")

    found, rng = [outputs()], np.random.default_rng(0)
    weights = anatomy.learned
    present = [ops.convert_to_numpy(weight) for weight in weights]
    for draw in range(DRAWS if weights else 0):
        spread = 10.0 ** (draw % 2)
        drawn = [spread * rng.normal(size=one.shape).astype(one.dtype) for one in present]
        if draw < 2:  # the present weights turned around, and enlarged
            drawn = [(-1, 10)[draw] * one for one in present]
        values = [(weight, ops.convert_to_tensor(one)) for weight, one in zip(weights, drawn, strict=True)]
        with keras.StatelessScope(state_mapping=values):
            found.append(outputs())
    found = np.concatenate(found)
    found = found[np.isfinite(found)]
    return (float(found.min()), float(found.max())) if len(found) else (np.nan, np.nan)


def probes(left, right):
    """Pairs of embeddings that an encoder can give: real, equal and opposite ones, and random ones of the same norm, as
    real ones may have collapsed. Of embeddings without unit norm, the norm is free.
    """
    rng, norms = np.random.default_rng(0), np.linalg.norm(left, axis=1)
    is_signed = min(left.min(), right.min()) < 0
    pairs = [(left, right)]
    if left.shape == right.shape:
        drawn = [rng.normal(size=left.shape) for _ in range(2)]
        drawn = [one if is_signed else np.abs(one) for one in drawn]
        length = norms.mean() or 1.0
        pairs += [(left, left), tuple(length * one / np.linalg.norm(one, axis=1, keepdims=True) for one in drawn)]
        if is_signed:
            pairs.append((left, -left))
    if np.abs(norms - 1).max() > limits.EQUAL_NORMS:
        pairs += [(scale * one, scale * other) for scale in SCALES for one, other in pairs]
    return [(one.astype("float32"), other.astype("float32")) for one, other in pairs]
