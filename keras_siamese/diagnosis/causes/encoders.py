"""Causes in the encoder: weak features, memorising, BatchNormalization, unshared weights."""

import numpy as np

from keras_siamese.diagnosis.causes.base import (
    STRONGEST,
    Cause,
    NotExamined,
    RuledOut,
    Signal,
    change,
    is_imperfect,
    leaves_to_explain,
    signals_of,
)

FEW_IN_BATCH = 4  # identities in a batch, below which its mean and variance are theirs
UNLEARNED = 0.15  # EER of training identities, above which training has not done its job
FEW_IDENTITIES = 5  # held-out ones, below which an interval over identities means nothing


class WeakFeatures(Cause):
    """The encoder cannot even tell its training identities apart, though nothing keeps it from learning.

    What is left when training failed and no other cause shows: too few units, too few dimensions, most of the weights
    frozen at random values, or inputs that do not hold what would be needed.
    """

    name = "weak_features"
    reads = ("train_eer", "spread")
    needs = "training samples with identities: DivergenceMonitor(…, train=(x, labels))"

    def judge(self, facts):
        trained = facts["train_eer"]
        signals = {"train_eer": Signal(trained, UNLEARNED), "eer": Signal(facts["eer"])}
        signals |= signals_of(facts, untrained_eer=None, train_input_eer=None, effective_rank=None)
        signals |= signals_of(facts, embedding_dim=4, trainable_share=0.3, detail=(0.1, 1.0))
        possible = min(facts["embedding_dim"], facts.get("train_identities", np.inf) - 1)
        is_narrow = facts["effective_rank"] < max(2.0, 0.15 * possible) or facts["embedding_dim"] <= 4
        reasons = {
            f"embeddings use {facts['effective_rank']:.1f} dimensions": is_narrow,
            f"{1 - facts.get('trainable_share', 1.0):.0%} of the weights are frozen": "trainable_share" in facts
            and facts["trainable_share"] < 0.3
            and trained > UNLEARNED,
            "inputs are blurred": facts.get("detail", 1.0) < 0.1,
        }
        why = [reason for reason, holds in reasons.items() if holds]
        # With a reason in sight less will do: so few dimensions, say, tell nobody apart better than that.
        failed = (trained > UNLEARNED and leaves_to_explain(facts)) or (bool(why) and trained > UNLEARNED / 3)
        if not failed or not is_imperfect(facts, 0.1):
            return RuledOut(self.name, signals)
        return self.found(
            facts,
            "warning",
            f"Even training identities are not told apart (EER {trained:.3f})"
            + (f": {', '.join(why)}." if why else ", and nothing else explains it: the features are too weak."),
            signals,
            "encoder = keras.Sequential([..., keras.layers.Dense(256), keras.layers.ReLU(), keras.layers.Dense(64),\n"
            "                            keras.layers.UnitNormalization()])  # capacity, or a pretrained backbone\n"
            "ks.data.PairSequence(x, labels, augment=ks.data.image_augmenter(rotation_range=15, zoom_range=0.1))",
            change(width=128, embedding_dim=32, trainable=True, blur=0.0),
            1.0 + 2 * len(why) + trained,
        )


class Memorising(Cause):
    """The encoder tells the training identities apart, and others it does not."""

    name = "memorising"
    reads = ("gap", "train_eer")
    needs = "training samples with identities: DivergenceMonitor(…, train=(x, labels))"

    def judge(self, facts):
        identities = facts.get("identities")
        if identities is not None and identities < FEW_IDENTITIES:
            return NotExamined(self.name, f"{FEW_IDENTITIES} held-out identities or more; there are {identities:.0f}")
        trained, held_out, gap = facts["train_eer"], facts["eer"], facts["gap"]
        low, high = gap_interval(facts)
        bound = min(0.10, held_out / 2.5)
        signals = {
            "eer_gap": Signal(gap, 0.10, 0.0, low, high),
            "eer": Signal(held_out),
            "train_eer": Signal(trained, bound),
        }
        signals |= signals_of(facts, train_identities=None, best_eer=None)
        by_heart = trained < bound and gap > 0.10 and low > 0
        if not by_heart:
            return RuledOut(self.name, signals)
        known = facts.get("train_identities", 0)
        return self.found(
            facts,
            "error" if facts["flagged"] or gap > 0.15 else "warning",
            f"Training identities are told apart (EER {trained:.3f}), held-out ones are not (EER {held_out:.3f}): the "
            f"encoder has learned its {known:.0f} identities by heart.",
            signals,
            "ks.data.PairSequence(x, labels, augment=ks.data.image_augmenter(rotation_range=15, zoom_range=0.1))\n"
            'keras.callbacks.EarlyStopping("val_eer", mode="min", patience=5, restore_best_weights=True)\n'
            "# and more identities: few of them, however many samples each, teach nothing about others",
            change(augment=True, early_stopping=True, identities=None),
            gap / 0.10,
        )


def gap_interval(facts):
    """95 % interval of the gap in EER, Student's with as many degrees of freedom as held-out identities less one."""
    from scipy.special import stdtrit  # heavy: the package's import stays light

    identities = facts.get("identities")
    reach = float(np.hypot(facts["eer_se"], facts["train_eer_se"]))
    reach *= 1.96 if identities is None else float(stdtrit(identities - 1, 0.975))
    return facts["gap"] - reach, facts["gap"] + reach


class BatchNorm(Cause):
    """The encoder verifies in training mode, on the statistics of the batch, and not in inference mode."""

    name = "batch_norm"
    reads = ("batch_normalization",)
    needs = "an encoder with BatchNormalization, and training batches"
    explains = ("weak_features", "collapse", "learning_rate", "memorising", "threshold", "label_noise", "mining")
    explains += ("margin", "wrong_distance")

    def judge(self, facts):
        signals = signals_of(facts, batch_normalization=0.5, mode_gap=(0.10, 0.0), batch_identities=FEW_IN_BATCH)
        signals |= signals_of(facts, mode_eer_training=None, mode_eer_inference=None)
        gap, seen = facts.get("mode_gap", 0.0), facts.get("batch_identities", 99.0)
        if not facts["batch_normalization"] or (gap <= 0.10 and seen >= FEW_IN_BATCH) or not is_imperfect(facts, 0.05):
            return RuledOut(self.name, signals)
        if gap > 0.10:
            what = (
                f"The same training batches verify with EER {facts['mode_eer_training']:.3f} in training mode and "
                f"{facts['mode_eer_inference']:.3f} in inference mode: BatchNormalization's running statistics are not "
                "those of the batches."
            )
        else:
            what = (
                f"A training batch of one input has {seen:.1f} identities, and BatchNormalization takes away what its "
                "samples have in common: their identity."
            )
        return self.found(
            facts,
            "error",
            what,
            signals,
            "keras.layers.BatchNormalization(momentum=0.9)  # follows in ten batches\n"
            "siamese = ks.SiameseWrapper(encoder, joint=True)  # one statistic over both inputs\n"
            "train = ks.data.PairSequence(x, labels)  # batches of many identities, mixed",
            change(momentum=0.9, joint=True, one_identity=False),
            max(gap / 0.10, FEW_IN_BATCH / seen),
        )


class UnsharedWeights(Cause):
    """The two inputs have encoders of their own: what one learns the other does not."""

    name = "unshared_weights"
    reads = ("unshared",)
    needs = "the model"
    explains = ("weak_features", "memorising", "collapse", "margin", "threshold", "mining", "label_noise")
    explains += ("wrong_distance", "learning_rate", "leakage")

    def judge(self, facts):
        signals = {"unshared": Signal(facts["unshared"], 0.5, 0.0), "eer": Signal(facts["eer"])}
        if not facts["unshared"]:
            return RuledOut(self.name, signals)
        return self.found(
            facts,
            "error",
            "The two inputs have encoders of their own, with weights that are not shared: their embeddings do not lie "
            "in one space but by training, and each sees half of the samples.",
            signals,
            'siamese = ks.SiameseWrapper(encoder, distance="euclidean")  # one encoder, called on both',
            change(shared=True),
            STRONGEST,
        )
