"""Weak features: the encoder cannot tell its training identities apart, and nothing else explains that."""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import (
    Cause,
    RuledOut,
    Signal,
    change,
    is_imperfect,
    leaves_to_explain,
    signals_of,
)


class WeakFeatures(Cause):
    """The encoder cannot tell even its training identities apart, although nothing keeps it from learning.

    This remains if training failed and no other cause is found: too few units, too few dimensions, most of the weights
    frozen at random values, or inputs that do not hold the necessary information.
    """

    name = "weak_features"
    stage = "generalisation"
    reads = ("train_eer", "spread")
    needs = "training samples with identities: DivergenceMonitor(…, train=(x, labels))"

    def judge(self, facts):
        trained = facts["train_eer"]
        signals = {"train_eer": Signal(trained, limits.UNLEARNED), "eer": Signal(facts["eer"])}
        signals |= signals_of(facts, untrained_eer=None, train_input_eer=None, effective_rank=None)
        signals |= signals_of(
            facts, embedding_dim=limits.FEW_DIMENSIONS, trainable_share=limits.FROZEN, detail=(limits.BLURRED, 1.0)
        )
        possible = min(facts["embedding_dim"], facts.get("train_identities", np.inf) - 1)
        lowest = max(limits.LEAST_RANK, limits.RANK_SHARE * possible)
        free = facts.get("trainable_share", 1.0)
        reasons = {
            f"embeddings use {facts['effective_rank']:.1f} dimensions": facts["effective_rank"] < lowest
            or facts["embedding_dim"] <= limits.FEW_DIMENSIONS,
            f"{1 - free:.0%} of the weights are frozen": free < limits.FROZEN and trained > limits.UNLEARNED,
            "inputs are blurred": facts.get("detail", 1.0) < limits.BLURRED,
        }
        why = [reason for reason, holds in reasons.items() if holds]
        # With a visible reason a lower error suffices: so few dimensions, for example, cannot do better than that.
        failed = (trained > limits.UNLEARNED and leaves_to_explain(facts)) or (
            bool(why) and trained > limits.UNLEARNED / limits.WITH_REASON
        )
        if not failed or not is_imperfect(facts, limits.FAILED_EER):
            return RuledOut(self.name, signals)
        return self.found(
            facts,
            "warning",
            f"The encoder cannot tell even its training identities apart (EER {trained:.3f})"
            + (f": {', '.join(why)}." if why else ", and no other cause was found: the features are too weak."),
            signals,
            "encoder = keras.Sequential([..., keras.layers.Dense(256), keras.layers.ReLU(), keras.layers.Dense(64),\n"
            "                            keras.layers.UnitNormalization()])  # more capacity, or pretrained\n"
            "ks.data.PairSequence(x, labels, augment=ks.data.image_augmenter(rotation_range=15, zoom_range=0.1))",
            change(width=128, embedding_dim=32, trainable=True, blur=0.0),
            1 + 2 * len(why) + trained,
        )
