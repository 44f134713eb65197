"""`Verifier`, the callbacks, `diagnosis` and `dissect` with unusual arrays. No model is trained."""

import functools
import tempfile

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese import callbacks, diagnosis
from tests.support import roundtrip
from tests.support.unusual import Room, read_only

N = 24
LABELS = np.arange(N) // 4
X = (np.random.default_rng(0).normal(size=(N, 4)) + 4 * np.eye(6)[LABELS, :4]).astype("float32")
LEFT, RIGHT = np.r_[0:N:4, 0:6], np.r_[1:N:4, 12:18]
SAME = LABELS[LEFT] == LABELS[RIGHT]
GIVEN = {"x": X, "labels": LABELS, "left": X[LEFT], "right": X[RIGHT], "same": SAME, "probe": X[:5]}


@functools.cache  # not when the module is imported, which each run of pytest does
def model():
    keras.utils.set_random_seed(0)  # of some weights, the genuine ones of these few pairs do not score higher
    return ks.SiameseWrapper(roundtrip.encoder(), "cosine")


@functools.cache
def verifier():
    return ks.Verifier.calibrate(model(), X, LABELS)


@functools.cache
def gallery():
    return verifier().enroll(X, LABELS)


def decision(found):
    return found.threshold, found.slope, found.offset


def found(identification):
    return identification.rows, identification.scores, identification.accepted


VERIFYING = Room(
    {
        "Verifier.calibrate": lambda x, labels: decision(ks.Verifier.calibrate(model(), x, labels)),
        "Verifier.calibrate.pairs": lambda left, right, same: decision(
            ks.Verifier.calibrate(model(), (left, right, same))
        ),
        "Verifier.decide": lambda left, right: verifier().decide(left, right),
        "Verifier.evaluate": lambda x, labels: str(verifier().evaluate(x, labels, far=(0.1,))),
        "Verifier.enroll": lambda x, labels: verifier().enroll(x, labels).embeddings,
        "frozen_embeddings": lambda x: np.array(
            ks.frozen_embeddings(model().encoder, x, tempfile.mkdtemp(), verbose=0)
        ),
        "Verifier.identify": lambda probe: found(verifier().identify(probe, gallery(), k=2)),
        "Verifier.identify.gallery": lambda probe, x: found(verifier().identify(probe, x, k=2)),
    },
    GIVEN,
    also=("validation", "far", "k"),
    without=("complex",),  # samples may be complex
)


def causes(**given):
    return [(one.cause, one.severity) for one in ks.diagnose(model(), **given).findings]


def monitored(monitor):
    """The trials of a monitor; those of data that may be pairs are read when the model is known."""
    monitor.set_model(model())
    monitor.attach()
    return monitor.trials.items, monitor.trials.same


MONITORED = Room(
    {
        "VerificationMonitor": lambda x, labels: monitored(callbacks.VerificationMonitor((x, labels))),
        "VerificationMonitor.pairs": lambda left, right, same: monitored(
            callbacks.VerificationMonitor((left, right, same))
        ),
        "VerificationMonitor.fed": lambda left, right, same: monitored(
            callbacks.VerificationMonitor(([left, right], same))
        ),
        "DivergenceMonitor": lambda x, labels: monitored(callbacks.DivergenceMonitor((x, labels))),
        "diagnose": lambda x, labels: causes(validation=(x, labels)),
        "diagnose.train": lambda x, labels: causes(validation=(X, LABELS), train=(x, labels)),
    },
    GIVEN,
    also=("validation", "train", "y"),
    without=("complex",),
)
CURVES = {"loss": np.linspace(0.9, 0.4, 12), "auc": np.full(12, 0.5), "eer": np.full(12, 0.5)}
RUNS = Room(
    {"find_flags": lambda loss, auc, eer: diagnosis.find_flags(loss, auc, eer, pairs=500)},
    CURVES,
    without=("NaN", "infinite"),  # an epoch that was not measured
)
ROOMS = {"verifier": VERIFYING, "monitors and diagnosis": MONITORED, "runs": RUNS}


@pytest.mark.parametrize(("room", "name"), [(room, name) for room in ROOMS for name in ROOMS[room].calls])
def test_each_case_is_answered_or_refused_by_name(room, name):
    assert ROOMS[room].wrong(name) == {}


@pytest.mark.parametrize("name", ["auc", "eer"])
@pytest.mark.parametrize("value", [np.inf, -0.1, 93.0])
def test_curves_are_shares(name, value):
    curve = np.full(12, 0.5)
    curve[3] = value
    with pytest.raises(ValueError, match=rf"`{name}` must be in \[0, 1\], or NaN where not measured; got {value:g}"):
        diagnosis.find_flags(**{**CURVES, name: curve}, pairs=500)


def test_an_epoch_that_was_not_measured_is_skipped():
    curves = {name: np.insert(curve, 6, np.nan) for name, curve in CURVES.items()}
    assert len(diagnosis.find_flags(**curves, pairs=500)) == len(diagnosis.find_flags(**CURVES, pairs=500))


def test_repair_and_fit_refuse_what_diagnose_refuses():
    model = ks.SiameseWrapper(roundtrip.encoder())
    model.compile("adam", ks.losses.ContrastiveLoss())
    train = (X[LEFT], X[RIGHT]), SAME
    with pytest.raises(ValueError, match="`validation labels` must have one entry for each of the 24 samples; got 3"):
        ks.repair(model, train, (X, LABELS[:3]), progress=False)
    with pytest.raises(ValueError, match="`train` must have inputs and targets with the same number of samples"):
        ks.repair(model, (train[0], SAME[:3]), (read_only(X), LABELS), progress=False)
    with pytest.raises(TypeError, match="`build_or_model` must be a Keras model or a function"):
        ks.repair(None, train, (X, LABELS))
    with pytest.raises(ValueError, match="`validation` must have inputs and targets with the same number of samples"):
        ks.fit(model, *train, validation_data=((X[LEFT], X[RIGHT]), SAME[:3]), verbose=0)


@pytest.mark.each_backend
def test_samples_that_the_model_does_not_take_are_named_with_what_it_takes():
    with pytest.raises(ValueError, match=r"\(n, 4\); got left \(4,\) \(one sample is given as `left\[None\]`\): "):
        verifier().decide(X[0], X[1])
    with pytest.raises(ValueError, match=r"`x` must hold samples that the model takes, \(n, 4\); got x \(24, 3\): "):
        verifier().enroll(X[:, :3], LABELS)
