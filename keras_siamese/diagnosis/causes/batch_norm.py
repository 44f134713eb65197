"""BatchNormalization: the encoder verifies with the statistics of a batch, but not with the running statistics; or it
takes those of the batch in inference too, because `training=True` stands in the call.
"""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, change, is_imperfect, signals_of


class BatchNorm(Cause):
    stage = "inputs"
    needs_embeddings = True
    reads = ("batch_normalization",)
    needs = "an encoder with BatchNormalization, and training batches"
    advice = (
        "keras.layers.BatchNormalization(momentum=0.9)  # adapts within ten batches\n"
        "siamese = ks.SiameseWrapper(encoder, joint=True)  # the same statistics for both inputs\n"
        "train = ks.data.PairSequence(x, labels)  # batches that mix many identities"
    )

    def judge(self, facts):
        few = limits.FEW_IN_BATCH
        signals = signals_of(facts, batch_normalization=0.5, mode_gap=(limits.MODE_GAP, 0.0), batch_identities=few)
        signals |= signals_of(facts, mode_eer_training=None, mode_eer_inference=None)
        gap, seen = facts.get("mode_gap", 0.0), facts.get("batch_identities", np.inf)
        differs, depends = gap > limits.MODE_GAP, facts.get("batch_dependence", 0.0)
        signals |= signals_of(facts, batch_dependence=(limits.DEPENDS, 0.0))
        is_found = differs or seen < few or depends > limits.DEPENDS
        if not facts["batch_normalization"] or not is_found or not is_imperfect(facts, limits.WELL_EER):
            return RuledOut(self.name, signals)
        if depends > limits.DEPENDS:
            what = (
                f"In inference mode an embedding changes by {depends:.0%} of the spread if other items of its batch "
                "change: BatchNormalization uses statistics of the batch, so training=True stands in its call."
            )
            advice = "z = backbone(x, training=False)  # in the encoder's call; or no training= at all"
            repair = change(training_in_call=False)
            return self.found(facts, "error", what, signals, depends / limits.DEPENDS, repair, advice)
        if differs:
            what = (
                f"The same training batches verify with EER {facts['mode_eer_training']:.3f} in training mode, but "
                f"with EER {facts['mode_eer_inference']:.3f} in inference mode: the running statistics of "
                "BatchNormalization differ from those of the batches."
            )
        else:
            what = (
                f"A training batch of one input has {seen:.1f} identities. BatchNormalization subtracts what the "
                "samples of a batch have in common, which is then their identity."
            )
        repair = change(momentum=0.9, joint=True, one_identity=False)
        return self.found(facts, "error", what, signals, max(gap / limits.MODE_GAP, few / seen), repair)
