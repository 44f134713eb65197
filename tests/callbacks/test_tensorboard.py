"""What the monitors write for TensorBoard, read back with TensorBoard's own reader."""

import copy
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_siamese.callbacks import DivergenceMonitor, SideWorkWarning, VerificationMonitor, tensorboard
from keras_siamese.layers import SiameseWrapper
from keras_siamese.scoring import Trials, score
from tests.support.events import read

pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
pytest.importorskip("matplotlib", reason="the extra `tensorboard` is not installed")

FEATURES = 5
RNG = np.random.default_rng(2)
LABELS = np.repeat(np.arange(15), 4)
X = (RNG.normal(size=(15, FEATURES))[LABELS] + 0.7 * RNG.normal(size=(60, FEATURES))).astype("float32")


def siamese():
    model = SiameseWrapper(keras.Sequential([keras.Input((FEATURES,)), layers.Dense(4), layers.UnitNormalization()]))
    model((X[:2], X[:2]))
    return model


def run(monitor, epochs, first=0, model=None):
    """What `fit` tells a monitor, without the training: the weights move a little each epoch. Returns the logs."""
    model = model or siamese()
    monitor.set_params({"epochs": first + epochs})
    monitor.set_model(model)
    monitor.on_train_begin()
    written = []
    for epoch in range(first, first + epochs):
        monitor.on_epoch_begin(epoch)
        kernel, bias = model.encoder.get_weights()
        model.encoder.set_weights([kernel * 0.9 + 0.05, bias])
        logs = {"loss": 1.0}
        monitor.on_epoch_end(epoch, logs)
        written.append(logs)
    monitor.on_train_end()
    return written


@pytest.fixture
def plain(monkeypatch):
    """Without the picture, which takes most of an epoch's time."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    picture = Summary.Image(height=1, width=1, colorspace=4, encoded_image_string=b"none")
    monkeypatch.setattr(tensorboard, "picture_of", lambda scored, threshold: picture)


def test_scalars_histograms_and_curves_of_each_epoch(tmp_path):
    model, monitor = siamese(), VerificationMonitor((X, LABELS), far=0.01, log_dir=tmp_path / "logs")
    logs = run(monitor, epochs=3, model=model)
    found = read(tmp_path / "logs")
    assert found.Tags()["scalars"] == [f"verification/{key}" for key in monitor.keys]
    for key in monitor.keys:
        events = found.Scalars(f"verification/{key}")
        assert [event.step for event in events] == [0, 1, 2]
        np.testing.assert_allclose([event.value for event in events], [log[key] for log in logs], rtol=1e-6)
    scored = score(model, Trials.of((X, LABELS)))
    for name, scores in (("genuine", scored.scores[scored.same]), ("impostor", scored.scores[~scored.same])):
        events = found.Histograms(f"scores/{name}")
        assert [event.step for event in events] == [0, 1, 2]
        last = events[-1].histogram_value
        assert last.num == len(scores) == sum(last.bucket)
        assert (last.min, last.max) == pytest.approx((scores.min(), scores.max()))
        assert last.sum == pytest.approx(scores.sum(dtype=float)) and len(last.bucket) == len(last.bucket_limit)
        # Up to each limit there are as many scores as it says.
        up_to = [np.count_nonzero(scores <= limit) for limit in last.bucket_limit]
        assert np.abs(np.cumsum(last.bucket) - up_to).max() <= 1  # a score on an edge counts to the bin above it
    pictures = found.Images("curves")
    assert [event.step for event in pictures] == [0, 1, 2]
    assert len({event.encoded_image_string for event in pictures}) == 3
    from matplotlib.image import imread

    pixels = imread(io.BytesIO(pictures[-1].encoded_image_string))
    assert pixels.shape[:2] == (pictures[-1].height, pictures[-1].width) and pixels.std() > 0.05


def test_a_run_that_is_taken_up_again_goes_on_and_replaces_what_it_repeats(tmp_path, plain):
    run(VerificationMonitor((X, LABELS), far=0.01, log_dir=tmp_path), epochs=4)
    later = run(VerificationMonitor((X, LABELS), far=0.01, log_dir=tmp_path), epochs=3, first=2)
    assert len(list(tmp_path.iterdir())) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events = read(tmp_path).Scalars("verification/val_eer")
    assert [event.step for event in events] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([event.value for event in events][2:], [log["val_eer"] for log in later], rtol=1e-6)


@pytest.mark.each_backend
def test_only_measured_epochs_are_written(tmp_path, plain):
    run(VerificationMonitor((X, LABELS), far=0.01, every=3, log_dir=tmp_path), epochs=5)
    assert [event.step for event in read(tmp_path).Scalars("verification/val_auc")] == [0, 2, 4]


def test_a_fit_that_is_interrupted_leaves_whole_files(tmp_path, plain):
    monitor = VerificationMonitor((X, LABELS), far=0.01, log_dir=tmp_path)
    run(monitor, epochs=2)
    (path,) = tmp_path.iterdir()
    assert [event.step for event in read(tmp_path).Images("curves")] == [0, 1]
    os.rename(path, tmp_path / "moved")  # no handle is held that would go on writing
    run(monitor, epochs=1)
    assert len(list(tmp_path.iterdir())) == 2


def test_figures_that_could_not_be_written_come_with_the_next_epoch(tmp_path, plain):
    """The folder is replaced by a file after the first epoch, and the file is gone after the third."""
    log_dir = tmp_path / "logs"

    class Gone(tensorboard.EventLog):
        def write(self, epoch, figures, scored):
            if epoch == 1:
                shutil.rmtree(log_dir)
                log_dir.write_text("")
            elif epoch == 3:
                log_dir.unlink()
            super().write(epoch, figures, scored)

    monitor = VerificationMonitor((X, LABELS), far=0.01)
    monitor._events = Gone(log_dir, monitor.side)
    with pytest.warns(SideWorkWarning, match="What TensorBoard shows could not be written to .*logs: ") as said:
        written = run(monitor, 5)
    assert sum(isinstance(one.message, SideWorkWarning) for one in said) == 1
    assert [one.what for one in monitor.errors] == ["What TensorBoard shows"]
    found = read(log_dir)
    assert [event.step for event in found.Scalars("verification/val_eer")] == [1, 2, 3, 4]
    values = [event.value for event in found.Scalars("verification/val_eer")]
    np.testing.assert_allclose(values, [log["val_eer"] for log in written][1:], rtol=1e-6)
    assert [event.step for event in found.Images("curves")] == [3, 4]


def test_a_full_disk_leaves_no_empty_files(tmp_path, plain, monkeypatch):
    def full(event):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "here"))
    monkeypatch.setattr(tensorboard, "serialized", full)
    monitor = VerificationMonitor((X, LABELS), far=0.01, log_dir=tmp_path / "logs")
    with pytest.warns(SideWorkWarning) as said:
        run(monitor, 3)
    told = [str(one.message) for one in said if isinstance(one.message, SideWorkWarning)]
    assert len(told) == 2 and "No space left on device" in told[0] and "logs, is lost" in told[1]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["here", "logs"]
    assert monitor.errors[0].written is None


def test_a_picture_that_cannot_be_drawn_leaves_the_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "picture_of", lambda scored, threshold: 1 / 0)
    with pytest.warns(SideWorkWarning, match="ZeroDivisionError"):
        run(VerificationMonitor((X, LABELS), far=0.01, log_dir=tmp_path), 2)
    assert [event.step for event in read(tmp_path).Scalars("verification/val_eer")] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        run(VerificationMonitor((X, LABELS), far=0.01, log_dir=tmp_path, strict=True), 2)


def test_copies_write_into_folders_of_their_own(tmp_path, plain):
    monitor = VerificationMonitor((X, LABELS), far=0.01, log_dir=tmp_path)
    first, second = copy.deepcopy(monitor), copy.deepcopy(monitor)
    assert list(tmp_path.iterdir()) == []
    for copied, epochs in ((first, 1), (second, 2), (first, 1)):
        run(copied, epochs)
    run(copy.deepcopy(first), epochs=1)
    folders = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_dir())
    assert folders == ["copy1", "copy1/copy1", "copy2"]
    assert len(list((tmp_path / "copy1").glob("events*"))) == 2
    assert [event.step for event in read(tmp_path / "copy2").Scalars("verification/val_eer")] == [0, 1]


@pytest.mark.deep
def test_keras_tuner_has_a_folder_for_each_execution(tmp_path, plain):
    keras_tuner = pytest.importorskip("keras_tuner")

    class Search(keras_tuner.HyperModel):
        def build(self, hp):
            hp.Choice("dim", [2, 4])
            model = siamese()
            model.compile("sgd", loss="mse")
            return model

        def fit(self, hp, model, callbacks, **options):
            monitors = [one for one in callbacks if isinstance(one, VerificationMonitor)]
            return run(monitors[0], epochs=1, model=model)[-1]["val_eer"]

    tuner = keras_tuner.GridSearch(Search(), directory=tmp_path / "search", max_trials=2, objective=None)
    tuner.search(callbacks=[VerificationMonitor((X, LABELS), far=0.01, log_dir=tmp_path / "logs")], verbose=0)
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["copy1", "copy2"]


def test_nan_is_written_as_nan_without_curves(tmp_path):
    class Poisoned(VerificationMonitor):
        def measure(self):
            scored = super().measure()
            return type(scored)(scored.trials, scored.embeddings * np.nan, scored.scores * np.nan)

    with pytest.warns(UserWarning, match="NaN or infinite"):
        run(Poisoned((X, LABELS), far=0.01, log_dir=tmp_path), epochs=1)
    found = read(tmp_path)
    assert np.isnan(found.Scalars("verification/val_eer")[0].value)
    assert found.Tags()["histograms"] == found.Tags()["images"] == []


def test_equal_scores_are_drawn(tmp_path):
    model = siamese()
    model.encoder.set_weights([np.zeros((FEATURES, 4)), np.ones(4)])
    trials = Trials.of((X, LABELS))
    tensorboard.EventLog(tmp_path).write(0, {"val_threshold": -0.0}, score(model, trials))
    assert read(tmp_path).Histograms("scores/genuine")[0].histogram_value.num == np.count_nonzero(trials.same)


def test_a_divergence_monitor_writes_too(tmp_path, plain):
    monitor = DivergenceMonitor((X, LABELS), far=0.01, log_dir=tmp_path)
    run(monitor, epochs=2)
    found = read(tmp_path)
    assert found.Tags()["images"] == ["curves"]
    (event,) = found.Tensors("diagnosis")
    (text,) = event.tensor_proto.string_val
    assert textwrap.dedent(text.decode()).split() == str(monitor.diagnosis).split() and event.step == 2
    assert "diagnosis" in found.PluginTagToContent("text")  # the plugin that shows it


@pytest.mark.parametrize("missing", ["tensorboard", "matplotlib"])
def test_a_log_dir_without_its_extra_is_refused_on_construction(missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'{missing} is needed here.*pip install "keras-siamese\[tensorboard\]"'):
        VerificationMonitor((X, LABELS), log_dir=tmp_path)
    VerificationMonitor((X, LABELS))


def test_a_log_dir_that_cannot_be_written_is_refused_on_construction(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "logs"):
        with pytest.raises(ValueError, match="`log_dir` must be a folder that can be written"):
            VerificationMonitor((X, LABELS), log_dir=folder)
    with pytest.raises(TypeError, match="`log_dir` must be a path; got 3"):
        VerificationMonitor((X, LABELS), log_dir=3)


@pytest.mark.deep
@pytest.mark.jax
@pytest.mark.torch
def test_tensorflow_is_not_imported(tmp_path):
    code = (
        "import json, sys, numpy as np\n"
        "from keras_siamese.callbacks.tensorboard import EventLog\n"
        "from keras_siamese.scoring import ScoredTrials, Trials\n"
        "rows = np.arange(100)\n"
        "trials = Trials(np.zeros((100, 1)), rows, rows, rows < 50, None)\n"
        "scored = ScoredTrials(trials, np.zeros((100, 1)), rows / 100)\n"
        "EventLog(sys.argv[1]).write(0, {'val_eer': 0.5}, scored)\n"
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] == 'tensorflow']))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout.splitlines()[-1]) == []
