"""A monitored run goes to a tracker: what each kind of tracker is told, and that its failures end nothing.

MLflow and Weights & Biases bring some forty packages, so they are not in the extra `test`. Where they are installed,
tests marked `partner` run against them without a network: `pip install -e ".[test,partners]"`.
"""

import copy
import json
import os
import sys

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.callbacks import DivergenceMonitor, Tracker, TrackRun, VerificationMonitor
from tests.support.events import read

EPOCHS = 2


class Kept(Tracker):
    """Keeps all that it is told."""

    def __init__(self):
        self.told = []

    def metrics(self, values, step):
        self.told.append(("metrics", step, values))

    def words(self, values):
        self.told.append(("words", values))

    def figure(self, name, figure):
        self.told.append(("figure", name, len(figure.axes)))

    def file(self, path):
        self.told.append(("file", path.name, path.read_text(encoding="utf-8")))


def trained(*callbacks, epochs=EPOCHS):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 4)).astype("float32"), np.repeat(np.arange(20), 3)
    siamese = ks.SiameseWrapper(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    siamese.compile("adam", loss=ks.losses.ContrastiveLoss())
    pairs = ks.data.PairSequence(x[:30], labels[:30], batch_size=16, seed=0)
    return siamese.fit(pairs, epochs=epochs, callbacks=list(callbacks), verbose=0)


def held_out():
    return np.random.default_rng(1).normal(size=(30, 4)).astype("float32"), np.repeat(np.arange(10), 3)


def test_figures_verdict_picture_and_reports_are_sent():
    pytest.importorskip("matplotlib"), pytest.importorskip("jinja2")
    monitor, tracker = DivergenceMonitor(held_out()), Kept()
    history = trained(monitor, TrackRun(monitor, tracker)).history
    *metrics, figure, words, as_json, as_html = tracker.told
    assert [step for _, step, _ in metrics] == [0, 1]
    for _, step, values in metrics:
        assert values == pytest.approx({name: float(history[name][step]) for name in history})
        assert {"loss", "val_eer", "val_auc"} <= set(values)
    assert figure == ("figure", "verification", 3)
    assert words[1]["verdict"] == monitor.diagnosis.verdict
    assert as_json[1] == "siamese-report.json" and json.loads(as_json[2])["verdict"] == monitor.diagnosis.verdict
    assert as_html[1] == "siamese-report.html" and monitor.diagnosis.verdict in as_html[2]


def test_a_verification_monitor_has_no_verdict_and_a_failing_tracker_ends_nothing():
    monitor, tracker = VerificationMonitor(held_out()), Kept()
    trained(monitor, TrackRun(monitor, tracker), epochs=1)
    assert [kind for kind, *_ in tracker.told] == ["metrics", "figure"]

    class Broken(Kept):
        def metrics(self, values, step):
            raise ConnectionError("no network")

    with pytest.warns(ks.callbacks.SideWorkWarning, match="no network"):
        trained(monitor, TrackRun(monitor, Broken()))
    assert [error.what for error in monitor.errors] == ["The tracker"]


def test_a_copy_belongs_to_the_copied_monitor():
    """As KerasTuner copies the callbacks of a search."""
    monitor = VerificationMonitor(held_out())
    first, second = copy.deepcopy([monitor, TrackRun(monitor, Kept())])
    assert second.monitor is first and first is not monitor


def test_mistakes_are_named(monkeypatch):
    monitor = VerificationMonitor(held_out())
    with pytest.raises(TypeError, match="`monitor` must be a VerificationMonitor"):
        TrackRun(None, Kept())
    with pytest.raises(ValueError, match="`tracker` must be"):
        TrackRun(monitor, "neptune")
    for name in ("mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
        with pytest.raises(ImportError, match=rf'{name} .* pip install "keras-siamese\[{name}\]"'):
            TrackRun(monitor, name)
    with pytest.raises(TypeError, match="`tracker` must have the methods metrics, words, figure, file"):
        TrackRun(monitor, object())
    with pytest.raises(ValueError, match="`monitor` must stand before TrackRun"):
        trained(TrackRun(monitor, Kept()), monitor)


def test_a_later_fit_and_a_copy_have_files_of_their_own(tmp_path):
    """The later fit begins at epoch 0 again; the copy is made as KerasTuner does."""
    pytest.importorskip("tensorboard"), pytest.importorskip("matplotlib")
    tracked = TrackRun(VerificationMonitor(held_out()), "tensorboard", log_dir=tmp_path)
    copied = copy.deepcopy(tracked)
    for losses in ((3.0, 2.0), (1.0, 0.5)):
        for epoch, loss in enumerate(losses):
            tracked.tracker.metrics({"loss": loss}, epoch)
    assert len(list(tmp_path.glob("events*"))) == 2
    assert [(event.step, event.value) for event in read(tmp_path).Scalars("loss")] == [(0, 1.0), (1, 0.5)]
    copied.tracker.metrics({"loss": 4.0}, 0)
    assert [event.value for event in read(tmp_path / "copy1").Scalars("loss")] == [4.0]


@pytest.mark.deep
def test_tensorboard_has_the_run(tmp_path):
    for needed in ("tensorboard", "matplotlib", "jinja2"):
        pytest.importorskip(needed)
    monitor = DivergenceMonitor(held_out())
    history = trained(monitor, TrackRun(monitor, "tensorboard", log_dir=tmp_path / "logs")).history
    found = read(tmp_path / "logs")
    assert set(found.Tags()["scalars"]) == set(history) and found.Tags()["images"] == ["verification"]
    for name in ("loss", "val_eer"):
        events = found.Scalars(name)
        assert [event.step for event in events] == [0, 1]
        assert [event.value for event in events] == pytest.approx(history[name])
    texts = {name: found.Tensors(name)[-1].tensor_proto.string_val[0].decode() for name in found.Tags()["tensors"]}
    assert set(texts) == {"verdict", "causes", "diagnosis"} and texts["verdict"].strip() == monitor.diagnosis.verdict
    assert texts["diagnosis"].split() == str(monitor.diagnosis).split()
    written = {path.suffix: path for path in (tmp_path / "logs").glob("siamese-report.*")}
    assert json.loads(written[".json"].read_text(encoding="utf-8"))["verdict"] == monitor.diagnosis.verdict
    assert monitor.diagnosis.verdict in written[".html"].read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path):
    for needed in ("tensorboard", "matplotlib"):
        pytest.importorskip(needed)
    monitor = VerificationMonitor(held_out())
    tracked = TrackRun(monitor, "tensorboard", log_dir=tmp_path / "logs")
    (tmp_path / "logs").rmdir()
    (tmp_path / "logs").write_text("")
    with pytest.warns(ks.callbacks.SideWorkWarning, match="The tracker failed"):
        trained(monitor, tracked, epochs=1)
    with pytest.raises(ValueError, match="`log_dir` must be a folder that can be written"):
        TrackRun(monitor, "tensorboard", log_dir=tmp_path / "logs")
    for other in ("mlflow", Kept()):
        with pytest.raises(ValueError, match='`log_dir` is for the tracker "tensorboard"'):
            TrackRun(monitor, other, log_dir=tmp_path)


@pytest.mark.deep
@pytest.mark.partner("mlflow")
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # SQLAlchemy's, about a query of MLflow's
def test_mlflow_has_the_run(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs.db'}")
    monitor = DivergenceMonitor(held_out())
    with mlflow.start_run() as run:
        history = trained(monitor, TrackRun(monitor, "mlflow")).history
    client = mlflow.MlflowClient()
    found = client.get_run(run.info.run_id).data
    assert found.metrics["val_eer"] == pytest.approx(history["val_eer"][-1])
    assert len(client.get_metric_history(run.info.run_id, "val_eer")) == EPOCHS
    assert "val_verification_accuracy" in found.metrics and not any("@" in name for name in found.metrics)
    assert found.tags["verdict"] == monitor.diagnosis.verdict
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"verification.png", "siamese-report.json", "siamese-report.html"} <= names


@pytest.mark.deep
@pytest.mark.partner("wandb")
def test_wandb_has_the_run(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    monitor = DivergenceMonitor(held_out())
    with pytest.raises(ValueError, match="call wandb.init"):
        TrackRun(monitor, "wandb")
    with wandb.init(mode="offline", dir=tmp_path, project="test") as run:
        history = trained(monitor, TrackRun(monitor, "wandb")).history
        assert run.summary["val_eer"] == pytest.approx(history["val_eer"][-1])
        assert run.summary["verdict"] == monitor.diagnosis.verdict
    written = {file for _, _, files in os.walk(tmp_path / "wandb") for file in files}
    assert any(name.startswith("verification") and name.endswith(".png") for name in written)
    assert any(name.startswith("siamese-report") and name.endswith(".html") for name in written)
