"""Weak features: the encoder cannot tell even its training identities apart, although nothing keeps it from learning.

This remains if training failed and no other cause is found: too few units, too few dimensions, or inputs that do not
hold the necessary information.
"""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, change, is_imperfect, signals_of


class WeakFeatures(Cause):
    stage = "generalisation"
    needs_embeddings = True
    reads = ("train_eer", "spread")
    needs = "training samples with identities: DivergenceMonitor(…, train=(x, labels))"
    advice = (
        "encoder = keras.Sequential([..., keras.layers.Dense(256), keras.layers.ReLU(), keras.layers.Dense(64),\n"
        "                            keras.layers.UnitNormalization()])  # more capacity, or pretrained\n"
        "ks.data.PairSequence(x, labels, augment=ks.data.image_augmenter(rotation_range=15, zoom_range=0.1))"
    )

    def judge(self, facts):
        trained, rank, dim = facts["train_eer"], facts["effective_rank"], facts["embedding_dim"]
        signals = signals_of(facts, train_eer=limits.UNLEARNED, eer=None, untrained_eer=None, train_input_eer=None)
        signals |= signals_of(facts, effective_rank=None, embedding_dim=limits.FEW_DIMENSIONS)
        signals |= signals_of(facts, detail=(limits.BLURRED, 1.0), overfit_loss_left=None)
        possible = min(dim, facts.get("train_identities", np.inf) - 1)
        lowest = max(limits.LEAST_RANK, limits.RANK_SHARE * possible)
        reasons = {
            f"embeddings use {rank:.1f} dimensions": rank < lowest or dim <= limits.FEW_DIMENSIONS,
            "inputs are blurred": facts.get("detail", 1.0) < limits.BLURRED,
        }
        why = [reason for reason, holds in reasons.items() if holds]
        # With a visible reason a lower error suffices: so few dimensions, for example, cannot do better than that.
        failed = trained > limits.UNLEARNED and facts["verifies_badly"]
        failed = failed or (why and trained > limits.UNLEARNED / limits.WITH_REASON)
        if not failed or not is_imperfect(facts, limits.FAILED_EER):
            return RuledOut(self.name, signals)
        rest = f": {', '.join(why)}." if why else ", and no other cause was found: the features are too weak."
        what = f"The encoder cannot tell even its training identities apart (EER {trained:.3f}){rest}"
        repair = change(width=128, embedding_dim=32, blur=0.0)
        return self.found(facts, "warning", what, signals, 1 + 2 * len(why) + trained, repair)
