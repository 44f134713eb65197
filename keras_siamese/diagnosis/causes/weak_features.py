"""Weak features: the encoder cannot tell even its training identities apart, although nothing keeps it from learning.

This remains if training failed and no other cause is found: too few units, too few dimensions, inputs that do not hold
the necessary information, or a network that does not see all of its input.

A linear model of the raw inputs tells what could be had. A sound network may also be worse than it, if data are few. So
this alone is severity "info"; it counts if training pairs are not told apart either, or if parts of the input that the
linear model uses do not reach the embedding.
"""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.advice import AUGMENT, for_samples
from keras_siamese.diagnosis.causes.base import TRAINING_DATA, Cause, RuledOut, Signal, is_imperfect, signals_of


class WeakFeatures(Cause):
    stage = "generalisation"
    needs_embeddings = True
    reads = ("train_eer", "spread")
    needs = TRAINING_DATA
    advice = (
        "# either: more capacity\n"
        "encoder = keras.Sequential([..., keras.layers.Dense(256), keras.layers.ReLU(), keras.layers.Dense(64),\n"
        "                            keras.layers.UnitNormalization()])\n"
        "# or: a pretrained encoder\n"
        "encoder = ks.from_pretrained(backbone, dim=64)\n"
        "# and: augmentation\n"
        f"{AUGMENT['images']}\n"
        "train = ks.data.PairSequence(x, labels, augment=augment)"
    )

    def judge(self, facts):
        trained, rank, dim = facts["train_eer"], facts["effective_rank"], facts["embedding_dim"]
        signals = signals_of(facts, train_eer=limits.UNLEARNED, eer=None, untrained_eer=None, train_input_eer=None)
        signals |= signals_of(facts, effective_rank=None, embedding_dim=limits.FEW_DIMENSIONS)
        signals |= signals_of(facts, detail=(limits.BLURRED, 1.0), unseen_share=(limits.UNSEEN_SHARE, 0.0))
        signals |= signals_of(facts, overfit_loss_left=None, reference_linear=None)
        signals |= signals_of(facts, unaugmented_gain=(limits.CONFIRMED_GAIN, 0.0))
        behind = is_behind(facts, signals)
        possible = min(dim, facts.get("train_identities", np.inf) - 1)
        lowest = max(limits.LEAST_RANK, limits.RANK_SHARE * possible)
        unseen = facts.get("unseen_share", 0.0)
        reasons = {
            f"embeddings use {rank:.1f} dimensions": rank < lowest or dim <= limits.FEW_DIMENSIONS,
            "inputs are blurred": facts.get("detail", 1.0) < limits.BLURRED,
            f"{unseen:.0%} of what a linear model uses of the inputs is in parts that do not change the embedding": (
                behind and unseen > limits.UNSEEN_SHARE
            ),
            "their augmentation hides what tells them apart": (
                facts.get("unaugmented_gain", 0.0) > limits.CONFIRMED_GAIN and facts["unaugmented_gain_low"] > 0
            ),
        }
        why = [reason for reason, holds in reasons.items() if holds]
        # With a visible reason a lower error suffices: so few dimensions, for example, cannot do better than that.
        failed = trained > limits.UNLEARNED and (facts["verifies_badly"] or behind)
        failed = failed or (why and trained > limits.UNLEARNED / limits.WITH_REASON)
        if not failed or not is_imperfect(facts, limits.FAILED_EER):
            return self.beaten(facts, signals) if behind and is_imperfect(facts) else RuledOut(self.name, signals)
        rest = f": {', '.join(why)}." if why else ": the features are too weak."
        what = f"The encoder cannot tell even its training identities apart (EER {trained:.3f}){rest}"
        what += f" {self.compared(facts)}" if behind else ""
        return self.found(
            facts, "warning", what, signals, 1 + 2 * len(why) + trained, enlarged, for_samples(self.advice, facts)
        )

    def beaten(self, facts, signals):
        """The finding, as information, that a linear model does better."""
        return self.found(facts, "info", self.compared(facts), signals, 1.0, enlarged, for_samples(self.advice, facts))

    @staticmethod
    def compared(facts):
        """The network beside the linear model, as a sentence."""
        return (
            f"The network (EER {facts['eer']:.3f}) verifies held-out pairs worse than a linear model of the raw inputs "
            f"(EER {facts['reference_linear']:.3f})."
        )


def is_behind(facts, signals):
    """Whether a linear model of the raw inputs is clearly better; the difference is added to the `signals`."""
    if "behind_linear" not in facts:
        return False
    behind, reach = facts["behind_linear"], limits.ERRORS_WORSE * facts["behind_linear_se"]
    signals["eer_behind_linear_model"] = Signal(behind, limits.BEHIND, 0.0, behind - reach, behind + reach)
    return behind > max(limits.BEHIND, reach)


def enlarged(recipe):
    """A repair of weak features: a wider encoder, more dimensions and sharp inputs; nothing gets smaller."""
    sizes = {"width": max(recipe.get("width", 0), 128), "embedding_dim": max(recipe.get("embedding_dim", 0), 32)}
    return {**recipe, **sizes, "blur": 0.0}
