"""BatchNormalization: the encoder verifies with the statistics of a batch, but not with the running statistics; or it
takes those of the batch in inference too, because `training=True` stands in the call.

Running statistics that are far from those of a batch have not caught up with the inputs. That harms if training pairs
are not told apart in inference mode, whatever they are in training mode, or are told apart somewhat worse than there.
"""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, change, is_imperfect, signals_of


class BatchNorm(Cause):
    stage = "inputs"
    needs_embeddings = True
    reads = ("batch_normalization",)
    needs = "the model"
    advice = (
        "# either: statistics that adapt within ten batches\n"
        "norm = keras.layers.BatchNormalization(momentum=0.9)\n"
        "# or: the same statistics for both inputs\n"
        "siamese = ks.SiameseWrapper(encoder, joint=True)\n"
        "# or: batches that mix many identities\n"
        "train = ks.data.PairSequence(x, labels)"
    )

    def judge(self, facts):
        few = limits.FEW_IN_BATCH
        signals = signals_of(facts, batch_normalization=0.5, batch_identities=few)
        signals |= signals_of(facts, mode_eer_training=None, mode_eer_inference=None)
        gap, seen = facts.get("mode_gap", 0.0), facts.get("batch_identities", np.inf)
        off, learned = facts.get("statistics_off", 0.0), facts.get("train_eer", 1.0) <= limits.UNLEARNED
        signals |= signals_of(facts, statistics_off=(limits.STATISTICS_OFF, 0.0))
        is_off, depends = off > limits.STATISTICS_OFF, facts.get("batch_dependence", 0.0)
        is_behind = is_off and not learned and "train_eer" in facts
        least = limits.MODE_GAP / limits.WITH_REASON if is_off else limits.MODE_GAP
        differs = gap > least
        signals |= signals_of(facts, mode_gap=(least, 0.0), batch_dependence=(limits.DEPENDS, 0.0))
        is_found = differs or is_behind or seen < few or depends > limits.DEPENDS
        if not facts["batch_normalization"] or not is_found or not is_imperfect(facts, limits.WELL_EER):
            return RuledOut(self.name, signals)
        if depends > limits.DEPENDS:
            what = (
                f"In inference mode an embedding changes by {depends:.0%} of the spread if other items of its batch "
                "change: BatchNormalization uses statistics of the batch, so it is called with training=True."
            )
            advice = "z = backbone(inputs, training=False)  # in the encoder's call, or without training="
            repair = change(training_in_call=False)
            return self.found(facts, "error", what, signals, depends / limits.DEPENDS, repair, advice)
        if differs:
            what = (
                f"The same training batches verify with EER {facts['mode_eer_training']:.3f} in training mode, but "
                f"with EER {facts['mode_eer_inference']:.3f} in inference mode: the running statistics of "
                "BatchNormalization differ from those of the batches."
            )
        elif is_behind and seen >= few:
            what = (
                f"The running statistics of BatchNormalization are {off:.2g} spreads away from those of a training "
                f"batch, and training pairs are not told apart in inference mode (EER {facts['train_eer']:.3f}): they "
                "have not caught up with these inputs."
            )
        else:
            what = (
                f"A training batch of one input has {seen:.1f} identities. BatchNormalization subtracts what the "
                "samples of a batch have in common, which is then their identity."
            )
        repair = change(momentum=0.9, joint=True, one_identity=False)
        strength = max(gap / limits.MODE_GAP, few / seen, off / limits.STATISTICS_OFF if is_off else 0.0)
        return self.found(facts, "error", what, signals, strength, repair)
