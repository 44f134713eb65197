"""Monitors inside real fits: keys, order, neighbours, resume, refusal before training."""

import copy
import json

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.callbacks import DivergenceError, DivergenceMonitor, SetEpoch, VerificationMonitor

KEYS = {"val_verification_accuracy", "val_eer", "val_auc", "val_tar@far=0.01", "val_threshold", "val_d_prime"}


def blobs(identities, samples=6, noise=0.4, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(identities, 6))
    x = np.repeat(centres, samples, axis=0) + noise * rng.normal(size=(identities * samples, 6))
    return x.astype("float32"), np.repeat(np.arange(identities), samples)


def encoder():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(8), keras.layers.UnitNormalization()])


def compiled(loss=None, **options):
    siamese = ks.SiameseWrapper(encoder(), **options)
    siamese.compile(keras.optimizers.Adam(0.01), loss=loss or ks.losses.ContrastiveLoss())
    return siamese


def fit(model, callbacks, epochs=2, **options):
    return model.fit(
        ks.data.PairSequence(*blobs(12), batch_size=24, seed=1),
        epochs=epochs,
        verbose=0,
        callbacks=callbacks,
        **options,
    )


def test_keys_reach_the_history_and_equal_an_evaluation_by_hand():
    x, labels = blobs(15, seed=1)
    siamese = compiled()
    history = fit(siamese, [VerificationMonitor((x, labels), far=0.01)], epochs=3).history
    assert set(history) >= KEYS and len(history["val_eer"]) == 3
    z = siamese.encoder.predict(x, verbose=0)
    left, right = np.triu_indices(len(x), 1)
    same, scores = labels[left] == labels[right], -np.linalg.norm(z[left] - z[right], axis=1)
    # The last epoch's weights, not older ones: on JAX they live in the trainer until somebody asks.
    assert history["val_eer"][-1] == pytest.approx(ks.verification.eer(same, scores), abs=2e-3)
    assert history["val_auc"][-1] == pytest.approx(ks.verification.auc(same, scores), abs=1e-3)


def test_beside_early_stopping_checkpoint_and_csv(tmp_path):
    siamese = compiled()
    stop = keras.callbacks.EarlyStopping("val_eer", mode="min", patience=1, restore_best_weights=True)
    best = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="val_auc", mode="max", save_best_only=True)
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = fit(siamese, [VerificationMonitor(blobs(9, seed=2)), stop, best, log], epochs=25).history
    assert len(history["val_eer"]) < 25
    assert "val_eer" in (tmp_path / "log.csv").read_text().splitlines()[0]
    assert isinstance(keras.models.load_model(tmp_path / "best.keras"), ks.SiameseWrapper)


def test_every_repeats_between_measurements():
    history = fit(compiled(), [VerificationMonitor(blobs(9), every=2)], epochs=5).history["val_auc"]
    assert len(history) == 5
    assert history[1] == history[2] != history[3]


@pytest.mark.parametrize("kind", ["labels", "pairs", "sequence"])
def test_kinds_of_validation(kind):
    x, labels = blobs(9, seed=3)
    frozen = ks.data.PairSequence(x, labels, frozen=True, pairs_per_epoch=200, seed=0)
    left, right, same = frozen.pairs()
    validation = {"labels": (x, labels), "pairs": (x[left], x[right], same), "sequence": frozen}[kind]
    assert 0 <= fit(compiled(), [VerificationMonitor(validation)]).history["val_eer"][-1] <= 1


def test_pairs_and_their_sequence_give_the_same_figures():
    x, labels = blobs(9, seed=3)
    frozen = ks.data.PairSequence(x, labels, frozen=True, pairs_per_epoch=300, seed=0)
    left, right, same = frozen.pairs()
    monitors = [VerificationMonitor(frozen), VerificationMonitor((x[left], x[right], 1 - same), similar_label=0)]
    siamese, found = compiled(), []
    for monitor in monitors:
        monitor.set_model(siamese)
        monitor.on_train_begin()
        logs = {"loss": 1.0}
        monitor.on_epoch_end(0, logs)
        found.append(logs)
    assert found[0]["val_eer"] == pytest.approx(found[1]["val_eer"], abs=1e-6)
    assert found[0]["val_auc"] == pytest.approx(found[1]["val_auc"], abs=1e-6)


def test_functional_model_and_bare_encoder():
    left, right, shared = keras.Input((6,)), keras.Input((6,)), encoder()
    functional = keras.Model([left, right], ks.DistanceLayer("cosine")([shared(left), shared(right)]))
    functional.compile("adam", loss=ks.losses.ContrastiveLoss())
    train = ks.data.PairSequence(*blobs(12), seed=1)
    history = functional.fit(train, epochs=2, verbose=0, callbacks=[SetEpoch(train), VerificationMonitor(blobs(9))])
    assert "val_eer" in history.history

    bare = encoder()
    bare.compile("adam", loss="mse")
    x, labels = blobs(12)
    history = bare.fit(x, np.zeros((len(x), 8)), verbose=0, callbacks=[VerificationMonitor((x, labels))]).history
    assert "val_eer" in history

    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    other.compile("adam", loss="mse")
    with pytest.raises(ValueError, match="encoder="):
        other.fit(x, np.zeros((len(x), 1)), verbose=0, callbacks=[VerificationMonitor((x, labels))])


def memorised(tmp_path, **options):
    """A fit whose loss falls on noise: held-out verification stays at chance."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(48, 6)).astype("float32"), np.repeat(np.arange(12), 4)
    valid = rng.normal(size=(120, 6)).astype("float32"), np.repeat(np.arange(40), 3)
    wide = [
        keras.Input((6,)),
        keras.layers.Dense(256, "relu"),
        keras.layers.Dense(16),
        keras.layers.UnitNormalization(),
    ]
    siamese = ks.SiameseWrapper(keras.Sequential(wide))
    siamese.compile(keras.optimizers.Adam(3e-3), loss=ks.losses.ContrastiveLoss())
    monitor = DivergenceMonitor(valid, **options)
    sequence = ks.data.PairSequence(x, labels, batch_size=32, pairs_per_epoch=512, seed=0)
    history = siamese.fit(sequence, epochs=14, verbose=0, callbacks=[monitor])
    return monitor, history


def test_flag_cause_and_report(tmp_path):
    seen = []
    monitor, history = memorised(tmp_path, on_divergence=seen.append, report=tmp_path / "r" / "report.html")
    assert len(seen) == 1 and monitor.flags[0] == seen[0].flags[0].epoch
    assert monitor.diagnosis.diverging and monitor.diagnosis.findings[0].cause == "memorising"
    facts = json.loads((tmp_path / "r" / "report.json").read_text())
    assert facts["schema"] == "keras_siamese.diagnosis/1" and facts["diverging"]
    assert [flag["epoch"] for flag in facts["flags"]] == monitor.flags
    page = (tmp_path / "r" / "report.html").read_text()
    assert "memorising" in page and 'src="http' not in page
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_stop_warn_and_raise(tmp_path):
    with pytest.warns(UserWarning, match="does not follow"):
        _, history = memorised(tmp_path, on_divergence="stop")
    assert len(history.history["loss"]) < 14
    with pytest.warns(UserWarning, match="memorising"):
        memorised(tmp_path)
    with pytest.raises(DivergenceError, match="memorising") as error:
        memorised(tmp_path, on_divergence="raise")
    assert error.value.diagnosis.diverging


def test_copies_start_afresh_and_share_the_data():
    monitor = DivergenceMonitor(blobs(9))
    fit(compiled(), [monitor])
    copied = copy.deepcopy(monitor)
    assert copied.trials is monitor.trials
    assert len(fit(compiled(), [copied], epochs=3).history["val_eer"]) == 3
    assert len(monitor.history["loss"]) == 2


def test_nan_weights_are_shown_as_nan():
    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.set_weights([np.full(w.shape, np.nan, "float32") for w in self.model.get_weights()])

    with pytest.warns(UserWarning, match="NaN or infinite at the end of epoch 2"):
        history = fit(compiled(), [DivergenceMonitor(blobs(9)), Spoil()], epochs=3).history
    assert np.isfinite(history["val_eer"][0]) and np.isnan(history["val_eer"][1:]).all()


@pytest.mark.parametrize(
    ("validation", "options", "message"),
    [
        (lambda: blobs(1), {}, "impostor"),
        (lambda: (np.zeros((4, 6)), np.arange(4)), {}, "genuine"),
        (lambda: (np.zeros((0, 6)), np.zeros(0)), {}, "at least one"),
        (lambda: (np.zeros((4, 6)), np.arange(3)), {}, "labels.*4.*3"),
        (lambda: (np.full((4, 6), np.nan), np.array([0, 0, 1, 1])), {}, "NaN"),
        (lambda: ks.data.PairSequence(*blobs(4)), {}, "frozen"),
        (lambda: blobs(4)[0], {}, "validation"),
        (lambda: blobs(4), {"far": 2.0}, "far"),
        (lambda: blobs(4), {"every": 0}, "every"),
        (lambda: blobs(4), {"on_divergence": "shout"}, "on_divergence.*warn"),
        (lambda: blobs(4), {"target_eer": 1.5}, "target_eer"),
    ],
)
def test_bad_input_is_found_before_training(validation, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DivergenceMonitor(validation(), **options)


def test_unwritable_report_is_found_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="report"):
        DivergenceMonitor(blobs(4), report=tmp_path / "file" / "report.html")
    with pytest.raises(ValueError, match="folder"):
        DivergenceMonitor(blobs(4), report=tmp_path)
