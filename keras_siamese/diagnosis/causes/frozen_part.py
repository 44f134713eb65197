"""Frozen part: training cannot change most of the encoder, and what is frozen there tells no identities apart.

Its weights are frozen (`trainable=False`), or get no gradient (`stop_gradient`) and stand where they stood when the run
began. A frozen part that was trained before does its work: its embeddings are better than those of random weights.
"""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, change, is_imperfect, signals_of


class FrozenPart(Cause):
    stage = "optimisation"
    reads = ("trainable_share",)
    needs = "an encoder with weights"
    advice = (
        "# either: let it learn, at a small rate if a part of it is pretrained\n"
        "encoder.trainable = True\n"
        "siamese.compile(keras.optimizers.Adam(1e-4), loss=loss)\n"
        "# or: keep it frozen, with pretrained weights\n"
        "encoder.load_weights(path)"
    )

    def judge(self, facts):
        allowed, moved = facts["trainable_share"], facts.get("moved_share", 1.0)
        # If the whole run stands still, the steps are to blame.
        stands = moved < limits.FROZEN and facts.get("update_size_largest", 1.0) >= limits.SMALL_UPDATE
        free = min(allowed, moved if stands else 1.0)
        signals = signals_of(facts, trainable_share=(limits.FROZEN, 1.0), moved_share=(limits.FROZEN, 1.0))
        signals |= signals_of(facts, train_eer=limits.UNLEARNED, eer=None)
        own, fresh = facts.get("own_eer", 1.0), facts.get("fresh_eer", 0.5)
        signals |= signals_of(
            facts, own_eer=fresh - limits.PRETRAINED if "fresh_eer" in facts else None, fresh_eer=None
        )
        failed = facts["verifies_badly"] or "fresh_eer" in facts
        learned = facts.get("train_eer", 1.0) <= limits.UNLEARNED
        if not failed or learned or free >= limits.FROZEN or not is_imperfect(facts, limits.FAILED_EER):
            return RuledOut(self.name, signals)
        if own <= fresh - limits.PRETRAINED:  # these weights were trained
            return RuledOut(self.name, signals)
        how = "are not trainable" if allowed < limits.FROZEN else "have not moved since the run began"
        layers = f" ({facts.words['frozen_layers']})" if facts.words.get("frozen_layers") else ""
        what = f"{1 - free:.0%} of the weights of the encoder {how}{layers}"
        if "fresh_eer" in facts:
            what += f", and its embeddings (EER {own:.3f}) are no better than those of new random weights ({fresh:.3f})"
        severity = "error" if "fresh_eer" in facts else "warning"
        strength = limits.FROZEN / max(free, limits.FROZEN / limits.STRONGEST)
        return self.found(facts, severity, f"{what}.", signals, strength, change(trainable=True))
