"""A program of a user with a mistake in each line that says so; a type checker refuses these lines and no others."""

import numpy as np

import keras_siamese as ks

x, labels = np.zeros((8, 4), "float32"), np.arange(8) // 2
same, scores = [1, 0, 1], [0.9, 0.1, 0.7]

ks.losses.BatchTripletLoss(margin="big")  # error: arg-type
ks.losses.BatchTripletLoss(negatives="hardest")  # error: arg-type
ks.losses.BatchTripletLoss(distances="cosine")  # error: call-arg
ks.losses.NTXentLoss(0.1, block_size="all")  # error: arg-type
ks.losses.ContrastiveLoss(positive_weigth=2.0)  # error: call-arg
ks.losses.ContrastiveLos()  # error: attr-defined
ks.metrics.TARAtFAR(far=0.01, output="distances")  # error: arg-type
ks.verification.evaluate(same, scores, treshold=0.5)  # error: call-arg
ks.verification.evaluate(same, scores, 0.01)  # error: call-arg
ks.verification.eer(same)  # error: call-arg
rate = ks.verification.evaluate(same, scores).rate  # error: attr-defined
ks.data.PairSequence(x, labels, batchsize=32)  # error: call-arg
ks.data.PairSequence(x, None)  # error: arg-type
ks.data.BalancedBatchSequence(x, labels, weighting="equal")  # error: arg-type
ks.callbacks.DivergenceMonitor((x, labels), on_divergence="halt")  # error: arg-type
ks.callbacks.DivergenceMonitor((x, labels), batchsize=32)  # error: call-arg
ks.diagnose(None, validation=(x, labels), target_err=0.1)  # error: call-arg
ks.tuning.Range("low", 1.0)  # error: arg-type
word: str = ks.verification.tar_at_far(same, scores, 0.01)  # error: assignment
number: float = ks.verification.tar_at_far(same, scores, [0.01])  # error: assignment
accuracy: float = ks.verification.evaluate(same, scores).accuracy  # error: assignment
