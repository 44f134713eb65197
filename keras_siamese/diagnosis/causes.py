"""The causes: for each, the signals it reads, when it is found, when it is ruled out, and the repair.

Contract: a cause takes `Evidence` and answers with a `Finding`, `RuledOut` (what it measured), or `NotExamined` (what
it would have needed). Adding a cause is adding one subclass of `Cause` here; `CAUSES` is built from the classes. A
repair works on a *recipe*, a plain dict of options under this package's argument names, and returns a new one.

A run fails on new identities in one of two ways. Either training did its job, the training identities are told apart
and others are not: then the cause is in how much they have in common (`memorising`). Or training itself did not get
there: then it is in the labels, the loss or the pairs (`inverted_labels`, `collapse`, `margin`, `pair_imbalance`), and
these are ruled out where the training identities are told apart. `threshold` is about decisions alone.

    findings, others = examine(evidence)
    findings[0].cause, findings[0].advice
    recipe = findings[0].apply({"margin": 1.0, "similar_label": 1})
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from keras import ops

from keras_siamese.diagnosis import health
from keras_siamese.diagnosis.evidence import TOLD_APART, count_identities, widening

SEVERITIES = ("info", "warning", "error")
STRONGEST = 10.0  # past this the strengths of two causes are as good as equal
FEW_IDENTITIES = 5  # held-out ones, below which an interval over identities means nothing


@dataclass(frozen=True)
class Signal:
    """A measured value beside the threshold it is held against and its value under the null."""

    value: float
    threshold: float | None = None
    null: float | None = None
    low: float | None = None
    high: float | None = None

    def line(self, name):
        """The signal as one line of text under its `name`."""
        text = f"{name.replace('_', ' ')} {self.value:.4g}"
        if self.low is not None:
            text += f" [{self.low:.4g}, {self.high:.4g}]"
        beside = (("threshold", self.threshold), ("null", self.null))
        notes = ", ".join(f"{what} {value:.4g}" for what, value in beside if value is not None)
        return f"{text}  ({notes})" if notes else text


@dataclass(frozen=True)
class Finding:
    """A cause, found.

    Attributes:
        cause: identifier, such as "inverted_labels".
        severity: "info", "warning" or "error".
        epoch: epoch of the evidence, or None.
        summary: one sentence that says what was seen.
        evidence: `Signal` by name.
        advice: what to change, as code that runs.
        apply: a function from a recipe (dict of options) to a repaired one, or None where only a person can act.
        strength: how far past its threshold the leading signal is, as a ratio in [1, 10]; ranks within a severity.
        explains: causes that would be found as well if this one were the only one.
        explained_by: the cause that brings this finding about as well, or None.
    """

    cause: str
    severity: str
    epoch: int | None
    summary: str
    evidence: dict[str, Signal]
    advice: str
    apply: Callable[[dict], dict] | None = None
    strength: float = 1.0
    explains: tuple[str, ...] = ()
    explained_by: str | None = None


@dataclass(frozen=True)
class RuledOut:
    """A cause that the evidence speaks against."""

    cause: str
    evidence: dict[str, Signal] = field(default_factory=dict)


@dataclass(frozen=True)
class NotExamined:
    """A cause that could not be examined, and what it would have needed."""

    cause: str
    needs: str


class Cause:
    """Base of the causes.

    Attributes:
        name: the identifier.
        explains_flag: whether it can be why AUC and EER do not follow the loss.
    """

    name = ""
    explains_flag = True

    def examine(self, evidence):
        """A `Finding`, `RuledOut` or `NotExamined`."""
        raise NotImplementedError

    def found(self, evidence, severity, summary, signals, advice, apply, strength, explains=()):
        strength = float(np.clip(strength, 1.0, STRONGEST))
        return Finding(self.name, severity, evidence.epoch, summary, signals, advice, apply, strength, tuple(explains))


def change(**options):
    """A repair that sets `options` in a recipe."""
    return lambda recipe: {**recipe, **options}


class InvertedLabels(Cause):
    """The pair labels say different where they mean same: ranking is worse than chance, which noise cannot be.

    Training pairs of known identity are the better witness: an encoder that ranks *them* worse than chance was trained
    to. Held-out pairs alone count where training data are not known; where they are, held-out pairs worse than chance
    beside well-ranked training pairs mean that the held-out labels are inverted, if they are labels of pairs.
    """

    name = "inverted_labels"
    others = ("collapse", "margin", "memorising", "threshold", "pair_imbalance")

    def examine(self, evidence):
        valid, train = evidence.below_chance, evidence.train_below_chance
        signals = {
            "auc": Signal(evidence.auc.estimate, None, 0.5, evidence.auc.low, evidence.auc.high),
            "standard_errors_below_half": Signal(valid.errors, valid.critical, 0.0),
        }
        if train is not None:
            signals["train_auc"] = Signal(evidence.train_intervals["auc"].estimate, None, 0.5)
            signals["train_standard_errors_below_half"] = Signal(train.errors, train.critical, 0.0)
        conventions = (getattr(evidence.loss, "similar_label", None), evidence.data_similar_label)
        clash = None not in conventions and conventions[0] != conventions[1]
        if clash:
            names = ("similar_label_of_loss", "similar_label_of_pairs")
            signals |= {name: Signal(label) for name, label in zip(names, conventions, strict=True)}

        if clash and evidence.verifies_badly:
            what = (
                f"The loss takes the label {conventions[0]} for the same, and the training pairs say "
                f"{conventions[1]}: it pulls impostors together and pushes genuine pairs apart."
            )
            return self.in_training(evidence, what, signals, STRONGEST)
        if valid.is_below and train is not None and train.is_above and evidence.valid.trials.identities is None:
            what = (
                f"Held-out pairs are ranked worse than chance (AUC {evidence.auc.estimate:.3f}) while training pairs "
                "are ranked well: the held-out labels are inverted."
            )
            advice = "monitor = ks.callbacks.DivergenceMonitor(validation, similar_label=0)"
            apply, strength = change(validation_similar_label=0), valid.errors / valid.critical
            return self.found(evidence, "error", what, signals, advice, apply, strength, self.others)
        if train is None and valid.is_below:
            what = (
                f"Held-out pairs are ranked worse than chance (AUC {evidence.auc.estimate:.3f}, {valid.errors:.1f} "
                "standard errors below ½): labels are inverted, in the loss or in these pairs."
            )
            return self.in_training(evidence, what, signals, valid.errors / valid.critical)
        if train is not None and train.is_below and not valid.is_above:
            what = (
                f"Even training pairs are ranked worse than chance (AUC {signals['train_auc'].value:.3f}, "
                f"{train.errors:.1f} standard errors below ½): the loss pulls impostors together and pushes genuine "
                "pairs apart. Its labels are inverted."
            )
            return self.in_training(evidence, what, signals, train.errors / train.critical)
        return RuledOut(self.name, signals)

    def in_training(self, evidence, what, signals, strength):
        label = 1 - getattr(evidence.loss, "similar_label", 1)
        loss = type(evidence.loss).__name__ if hasattr(evidence.loss, "similar_label") else "ContrastiveLoss"
        advice = (
            f"loss = ks.losses.{loss}(similar_label={label})  # if label {label} means the same in your pairs\n"
            "train = ks.data.PairSequence(x, labels)  # or let the package make the pairs: 1 = same"
        )

        def apply(recipe):
            return {**recipe, "similar_label": 1 - recipe.get("similar_label", 1)}

        return self.found(evidence, "error", what, signals, advice, apply, strength, self.others)


class Collapse(Cause):
    """The encoder gives every input nearly the same embedding."""

    name = "collapse"

    def examine(self, evidence):
        embeddings = evidence.valid.embeddings
        trials, value = evidence.valid.trials, health.spread(embeddings)
        compared = health.normalised(embeddings) if evidence.scale_free else embeddings
        spacing = health.spacing(compared, trials.left[~trials.same], trials.right[~trials.same])
        signals = {
            "spread": Signal(value, 0.3, 1.0),
            "spacing": Signal(spacing, 0.3, 1.0),
            "effective_rank": Signal(health.effective_rank(embeddings)),
        }
        floor = loss_of_constant_encoder(evidence)
        on_floor = False
        losses = np.array(evidence.history.get("loss", [])[-3:], float)
        if floor and len(losses) == 3 and np.isfinite(losses).all():
            relative = float(np.max(np.abs(losses - floor)) / floor)
            signals["loss_from_collapsed_value"] = Signal(relative, 0.02)
            on_floor = relative < 0.02
        # Few dimensions in use lower the spread, and a common offset the directions; a point does both.
        collapsed = value < 0.3 and spacing < 0.3
        if not collapsed or not evidence.verifies_badly or evidence.told_apart:
            return RuledOut(self.name, signals)
        margin = getattr(evidence.loss, "margin", np.inf)
        inside = evidence.output_kind == "distance" and np.median(-evidence.valid.scores) < margin
        return self.found(
            evidence,
            "error" if value < 0.1 or on_floor else "warning",
            f"Embeddings nearly coincide: spread {value:.3f} where 1 is uniform and 0 is one point"
            + (", and the loss sits where identical embeddings put it." if on_floor else "."),
            signals,
            "keras.Sequential([..., keras.layers.Dense(64), keras.layers.UnitNormalization()])  # fix the scale\n"
            "siamese.compile(keras.optimizers.Adam(learning_rate / 10), loss=loss)\n"
            "ks.data.PairSequence(x, labels, positive_fraction=0.5)  # enough impostors",
            lambda recipe: {**recipe, "normalize": True, "learning_rate": recipe.get("learning_rate", 1e-3) / 10},
            0.3 / max(value, 1e-3),
            ("margin", "threshold") if inside else ("threshold",),
        )


class Memorising(Cause):
    """The encoder tells the training identities apart, and others it does not."""

    name = "memorising"

    def examine(self, evidence):
        gap = evidence.eer_gap
        if gap is None:
            return NotExamined(self.name, "training samples with identities: DivergenceMonitor(…, train=(x, labels))")
        identities = count_identities(evidence.valid.trials)
        if identities is not None and identities < FEW_IDENTITIES:
            return NotExamined(self.name, f"{FEW_IDENTITIES} held-out identities or more; there are {identities}")
        trained, held_out = evidence.train_intervals["eer"].estimate, evidence.eer.estimate
        low, high = gap_interval(evidence, gap, identities)
        signals = {
            "eer_gap": Signal(gap.estimate, 0.10, 0.0, low, high),
            "eer": Signal(held_out),
            "train_eer": Signal(trained, min(TOLD_APART, held_out / 3)),
        }
        by_heart = trained < min(TOLD_APART, held_out / 3) and gap.estimate > 0.10 and low > 0
        if not by_heart or not evidence.verifies_badly:
            return RuledOut(self.name, signals)
        known = len(np.unique(evidence.train.trials.identities))
        return self.found(
            evidence,
            "error" if evidence.flags else "warning",
            f"Training identities are told apart (EER {trained:.3f}), held-out ones are not (EER {held_out:.3f}): the "
            f"encoder has learned its {known} identities by heart.",
            signals,
            "ks.data.PairSequence(x, labels, augment=ks.data.image_augmenter(rotation_range=15, zoom_range=0.1))\n"
            'keras.callbacks.EarlyStopping("val_eer", mode="min", patience=5, restore_best_weights=True)\n'
            "# and more identities: few of them, however many samples each, teach nothing about others",
            change(augment=True, early_stopping=True, identities=None),
            gap.estimate / 0.10,
        )


class Margin(Cause):
    """The margin leaves the impostor pairs either all satisfied or none, and training got nowhere."""

    name = "margin"

    def examine(self, evidence):
        margin = getattr(evidence.loss, "margin", None)
        is_pair_loss = hasattr(evidence.loss, "per_pair") and evidence.output_kind == "distance"
        if margin is None or not is_pair_loss or evidence.train is None:
            return NotExamined(self.name, "a pair loss with a margin, and training samples with identities")
        distances = -evidence.train.scores[~evidence.train.same]
        active = health.active_fraction(distances, margin)
        reached = float(np.quantile(distances, 0.99))
        reach = evidence.bounds[1] if evidence.bounds else float("inf")
        signals = {
            "active_impostors": Signal(active, 0.01 if active < 0.5 else 0.99),
            "margin": Signal(margin, reach if np.isfinite(reach) else None),
            "median_impostor_distance": Signal(float(np.median(distances))),
            "impostor_distance_reached": Signal(reached),
            "train_eer": Signal(evidence.train_intervals["eer"].estimate, TOLD_APART),
        }
        too_small = active < 0.01
        too_large = margin > reach or (active > 0.99 and margin > 3 * reached)
        if not evidence.verifies_badly or evidence.told_apart or not (too_small or too_large):
            return RuledOut(self.name, signals)
        if too_small:
            what = f"Only {active:.1%} of impostor pairs lie within the margin {margin:g}: the loss has none to push."
            strength, explains = 0.01 / max(active, 1e-4), ("collapse", "threshold")
        else:
            what = (
                f"Every impostor pair lies within the margin {margin:g}, with 99 % of distances below {reached:.3g}: "
                "no pair can satisfy it, and none matters more than another."
            )
            strength, explains = margin / max(3 * reached, 1e-6), ("threshold",)
        better, why = better_margin(distances, reach)
        advice = f"loss = ks.losses.{type(evidence.loss).__name__}(margin={better:g})  # {why}"
        return self.found(evidence, "error", what, signals, advice, change(margin=better), strength, explains)


class PairImbalance(Cause):
    """Genuine pairs weigh so little, or impostors do, that the loss falls by deciding for the common kind."""

    name = "pair_imbalance"

    def examine(self, evidence):
        fraction = evidence.weighted_fraction
        if fraction is None:
            return NotExamined(self.name, "the training pairs: fit on a PairSequence, or DivergenceMonitor(…, train=…)")
        rare, kind = (fraction, "genuine") if fraction < 0.5 else (1 - fraction, "impostor")
        signals = {"weighted_positive_fraction": Signal(fraction, 0.1 if fraction < 0.5 else 0.9, 0.5)}
        left_behind = True
        if evidence.pair_losses is not None:
            lost, kept = evidence.pair_losses if kind == "genuine" else evidence.pair_losses[::-1]
            signals[f"loss_of_{kind}_pairs_over_others"] = Signal(min(lost / max(kept, 1e-12), 1e6), 3.0, 1.0)
            left_behind = lost > 3 * kept
        if rare >= 0.1 or not left_behind or not evidence.verifies_badly or evidence.told_apart:
            return RuledOut(self.name, signals)
        return self.found(
            evidence,
            "error" if rare < 0.04 else "warning",
            f"Only {rare:.1%} of the weight in the loss is on {kind} pairs: it falls by treating every pair as the "
            "other kind.",
            signals,
            "train = ks.data.PairSequence(x, labels, positive_fraction=0.5)\n"
            f"loss = ks.losses.ContrastiveLoss({'positive' if kind == 'genuine' else 'negative'}_weight="
            f"{(1 - rare) / max(rare, 1e-3):.3g})  # or, where the pairs are given",
            change(positive_fraction=0.5),
            0.1 / max(rare, 1e-3),
            ("margin", "threshold") if kind == "genuine" else ("collapse", "margin", "threshold"),
        )


class Threshold(Cause):
    """The embedding ranks pairs well; the accuracy uses a threshold that does not fit the scores."""

    name = "threshold"
    explains_flag = False

    def examine(self, evidence):
        used, (best, _) = evidence.threshold, evidence.valid.accuracy
        if used is None:
            return NotExamined(self.name, "the threshold in use: DivergenceMonitor(…, threshold=…)")
        if np.isnan(best):
            return NotExamined(self.name, "more held-out pairs, to choose a threshold on others")
        lost = health.accuracy_shortfall(*evidence.balanced, used, best)
        least = max(0.05, 2 * evidence.accuracy_se)
        signals = {
            "accuracy_lost": Signal(lost, least, 0.0),
            "best_accuracy": Signal(best),
            "threshold": Signal(used),
        }
        if lost <= least:
            return RuledOut(self.name, signals)
        return self.found(
            evidence,
            "warning",
            f"The threshold in use gives accuracy {best - lost:.3f} where one chosen on other identities gives "
            f"{best:.3f}: the scores are on another scale.",
            signals,
            "verifier = ks.Verifier.calibrate(siamese, x_valid, labels_valid, far=0.01)\n"
            "print(verifier.evaluate(*test))",
            change(threshold="calibrated"),
            lost / least,
        )


def gap_interval(evidence, gap, identities):
    """95 % interval of the `gap`, Student's with as many degrees of freedom as held-out `identities` less one."""
    from scipy.special import stdtrit

    valid, train = evidence.eer.standard_error, evidence.train_intervals["eer"].standard_error
    error = np.hypot(valid * widening(evidence.valid.trials), train)
    reach = float(error) * (1.96 if identities is None else float(stdtrit(identities - 1, 0.975)))
    return gap.estimate - reach, gap.estimate + reach


def better_margin(distances, reach):
    """A margin for impostor `distances` `(n,)` of a model that reaches `reach`, to two digits, and why that one."""
    if np.isfinite(reach):
        return float(f"{reach / 2:.2g}"), f"half of {reach:g}, the most that these distances can be"
    return float(f"{max(np.median(distances), 1e-3):.2g}"), "the median impostor distance: half of them matter"


def loss_of_constant_encoder(evidence):
    """The training loss of an encoder that maps all inputs to one point, or None where it cannot be known."""
    if not hasattr(evidence.loss, "per_pair") or evidence.positive_fraction is None:
        return None
    if evidence.output_kind != "distance" or not evidence.bounds or evidence.bounds[0] != 0.0:
        return None
    genuine = evidence.loss.similar_label
    labels = ops.convert_to_tensor(np.array([1 - genuine, genuine], "float32"))
    at_zero = ops.convert_to_numpy(evidence.loss.call(labels, ops.zeros((2, 1))))
    return health.at_constant(at_zero, evidence.positive_fraction)


CAUSES = tuple(cause() for cause in Cause.__subclasses__())


def names():
    """Identifiers of the causes that are examined."""
    return [cause.name for cause in CAUSES]


def explaining_flags(findings):
    """Those of the `findings` that can be why AUC and EER do not follow the loss."""
    able = {cause.name for cause in CAUSES if cause.explains_flag}
    return [finding for finding in findings if finding.cause in able]


def examine(evidence):
    """Examines every cause.

    Returns:
        `(findings, others)`: the findings ranked, most severe and strongest first, those that another one explains as
        well marked and last; and the `RuledOut` and `NotExamined` answers.
    """
    answers = [cause.examine(evidence) for cause in CAUSES]
    findings = [answer for answer in answers if isinstance(answer, Finding)]
    return rank(findings), [answer for answer in answers if not isinstance(answer, Finding)]


def rank(findings):
    """Most severe first, then strongest; a finding that another one explains comes last, marked and only "info".

    Of two that explain each other the first stays.
    """
    findings = sorted(findings, key=lambda finding: (-SEVERITIES.index(finding.severity), -finding.strength))
    ranked = []
    for place, finding in enumerate(findings):
        by = next(
            (
                other.cause
                for other_place, other in enumerate(findings)
                if finding.cause in other.explains and (other.cause not in finding.explains or other_place < place)
            ),
            None,
        )
        ranked.append(replace(finding, explained_by=by, severity="info") if by else finding)
    return sorted(ranked, key=lambda finding: finding.explained_by is not None)
