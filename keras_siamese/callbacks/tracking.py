"""Send a monitored run to an experiment tracker: figures, verdict, pictures and reports.

Contract: a monitor of this package and a tracker in. A tracker is an object with the four methods of `Tracker`; there
is one each for MLflow, Weights & Biases and TensorBoard, which are imported when they are used. Callbacks such as
Keras's RemoteMonitor and CSVLogger see the figures in `logs`.

    monitor = DivergenceMonitor(valid)
    siamese.fit(pairs, epochs=20, callbacks=[monitor, TrackRun(monitor, "mlflow")])
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from keras_siamese._checks import check_choice, check_installed
from keras_siamese._files import write_text
from keras_siamese._types import Figure, StrPath
from keras_siamese.callbacks.monitors import VerificationMonitor
from keras_siamese.callbacks.ordering import before
from keras_siamese.callbacks.tensorboard import EventLog, figure_of
from keras_siamese.diagnosis.diagnosis import Diagnosis

METHODS = ("metrics", "words", "figure", "file")


class Tracker:
    """What `TrackRun` tells a tracker; a base for your own."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Finite floats by name, of the epoch `step`, from 0."""

    def words(self, values: dict[str, str]) -> None:
        """Texts by name, such as the verdict, when training ends."""

    def figure(self, name: str, figure: Figure) -> None:
        """A matplotlib `Figure`, when training ends."""

    def file(self, path: StrPath) -> None:
        """A report, `.html` or `.json`, when training ends; the file is deleted afterwards."""


class MLflow(Tracker):
    """Logs to MLflow's active run; MLflow begins one if there is none."""

    def __init__(self):
        imported("mlflow")

    def metrics(self, values, step):
        # MLflow refuses "@" and "=" in names.
        named = {re.sub(r"[^\w\-. /:]", "_", name): value for name, value in values.items()}
        imported("mlflow").log_metrics(named, step=step)

    def words(self, values):
        imported("mlflow").set_tags(values)

    def figure(self, name, figure):
        imported("mlflow").log_figure(figure, f"{name}.png")

    def file(self, path):
        imported("mlflow").log_artifact(str(path))


class WandB(Tracker):
    """Logs to the active run of Weights & Biases, which `wandb.init(…)` has begun."""

    def __init__(self):
        if imported("wandb").run is None:
            raise ValueError('`tracker` is "wandb", which has no active run: call wandb.init(project=…) first')

    def metrics(self, values, step):
        imported("wandb").run.log({**values, "epoch": step})

    def words(self, values):
        imported("wandb").run.summary.update(values)

    def figure(self, name, figure):
        wandb = imported("wandb")
        wandb.run.log({name: wandb.Image(figure)})

    def file(self, path):
        wandb = imported("wandb")
        if path.suffix == ".html":
            wandb.run.log({path.stem: wandb.Html(path.read_text(encoding="utf-8"), inject=False)})
        else:
            artifact = wandb.Artifact(f"{path.stem}-{wandb.run.id}", type="report")
            artifact.add_file(str(path))
            wandb.run.log_artifact(artifact)


class TensorBoard(Tracker):
    """Writes an event file, and the reports beside it, into the folder `log_dir`. The text of the diagnosis is shown.

    `VerificationMonitor(log_dir=…)` writes other things: histograms and a picture of the scores for each epoch.
    """

    def __init__(self, log_dir="logs"):
        self.events = EventLog(log_dir)

    def metrics(self, values, step):
        self.events.add(step, values)

    def words(self, values):
        for name, text in values.items():
            self.events.say(name, text)

    def figure(self, name, figure):
        self.events.show(name, figure)

    def file(self, path):
        write_text(self.events.log_dir / path.name, path.read_text(encoding="utf-8"))
        if path.suffix == ".json":
            self.events.say("diagnosis", str(Diagnosis.from_json(path)))


TRACKERS = {"mlflow": MLflow, "wandb": WandB, "tensorboard": TensorBoard}


def imported(module):
    return check_installed(module, module)  # the extra has the name of the package


class TrackRun(keras.callbacks.Callback):
    """Sends what a monitor measures to an experiment tracker.

    After each epoch it sends the numbers in `logs`: the losses and metrics of Keras, and the figures of the monitor.
    When training ends it sends a picture of the scores with ROC and DET curve. Of a `DivergenceMonitor` it also sends
    the verdict, the leading causes, and the report as JSON and, with the extra `report`, as HTML. If the tracker fails,
    there is one warning, and training goes on.

    Args:
        monitor: the `VerificationMonitor` or `DivergenceMonitor` of the same `fit`. It must stand before this callback.
        tracker: "mlflow", "wandb" or "tensorboard" (extras of these names), or an object with the methods of
            `callbacks.Tracker`.
        log_dir: the folder for "tensorboard"; by default "logs", as in Keras's callback.

    Raises:
        ImportError: on construction, without the extra of the tracker.
        ValueError: on construction, for "wandb" without an active run, and for a `log_dir` that cannot be written or
            that the tracker does not need; when training begins, if the monitor does not
            stand before this callback.

    >>> import keras, numpy as np, keras_siamese as ks
    >>> class Printer(ks.callbacks.Tracker):
    ...     def words(self, values):
    ...         print(sorted(values))
    >>> x, labels = np.random.default_rng(0).normal(size=(60, 4)).astype("float32"), np.repeat(np.arange(20), 3)
    >>> siamese = ks.SiameseWrapper(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    >>> siamese.compile("adam", loss=ks.losses.ContrastiveLoss())
    >>> monitor = ks.callbacks.DivergenceMonitor((x[30:], labels[30:]))
    >>> pairs = ks.data.PairSequence(x[:30], labels[:30], batch_size=16)
    >>> history = siamese.fit(pairs, callbacks=[monitor, ks.callbacks.TrackRun(monitor, Printer())], verbose=0)
    ['causes', 'verdict']
    """

    def __init__(
        self,
        monitor: VerificationMonitor,
        tracker: Literal["mlflow", "wandb", "tensorboard"] | Tracker,
        *,
        log_dir: StrPath | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(monitor, VerificationMonitor):
            raise TypeError(f"`monitor` must be a VerificationMonitor or a DivergenceMonitor; got {monitor!r}")
        options = {} if log_dir is None else {"log_dir": log_dir}
        if options and tracker != "tensorboard":
            raise ValueError(f'`log_dir` is for the tracker "tensorboard"; got {tracker!r}')
        if isinstance(tracker, str):
            tracker = TRACKERS[check_choice("tracker", tracker, tuple(TRACKERS))](**options)
        missing = [name for name in METHODS if not callable(getattr(tracker, name, None))]
        if missing:
            raise TypeError(f"`tracker` must have the methods {', '.join(METHODS)}; {tracker!r} lacks {missing[0]}")
        self.monitor, self.tracker = monitor, tracker

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.monitor not in before(self):
            raise ValueError("`monitor` must stand before TrackRun in the `callbacks` of the same `fit`")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        with self.monitor.side.allowing("The tracker"):
            numbers = {name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0}
            self.tracker.metrics({name: value for name, value in numbers.items() if np.isfinite(value)}, epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        with self.monitor.side.allowing("The tracker"):
            scored = self.monitor.scored
            if scored is not None and scored.is_finite and is_installed("matplotlib"):
                self.tracker.figure("verification", figure_of(scored, None))
            diagnosis = getattr(self.monitor, "diagnosis", None)
            if diagnosis is not None:
                causes = ", ".join(finding.cause for finding in diagnosis.leading) or "none"
                self.tracker.words({"verdict": diagnosis.verdict, "causes": causes})
                self._send_reports(diagnosis)

    def _send_reports(self, diagnosis):
        with tempfile.TemporaryDirectory() as folder:
            self.tracker.file(diagnosis.to_json(Path(folder) / "siamese-report.json"))
            can_draw = is_installed("matplotlib") and is_installed("jinja2") and diagnosis.observed.valid.is_finite
            if can_draw:
                self.tracker.file(diagnosis.to_html(Path(folder) / "siamese-report.html"))


def is_installed(module):
    return importlib.util.find_spec(module) is not None
