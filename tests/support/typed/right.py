"""A program of a user that a type checker accepts."""

from pathlib import Path

import keras
import numpy as np

import keras_siamese as ks

x, labels = np.zeros((8, 4), "float32"), ["ada", "ada", "bo", "bo", "cy", "cy", "di", "di"]
train, valid, test = ks.data.split_identities(x, labels, (0.5, 0.25, 0.25), seed=0)
encoder = keras.Sequential([keras.layers.Dense(4), keras.layers.UnitNormalization()])
siamese = ks.SiameseWrapper(encoder, distance="euclidean")
siamese.compile("adam", loss=ks.losses.ContrastiveLoss(margin=1.0, similar_label=1, reduction="sum"))
monitor = ks.callbacks.DivergenceMonitor(valid, on_divergence="stop", report=Path("report.html"), far=(0.01,), every=2)
sequence = ks.data.PairSequence(*train, batch_size=4, augment=lambda batch, rng: batch, workers=2)
siamese.fit(sequence, epochs=2, callbacks=[monitor])
if monitor.diagnosis is not None:
    ks.verification.evaluate([1, 0], [0.9, 0.1], threshold=0.5)

losses: list[ks.losses.SiameseLoss] = [
    ks.losses.BatchTripletLoss(margin=0.5, negatives="semi_hard", distance="cosine", block_size=64),
    ks.losses.NTXentLoss(temperature=0.1, local_negatives=True),
    ks.losses.BatchTripletLoss(distance=ks.distances.get("manhattan"), name="triplets"),
    ks.losses.MatryoshkaLoss(ks.losses.SupConLoss(), dims=[4, 2], weights=(1.0, 0.5)),
    ks.losses.MatryoshkaLoss(ks.losses.ContrastiveLoss(margin=0.5), dims=[4, 2]),
]
names: list[str] = ks.distances.names()

same, scores = [True, False, True], np.array([0.9, 0.1, 0.7])
rate: float = ks.verification.eer(same, scores)
one: float = ks.verification.tar_at_far(same, scores, 0.01)
several: np.ndarray = ks.verification.tar_at_far(same, scores, [0.01, 0.1])
report: ks.verification.VerificationReport = ks.verification.evaluate(same, scores, far=0.01, left=labels, right=labels)
shown: tuple[ks.verification.TARFigure, ...] = report.tar
accuracy: float | None = report.accuracy
found: ks.verification.Retrieval = ks.verification.evaluate_retrieval(x, labels, k=(1, 2), distance="cosine")
best: float = found.recall[1]

diagnosis: ks.Diagnosis = ks.diagnose(siamese, validation=valid, history={"loss": [1.0, 0.5]}, target_eer=0.1)
causes: list[str] = [finding.cause for finding in diagnosis.findings]
page: Path = diagnosis.to_html("report.html")
verifier: ks.Verifier = ks.Verifier.calibrate(siamese, *valid, far=0.01)
accepted: np.ndarray = verifier.verify(x, x)
verifier.save(Path("verifier.keras"))
again: ks.Verifier = ks.Verifier.load("verifier.keras")
searched: ks.SiameseGridSearch = ks.SiameseGridSearch(lambda units: encoder, {"units": [8, 16]}, cv=2).fit(x, labels)
space = ks.tuning.SearchSpace(loss=["ContrastiveLoss"], margin=ks.tuning.Range(0.1, 1.0), learning_rate=[1e-3])
