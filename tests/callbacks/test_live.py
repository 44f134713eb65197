"""The curves of a run in a notebook: one output, which is replaced after each epoch."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from keras_siamese.callbacks import DivergenceMonitor, LiveCurves, VerificationMonitor, live
from tests.callbacks.test_tracking import held_out, trained
from tests.support.fragments import text_of


@pytest.fixture
def shown(monkeypatch):
    """What a notebook shows: a list for each output, with the HTML that it had."""
    outputs = []

    def display(html, display_id):
        outputs.append([html])
        return SimpleNamespace(update=outputs[-1].append)

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=display))
    return outputs


def test_one_output_grows_with_each_epoch(shown):
    monitor = DivergenceMonitor(held_out())
    curves = LiveCurves(monitor)
    history = trained(monitor, curves, epochs=3).history
    ((first, second, third),) = shown
    assert [len(re.findall("<polyline", html)) for html in (first, third)] == [3, 3]  # loss, val_eer, val_auc
    for epoch, html in enumerate((first, second, third)):
        assert f"val_eer {history['val_eer'][epoch]:.4g} after epoch {epoch + 1}" in text_of(html)
    trained(monitor, curves, epochs=1)
    assert len(shown) == 2 and "after epoch 3" not in shown[1][-1]


def test_nothing_is_shown_elsewhere(shown, monkeypatch):
    monitor = VerificationMonitor(held_out())
    for shell in (None, SimpleNamespace()):  # a script; IPython in a terminal
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda shell=shell: shell)
        trained(monitor, LiveCurves(monitor), epochs=1)
    assert not shown


def test_a_curve_lies_where_its_values_are():
    html = live.curve_of("<loss>", [(4, 3.0), (5, np.nan), (6, 1.0), (7, 2.0)], flags=[6])
    assert re.search('points="(.*?)"', html)[1] == "8.0,8.0 317.3,62.0 472.0,35.0"
    assert re.search('rect x="(.*?)".*? width="(.*?)"', html).groups() == ("240.0", "154.7")
    assert text_of(html).startswith("<loss> 2 after epoch 8; from 1 to 3")
    assert "nan after epoch 1" in live.curve_of("loss", [(0, np.nan)], flags=[])


def test_mistakes_are_named():
    monitor = VerificationMonitor(held_out())
    with pytest.raises(TypeError, match="`monitor` must be a VerificationMonitor"):
        LiveCurves(None)
    with pytest.raises(ValueError, match="`monitor` must stand before LiveCurves"):
        trained(LiveCurves(monitor), monitor)
