"""Write a monitor's values for TensorBoard: figures as scalars, scores as histograms, curves as a picture.

Contract: the figures of an epoch by name and its `ScoredTrials` go in; an event file in `log_dir` comes out, with the
epoch as step. The file is complete after each epoch, so an interrupted run loses nothing. TensorFlow is not needed and
not imported; the extra `tensorboard` installs what is needed. `monitors` imports it; it imports `verification`.

    events = EventLog("logs/run1")
    events.write(epoch, {"val_eer": 0.1, "val_threshold": -0.7}, scored)

    tensorboard --logdir logs
"""

import contextlib
import copy
import io
import itertools
import os
import socket
import time

import numpy as np

from keras_siamese import verification
from keras_siamese._checks import check_installed, check_path
from keras_siamese._files import SideWork

BINS = 60
FILES = itertools.count()


class EventLog:
    """Appends the epochs of a fit to an event file. Each fit has its own file, so several fits may share a folder.

    The first event of the file says at which epoch the fit began. TensorBoard then discards later epochs that an
    interrupted run has left in the folder. KerasTuner copies the callbacks for each execution; the files of a copy are
    in the first of the folders `log_dir/copy1`, `log_dir/copy2`, … that does not exist yet.

    If an epoch cannot be written, `side` is told once. Its figures, without histograms and picture, are kept and
    written with the next epoch, or by `finish`, if need be into another folder.

    Args:
        log_dir: the folder. It is made if it is missing.
        side: the `SideWork` that is told what could not be written.

    Raises:
        ImportError: without the extra `tensorboard`.
        ValueError: if `log_dir` is not a folder that can be written.
    """

    def __init__(self, log_dir, side=None):
        for module in ("tensorboard", "matplotlib"):
            check_installed(module, "tensorboard")
        self.log_dir, self.is_copy, self.side = check_folder("log_dir", log_dir), False, side or SideWork()
        self.begin()

    def begin(self):
        """Write the next epoch into a new file."""
        self.path, self._waiting, self._next = None, [], 0

    def copied(self, side=None):
        """An `EventLog` for a copy of the callback."""
        copied = object.__new__(type(self))
        copied.log_dir, copied.is_copy, copied.side = self.log_dir, True, side or SideWork()
        copied.begin()
        return copied

    def __deepcopy__(self, memo):
        return self.copied(copy.deepcopy(self.side, memo))

    def write(self, epoch, figures, scored):
        """Add an epoch: `figures` by name, and the scores and curves of `scored` if they are finite."""
        self._next = epoch + 1
        try:
            self._append([*self._waiting, event_of(epoch, summary_of(figures, scored))])
            self._waiting = []
        except Exception as error:
            if not self._waiting or self.side.strict:
                then = "the figures are kept in memory, and written when training ends or when it is possible again"
                self.side.failed("What TensorBoard shows", error, where=self.log_dir, then=then)
            self._waiting.append(event_of(epoch, summary_of(figures)))

    def add(self, epoch, values):
        """Add scalars by name, of an epoch; in a new file if the epoch was written before."""
        if epoch < self._next:
            self.begin()
        self._next = epoch + 1
        self._append([event_of(epoch, summary_of_scalars(values))])

    def show(self, name, figure):
        """Add a matplotlib `figure` after the last epoch."""
        self._append([event_of(self._next, summary_of_figure(name, figure))])

    def say(self, name, text):
        """Add a `text` after the last epoch, whose lines stay as they are."""
        self._append([event_of(self._next, summary_of_text(name, text))])

    def finish(self):
        """Write the epochs that could not be written so far, if need be into another folder."""
        if not self._waiting:
            return
        try:
            self._append(self._waiting)
        except Exception:
            failed, self.path = self.log_dir, None
            folder = self.side.rescued(self._append_in)
            if folder is None:
                self.log_dir = failed
            self.side.moved("What TensorBoard shows", failed, folder)
        self.begin()

    def _append_in(self, folder):
        self.log_dir, self.is_copy = folder, False
        self._append(self._waiting)

    def _append(self, events):
        """Add `events` to the file; make it if there is none yet."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        is_new = self.path is None
        if is_new:
            self.path = self.new_path()
            start = {"step": events[0]["step"], "session_log": SessionLog(status=SessionLog.START)}
            events = [{"file_version": "brain.Event:2"}, start, *events]
        try:
            with open(self.path, "xb" if is_new else "r+b") as file:
                file.seek(0, 2)
                writer = RecordWriter(file)
                for event in events:
                    writer.write(serialized(event))
        except OSError:
            if is_new:
                with contextlib.suppress(OSError):
                    self.path.unlink(missing_ok=True)
            self.path = None  # TensorBoard reads nothing after a record that was cut short
            raise

    def new_path(self):
        """The path of a new event file. A copy first creates its own folder."""
        if self.is_copy:
            self.log_dir, self.is_copy = new_folder(self.log_dir), False
        self.log_dir.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(FILES)}"
        return self.log_dir / f"{name}.verification"


def event_of(epoch, summary):
    """The fields of an event of an epoch, a dict."""
    return {"wall_time": time.time(), "step": epoch, "summary": summary}


def serialized(event):
    """The bytes of an event, of now if its fields hold no time."""
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(**{"wall_time": time.time(), **event}).SerializeToString()


def check_folder(name, folder):
    """Return `folder` as a `Path` to a folder that can be written. It is made if it is missing."""
    folder = check_path(name, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"`{name}` must be a folder that can be written; {str(folder)!r} cannot: {error}") from error
    return folder


def new_folder(parent):
    """Create and return the first of `parent/copy1`, `parent/copy2`, … that does not exist."""
    for number in itertools.count(1):
        folder = parent / f"copy{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder


def summary_of_scalars(values):
    """The `Summary` of numbers by name."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])


def summary_of_figure(name, figure):
    """The `Summary` of a matplotlib `figure`."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=name, image=image_of(figure))])


def summary_of(figures, scored=None):
    """The `Summary` of an epoch: `verification/…` scalars; with `scored` also `scores/…` histograms and the picture
    `curves`.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [*summary_of_scalars({f"verification/{name}": value for name, value in figures.items()}).value]
    if scored is not None and scored.is_finite:
        scores = scored.scores.astype(np.float64)
        edges = np.histogram_bin_edges(scores, BINS)
        for name, chosen in (("genuine", scored.same), ("impostor", ~scored.same)):
            values.append(Summary.Value(tag=f"scores/{name}", histo=histogram_of(scores[chosen], edges)))
        values.append(Summary.Value(tag="curves", image=picture_of(scored, figures.get("val_threshold"))))
    return Summary(value=values)


def summary_of_text(name, text):
    """The `Summary` of a `text`. TensorBoard reads Markdown, in which indented lines are shown as they are."""
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    plugin = SummaryMetadata.PluginData(plugin_name="text")
    about = SummaryMetadata(plugin_data=plugin, data_class=DATA_CLASS_TENSOR)
    lines = "\n".join(f"    {line}" for line in text.splitlines())
    tensor = TensorProto(dtype=DT_STRING, string_val=[lines.encode()])
    return Summary(value=[Summary.Value(tag=name, metadata=about, tensor=tensor)])


def histogram_of(scores, edges):
    """TensorBoard's `HistogramProto` of `scores` `(n,)` in the bins between `edges` `(bins + 1,)`."""
    from tensorboard.compat.proto.summary_pb2 import HistogramProto

    counts = [0.0, *np.histogram(scores, edges)[0].tolist()]  # the first is the count below the first edge
    moments = {"num": len(scores), "sum": scores.sum(), "sum_squares": np.square(scores).sum()}
    return HistogramProto(min=scores.min(), max=scores.max(), **moments, bucket_limit=edges.tolist(), bucket=counts)


def figure_of(scored, threshold):
    """A matplotlib figure of the score histograms, the ROC and the DET curve."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.2), dpi=72, layout="constrained")
    axes = figure.subplots(1, 3)
    same, scores = scored.same, scored.scores
    verification.plot_scores(axes[0], same, scores, None if threshold is None else {"threshold": threshold})
    verification.plot_roc(axes[1], same, scores)
    verification.plot_det(axes[2], same, scores)
    return figure


def picture_of(scored, threshold):
    """TensorBoard's `Image` of `figure_of`."""
    return image_of(figure_of(scored, threshold))


def image_of(figure):
    """TensorBoard's `Image` of a matplotlib figure."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    file = io.BytesIO()
    figure.savefig(file, format="png")
    width, height = figure.canvas.get_width_height()
    return Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=file.getvalue())
