"""`keras-siamese demo`: a training run that fails, its diagnosis, the repair, and a verifier ready for use.

The task is to decide whether two scans show the same drawing. The drawings are scikit-learn's 1,797 handwritten digits,
each of which is an identity of its own; its scans are rotated, shifted, scaled and noisy copies. The training recipe is
a typical first attempt: few identities, no augmentation, many epochs. All printed figures are measured in the run.
"""

import functools
import time
from typing import Any

import keras
import numpy as np

from keras_siamese import callbacks, data, layers, losses, verifier
from keras_siamese._checks import check_writable

SCANS = 6  # of each drawing
PAIRS = 4_000  # an epoch
BATCH = 128  # pairs
TARGET_EER = 0.15
RECIPE: dict[str, Any] = {"identities": 40, "augment": False, "early_stopping": False}
RECIPE |= {"margin": 1.0, "learning_rate": 1e-3, "epochs": 12}


def run(output, seed=0):
    """Runs the demo; writes report.html, report.json and verifier.keras into the folder `output`; returns the paths."""
    paths = {name: check_writable("output", output / name) for name in ("report.html", "report.json", "verifier.keras")}
    started = time.perf_counter()
    keras.utils.set_random_seed(seed)
    say("Task: do two scans show the same drawing? Data: 1,797 handwritten digits, six scans of each.")
    train, valid, test = parts = data.split_identities(*scan_digits(seed), (0.6, 0.2, 0.2), seed=seed)
    counts = [len(np.unique(labels)) for _, labels in parts]
    say(f"Identities: {counts[0]} for training, {counts[1]} for validation, {counts[2]} for the final test.")

    say(f"1. A typical first recipe: {RECIPE}")
    say(f"   Goal: a validation EER of at most {TARGET_EER:.2f}.")
    _, monitor = fit(RECIPE, train, valid, seed, report=paths["report.html"])
    first = monitor.diagnosis
    say(f"2. The diagnosis\n\n{first}\n")
    advised = next((finding for finding in first.findings if finding.apply is not None), None)
    if advised is None:
        raise RuntimeError(f"The run with seed {seed} has no fault to repair: {first.verdict}. Use another --seed")

    repaired = advised.apply(RECIPE)
    changed = {name: value for name, value in repaired.items() if RECIPE.get(name) != value}
    say(f"3. The repair that the diagnosis suggests: {changed}")
    siamese, second_monitor = fit(repaired, train, valid, seed)
    before, after = first.run.eer.estimate, min(second_monitor.history["eer"])
    say(f"   Validation EER {before:.3f} before, {after:.3f} after.")

    say("4. The final test: the threshold is chosen on the validation identities and applied to the test identities")
    shipped = verifier.Verifier.calibrate(siamese, *valid, criterion="eer")
    shipped.save(paths["verifier.keras"])
    loaded = verifier.Verifier.load(paths["verifier.keras"])
    pairs = data.PairSequence(*test, frozen=True, batch_size=512, seed=seed)[0][0]
    if not np.array_equal(shipped.verify(*pairs), loaded.verify(*pairs)):
        raise RuntimeError("The reloaded verifier decides differently from the saved one")
    final = loaded.evaluate(*test)
    say(f"\n{final}\n")
    say("5. Files (the verifier was loaded again in safe mode and makes the same decisions):")
    for path in paths.values():
        say(f"   {path.resolve()}")
    say(f"Done in {time.perf_counter() - started:.0f} s.")
    return paths


def scan_digits(seed):
    """SCANS scans of each drawing, `(n, 8, 8, 1)` in [0, 1], and the number of the drawing that each shows, `(n,)`."""
    from sklearn.datasets import load_digits

    drawings = load_digits().images[..., None] / 16.0
    rng = np.random.default_rng(seed)
    scans = scanner()(np.repeat(drawings, SCANS, axis=0), rng)
    scans = np.clip(scans + rng.normal(0, 0.08, scans.shape), 0, 1)
    return scans.astype("float32"), np.repeat(np.arange(len(drawings)), SCANS)


def scanner():
    shifts = {"width_shift_range": 0.15, "height_shift_range": 0.15}
    return data.image_augmenter(rotation_range=25, zoom_range=0.2, shear_range=10, fill_mode="constant", **shifts)


def fit(recipe, train, valid, seed, report=None):
    """Trains a siamese network with `recipe`; returns it and its monitor."""
    x, labels = train
    if recipe["identities"] is not None:
        kept = np.isin(labels, np.unique(labels)[: recipe["identities"]])
        x, labels = x[kept], labels[kept]
    siamese = layers.SiameseWrapper(build_encoder(), distance="euclidean")
    optimizer = keras.optimizers.Adam(recipe["learning_rate"])
    siamese.compile(optimizer, loss=losses.ContrastiveLoss(margin=recipe["margin"]))

    def flag(found):
        say(f"   FLAG {found.verdict}")

    monitor = callbacks.DivergenceMonitor(valid, on_divergence=flag, report=report, target_eer=TARGET_EER)
    watchers = [monitor, EpochLine()]
    if recipe["early_stopping"]:
        stop = keras.callbacks.EarlyStopping("val_eer", mode="min", patience=5, restore_best_weights=True)
        watchers.append(stop)
    augment = scanner() if recipe["augment"] else None
    sequence = data.PairSequence(x, labels, batch_size=BATCH, pairs_per_epoch=PAIRS, augment=augment, seed=seed)
    siamese.fit(sequence, epochs=recipe["epochs"], callbacks=watchers, verbose=0)
    return siamese, monitor


def build_encoder():
    convolution = functools.partial(keras.layers.Conv2D, kernel_size=3, padding="same", activation="relu")
    hidden = [convolution(32), keras.layers.MaxPooling2D(), convolution(64), keras.layers.Flatten()]
    return keras.Sequential([keras.Input((8, 8, 1)), *hidden, keras.layers.Dense(64), keras.layers.UnitNormalization()])


class EpochLine(keras.callbacks.Callback):
    """Prints one line per epoch: the loss and the validation figures."""

    def on_epoch_end(self, epoch, logs=None):
        number = f"epoch {epoch + 1:2d}/{self.params['epochs']}"
        accuracy = logs["val_verification_accuracy"]
        say(f"   {number}   loss {logs['loss']:.4f}   validation EER {logs['val_eer']:.3f}   accuracy {accuracy:.3f}")


def say(line):
    print(line, flush=True)
