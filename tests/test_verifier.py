"""The verifier: its threshold meets what was asked, and the file decides alike in another process."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_siamese as ks


def clusters(identities, seed, samples=8, noise=0.5):
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.normal(size=(identities, 5)), samples, axis=0)
    return (x + noise * rng.normal(size=x.shape)).astype("float32"), np.repeat(np.arange(identities), samples)


def siamese(**options):
    return ks.SiameseWrapper(keras.Sequential([keras.Input((5,)), keras.layers.UnitNormalization()]), **options)


def distances(x):
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    left, right = np.triu_indices(len(x), 1)
    return left, right, np.linalg.norm(z[left] - z[right], axis=1)


@pytest.mark.parametrize("far", [0.2, 0.05, 0.01])
def test_the_threshold_is_the_smallest_that_meets_far(far):
    x, labels = clusters(12, seed=0)
    verifier = ks.Verifier.calibrate(siamese(), x, labels, far=far)
    left, right, d = distances(x)
    impostor = np.sort(-d[labels[left] != labels[right]])
    assert np.mean(impostor >= verifier.threshold) <= far
    below = impostor[impostor < verifier.threshold - 1e-6].max()
    assert np.mean(impostor >= below - 1e-6) > far


def test_decisions_are_the_definition():
    x, labels = clusters(12, seed=0)
    verifier = ks.Verifier.calibrate(siamese(), x, labels, criterion="eer")
    a, b = clusters(6, seed=1)[0][:20], clusters(6, seed=2)[0][:20]
    d = np.linalg.norm(
        a / np.linalg.norm(a, axis=1, keepdims=True) - b / np.linalg.norm(b, axis=1, keepdims=True), axis=1
    )
    assert verifier.score(a, b) == pytest.approx(-d, abs=1e-5)
    assert verifier.verify(a, b).tolist() == (-d >= verifier.threshold).tolist()
    p = verifier.probability(a, b)
    assert ((p > 0) & (p < 1)).all() and (np.argsort(p) == np.argsort(-d)).all()


def test_report_on_other_identities_is_that_of_the_room():
    verifier = ks.Verifier.calibrate(siamese(), *clusters(12, seed=0), far=0.05)
    x, labels = clusters(10, seed=5)
    report = verifier.evaluate(x, labels)
    left, right, d = distances(x)
    same = labels[left] == labels[right]
    assert report.eer == pytest.approx(ks.verification.eer(same, -d), abs=2e-3)
    assert report.fmr == pytest.approx(np.mean(-d[~same] >= verifier.threshold), abs=2e-3)
    assert report.identities == 10 and "EER" in str(report)


@pytest.mark.parametrize("options", [{}, {"distance": "cosine"}, {"head": "logistic"}, {"distance": "mahalanobis"}])
def test_the_file_decides_alike_in_another_process(tmp_path, options):
    verifier = ks.Verifier.calibrate(siamese(**options), *clusters(12, seed=0), criterion="accuracy")
    verifier.save(tmp_path / "verifier.keras")
    a, b = clusters(6, seed=1)[0], clusters(6, seed=2)[0]
    np.savez(tmp_path / "pairs.npz", a=a, b=b)
    code = (
        "import sys, numpy as np, keras_siamese as ks\n"
        "verifier, pairs = ks.Verifier.load(sys.argv[1] + '/verifier.keras'), np.load(sys.argv[1] + '/pairs.npz')\n"
        "np.savez(sys.argv[1] + '/out.npz', accept=verifier.verify(pairs['a'], pairs['b']),\n"
        "         score=verifier.score(pairs['a'], pairs['b']), identities=verifier.evidence['identities'])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    out = np.load(tmp_path / "out.npz")
    assert out["accept"].tolist() == verifier.verify(a, b).tolist()
    assert out["score"] == pytest.approx(verifier.score(a, b), abs=1e-5)
    assert int(out["identities"]) == 12


def test_refusals(tmp_path):
    x, labels = clusters(4, seed=0)
    with pytest.raises(ValueError, match="not both"):
        ks.Verifier.calibrate(siamese(), x, labels, far=0.1, criterion="eer")
    with pytest.raises(ValueError, match="criterion.*'eer'.*'best'"):
        ks.Verifier.calibrate(siamese(), x, labels, criterion="best")
    with pytest.raises(ValueError, match="far.*at least.*impostor"):
        ks.Verifier.calibrate(siamese(), x, labels, far=1e-4)
    with pytest.warns(UserWarning, match="rests on"):
        ks.Verifier.calibrate(siamese(), x, labels, far=0.02)
    encoder = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    encoder.save(tmp_path / "encoder.keras")
    with pytest.raises(ValueError, match="saved Verifier.*Sequential"):
        ks.Verifier.load(tmp_path / "encoder.keras")
