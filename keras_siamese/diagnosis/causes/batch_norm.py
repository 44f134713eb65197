"""BatchNormalization: the encoder verifies with the statistics of a batch, but not with the running statistics."""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, change, is_imperfect, signals_of


class BatchNorm(Cause):
    stage = "inputs"
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
        differs = gap > limits.MODE_GAP
        if not facts["batch_normalization"] or not (differs or seen < few) or not is_imperfect(facts, limits.WELL_EER):
            return RuledOut(self.name, signals)
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
