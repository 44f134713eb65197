"""What was measured of a run: every signal by name, a flat table of numbers that the causes read and reports show.

Contract: `measure` takes `Evidence` and gives `Facts`; what a run does not allow to be measured is not in them. The
causes see nothing else, so a run can be judged again from its facts alone. Imports the modules of signals beside it.

    facts = measure(evidence)
    facts["eer"], facts.get("train_eer"), "margin" in facts
"""

from dataclasses import dataclass, field

import numpy as np
from keras import ops

from keras_siamese import verification
from keras_siamese.data.leakage import check_leakage
from keras_siamese.data.sources import count_samples, take
from keras_siamese.diagnosis.evidence import count_identities, widening
from keras_siamese.diagnosis.facts import embeddings as health
from keras_siamese.diagnosis.facts import model as training
from keras_siamese.diagnosis.facts import samples
from keras_siamese.scoring import UnsharedTowers, score_embeddings

LAST = 3  # epochs whose losses are held against a constant encoder's
MOST_COMPARED = 200_000_000  # bytes of samples that are searched for duplicates
LEAST_GAIN = 0.01  # EER that another distance gains, from which on its interval is worth computing
LEAST_SIDE = 12  # pixels, below which an image has too few octaves
SOME = 512  # samples that are looked at for their scale


@dataclass(frozen=True)
class Facts:
    """Measured values by name.

    Attributes:
        numbers: name → number.
        words: name → text: what things are called, for advice.
        rows: name → rows of the training data, for advice.
    """

    numbers: dict = field(default_factory=dict)
    words: dict = field(default_factory=dict)
    rows: dict = field(default_factory=dict)

    def __getitem__(self, name):
        return self.numbers[name]

    def __contains__(self, name):
        return name in self.numbers

    def get(self, name, default=None):
        return self.numbers.get(name, default)

    def to_dict(self):
        return {"numbers": dict(self.numbers), "words": dict(self.words), "rows": dict(self.rows)}


def measure(evidence):
    """`Facts` of the `evidence`: all that it allows to be measured."""
    words = {
        "loss": type(evidence.loss).__name__ if evidence.loss is not None else "",
        "distance": evidence.settings.get("distance") or "",
        "output": evidence.output_kind,
    }
    numbers, rows = {}, {}
    for group in (
        of_run,
        of_verification,
        of_embeddings,
        of_swaps,
        of_training,
        of_loss,
        of_pairs,
        of_inputs,
        of_model,
    ):
        numbers |= group(evidence)
    for group in (of_labels, of_leakage):
        found, where = group(evidence)
        numbers, rows = numbers | found, rows | where
    known = {name: float(value) for name, value in numbers.items() if value is not None and not np.isnan(value)}
    return Facts(known, words, rows)


def of_run(evidence):
    """The flag, the loss curve and the sizes of steps."""
    found = {"flagged": len(evidence.flags), "recovered": float(evidence.recovered)}
    found["verifies_badly"] = float(evidence.verifies_badly)
    found |= evidence.probed
    if evidence.epoch is None:
        return found
    losses = np.array(evidence.history["loss"], float)
    finite = losses[np.isfinite(losses)]
    found["epochs"] = len(losses)
    if len(finite) > 1:
        found["loss_first"], found["loss_last"] = finite[0], finite[-1]
        steps, reach = np.diff(finite), finite.max() - finite.min()
        found["loss_fallen"] = (finite[0] - finite.min()) / max(abs(finite[0]), 1e-12)
        found["loss_rises"] = steps[steps > 0].sum() / reach if reach > 0 else 0.0
    eers = np.array(evidence.history["eer"], float)
    if np.isfinite(eers).any():
        found["best_eer"] = np.nanmin(eers)
        found["best_eer_epoch"] = int(np.nanargmin(eers)) + 1
    sizes = np.array(evidence.history.get("update_size", []), float)
    sizes = sizes[np.isfinite(sizes)]
    if len(sizes):
        found["update_size_first"], found["update_size_largest"] = sizes[0], sizes.max()
        found["update_size_last"] = np.median(sizes[-max(1, len(sizes) // 3) :])
    return found


def of_verification(evidence):
    """How the held-out pairs are told apart, and the threshold in use."""
    valid = evidence.valid
    found = {
        "auc": evidence.auc.estimate,
        "auc_se": evidence.auc.standard_error,
        "eer": evidence.eer.estimate,
        "eer_se": evidence.eer.standard_error * widening(valid.trials),
        "below_chance": evidence.below_chance.errors,
        "below_chance_critical": evidence.below_chance.critical,
        "pairs": len(valid.same),
        "identities": count_identities(valid.trials),
        "d_prime": verification.d_prime(valid.same, valid.scores),
        "target_eer": evidence.target_eer,
    }
    if evidence.threshold is not None:
        best, _ = valid.accuracy
        found["threshold"] = evidence.threshold
        if not np.isnan(best):
            found["best_accuracy"] = best
            found["accuracy_lost"] = health.accuracy_shortfall(*evidence.balanced, evidence.threshold, best)
            found["accuracy_se"] = evidence.accuracy_se
    return found


def of_embeddings(evidence):
    """The shape of the held-out embeddings."""
    z, trials = evidence.valid.embeddings, evidence.valid.trials
    impostors, genuine = ~trials.same, trials.same
    compared = health.normalised(z) if evidence.scale_free else z
    found = {
        "spread": health.spread(z),
        "spacing": health.spacing(compared, trials.left[impostors], trials.right[impostors]),
        "effective_rank": health.effective_rank(z),
        "uniformity": health.uniformity(z),
        "alignment": health.alignment(z, trials.left[genuine], trials.right[genuine]),
        "embedding_dim": z.shape[1],
        "norm_variation": norm_variation(z),
    }
    if evidence.output_kind == "distance" and np.max(evidence.valid.scores) <= 0:
        found["intra_inter_ratio"] = health.intra_inter_ratio(trials.same, -evidence.valid.scores)
    if len(z) > 12:
        found["hub_skew"], found["anti_hubs"] = health.hubness(z)
        if trials.identities is not None:
            found["purity"], found["purity_null"], found["purity_se"] = health.purity(z, trials.identities)
    return found


def norm_variation(embeddings):
    """Standard deviation of the rows' norms over their mean."""
    norms = np.linalg.norm(np.asarray(embeddings, float), axis=1)
    return norms.std() / norms.mean() if norms.mean() else 0.0


def of_swaps(evidence):
    """The held-out EER under other comparisons of the same embeddings, by the names `eer_cosine`, `eer_euclidean`; the
    gain of the better one, and its lower bound over identities.
    """
    trials = evidence.valid.trials
    if evidence.is_unshared:
        return {}
    found, used = {"swap_gain": 0.0, "swap_gain_low": 0.0}, None
    for name, scores in health.scores_by(evidence.valid.embeddings, trials.left, trials.right).items():
        found[f"eer_{name}"] = verification.eer(trials.same, scores)
        gain = evidence.eer.estimate - found[f"eer_{name}"]
        if gain > max(LEAST_GAIN, found["swap_gain"]):  # an interval takes a hundred sorts
            used = used or replicates(evidence, evidence.valid.scores)
            low = np.quantile(used.replicates - replicates(evidence, scores).replicates, 0.025)
            found["swap_gain"], found["swap_gain_low"] = gain, float(low)
    return found


def replicates(evidence, scores):
    """`Interval` of the EER of `scores` on the held-out pairs; one seed, so that two of them differ by their scores."""
    trials = evidence.valid.trials
    return verification.bootstrap(["eer"], trials.same, scores, *trials.pair_identities, samples=100)["eer"]


def of_training(evidence):
    """What training came to on its own identities, beside held-out ones, the inputs and an untrained encoder."""
    valid, train, siamese = evidence.valid, evidence.train, evidence.siamese
    found = {}
    if train is not None:
        eer, auc = evidence.train_intervals["eer"], evidence.train_intervals["auc"]
        found |= {"train_eer": eer.estimate, "train_eer_se": eer.standard_error, "train_auc": auc.estimate}
        found["train_below_chance"] = evidence.train_below_chance.errors
        found["train_below_chance_critical"] = evidence.train_below_chance.critical
        found["gap"], found["gap_error"] = evidence.eer_gap.estimate, evidence.eer_gap.standard_error
        if train.trials.identities is not None:
            found["train_identities"] = len(evidence.train_names)
    if siamese is None or evidence.is_unshared:
        return found
    for name, scored in (("", valid), ("train_", train)):
        if scored is None:
            continue
        trials = scored.trials
        raw = training.input_scores(trials.items, trials.left, trials.right)
        if raw is not None:
            found[f"{name}input_eer"] = verification.eer(trials.same, raw)
    trials = valid.trials if train is None else train.trials
    embeddings = training.untrained_embeddings(siamese.encoder, trials.items)
    if embeddings is not None and np.isfinite(embeddings).all():
        scores = score_embeddings(siamese, embeddings, trials.left, trials.right)
        found["untrained_eer"] = verification.eer(trials.same, scores)
        found["untrained_distance"] = impostor_distance(embeddings, trials)
        found["impostor_distance"] = impostor_distance((valid if train is None else train).embeddings, trials)
    return found


def impostor_distance(embeddings, trials):
    """Median Euclidean distance of impostor pairs."""
    z, rows = np.asarray(embeddings, float), ~trials.same
    return np.median(np.linalg.norm(z[trials.left[rows]] - z[trials.right[rows]], axis=1))


def of_loss(evidence):
    """Where a hinge stands: its margin, what can be reached, and how many pairs it still moves."""
    loss, train = evidence.loss, evidence.train
    found = {"loss_similar_label": getattr(loss, "similar_label", None)}
    found["pairs_similar_label"] = evidence.data_similar_label
    if has_margin(loss):
        found["margin"] = loss.margin
        name = type(loss).__name__
        found["margin_is_gap"] = float("Triplet" in name or name.endswith("MarginLoss"))
    if evidence.bounds and np.isfinite(evidence.bounds[1]):
        found["reach"] = evidence.bounds[1]
    if hasattr(loss, "per_pair") and evidence.output_kind == loss.expects == "distance" and train is not None:
        distances = -train.scores[~train.same]
        found["median_impostor_distance"] = np.median(distances)
        found["impostor_distance_reached"] = np.quantile(distances, 0.99)
        if "margin" in found:
            found["active_impostors"] = health.active_fraction(distances, found["margin"])
    floor = loss_of_constant_encoder(evidence)
    losses = np.array(evidence.history.get("loss", [])[-LAST:], float)
    if floor and len(losses) == LAST and np.isfinite(losses).all():
        found["loss_from_collapsed_value"] = float(np.max(np.abs(losses - floor)) / floor)
    if evidence.pair_losses is not None:
        found["genuine_loss"], found["impostor_loss"] = evidence.pair_losses
    return found


def has_margin(loss):
    """Whether the loss has a margin that is a distance, or a gap between two: not an angle, nor of cosines."""
    on_distances = hasattr(loss, "distance") or getattr(loss, "expects", None) == "distance"
    return on_distances and isinstance(getattr(loss, "margin", None), (int, float))


def loss_of_constant_encoder(evidence):
    """The training loss of an encoder that maps all inputs to one point, or None where it cannot be known."""
    loss = evidence.loss
    if has_margin(loss) and "Triplet" in type(loss).__name__ and not getattr(loss, "soft", False):
        return float(loss.margin)
    if not hasattr(loss, "per_pair") or evidence.positive_fraction is None:
        return None
    if evidence.output_kind != "distance" or not evidence.bounds or evidence.bounds[0] != 0.0:
        return None
    labels = ops.convert_to_tensor(np.array([1 - loss.similar_label, loss.similar_label], "float32"))
    at_zero = ops.convert_to_numpy(loss.call(labels, ops.zeros((2, 1))))
    return health.at_constant(at_zero, evidence.positive_fraction)


def of_pairs(evidence):
    """What training pairs, or batches, are made of: kinds, identities, and how hard what the loss sees is."""
    found = {"positive_fraction": evidence.positive_fraction, "weighted_positive_fraction": evidence.weighted_fraction}
    found["batch_identities"] = evidence.batch_identities
    counts = evidence.drawn_counts
    if counts is not None and len(counts) > 2:
        found["effective_identities"] = samples.effective_count(counts)
        found["share_of_two"] = samples.largest_share(counts)
        found["drawn_identities"] = np.count_nonzero(counts)
    batches = evidence.batches
    if not batches or evidence.siamese is None:
        return found
    same, scores = training.pair_outputs(evidence.siamese, batches, evidence.genuine_label)
    if np.isfinite(scores).all() and 0 < np.count_nonzero(same) < len(same):
        found["drawn_auc"] = verification.auc(same, scores)
    mined = mined_accuracy(evidence)
    return found if mined is None else found | {"mined_accuracy": mined}


def mined_accuracy(evidence):
    """Share of the triplets that a mining loss takes, in training batches, whose positive is nearer than the negative;
    None for losses that take all.
    """
    loss = evidence.loss
    chosen = getattr(loss, "positives", "all"), getattr(loss, "negatives", "all")
    if chosen == ("all", "all") or "distance_weighted" in chosen:
        return None
    right = []
    for inputs, labels in evidence.batches:
        if training.is_pairs(inputs):
            return None
        embeddings = ops.convert_to_numpy(evidence.siamese.encode(training.as_tensors(inputs), False, None))
        right += mined_order(loss.distance, embeddings, np.asarray(labels), *chosen)
    return float(np.mean(right)) if right else None


def mined_order(distance, embeddings, labels, positives, negatives):
    """For each anchor, whether the chosen positive is nearer than the chosen negative; of semi-hard ones nothing."""
    z = ops.convert_to_tensor(embeddings)
    matrix = ops.convert_to_numpy(distance.matrix(z, z))
    right = []
    for row, own in enumerate(labels):
        same = (labels == own) & (np.arange(len(labels)) != row)
        if not same.any() or (labels == own).all():
            continue
        near, far = matrix[row][same], matrix[row][labels != own]
        chosen = {"hard": near.max(), "easy": near.min()}.get(positives)
        against = {"hard": far.min(), "easy": far.max()}.get(negatives)
        if against is None and negatives == "all":
            right += [float(np.mean((near if chosen is None else chosen) < other)) for other in far]
        elif against is None:
            return []
        else:
            right.append(float(np.mean((near if chosen is None else chosen) < against)))
    return right


def of_inputs(evidence):
    """Scales of what goes in: at the first layer with weights, and of one tower against the other."""
    found, siamese, trials = {}, evidence.siamese, evidence.valid.trials
    some = take(trials.items, np.unique(np.linspace(0, count_samples(trials.items) - 1, SOME).astype(int)))
    if siamese is not None and not isinstance(some, dict) and np.issubdtype(some.dtype, np.number):
        found["input_scale"] = samples.root_mean_square(training.first_inputs(siamese.encoder, some))
        if some.ndim == 4 and min(some.shape[1:3]) >= LEAST_SIDE:
            found["detail"] = samples.detail(some)
    if evidence.valid.trials.identities is None and not isinstance(some, dict):
        found["held_out_towers"] = log_ratio(*(take(trials.items, side) for side in (trials.left, trials.right)))
    pairs = [inputs for inputs, _ in evidence.batches if training.is_pairs(inputs)]
    if pairs and not any(isinstance(side, dict) for side in pairs[0]):
        found["drawn_towers"] = log_ratio(*(np.concatenate([one[side] for one in pairs]) for side in (0, 1)))
    return found


def log_ratio(left, right):
    """log10 of the scale of one tower's inputs over the other's."""
    scales = [samples.root_mean_square(side) for side in (left, right)]
    return float(np.log10(scales[0] / scales[1])) if min(scales) > 0 else None


def of_model(evidence):
    """The encoder's weights, its modes, and the optimizer's rate."""
    siamese = evidence.siamese
    if siamese is None:
        return {}
    found = {"unshared": float(isinstance(siamese, UnsharedTowers)), "learning_rate": evidence.learning_rate}
    found["trainable_share"] = training.trainable_share(siamese.encoder)
    found["batch_normalization"] = float(training.has_batch_normalization(siamese.encoder))
    if evidence.batches and not found["unshared"]:
        eers = training.mode_eers(siamese, evidence.batches, evidence.genuine_label)
        if eers:
            found["mode_eer_training"], found["mode_eer_inference"] = eers["training"], eers["inference"]
            found["mode_gap"] = eers["inference"] - eers["training"]
    return found


def of_labels(evidence):
    """The share of genuine pairs that score as impostors do, on both sides, and the training rows in most of them."""
    found, rows = {}, {}
    for name, scored in (("impostor_like", evidence.train), ("impostor_like_held_out", evidence.valid)):
        if scored is None:
            continue
        found[name] = samples.impostor_like(scored.same, scored.scores)
        found[f"{name}_se"] = np.sqrt(found[name] / (0.25 * np.count_nonzero(scored.same)))
    if "impostor_like" in found:
        trials = evidence.train.trials
        pairs = trials.same, evidence.train.scores, trials.left, trials.right
        wrong = found["impostor_like"] - found.get("impostor_like_held_out", 0.0)
        suspects = samples.suspected_labels(*pairs, count_samples(trials.items), wrong)
        found["suspected_labels"] = len(suspects) / count_samples(trials.items)
        rows["suspected_labels"] = (suspects if trials.rows is None else trials.rows[suspects]).tolist()
    return found, rows


def of_leakage(evidence):
    """What training and held-out data share."""
    train, valid = evidence.train, evidence.valid
    if train is None:
        return {}, {}
    found = {}
    if evidence.valid_names is not None and evidence.train_names is not None:
        names = [evidence.train_names[train.trials.identities], evidence.valid_names[valid.trials.identities]]
        shared = (
            np.intersect1d(*names)
            if names[0].dtype.kind == names[1].dtype.kind or ({names[0].dtype.kind, names[1].dtype.kind} <= set("iu"))
            else []
        )
        found["shared_names"] = len(shared)
        if len(shared):
            found["shared_auc"] = samples.shared_auc(train.embeddings, names[0], valid.embeddings, names[1])
            found["shared_share"] = np.mean(np.isin(names[1], shared))
    x = evidence.train_items
    if isinstance(x, dict) or x.shape[1:] != valid.trials.items.shape[1:] or x.dtype.kind not in "fiub":
        return found, {}
    if x.dtype.itemsize * np.prod(x.shape, dtype=float) > MOST_COMPARED:
        x = train.trials.items
    report = check_leakage((x, None), (valid.trials.items, None))
    found["duplicates"] = len(report.exact) / count_samples(valid.trials.items)
    found["near_duplicates"] = len(report.near) / count_samples(valid.trials.items)
    rows = sorted({*report.exact[:, 1].tolist(), *report.near[:, 1].tolist()})
    return found, {"duplicates": rows} if rows else {}
