"""What a `Verifier` is calibrated on: scored trials in memory, or the histogram of more pairs than fit there.

Contract: `ScoredTrials` or a `ScoreHistogram` of the model's scores in; the threshold, the probability mapping and the
evidence out, by the same names for both. Of a histogram they are those of its single scores, up to the width of a bin.
Only `verifier` imports this module.

    check_support(far, count_pairs(scored)[1])
    slope, offset = mapping_of(scored)
    threshold = threshold_for(scored, far, criterion, costs)
"""

import warnings

import keras
import numpy as np

from keras_siamese import verification
from keras_siamese._version import __version__
from keras_siamese.verification.histogram import ScoreHistogram

BALANCED = (0.5, 1.0, 1.0)  # costs with which the cheapest threshold is the most accurate on equally many of both kinds
SLACK = 1e-3  # how far outside the model's bounds scores of embeddings in half precision may be, of their distance


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


def count_pairs(scored):
    """`(genuine, impostor)` numbers of pairs."""
    if isinstance(scored, ScoreHistogram):
        return scored.genuines, scored.impostors
    return int(np.count_nonzero(scored.same)), int(np.count_nonzero(~scored.same))


def mapping_of(scored, name):
    """`(slope, offset)` of the probability. Raises if genuine pairs of the model `name` score no higher than others."""
    if isinstance(scored, ScoreHistogram):
        slope, offset = verification.platt(*scored.counted_scores())
        auc = scored.auc()
    else:
        slope, offset = verification.platt(scored.same, scored.scores)
        auc = None if slope > 0 else verification.auc(scored.same, scored.scores)
    if slope <= 0:
        found = f"{name!r} has an AUC of {auc:.3f} on these"
        raise ValueError(f"Genuine pairs must score higher than impostor pairs; {found}. Check the `labels`")
    return slope, offset


def check_support(far, impostors):
    """Refuse a `far` that is too small for the number of impostor pairs, by the rule of 30; warn if it is nearly so."""
    support = verification.rule_of_30(far, impostors)
    if support.mark == "withheld":
        must = f"at least {3 / impostors:.2g} for {impostors} impostor pairs, so that 3 of them can be accepted"
        raise ValueError(f"`far` must be {must}; got {far:g}, which needs {support.shown_from} of them")
    if support.mark == "uncertain":
        rests = f"far={far:g} rests on only {support.expected:.0f} false accepts of {impostors} impostor pairs"
        warnings.warn(f"{rests}; {support.needed} impostor pairs would make it reliable", stacklevel=3)


def threshold_for(scored, far, criterion, costs=None):
    """Choose the threshold on `scored` by `far` or by the `criterion`: halfway down to the next lower score.

    In a histogram, where the next lower score is not known, it stays at the edge of a bin.
    """
    is_histogram = isinstance(scored, ScoreHistogram)
    threshold = (chosen_in if is_histogram else chosen_on)(scored, far, criterion, costs)
    highest = scored.operating_points().thresholds[0] if is_histogram else float(scored.scores.max())
    # The strictest point of a histogram is just above its largest score.
    accepts_none = threshold >= highest if is_histogram else threshold > highest
    if accepts_none:
        why = "this has the least cost" if criterion == "cost" else "the highest scores are those of impostor pairs"
        warnings.warn(f"The threshold accepts no pair at all: {why}", stacklevel=3)
        # Not the next float32 number: after a distance of 0, some hardware treats it as 0.
        return float(np.float32(highest + 1e-6 * max(1.0, abs(highest))))
    if is_histogram:
        lower = scored.next_lower(threshold)
        if lower is None:
            return threshold
    else:
        lower = float(scored.scores.max(initial=-np.inf, where=scored.scores < threshold))
    # As a float32 number, because the model's comparison would round it to one of the two scores.
    between = float(np.float32((threshold + lower) / 2))
    return between if lower < between else threshold


def chosen_on(scored, far, criterion, costs):
    """The threshold among the scores of trials."""
    if far is not None:
        return verification.threshold_at_far(scored.same, scored.scores, far)
    if criterion == "eer":
        return verification.eer_point(scored.same, scored.scores).threshold
    if criterion == "cost":
        return verification.threshold_at_cost(scored.same, scored.scores, *costs)
    return scored.accuracy[1]


def chosen_in(histogram, far, criterion, costs):
    """The threshold among the known ones of a histogram, for "accuracy" over all its pairs."""
    if far is not None:
        return histogram.threshold_at_far(far)
    if criterion == "eer":
        return histogram.eer_point().threshold
    return histogram.threshold_at_cost(*(costs if criterion == "cost" else BALANCED))


def rounded_up(threshold):
    """As a float32 number, which the model compares with. Not downwards: more impostor pairs could be accepted."""
    rounded = np.float32(threshold)
    return float(rounded if rounded >= threshold else np.nextafter(rounded, np.float32(np.inf)))


def evidence_of(scored, criterion, far, threshold):
    """Describe what the threshold was chosen on and its error rates there: plain values to save with the verifier.

    The intervals are 95 % intervals over identities. A figure that is the same in all resamples has none. A histogram
    has intervals if it counts groups of identities.
    """
    statistics = {"eer": "eer", "fmr": ("fmr_at", threshold), "fnmr": ("fnmr_at", threshold)}
    if isinstance(scored, ScoreHistogram):
        point = scored.operating_point(threshold)
        figures = {"eer": scored.eer(), "fmr": point.fmr, "fnmr": point.fnmr}
        has_groups = bool(getattr(scored, "groups", 0))
        found = scored.intervals(list(statistics.values())) if has_groups else {}
        counts = {"samples": None, "identities": None}
    else:
        sides = scored.trials.pair_identities
        found = verification.bootstrap(list(statistics.values()), scored.same, scored.scores, *sides)
        figures = {name: float(found[statistic].estimate) for name, statistic in statistics.items()}
        identities = scored.trials.identities
        counts = {"samples": len(scored.embeddings)}
        counts["identities"] = None if identities is None else len(np.unique(identities))
    intervals = {name: found[one] for name, one in statistics.items() if one in found and found[one].standard_error > 0}
    genuine, impostor = count_pairs(scored)
    return {
        "criterion": criterion,
        "far": far,
        **counts,
        "genuine_pairs": genuine,
        "impostor_pairs": impostor,
        **figures,
        "intervals": {name: [float(interval.low), float(interval.high)] for name, interval in intervals.items()},
        "keras_siamese": __version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }
