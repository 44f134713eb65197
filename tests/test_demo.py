"""The demo tells its story: a flagged or badly verifying run, a named cause, a repair that helps, files that load.

The story itself, a little shortened, is a deep test. The quick ones have its parts: the data, one short fit, the lines.
"""

import json

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese import cli, demo


@pytest.mark.deep
def test_demo_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "RECIPE", {**demo.RECIPE, "epochs": 10})
    assert cli.main(["demo", "--output", str(tmp_path / "out"), "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("epoch ") >= 20 and "memorising" in printed

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["findings"][0]["cause"] == "memorising"
    before, after = map(float, printed.split("Validation EER ")[1].split(" after")[0].split(" before, "))
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


@pytest.fixture
def few(rng):
    """Six scans of each of eight drawings: left halves to train on, all held out."""
    labels = np.repeat(np.arange(8), 6)
    x = np.clip(rng.random((8, 8, 8, 1))[labels] + rng.normal(0, 0.05, (48, 8, 8, 1)), 0, 1).astype("float32")
    return x, labels


def test_a_fit_follows_its_recipe(few, monkeypatch, capsys):
    monkeypatch.setattr(demo, "PAIRS", 24)
    monkeypatch.setattr(demo, "BATCH", 12)
    given = {}

    def fit(model, sequence, **options):
        given.update(options, sequence=sequence, model=model)

    monkeypatch.setattr(ks.SiameseWrapper, "fit", fit)
    recipe = {**demo.RECIPE, "identities": 3, "margin": 0.75, "learning_rate": 0.125, "epochs": 7}
    siamese, monitor = demo.fit(recipe, few, few, seed=4)
    sequence = given["sequence"]
    assert siamese is given["model"] and siamese.loss.margin == 0.75
    assert float(keras.ops.convert_to_numpy(siamese.optimizer.learning_rate)) == 0.125
    assert (len(sequence.x), len(sequence), sequence.batch_size, sequence.seed, sequence.augment) == (
        18,
        2,
        12,
        4,
        None,
    )
    assert given["epochs"] == 7 and monitor.target_eer == demo.TARGET_EER
    assert [type(one).__name__ for one in given["callbacks"]] == ["DivergenceMonitor", "EpochLine"]

    repaired = {**recipe, "identities": None, "augment": True, "early_stopping": True}
    demo.fit(repaired, few, few, seed=4)
    assert len(given["sequence"].x) == 48 and given["sequence"].augment is not None
    assert [type(one).__name__ for one in given["callbacks"]][2] == "EarlyStopping"
    assert (given["callbacks"][2].patience, given["callbacks"][2].monitor) == (5, "val_eer")


def test_a_short_fit_prints_a_line_an_epoch(few, monkeypatch, capsys):
    monkeypatch.setattr(demo, "PAIRS", 24)
    monkeypatch.setattr(demo, "BATCH", 24)
    _, monitor = demo.fit({**demo.RECIPE, "epochs": 2}, few, few, seed=0)
    lines = [line for line in capsys.readouterr().out.splitlines() if "epoch" in line]
    assert len(lines) == 2 and lines[1].startswith("   epoch  2/2   loss ")
    assert f"validation EER {monitor.history['eer'][1]:.3f}   accuracy " in lines[1]


def test_the_encoder_has_unit_embeddings():
    encoder = demo.build_encoder()
    assert (encoder.input_shape, encoder.output_shape) == ((None, 8, 8, 1), (None, 64))
    assert isinstance(encoder.layers[-1], keras.layers.UnitNormalization)


def test_unwritable_output_is_found_before_training(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert cli.main(["demo", "--output", str(blocked)]) == 2
    error = capsys.readouterr()
    assert "output" in error.err and "file" in error.err and "epoch" not in error.out


def test_the_command_runs_the_demo(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(demo, "run", lambda *arguments: called.append(arguments))
    assert cli.main(["demo", "--output", str(tmp_path), "--seed", "3"]) == 0
    assert called == [(tmp_path, 3)]
    cli.main(["demo"])
    assert (str(called[1][0]), called[1][1]) == ("siamese-demo", 0)
