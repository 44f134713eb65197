"""`LiveCurves`: the curves of a monitored run in a notebook, which grow while it trains.

Contract: a monitor of this package in; a fragment of HTML out, which the notebook replaces after each epoch. Outside of
a notebook nothing is shown. IPython is used if the program runs in it, and is not imported otherwise.

    siamese.fit(pairs, epochs=20, verbose=0, callbacks=[monitor := DivergenceMonitor(valid), LiveCurves(monitor)])
"""

from __future__ import annotations

import sys
from html import escape
from typing import Any

import keras
import numpy as np

from keras_siamese.callbacks.monitors import VerificationMonitor
from keras_siamese.callbacks.ordering import before

SHOWN = ("loss", "val_loss", "val_eer", "val_auc")
WIDTH, HEIGHT, MARGIN = 480, 70, 8  # of a curve, in CSS pixels


class LiveCurves(keras.callbacks.Callback):
    """Shows the curves of a monitored run in a notebook: losses, EER and AUC, with flagged epochs shaded.

    The curves are one output of the cell, which is drawn anew after each epoch. In other programs nothing is shown.

    Args:
        monitor: the `VerificationMonitor` or `DivergenceMonitor` of the same `fit`. It must stand before this callback.

    Raises:
        ValueError: when training begins, if the monitor does not stand before this callback.

    >>> import numpy as np, keras_siamese as ks
    >>> monitor = ks.callbacks.DivergenceMonitor((np.ones((6, 4)), [0, 0, 1, 1, 2, 2]))
    >>> callbacks = [monitor, ks.callbacks.LiveCurves(monitor)]  # of `fit`
    """

    def __init__(self, monitor: VerificationMonitor) -> None:
        super().__init__()
        if not isinstance(monitor, VerificationMonitor):
            raise TypeError(f"`monitor` must be a VerificationMonitor or a DivergenceMonitor; got {monitor!r}")
        self.monitor = monitor
        self._curves, self._handle = {}, None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.monitor not in before(self):
            raise ValueError("`monitor` must stand before LiveCurves in the `callbacks` of the same `fit`")
        self._curves, self._handle = {}, None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for name in SHOWN:
            if name in (logs or {}):
                self._curves.setdefault(name, []).append((epoch, float(logs[name])))
        if not is_notebook():
            return
        with self.monitor.side.allowing("The live curves"):
            from IPython.display import HTML, display

            if self._handle is None:
                self._handle = display(HTML(self._repr_html_()), display_id=True)
            else:
                self._handle.update(HTML(self._repr_html_()))

    def _repr_html_(self):
        flags = getattr(self.monitor, "flags", ())
        curves = "".join(curve_of(name, points, flags) for name, points in self._curves.items())
        note = f"<p>Flagged: epochs {', '.join(str(flag + 1) for flag in flags)}</p>" if len(flags) else ""
        return f"<div>{curves}{note}</div>"


def is_notebook():
    """Whether the program runs in a kernel of Jupyter."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


def curve_of(name, points, flags):
    """The HTML of a curve of `(epoch, value)`s: its last value, and a line in which the flagged epochs are shaded."""
    epochs, values = np.array(points).T
    words = escape(f"{name} {values[-1]:.4g} after epoch {epochs[-1] + 1:.0f}")
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    step = (WIDTH - 2 * MARGIN) / max(epochs[-1] - epochs[0], 1)
    across = MARGIN + step * (epochs - epochs[0])
    down = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (values - low) / (high - low or 1)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across[finite], down[finite], strict=True))
    shades = "".join(
        f'<rect x="{x - step / 2:.1f}" y="0" width="{step:.1f}" height="{HEIGHT}" fill="#d62728" opacity="0.15"/>'
        for epoch, x in zip(epochs, across, strict=True)
        if epoch in flags
    )
    drawn = f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
    image = f'<svg role="img" aria-label="{words}" width="{WIDTH}" height="{HEIGHT}">{shades}{drawn}</svg>'
    return f"<div>{words}; from {low:.4g} to {high:.4g}<br/>{image}</div>"
