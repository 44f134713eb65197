"""The demo tells its story: a flagged or badly verifying run, a named cause, a repair that helps, files that load.

The whole demo runs in CI; here a shortened one.
"""

import json

import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese import cli, demo

pytestmark = pytest.mark.any_backend


@pytest.mark.slow
def test_demo_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "RECIPE", {**demo.RECIPE, "epochs": 10})
    assert cli.main(["demo", "--output", str(tmp_path / "out"), "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("epoch ") >= 20 and "memorising" in printed

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["findings"][0]["cause"] == "memorising"
    before, after = map(float, printed.split("Held-out EER ")[1].split(" after")[0].split(" before, "))
    assert after < before - 0.05
    assert report["verification"]["eer"] == pytest.approx(before, abs=5e-4)
    assert "memorising" in (tmp_path / "out" / "report.html").read_text()

    x, _ = demo.scan_digits(3)
    assert ks.Verifier.load(tmp_path / "out" / "verifier.keras").verify(x[:2], x[:2]).all()


def test_scans_are_of_the_right_drawing():
    from sklearn.datasets import load_digits

    x, labels = demo.scan_digits(0)
    assert x.shape == (1797 * demo.SCANS, 8, 8, 1) and x.dtype == "float32" and x.min() >= 0 and x.max() <= 1
    drawings = load_digits().images / 16
    # A scan is nearer to its own drawing than to another one, in the mean over all.
    own = np.square(x[..., 0] - drawings[labels]).mean()
    other = np.square(x[..., 0] - np.roll(drawings, 7, axis=0)[labels]).mean()
    assert own < 0.8 * other
    assert np.array_equal(x, demo.scan_digits(0)[0]) and not np.array_equal(x, demo.scan_digits(1)[0])


def test_unwritable_output_is_found_before_training(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert cli.main(["demo", "--output", str(blocked)]) == 2
    error = capsys.readouterr()
    assert "output" in error.err and "file" in error.err and "epoch" not in error.out


def test_help_and_version(capsys):
    for arguments in (["--help"], ["demo", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == 0
    assert ks.__version__ in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        cli.main([])
    assert stopped.value.code == 2
