"""Run a program as Python itself would, and watch its fits: what `keras-siamese watch` starts.

Contract: this file is run as a program of its own, in a fresh Python, and imports only the standard library: the
program decides when Keras is imported, and with which backend. When that happens, `keras.Model.fit` is replaced until
the program ends. `watching` is imported at the first fit. What fails here never ends the program.

    python launching.py REPORT FOLDER_OF_THE_PACKAGE script.py ...
"""

import functools
import importlib.abc
import importlib.util
import os
import runpy
import sys


class AfterKeras(importlib.abc.MetaPathFinder):
    """Calls a function with the module `keras` as soon as it is imported."""

    def __init__(self, act):
        self.act = act

    def find_spec(self, name, path=None, target=None):
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                self.act(module)

            spec.loader.exec_module = exec_module
        return spec


class Launch:
    """One run of a program; `fits` counts those that were watched."""

    def __init__(self, report, root):
        self.report, self.root = report, root
        self.model_class, self.fit, self.watcher = None, None, None

    def attach(self, keras):
        """Watch the fits of every model: subclasses inherit `fit` of this class, or call it."""
        try:
            self.model_class, self.fit = keras.Model, keras.Model.fit
        except AttributeError:  # not Keras 3
            return
        fit, launch = self.fit, self

        @functools.wraps(fit)
        def watched(model, *args, **kwargs):
            watcher = launch.watching()
            return fit(model, *args, **kwargs) if watcher is None else watcher.fit(fit, model, args, kwargs)

        self.model_class.fit = watched

    def watching(self):
        """The `Watcher`, or None if it cannot be imported."""
        if self.watcher is None:
            try:
                is_installed = self.root in sys.path
                if not is_installed:
                    sys.path.append(self.root)
                try:
                    from keras_siamese.callbacks.watching import Watcher
                finally:
                    if not is_installed:
                        sys.path.remove(self.root)
                self.watcher = Watcher(self.report)
            except Exception as error:
                self.watcher = False
                say(f"nothing is watched: {type(error).__name__}: {' '.join(str(error).split())}")
        return self.watcher or None

    def end(self):
        if self.fit is not None:
            del self.model_class.fit  # the class inherits it
        if not getattr(self.watcher, "fits", 0):
            found = "no fit of a siamese model with validation data was found"
            say(
                f"{found}. A loop that does not call fit is measured by start, record and finish of a DivergenceMonitor"
            )


def say(text):
    sys.stderr.write(f"keras-siamese watch: {text}\n")


def main(report, root, script, *arguments):
    """Run `script` with `arguments`; returns its exit status, or raises its `SystemExit`."""
    launch = Launch(os.path.abspath(report), root)
    sys.meta_path.insert(0, AfterKeras(launch.attach))
    sys.argv = [script, *arguments]
    if not getattr(sys.flags, "safe_path", False):
        folder = os.path.dirname(os.path.realpath(script)) if os.path.isfile(script) else script
        sys.path[0] = folder
    try:
        runpy.run_path(script, run_name="__main__")
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        trace = own_frames(error.__traceback__, script)
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return 1
    finally:
        launch.end()
    return 0


def own_frames(trace, script):
    """The part of a traceback that begins in the script; all of it if the script has none."""
    begin = trace
    while begin is not None and begin.tb_frame.f_code.co_filename != script:
        begin = begin.tb_next
    return begin or trace


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
