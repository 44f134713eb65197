"""Callbacks, which pass Keras's events on to data, verification and diagnosis.

    siamese.fit(train, epochs=30, callbacks=[
        HardPairRefresh(train),
        DivergenceMonitor((x_valid, labels_valid), report="report.html"),
        keras.callbacks.EarlyStopping("val_eer", mode="min", patience=5, restore_best_weights=True),
    ])

Contract: the callbacks in `epochs` tell a sequence, when an epoch begins, its number and the model's embeddings. Those
in `monitors` and `divergence` measure held-out verification when an epoch ends; put them before the callbacks that read
`logs`. `backup` lets a killed run continue. `partial` trains proxies of millions of identities.
`tracking` sends a monitored run to MLflow, Weights & Biases, TensorBoard or another tracker. `live` draws its curves in
a notebook.
"""

from keras_siamese._files import SideWorkWarning
from keras_siamese.callbacks.backup import AtomicBackup
from keras_siamese.callbacks.divergence import DivergenceError, DivergenceMonitor
from keras_siamese.callbacks.epochs import HardPairRefresh, SetEpoch
from keras_siamese.callbacks.live import LiveCurves
from keras_siamese.callbacks.monitors import VerificationMonitor
from keras_siamese.callbacks.partial import PartialFC
from keras_siamese.callbacks.tracking import Tracker, TrackRun

__all__ = [
    "AtomicBackup",
    "DivergenceError",
    "DivergenceMonitor",
    "HardPairRefresh",
    "LiveCurves",
    "PartialFC",
    "SetEpoch",
    "SideWorkWarning",
    "TrackRun",
    "Tracker",
    "VerificationMonitor",
]
