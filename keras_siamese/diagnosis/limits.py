"""All limits of the diagnosis in one table: value, unit, where it comes from, and which modules use it.

Contract: each `Limit` is a float with a unit, an origin and its users, so it can be compared and printed like a number.
The flag, the facts, the causes and the panels of the report read the same entry. `TABLE` holds them by name.

    facts["spread"] < limits.POINT
    limits.POINT.unit, limits.POINT.origin, limits.POINT.used_by
    with limits.changed(POINT=0.5):                # what would a less strict limit say?
        causes.examine(facts)

Origins: "tuned" means chosen on the tuning half of the fault benchmark (`benchmarks/faults.py`) and fixed before the
test half was run; "definition" and "derivation" need no data; everything else names its source. What follows from an
entry, such as twice of it, has no entry of its own. `benchmarks/sensitivity.py` shows which entries matter; some guard
against cases that no recorded run is near, and `tests/diagnosis/test_limits.py` has a case by hand for each of them.
"""

from contextlib import contextmanager
from contextvars import ContextVar


class Limit(float):
    """A number with its `unit`, such as "EER" or "epochs", its `origin`, and the modules of `diagnosis` that read it:
    `used_by`, such as ("causes.collapse",).
    """

    def __new__(cls, value, unit="", origin="", used_by=""):
        self = super().__new__(cls, value)
        self.unit, self.origin, self.used_by = unit, origin, tuple(used_by.split())
        return self

    def times(self, factor):
        """The number times `factor`. A share between ½ and 1 stays one: its distance to 1 is divided by the factor.

        >>> Limit(0.1).times(2), Limit(0.9).times(2), Limit(0.9).times(0.5)
        (0.2, 0.95, 0.8)
        """
        value = float(self)
        return 1 - (1 - value) / factor if 0.5 < value < 1 else value * factor


# --- the flag
WINDOW = Limit(4, "epochs", "derivation: no order of three values has p < .05", "trend")
WARMUP_SHARE = Limit(0.1, "share of the epochs", "tuned", "trend")
MIN_PAIRS = Limit(100, "pairs", "derivation: with fewer, the standard error of the EER exceeds .05", "trend")
SIGNIFICANT = Limit(0.05, "p-value", "convention", "trend")
IMPROVING = Limit(0.2, "p-value", "derivation: one of four values may be out of order", "trend")
FIRST_LOOK = Limit(5, "measured epochs", "derivation: two windows", "recorder")
MIN_DROP = Limit(0.05, "share of the loss at the window's start", "tuned", "trend")
LOSS_FLOOR = Limit(1e-3, "share of the largest loss", "tuned", "trend")
ERRORS_WORSE = Limit(
    2.0,
    "standard errors",
    "97.7 % of a normal",
    "trend causes.label_noise causes.threshold causes.pair_construction causes.weak_features "
    "causes.preprocessing_mismatch causes.mining",
)
ABOVE_NULL = Limit(2.326, "standard errors", "the normal's 99th percentile", "trend")
SHARED = Limit(
    3.6,
    "ratio of errors",
    "simulations: the most that shared identities add",
    "trend facts.verification facts.preparation",
)

# --- how good is good
GOOD_EER = Limit(0.02, "EER", "tuned: below it nothing is left to gain", "trend causes.base")
WELL_EER = Limit(0.05, "EER", "tuned", "causes.margin causes.batch_norm causes.loss_mismatch")
SCALED_EER = Limit(0.08, "EER", "tuned: large inputs are harmless to many networks", "causes.input_scale")
FAILED_EER = Limit(
    0.1,
    "EER",
    "tuned: below it training did not fail",
    "causes.mining causes.preprocessing_mismatch causes.pair_construction "
    "causes.weak_features causes.inverted_labels causes.collapse causes.learning_rate causes.frozen_part "
    "causes.unreachable_output causes.head_sign causes.loss_mismatch",
)
BAD_EER = Limit(
    0.25,
    "EER",
    "tuned: a healthy but hard program stays below",
    "trend causes.base causes.threshold causes.inverted_labels causes.memorising causes.mining",
)
TOLD_APART = Limit(
    0.1,
    "EER",
    "tuned: identities that an encoder has learned",
    "causes.base causes.collapse causes.memorising causes.mining",
)
UNLEARNED = Limit(
    0.15,
    "EER",
    "tuned: training identities that an encoder has not learned",
    "causes.mining causes.weak_features causes.frozen_part causes.learning_rate causes.batch_norm causes.base",
)
SIGMAS = Limit(
    3.0,
    "standard errors",
    "a false alarm by chance in 1 of 700 runs",
    "facts.verification causes.leakage causes.preprocessing_mismatch facts.preparation",
)
UPPER_TAIL = Limit(0.975, "probability", "upper end of a 95 % interval", "causes.memorising experiments.confirm")

# --- strength of a finding
STRONGEST = Limit(
    10.0,
    "ratio",
    "convention: beyond it, the strengths of two causes count as equal",
    "causes.base causes.inverted_labels causes.leakage causes.collapse causes.mining causes.input_scale "
    "causes.unshared_weights causes.margin causes.learning_rate causes.nan_gradient "
    "causes.frozen_part causes.head_sign causes.loss_mismatch causes.pair_construction causes.preprocessing_mismatch "
    "facts.output",
)

TWICE = Limit(
    2.0,
    "ratio",
    "convention: an error from twice the limit on",
    "causes.input_scale causes.label_noise causes.learning_rate causes.loss_mismatch causes.mining "
    "causes.pair_imbalance causes.unreachable_output facts.preparation",
)
CLEARLY = Limit(3.0, "ratio", "convention: an error from three times the limit on", "causes.wrong_distance")
WEIGHT_OF_DATA = Limit(
    3.0,
    "strength",
    "convention: faults of the data come before what follows from them",
    "causes.identity_imbalance causes.input_scale",
)
EQUALLY_WELL = Limit(
    0.8, "share of the strength", "convention: two causes explain a run equally well from it on", "diagnosis"
)
NEAR_MISS = Limit(
    1.6,
    "ratio",
    "tuned: planted causes that were missed are within 1.54 of a limit; from there to 2 there are only others",
    "suspects",
)
SMALLEST_SHARE = Limit(
    1e-3, "share", "keeps a ratio finite", "causes.mining causes.pair_imbalance causes.collapse facts.preparation"
)
TINY = Limit(
    1e-9,
    "",
    "keeps a ratio finite",
    "causes.base causes.learning_rate causes.pair_imbalance facts.training experiments.comparison experiments.probes",
)

# --- what training is shown: pairs and identities
RARE_KIND = Limit(
    0.05, "share of the weight in the loss", "tuned: 1:5 is harmless", "causes.pair_imbalance causes.collapse"
)
LOSS_RATIO = Limit(1.5, "ratio of losses", "tuned: the rare kind must have the larger loss", "causes.pair_imbalance")
CLEAR_RATIO = Limit(10.0, "ratio of losses", "convention: an order of magnitude", "causes.base")
FEW_DRAWN = Limit(8, "identities", "derivation: two of eight are a quarter", "causes.identity_imbalance")
SHARE_OF_TWO = Limit(0.5, "share of the samples", "tuned", "causes.identity_imbalance")
LARGE_SHARE_OF_TWO = Limit(0.8, "share of the samples", "tuned", "causes.identity_imbalance")
MISSED = Limit(0.03, "1 − AUC of training pairs", "tuned: below it nothing is left to mine", "causes.mining")
EASY = Limit(0.2, "ratio of 1 − AUC", "tuned: shown pairs over all pairs", "causes.mining")

# --- labels
LABEL_EXCESS = Limit(0.02, "share of genuine pairs", "tuned: above held-out ones", "causes.label_noise causes.mining")
TRAINED_BETTER = Limit(0.02, "EER", "tuned: noise lets training be no better", "causes.label_noise")
FEW_WRONG = Limit(0.05, "share of genuine pairs", "derivation: 2.5 % of wrong labels", "causes.label_noise")
IMPOSTOR_TAIL = Limit(0.25, "share of the impostor pairs", "tuned: genuine pairs stay out of it", "facts.labels")
USUAL_ROWS = Limit(
    0.75, "quantile", "derivation: with half of the labels wrong, the median of the rest", "facts.labels"
)
DUPLICATES = Limit(0.01, "share of held-out samples", "tuned", "causes.leakage")
NEAR_DUPLICATES = Limit(0.05, "share of held-out samples", "tuned: digits resemble each other", "causes.leakage")
SHARED_AUC = Limit(0.7, "AUC", "tuned: equal names on both sides are near each other", "causes.leakage")

# --- inputs and the encoder's structure
SCALES_APART = Limit(
    0.3,
    "log10 of a ratio",
    "tuned: a factor of two",
    "causes.input_scale causes.pair_construction causes.preprocessing_mismatch facts.preparation",
)
LARGE_INPUT = Limit(20.0, "root mean square", "tuned; pixels in [0, 255] are above twice of it", "causes.input_scale")
SMALL_INPUT = Limit(0.005, "root mean square", "tuned", "causes.input_scale")
LEAST_SIDE = Limit(8, "pixels", "derivation: two octaves of frequencies", "facts.inputs")
MODE_GAP = Limit(0.1, "EER", "tuned: inference less training mode", "causes.batch_norm")
STATISTICS_OFF = Limit(
    1.5, "spreads, or powers of 2", "convention: three times another spread, or beyond it", "causes.batch_norm"
)
DEPENDS = Limit(0.05, "share of the spread", "rounding is below 1e-4, statistics of 8 items above", "causes.batch_norm")
FEW_IN_BATCH = Limit(4, "identities", "tuned: the mean of fewer is what they have in common", "causes.batch_norm")

# --- held-out inputs against those of training, and the pairs that training is shown
INPUTS_SHIFTED = Limit(
    1.0, "spreads of the training inputs", "convention", "causes.preprocessing_mismatch facts.preparation"
)
OTHER_VALUES = Limit(
    0.4, "difference of distribution functions", "convention", "causes.preprocessing_mismatch facts.preparation"
)
TURNED = Limit(
    0.3,
    "difference of correlations",
    "convention",
    "causes.pair_construction causes.preprocessing_mismatch facts.preparation",
)
COMMON_SHAPE = Limit(0.25, "share of the variance", "derivation: above 1/5, of five identities", "facts.preparation")
SAME_SHAPE = Limit(0.7, "correlation", "convention: half of the variance", "facts.preparation")
LEAST_PLACES = Limit(8, "places", "fewer correlate by chance", "facts.preparation")
MOST_CHANNELS = Limit(4, "channels", "convention: colour and transparency", "facts.preparation")
SOME_PAIRS = Limit(1000, "pairs", "derivation: a standard error of .02 of an AUC", "facts.pairs facts.training")
MOST_PAIRS = Limit(0.5, "share of the pairs", "convention: most", "causes.pair_construction causes.mining")
CONTRADICTED = Limit(0.1, "share of the pairs", "convention", "causes.pair_construction")
TIMES_SHOWN = Limit(10.0, "times in an epoch, ratio of pairs", "convention", "causes.pair_construction")
UNLEARNED_BY = Limit(0.1, "EER", "tuned: no other fault without a collapse does it", "causes.inverted_labels")
LABELS_CLEAR = Limit(
    0.1, "AUC above ½", "six standard errors of 1000 pairs", "causes.pair_construction causes.inverted_labels"
)
LABELS_LOST = Limit(0.15, "ratio of AUCs above ½", "40 % of wrong labels leave .2", "causes.pair_construction")

# --- how the loss and the optimizer move the embedding
POINT = Limit(
    0.25,
    "spread, spacing",
    "tuned: embeddings are nearly one point",
    "causes.collapse report.panels causes.mining causes.inverted_labels",
)
COLLAPSED = Limit(0.1, "spread", "tuned", "causes.collapse report.panels")
LOOSE_SPACING = Limit(0.5, "spacing", "tuned: without any impostor pair", "causes.collapse")
AT_COLLAPSE = Limit(0.02, "share of the loss", "tuned: the loss is that of a constant encoder", "causes.collapse")
LAST_LOSSES = Limit(3, "epochs", "one epoch may lie there by chance", "facts.loss")
REACHED = Limit(0.99, "share of the impostor pairs", "convention", "facts.loss")
ALL_ACTIVE = Limit(0.99, "share of the impostor pairs", "tuned", "causes.margin report.panels")
SMALL_MARGIN = Limit(0.1, "untrained distances of impostors", "tuned", "causes.margin")
LARGE_MARGIN = Limit(8.0, "untrained distances of impostors", "tuned", "causes.margin")
SMALL_TEMPERATURE = Limit(
    0.002, "cosine", "a fifth of CLIP's lowest, https://arxiv.org/abs/2103.00020", "causes.margin facts.loss"
)
LARGE_TEMPERATURE = Limit(
    0.7,
    "cosine",
    "between SimCLR's usual .5 and 1, which costs it 7 points, https://arxiv.org/abs/2002.05709",
    "causes.margin facts.loss",
)
USUAL_TEMPERATURE = Limit(0.1, "cosine", "SupCon, https://arxiv.org/abs/2004.11362", "facts.loss")
USUAL_GAP = Limit(0.2, "distance", "FaceNet, CVPR 2015, https://arxiv.org/abs/1503.03832", "causes.margin")
SMALL_UPDATE = Limit(
    0.01,
    "share of the weights per epoch",
    "tuned",
    "causes.learning_rate causes.frozen_part causes.label_noise causes.base",
)
USUAL_UPDATE = Limit(
    0.1, "share of the weights per epoch", "the healthy programs' first epoch", "causes.learning_rate causes.collapse"
)
LARGE_UPDATE = Limit(
    1.0,
    "share of the weights per epoch",
    "derivation",
    "causes.learning_rate causes.collapse causes.mining causes.nan_gradient facts.gradients causes.inverted_labels",
)
LARGE_GROWTH = Limit(
    5.0,
    "ratio of norms",
    "five epochs of LARGE_UPDATE, each in a direction of its own, are 2.4",
    "causes.learning_rate causes.collapse causes.inverted_labels",
)
RATE_LEFT = Limit(
    0.01, "share of the largest rate", "a cosine leaves .3, an exponential fall to 1/100 .06", "causes.learning_rate"
)
LITTLE_GAINED = Limit(0.1, "EER", "tuned: below what an untrained encoder has", "causes.learning_rate")
USUAL_RATE = Limit(
    1e-3,
    "learning rate",
    "Keras's default for Adam",
    "causes.learning_rate causes.collapse experiments.changes diagnosis",
)


# --- generalisation
GAP = Limit(0.1, "EER", "tuned: held-out less training identities", "causes.memorising causes.preprocessing_mismatch")
LARGE_EER_GAP = Limit(0.15, "EER", "tuned", "causes.memorising")
TIMES_BETTER = Limit(2.5, "ratio of EERs", "tuned: held-out over training identities", "causes.memorising")
SHARED_GAIN = Limit(
    0.5,
    "share of the EER that training has gained",
    "convention: most of it is held-out identities' too",
    "causes.memorising",
)
FEW_IDENTITIES = Limit(5, "identities", "derivation: an interval over fewer is useless", "causes.memorising")
LEAST_RANK = Limit(2.0, "dimensions", "tuned", "causes.weak_features report.panels")
RANK_SHARE = Limit(0.15, "share of the usable dimensions", "tuned", "causes.weak_features report.panels")
FEW_DIMENSIONS = Limit(4, "dimensions", "tuned", "causes.weak_features")
FROZEN = Limit(0.3, "share of the weights that train", "tuned", "causes.frozen_part causes.label_noise facts.model")
PRETRAINED = Limit(
    0.05, "EER", "two standard errors of 500 pairs: less than new random weights have", "causes.frozen_part"
)
BLURRED = Limit(0.1, "ratio of powers", "tuned; natural images are between .27 and 1.8", "causes.weak_features")
WITH_REASON = Limit(
    3, "ratio of EERs", "tuned: a visible reason needs less proof", "causes.weak_features causes.batch_norm"
)

BEHIND = Limit(0.02, "EER", "SWAP_GAIN, of a linear model", "causes.weak_features")
UNSEEN_SHARE = Limit(
    0.2, "share of what a linear model uses", "convention: a border that is cut off has less", "causes.weak_features"
)
UNSEEN = Limit(0.01, "share of the distance of two items", "rounding is below 1e-5", "facts.exchange")

# --- comparison and decision
LEAST_GAIN = Limit(0.01, "EER", "below it an interval is not worth its time", "facts.embeddings causes.wrong_distance")
SWAP_GAIN = Limit(0.02, "EER", "tuned", "causes.wrong_distance")
SWAP_GAIN_LOW = Limit(0.01, "EER", "tuned: lower end of the interval", "causes.wrong_distance")
ACCURACY_LOST = Limit(0.03, "accuracy", "tuned", "causes.threshold")
MIXED = Limit(0.05, "accuracy", "a mean over an epoch differs that much from its end", "causes.threshold")
CHOSEN_LOST = Limit(0.01, "accuracy", "convention: of a threshold that was chosen", "causes.threshold")

# --- the output and what the loss wants of it
FLAT = Limit(1e-4, "share of the loss", "rounding of float32, with room", "facts.output")
STUCK_LOSS = Limit(0.1, "loss of a constant output", "convention", "facts.output")
EQUAL_NORMS = Limit(
    1e-3, "share of the largest norm", "rounding of float32, with room", "facts.output experiments.comparison"
)
SAME_RANKING = Limit(0.99, "rank correlation", "ties and rounding of float32", "facts.embeddings")
OUT_OF_REACH = Limit(0.5, "loss of a constant output", "convention", "causes.unreachable_output causes.loss_mismatch")
NEGATIVE_LOSS = Limit(0.01, "loss", "derivation: a cross-entropy has none; rounding", "causes.loss_mismatch")
MANY_CUT_OFF = Limit(0.02, "share of the training pairs", "convention: a probability has none", "causes.loss_mismatch")

# --- experiments
TESTED = Limit(3, "causes", "convention: those that a person would try first", "experiments.confirm")
REPAIR_ITEMS = Limit(600, "items", "convention: 100 identities", "experiments.repair")
CONFIRMED_GAIN = Limit(0.02, "EER", "as SWAP_GAIN", "experiments.confirm causes.memorising causes.weak_features")
USUAL_WIDTH = Limit(128, "units", "convention", "experiments.comparison")
USUAL_INPUT = Limit(20_000, "numbers", "convention: a dense layer of them is small", "experiments.comparison")

# --- lines that only the report draws
LOW_D_PRIME = Limit(0.5, "d′", "derivation: an EER of .40", "report.panels")
HIGH_INTRA_INTER = Limit(0.9, "ratio of distances", "tuned; 1 is chance", "report.panels")

# The entries are moved out of the module's names, so that `limits.POINT` asks `__getattr__`, which knows of changes.
TABLE = {name: globals().pop(name) for name, value in list(globals().items()) if isinstance(value, Limit)}
_CHANGED = ContextVar("changed", default=TABLE)


def __getattr__(name):
    """The limit `name`, as `changed` has set it in this thread or task, or else as it stands in `TABLE`."""
    try:
        return _CHANGED.get()[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


@contextmanager
def changed(**values):
    """In the block, the named limits have other values: for this thread or task alone, and for what reads them then.

    Values that a module has read when it was imported, such as the lines of the report, stay as they are.

    Raises:
        ValueError: if no limit has that name.
    """
    unknown = values.keys() - TABLE.keys()
    if unknown:
        raise ValueError(f"`changed` must be given limits by name; there is none named {sorted(unknown)}")
    token = _CHANGED.set({**_CHANGED.get(), **{name: float(value) for name, value in values.items()}})
    try:
        yield
    finally:
        _CHANGED.reset(token)
