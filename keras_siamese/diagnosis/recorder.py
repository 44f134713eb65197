"""`RunRecorder` writes a `Run` while a model trains, and a run log, from which the run can be read if it crashes.

Contract: the recorder is told when a fit and its epochs begin and end, and of measurements within an epoch; what it is
told goes into its `run`, and its epochs into the log. It measures the health of the embeddings and finds flags. It does
not know Keras's callbacks. Imports `run`, `observed`, `trend` and `facts`.

    recorder = RunRecorder(RunLog("run.jsonl"))
    recorder.begin_fit(epochs=20)
    recorder.begin_epoch(0, model)                 # removes epoch 0 and later epochs from the log
    recorder.end_epoch(0, model, {"loss": 0.7, "val_auc": 0.8, "val_eer": 0.3}, scored)
    recorder.run.curves["loss"]
"""

import copy
import itertools
import logging

import numpy as np

from keras_siamese._checks import check_writable
from keras_siamese._files import SideWork, write_arrays, write_bytes
from keras_siamese.diagnosis import limits, resuming
from keras_siamese.diagnosis.facts.embeddings import HEALTH, health_of
from keras_siamese.diagnosis.facts.model import (
    kernels_of,
    learning_rate_of,
    moved_share,
    sampled_kernels,
    update_size,
)
from keras_siamese.diagnosis.facts.verification import quick_errors
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.run import ALWAYS, LOGGED, Run, is_own_metric, line_of, read_run_log
from keras_siamese.diagnosis.trend import find_flags

logger = logging.getLogger(__name__)

CURVES = (*ALWAYS, *HEALTH, "update_size", "moved_share", "learning_rate")


class RunRecorder:
    """Records a `Run` while a model trains.

    Args:
        log: the `RunLog` to which each epoch is written, or None.
        target_eer: the EER that the user wants, in (0, 1), or None.

    Attributes:
        run: the `Run` so far.
        scored: `ScoredTrials` of the latest epoch with finite embeddings, or None.
        still: names of the layers whose kernels have not moved since the fit began.
        initial: values of the model's variables when the fit began, `{id: array}`, or None.
        holes: in what a resumed run differs from the interrupted one, sentences.
    """

    def __init__(self, log=None, target_eer=None):
        self.log, self.target_eer = log, target_eer
        self.run, self.scored = Run({name: [] for name in CURVES}), None
        self._kernels = self._start = self.initial = None
        self._arrays, self._parts_before, self.still, self.holes = {}, (0, 0), (), []

    def copy(self, side=None):
        """A recorder of another run with the same settings. Its log is a numbered file of its own, with `side`."""
        return RunRecorder(None if self.log is None else self.log.copy(side), self.target_eer)

    def begin_fit(self, epochs=None, initial=None):
        """Tell that a fit begins, which ends before the epoch of index `epochs`, and the `initial` values."""
        self.run.epochs, self._kernels, self._start, self.initial, self.holes = epochs, None, None, initial, []

    def end_fit(self):
        """Tell that the fit has ended. Epochs that could not be written into the log are written now, if need be into
        another folder.
        """
        if self.log is not None:
            self.log.finish()

    def begin_epoch(self, epoch, model, trials=None):
        """Tell that an epoch begins. Recorded epochs from this one on belong to an earlier run and are removed.

        If the log holds earlier epochs of this run, all that was recorded is taken from it; `trials` are the held-out
        ones. `holes` then says what is missing.

        Returns:
            Whether the run goes on with what the log holds.
        """
        is_first = self._kernels is None
        if is_first:  # not in begin_fit: BackupAndRestore may load other weights after it
            self._kernels, self._start = sampled_kernels(model), kernels_of(model)
        if epoch == 0:
            self.scored = self.run.not_finite_since = None
            self.run.parts, self.run.flagged_steps = {}, []
        self.run.cut(epoch)
        earlier = None if self.log is None else self.log.begin(epoch)
        is_resumed = earlier is not None and bool(earlier.last)
        if is_resumed:
            self.holes = resuming.holes_of(earlier.last, epoch, self._kernels)
            self._continue(earlier, trials)
        elif is_first and self.log is not None:
            self._keep(resuming.arrays_of(self._start, self.initial))
        self._parts_before = len(self.run.parts.get("step", [])), len(self.run.flagged_steps)
        return is_resumed

    def take_up(self, epochs, model, trials=None):
        """Read the whole run from the log if no epoch of it is left to be trained. The log is not changed.

        Returns:
            Whether the log holds all `epochs`, and `model` has the weights with which the last one ended.
        """
        earlier = self.log.read(epochs) if self.log is not None and epochs else None
        if earlier is None or not earlier.last or resuming.holes_of(earlier.last, epochs, sampled_kernels(model)):
            return False
        self._start = kernels_of(model)
        self.run.cut(epochs)
        self._continue(earlier, trials)
        self._moved_share(model)
        return True

    def _continue(self, earlier, trials):
        """Take over what an `earlier` process has recorded of this run."""
        known = [name for name in earlier.curves if name in CURVES or name.startswith(LOGGED)]
        self.run.curves |= {name: earlier.curves[name] for name in known}
        for name in ("flags", "logged", "not_finite_since", "parts", "flagged_steps", "last"):
            setattr(self.run, name, getattr(earlier, name))
        path = resuming.beside(self.log.path)
        self._arrays = resuming.kept(path)
        start = resuming.kernels_in(self._arrays, like=self._start)
        if start is None:
            self.holes.append(
                f"{path} is missing or of another model, so that weights are compared to the present ones"
            )
        self._start = start or self._start
        if self.initial is not None:
            self.initial = resuming.initial_in(self._arrays, like=self.initial) or self.initial
        self.scored = resuming.scored_in(self._arrays, trials) if self.run.not_finite_since is not None else None

    def _keep(self, arrays):
        """Write `arrays` beside the log, for a resumed run."""
        self._arrays = arrays
        try:
            write_arrays(resuming.beside(self.log.path or self.log.base), arrays)
        except OSError as error:
            path, then = resuming.beside(self.log.base), "training goes on; if it is resumed, its report will differ"
            self.log.side.failed("What a resumed run needs", error, where=path, then=then)

    def _moved_share(self, model):
        """Share of the weights in kernels that have moved since the fit began, or NaN. Sets `still`."""
        kernels = kernels_of(model)
        if self._start is None or len(kernels) != len(self._start):
            return float("nan")
        pairs = zip(self._start, kernels, strict=True)
        self.still = tuple(dict.fromkeys(one[0] for one, other in pairs if (one[2] == other[2]).all()))
        return moved_share(self._start, kernels)

    def end_epoch(self, epoch, model, logs, scored=None, looks_faulty=None, counts=None):
        """Add an epoch to the run and to the log. Returns whether the run is flagged for the first time.

        An epoch is flagged if the run diverges there (see `trend.find_flags`). In addition, a run that was never
        flagged is looked at after 5, 10, 20, 40, … measured epochs.

        Args:
            epoch: index of the epoch, from 0.
            model: the model that is trained.
            logs: what was logged, with "loss", and with "val_auc" and "val_eer" if `scored` is given.
            scored: `ScoredTrials` under the model's present weights, or None if they were not measured at this epoch.
            looks_faulty: a function that looks at the run so far, and tells whether it is flagged for what it finds.
            counts: what a resumed run needs to count on, {"steps": …, "next_part": …}.
        """
        is_finite = scored is not None and scored.is_finite
        values = dict.fromkeys(CURVES, float("nan")) | {"loss": float(logs.get("loss", float("nan")))}
        rate = learning_rate_of(model)
        values["learning_rate"] = float("nan") if rate is None else rate
        before, self._kernels = self._kernels, sampled_kernels(model)
        if before is not None:
            values["update_size"] = update_size(before, self._kernels)
        values["moved_share"] = self._moved_share(model)
        if is_finite:
            values |= {name: logs[f"val_{name}"] for name in ("auc", "eer")}
            values |= {f"{name}_se": error for name, error in quick_errors(scored).items()}
            values |= health_of(scored)
            self.scored, self.run.not_finite_since = scored, None
        elif scored is not None and self.run.not_finite_since is None:
            self.run.not_finite_since = epoch
            if self.log is not None and self.scored is not None:
                last = {"embeddings": self.scored.embeddings, "scores": self.scored.scores}
                self._keep(self._arrays | last)
        values |= logged(logs)
        for name in values.keys() - self.run.curves.keys():
            self.run.curves[name] = [float("nan")] * epoch
        for name, curve in self.run.curves.items():
            curve.append(values.get(name, float("nan")))
        self.run.logged = tuple(logs)
        was_flagged = self.is_flagged
        flagged = self.flagged(self.run.curves, epoch, looks_faulty, self.run.epochs) if is_finite else []
        if self.log is not None:
            state = self._state(None if scored is None else is_finite) | (counts or {})
            self.log.write(epoch, values, logs, flagged=epoch in flagged, state=state)
        self.run.flags += [flag for flag in flagged if flag not in self.run.flags]
        return bool(flagged) and not was_flagged

    def _state(self, is_finite):
        """What the line of an epoch tells a resumed run, beside the curves."""
        parts, steps = self._parts_before
        found = {"finite": is_finite, "weights": resuming.fingerprint(self._kernels)}
        if self.run.parts:
            found["parts"] = {name: values[parts:] for name, values in self.run.parts.items()}
        return found | {"flagged_steps": self.run.flagged_steps[steps:]}

    def end_part(self, step, loss, scored, figures, looks_faulty=None):
        """Add a measurement within an epoch. Returns whether the run is flagged for the first time.

        The same rules apply as to epochs: a part is flagged if the run diverges there, or for what a look finds.

        Args:
            step: number of training steps since the run began.
            loss: mean training loss of the steps since the last measurement.
            scored: `ScoredTrials` under the present weights.
            figures: {"auc": …, "eer": …} of `scored`.
            looks_faulty: as in `end_epoch`.
        """
        if not scored.is_finite:
            return False
        self.scored = scored
        errors = {f"{name}_se": error for name, error in quick_errors(scored).items()}
        self.run.add_part(step, {"loss": loss, **figures, **errors})
        parts, was_flagged = self.run.parts, self.is_flagged
        flagged = [parts["step"][place] for place in self.flagged(parts, len(parts["step"]) - 1, looks_faulty)]
        self.run.flagged_steps += [one for one in flagged if one not in self.run.flagged_steps]
        return bool(flagged) and not was_flagged

    @property
    def is_flagged(self):
        """Whether the run was flagged at an epoch or within one."""
        return bool(self.run.flags or self.run.flagged_steps)

    def flagged(self, curves, latest, looks_faulty=None, epochs=None):
        """[latest] if that place of `curves`, of epochs or parts, is flagged, also for what a look finds; else []."""
        known, pairs = {name: curves[name] for name in ALWAYS}, len(self.scored.trials)
        flags = find_flags(**known, pairs=pairs, target_eer=self.target_eer, epochs=epochs, since=latest)
        if flags or self.is_flagged or looks_faulty is None or not is_look_due(curves):
            return [flag.epoch for flag in flags]
        return [latest] if looks_faulty() else []

    def observed(self, valid=None, train=None, threshold=None, **recipe):
        """`Observed` of the run so far, the input of the diagnosis.

        Args:
            valid, train: `ScoredTrials`, as in `Observed`; held-out ones of the latest finite embeddings if None.
            threshold: as in `Observed`. None is 0.5 for a model that puts out probabilities and logs an accuracy.
            **recipe: what `recipe.recipe_of` returns.
        """
        is_default = threshold is None and recipe["output_kind"] == "score" and self.run.has_accuracy
        if is_default:
            threshold, recipe = 0.5, {**recipe, "default_threshold": True}
        options = {"train": train, "threshold": threshold, "target_eer": self.target_eer, "still": self.still}
        return Observed(copy.deepcopy(self.run), self.scored if valid is None else valid, **options, **recipe)


def is_look_due(curves):
    """Whether 5, 10, 20, 40, … epochs, or parts, have been measured so far."""
    measured = np.isfinite(np.array(curves["eer"], float)).sum() / limits.FIRST_LOOK
    return measured >= 1 and np.log2(measured) % 1 == 0


def logged(logs):
    """The curves of what the user's own metrics logged at an epoch: `LOGGED` and the name, values in [0, 1] only."""
    numbers = {name: float(value) for name, value in logs.items() if is_own_metric(name)}
    return {f"{LOGGED}{name}": value for name, value in numbers.items() if 0 <= value <= 1}


class RunLog:
    """Writes a run log, one line per epoch; if the process is killed, at most the line being written is lost.

    Each line is handed to the operating system before `write` returns. If a line cannot be written, `side` is told. All
    epochs are kept in memory: each later `write` tries to write them all, and so does `finish`, if need be into another
    folder. If the file was changed between two lines, another run writes into it, and it is left alone.

    Args:
        path: the file. The file of a resumed run is continued. The folder is made if it is missing.
        numbered: whether to write into the first of path-1, path-2, … (before the suffix) that does not exist yet.
        side: the `SideWork` that is told what could not be written.

    Raises:
        ValueError: if the path cannot be written, or if the file holds something else.
    """

    def __init__(self, path, numbered=False, side=None):
        self.base, self.side = check_writable("log", path), side or SideWork()
        if not numbered and self.base.exists():
            read_run_log(self.base, name="log", quiet=True)
        self._renew(numbered)

    def _renew(self, numbered):
        self.numbered, self.path, self._last = numbered, None if numbered else self.base, None
        self._lines = bytearray()  # what the file holds, or would hold if it could be written
        self._stopped = self._is_others = False

    def copy(self, side=None):
        """The log of another run, in a numbered file of its own."""
        copied = copy.copy(self)
        copied.side = side or SideWork()
        copied._renew(numbered=True)
        return copied

    def begin(self, epoch):
        """Make the file end before `epoch`. Returns the `Run` that it then holds, or None if it ended there already.

        Call it when an epoch begins. It reads the file only when a run begins or is resumed.
        """
        if self._last is not None and epoch == self._last + 1:
            return None
        self._last, self._lines, self._stopped, self._is_others = epoch - 1, bytearray(), False, False
        try:
            return self._opened(epoch)
        except OSError as error:
            self._stop(error)
            return None

    def _opened(self, epoch):
        """Make the file if it is missing, and let it end before `epoch`."""
        if self.path is None:
            self.path = first_free(self.base)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        run, ends = read_run_log(self.path, name="log", before=epoch)
        end = max(ends.values(), default=0)
        with open(self.path, "r+b") as file:
            if file.seek(0, 2) < end:  # the last line feed is missing
                file.write(b"\n")
            file.truncate(end)
            file.seek(0)
            self._lines += file.read()
        return run

    def read(self, before):
        """The `Run` that the file holds before the epoch `before`; None if it cannot be read. It is not changed."""
        if self.path is None:
            return None
        try:
            return read_run_log(self.path, name="log", before=before, quiet=True)[0]
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("The run log %s cannot be read, so no earlier run is continued: %s", self.path, error)
            return None

    def write(self, epoch, values, logs, flagged, state=None):
        """Add the line of an epoch; the arguments are those of `run.line_of`."""
        self._last, end = epoch, len(self._lines)
        self._lines += line_of(epoch, values, logs, flagged, state)
        try:
            if self._stopped:
                self._write_anew()
                return
            with open(self.path, "r+b") as file:
                if file.seek(0, 2) != end:
                    self._is_others = True
                    raise OSError("it was changed after its last line; another run may be writing into it")
                file.write(self._lines[end:])
        except OSError as error:
            if not self._stopped:
                self._stop(error)

    def _stop(self, error):
        self._stopped = True
        then = "the epochs are kept in memory, and written when training ends or when it is possible again"
        self.side.failed("The run log", error, where=self.path or self.base, then=then)

    def _write_anew(self):
        """Write all epochs, if the file is missing or holds only what this log has written into it."""
        if self.path is None:
            self.path = first_free(self.base)
        if self._is_others or (self.path.exists() and not self._lines.startswith(self.path.read_bytes())):
            raise OSError("another run may be writing into it")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(self.path, self._lines)
        self._stopped = False

    def finish(self):
        """Write what could not be written so far, if need be into another folder. Call it when the run has ended."""
        if not self._stopped or not self._lines:
            return
        try:
            self._write_anew()
        except OSError:
            folder = self.side.rescued(lambda folder: write_bytes(folder / self.base.name, self._lines))
            failed, self._stopped = self.path or self.base, folder is None
            self.path = self.path if folder is None else folder / self.base.name
            self.side.moved("The run log", failed, None if folder is None else self.path)


def first_free(path):
    """Create and return the first of path-1, path-2, … that does not exist, so that no other run takes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            candidate.touch(exist_ok=False)
            return candidate
        except FileExistsError:
            pass
