"""What a `Verifier` is calibrated on: pairs in memory, or the histogram of more pairs than fit there.

Contract: the model and its held-out data in; the threshold, the probability mapping and the evidence out. The classes
`HeldOutPairs` and `HeldOutHistogram` answer the same questions. Of a histogram, the answers are those of its single
scores, up to the width of a bin. Only `verifier` imports this module.

    pairs = held_out(model, x, labels, encoder, seed)
    slope, offset = mapping_of(pairs, model.name)
    threshold = threshold_for(pairs, far, criterion, costs)
    evidence = evidence_of(pairs, criterion, far, threshold)
"""

import functools
import warnings

import keras
import numpy as np

from keras_siamese import verification
from keras_siamese._version import __version__
from keras_siamese.attach.anatomy import dissect
from keras_siamese.data.sources import fed, take
from keras_siamese.scoring import Trials, attach, score
from keras_siamese.verification.histogram import ScoreHistogram

BALANCED = (0.5, 1.0, 1.0)  # costs with which the cheapest threshold is the most accurate on equally many of both kinds
SLACK = 1e-3  # how far outside the model's bounds scores of embeddings in half precision may be, of their distance
BATCH_SIZE = 256


def held_out(model, x, labels, encoder, seed):
    """The `HeldOutPairs` or the `HeldOutHistogram` of the arguments of `Verifier.calibrate`."""
    if isinstance(x, ScoreHistogram):
        return HeldOutHistogram(dissect(model, encoder=encoder), x, labels)
    refuse_sides("Verifier.calibrate(model, ([left, right], same))", x, labels)
    validation = x if labels is None else Trials.from_labels(x, labels, seed=seed)
    return HeldOutPairs(*attach(model, validation, encoder=encoder, seed=seed))


def refuse_sides(call, x, labels):
    """Raises if `x` is a list of both sides of as many pairs as there are `labels`, not of samples; says the `call`."""
    is_two = labels is not None and isinstance(x, list) and len(x) == 2 != np.size(labels)
    if is_two and {np.shape(side)[:1] for side in x} == {np.shape(labels)}:
        raise ValueError(f"Give pairs as one argument: {call}")


class HeldOutPairs:
    """Pairs in memory. They are scored when this is first needed.

    Attributes:
        anatomy: the model's `Anatomy`.
        counts: numbers of genuine and of impostor pairs.
        scored: the `ScoredTrials`.
    """

    def __init__(self, anatomy, trials):
        self.anatomy, self._trials = anatomy, trials
        self.counts = int(np.count_nonzero(trials.same)), int(np.count_nonzero(~trials.same))

    @functools.cached_property
    def scored(self):
        scored = score(self.anatomy, self._trials, BATCH_SIZE, exactly=True)
        if not scored.is_finite:
            name = self.anatomy.encoder.name
            raise ValueError(f"The embeddings of {name!r} must be finite; some are NaN or infinite")
        return scored

    def mapping(self):
        """`(slope, offset)` of the probability."""
        return verification.platt(self.scored.same, self.scored.scores)

    def auc(self):
        return verification.auc(self.scored.same, self.scored.scores)

    def threshold(self, far, criterion, costs):
        """The threshold among the scores."""
        same, scores = self.scored.same, self.scored.scores
        if far is not None:
            return verification.threshold_at_far(same, scores, far)
        if criterion == "eer":
            return verification.eer_point(same, scores).threshold
        if criterion == "cost":
            return verification.threshold_at_cost(same, scores, *costs)
        return self.scored.accuracy[1]

    def highest(self):
        """The largest score."""
        return float(self.scored.scores.max())

    def next_lower(self, threshold):
        """The largest score below the `threshold`; −inf if there is none."""
        scores = self.scored.scores
        return float(scores.max(initial=-np.inf, where=scores < threshold))

    def figures(self, statistics, threshold):
        """The figures by the names of `statistics`, and the intervals by statistic."""
        sides = self.scored.trials.pair_identities
        found = verification.bootstrap(list(statistics.values()), self.scored.same, self.scored.scores, *sides)
        return {name: float(found[statistic].estimate) for name, statistic in statistics.items()}, found

    def sizes(self):
        """The numbers of samples and of identities; None where they are not known."""
        identities = self.scored.trials.identities
        return len(self.scored.embeddings), None if identities is None else len(np.unique(identities))

    def build(self, verifier):
        """Build a `verifier`, so that it can be saved."""
        verifier((fed(take(self._trials.items, slice(0, 1))),) * 2)


class HeldOutHistogram:
    """A histogram of the scores of more pairs than fit in memory; the same questions as to `HeldOutPairs`."""

    def __init__(self, anatomy, histogram, labels):
        check_histogram(histogram, anatomy, labels)
        self.anatomy, self._histogram = anatomy, histogram
        self.counts = histogram.genuines, histogram.impostors

    def mapping(self):
        return verification.platt(*self._histogram.counted_scores())

    def auc(self):
        return self._histogram.auc()

    def threshold(self, far, criterion, costs):
        """The threshold among the known ones; for "accuracy" over all pairs."""
        if far is not None:
            return self._histogram.threshold_at_far(far)
        if criterion == "eer":
            return self._histogram.eer_point().threshold
        return self._histogram.threshold_at_cost(*(costs if criterion == "cost" else BALANCED))

    def highest(self):
        # Just below the strictest threshold, which is the next number of the scores' dtype above the largest score.
        above = self._histogram.operating_points().thresholds[0]
        return float(np.nextafter(above, -np.inf))

    def next_lower(self, threshold):
        """The largest score below the `threshold`; −inf if there is none, or if it is not known."""
        lower = self._histogram.next_lower(threshold)
        return -np.inf if lower is None else lower

    def figures(self, statistics, threshold):
        point = self._histogram.operating_point(threshold)
        has_groups = bool(getattr(self._histogram, "groups", 0))
        found = self._histogram.intervals(list(statistics.values())) if has_groups else {}
        return {"eer": self._histogram.eer(), "fmr": point.fmr, "fnmr": point.fnmr}, found

    def sizes(self):
        return None, None

    def build(self, verifier):
        build_without_samples(verifier, self.anatomy.encoder)


def check_histogram(histogram, anatomy, labels):
    """Raise unless the `histogram` is of scores that the model of `anatomy` gives, as far as can be told."""
    if labels is not None:
        raise ValueError("`labels` must be None if `x` is a histogram, which holds pairs of known identities")
    name, of_model = anatomy.name, anatomy.wrapper
    if of_model is None or anatomy.other is not None:
        must = "`model` must be an encoder or a SiameseWrapper if `x` is a histogram"
        raise ValueError(f"{must}; {name!r} compares pairs in a way of its own, so give it pairs")
    if histogram.distance is not None:
        is_distance = anatomy.head is None and anatomy.compares_by_wrapper
        if not (is_distance and histogram.has_distance(anatomy.distance)):
            own = repr(anatomy.distance) if is_distance else "a head or comparison of its own"
            found = f"it has those of {histogram.distance!r}, and {name!r} compares by {own}"
            instead = "Compare the embeddings as the model does, or pass ks.SiameseWrapper(encoder, distance)"
            raise ValueError(f"`x` must hold scores of the model; {found}. {instead}")
    low, high = of_model.bounds or (-np.inf, np.inf)
    low, high = (-high, -low) if of_model.output_kind == "distance" else (low, high)
    highest, *_, lowest = histogram.operating_points().thresholds
    slack = SLACK * (high - low) if np.isfinite(high - low) else 0.0
    if lowest < low - slack or highest > high + slack:
        found = f"it has scores from {lowest:g} to {highest:g}"
        must = f"`x` must hold scores of the model, which for {name!r} lie in [{low:g}, {high:g}]"
        raise ValueError(f"{must}; {found}. Are the embeddings those of its encoder?")


def build_without_samples(verifier, encoder):
    """Build a `verifier` from the shape of what its `encoder` takes."""
    siamese = verifier.siamese
    if siamese.built:
        verifier.build(siamese.get_build_config()["towers"])
        return
    try:
        shape = encoder.input_shape
    except (AttributeError, ValueError) as error:
        must = "`model` must have been called on samples if `x` is a histogram, which has no samples"
        raise ValueError(f"{must}; {encoder.name!r} does not say what it takes") from error
    verifier.build((shape, shape))


def mapping_of(pairs, name):
    """`(slope, offset)` of the probability. Raises if genuine pairs of the model `name` score no higher than others."""
    slope, offset = pairs.mapping()
    if slope <= 0:
        found = f"on these, {name!r} has an AUC of {pairs.auc():.3f}, and the probability would not rise with the score"
        raise ValueError(f"Genuine pairs must score higher than impostor pairs; {found}. Check the `labels`")
    return slope, offset


def check_costs(costs):
    """Return `costs` as a tuple `(p_target, c_miss, c_fa)` in their ranges."""
    try:
        p_target, c_miss, c_fa = costs
    except (TypeError, ValueError) as error:
        raise ValueError(f"`costs` must be (p_target, c_miss, c_fa); got {costs!r}") from error
    verification.costs.check_costs(p_target, c_miss, c_fa)
    return p_target, c_miss, c_fa


def check_support(far, impostors):
    """Refuse a `far` that is too small for the number of impostor pairs, by the rule of 30; warn if it is nearly so."""
    support = verification.rule_of_30(far, impostors)
    if support.mark == "withheld":
        must = f"at least {3 / impostors:.2g} for {impostors} impostor pairs, so that 3 of them can be accepted"
        raise ValueError(f"`far` must be {must}; got {far:g}, which needs {support.shown_from} of them")
    if support.mark == "uncertain":
        rests = f"far={far:g} rests on only {support.expected:.0f} false accepts of {impostors} impostor pairs"
        warnings.warn(f"{rests}; {support.needed} impostor pairs would make it reliable", stacklevel=3)


def threshold_for(pairs, far, criterion, costs=None):
    """Choose the threshold by `far` or by the `criterion`: halfway down to the next lower score, if it is known."""
    threshold, highest = pairs.threshold(far, criterion, costs), pairs.highest()
    if threshold > highest:
        why = "this has the least cost" if criterion == "cost" else "the highest scores are those of impostor pairs"
        warnings.warn(f"The threshold accepts no pair at all: {why}", stacklevel=3)
        # Not the next float32 number: after a distance of 0, some hardware treats it as 0.
        return float(np.float32(highest + 1e-6 * max(1.0, abs(highest))))
    lower = pairs.next_lower(threshold)
    # As a float32 number, because the model's comparison would round it to one of the two scores.
    between = float(np.float32((threshold + lower) / 2))
    return between if lower < between else threshold


def rounded_up(threshold):
    """As a float32 number, which the model compares with. Not downwards: more impostor pairs could be accepted."""
    rounded = np.float32(threshold)
    return float(rounded if rounded >= threshold else np.nextafter(rounded, np.float32(np.inf)))


def evidence_of(pairs, criterion, far, threshold):
    """Describe what the threshold was chosen on and its error rates there: plain values to save with the verifier.

    The intervals are 95 % intervals over identities. A figure that is the same in all resamples has none. A histogram
    has intervals if it counts groups of identities.
    """
    statistics = {"eer": "eer", "fmr": ("fmr_at", threshold), "fnmr": ("fnmr_at", threshold)}
    figures, found = pairs.figures(statistics, threshold)
    intervals = {name: found[one] for name, one in statistics.items() if one in found and found[one].standard_error > 0}
    samples, identities = pairs.sizes()
    genuine, impostor = pairs.counts
    evidence = {
        "criterion": criterion,
        "far": far,
        "samples": samples,
        "identities": identities,
        "genuine_pairs": genuine,
        "impostor_pairs": impostor,
        **figures,
        "intervals": {name: [float(interval.low), float(interval.high)] for name, interval in intervals.items()},
        "keras_siamese": __version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }
    direction = pairs.anatomy.direction
    return evidence if direction is None else {**evidence, "similar_label": float(direction.similar_label)}
