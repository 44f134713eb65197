"""`keras-siamese diagnose`: the diagnosis of a saved model from files, and an answer to every file that holds none."""

import json
import re
import warnings

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.cli import main


def clusters(identities, samples, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    labels = np.repeat([f"p{i:02d}" for i in range(identities)], samples)
    x = 2 * rng.normal(size=(identities, 6)).repeat(samples, axis=0) + rng.normal(size=(len(labels), 6)) + shift
    return x.astype("float32"), labels


def build(activation=None):
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, activation, kernel_initializer="identity")])
    siamese = ks.SiameseWrapper(encoder)
    siamese.compile("adam", loss=ks.losses.ContrastiveLoss(margin=3.0))
    siamese(2 * [np.zeros((1, 6), "float32")])
    siamese.optimizer.build(siamese.trainable_variables)  # as fit leaves it
    return siamese


@keras.saving.register_keras_serializable("elsewhere")
class Unknown(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return y_pred


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Saved models and samples, good and bad."""
    folder = tmp_path_factory.mktemp("files")
    x, labels = clusters(15, 4, seed=0)
    siamese = build()
    siamese.save(folder / "siamese.keras")
    ks.Verifier.calibrate(siamese, x, labels, criterion="eer").save(folder / "verifier.keras")
    (folder / "broken.keras").write_bytes((folder / "siamese.keras").read_bytes()[:-200])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras says that this is unsafe
        build(lambda x: x).save(folder / "lambda.keras")
        keras.Sequential([keras.Input((6,)), keras.layers.Lambda(lambda x: x)]).save(folder / "layer.keras")
    np.savez(folder / "valid.npz", x=x, labels=labels, other=np.zeros(3))
    others, names = clusters(15, 4, seed=1)
    np.savez(folder / "train.npz", x=others, labels=names)
    left, right = np.triu_indices(len(x), 1)
    same = labels[left] == labels[right]
    np.savez(folder / "pairs.npz", left=x[left], right=x[right], same=~same)
    np.savez(folder / "objects.npz", x=x, labels=labels.astype(object))
    np.savez(folder / "other.npz", images=x, y=labels)
    np.savez(folder / "wide.npz", x=np.zeros((8, 9), "float32"), labels=np.arange(8) // 2)
    np.savez(folder / "short.npz", x=x, labels=labels[:-1])
    (folder / "text.npz").write_text("hello")
    rows = [f"{epoch},{1 / (epoch + 1)},.9,.1" for epoch in range(20)]
    (folder / "run.csv").write_text("\n".join(["epoch,loss,val_auc,val_eer", *rows]) + "\n")
    (folder / "loss.csv").write_text("epoch,loss\n0,1\n")
    return folder


def diagnose(folder, *arguments):
    return main(["diagnose", *(str(folder / one) if "." in one and one[0].isalpha() else one for one in arguments)])


@pytest.mark.each_backend
def test_a_good_model_is_fine_and_prints_its_diagnosis(folder, capsys, tmp_path):
    files = ["--json", str(tmp_path / "deep" / "found.json")]
    status = diagnose(
        folder, "siamese.keras", "--data", "valid.npz", "--train", "train.npz", "--history", "run.csv", *files
    )
    assert status == 0
    x, labels = clusters(15, 4, seed=0)
    model = keras.saving.load_model(folder / "siamese.keras")
    train = clusters(15, 4, seed=1)
    expected = ks.diagnose(model, validation=(x, labels), train=train, history=folder / "run.csv")
    assert capsys.readouterr().out == f"{expected}\n"
    told = json.loads((tmp_path / "deep" / "found.json").read_text(encoding="utf-8"))
    assert told == json.loads(json.dumps(expected.to_dict())) and len(told["history"]["loss"]) == 20
    assert told["settings"]["loss"]["margin"] == 3.0  # the loss was read with the model


def test_a_finding_is_status_1(folder, capsys):
    assert diagnose(folder, "siamese.keras", "--data", "pairs.npz", "--similar-label", "0") == 0
    assert diagnose(folder, "siamese.keras", "--data", "valid.npz", "--threshold", "-99") == 1
    assert "1. threshold (warning)" in capsys.readouterr().out
    assert diagnose(folder, "siamese.keras", "--data", "pairs.npz") == 1  # their labels say different for same
    assert "found: inverted labels" in capsys.readouterr().out


def test_a_verifier_brings_its_threshold(folder, capsys):
    assert diagnose(folder, "verifier.keras", "--data", "valid.npz") == 0
    assert re.search("Ruled out: .*threshold", capsys.readouterr().out)
    assert diagnose(folder, "verifier.keras", "--data", "valid.npz", "--threshold", "-99") == 1


def test_the_report_is_written(folder, tmp_path):
    for needed in ("matplotlib", "jinja2"):
        pytest.importorskip(needed)
    assert diagnose(folder, "siamese.keras", "--data", "valid.npz", "--html", str(tmp_path / "r.html")) == 0
    assert "Diagnosis of a siamese network" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_model_whose_loss_cannot_be_read_is_diagnosed_without(folder, tmp_path, capsys):
    siamese = build()
    siamese.compile("adam", loss=Unknown())
    siamese.optimizer.build(siamese.trainable_variables)
    siamese.save(tmp_path / "custom.keras")
    registered = keras.saving.get_registered_name(Unknown)
    keras.saving.get_custom_objects().pop(registered)
    try:
        assert diagnose(folder, str(tmp_path / "custom.keras"), "--data", "valid.npz") == 0
    finally:
        keras.saving.get_custom_objects()[registered] = Unknown
    said = capsys.readouterr()
    assert "held-out EER" in said.out
    if said.err or keras.__version__ != "3.7.0":  # which finds the class by its module, and reads the loss after all
        assert "The loss is not known" in said.err and "Unknown" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.keras", "--data", "valid.npz"], "The model must be a .keras file; there is no file"),
        (
            ["valid.npz", "--data", "valid.npz"],
            "must be a .keras file, as model.save writes it; .*valid.npz' is not one",
        ),
        (["broken.keras", "--data", "valid.npz"], "must be a .keras file, as model.save writes it"),
        (["lambda.keras", "--data", "valid.npz"], "reads in safe mode.*lambda.keras"),
        (["layer.keras", "--data", "valid.npz"], "Lambda layer .* safe mode.*DistanceLayer.*siamese.diagnose there"),
        (["siamese.keras", "--data", "none.npz"], "none.npz must be an .npz file that holds .*; there is no such file"),
        (["siamese.keras", "--data", "text.npz"], "as numpy.savez writes it; it is not a zip archive"),
        (["siamese.keras", "--data", "other.npz"], "'x', 'labels' or 'left', 'right', 'same'; it holds 'images', 'y'"),
        (["siamese.keras", "--data", "objects.npz"], "'labels' cannot be read: .*labels.astype"),
        (
            ["siamese.keras", "--data", "short.npz"],
            "`validation labels` must have one entry for each of the 60 samples",
        ),
        (["siamese.keras", "--data", "wide.npz"], "9"),
        (["siamese.keras", "--data", "valid.npz", "--train", "pairs.npz"], "holds the arrays 'x', 'labels'; it holds"),
        (["siamese.keras", "--data", "valid.npz", "--history", "loss.csv"], "'val_auc', 'val_eer' missing among"),
        (["siamese.keras", "--data", "valid.npz", "--history", "none.csv"], "none.csv"),
        (["siamese.keras", "--data", "valid.npz", "--target-eer", "2"], r"`target_eer` must be in \(0, 1\); got 2"),
        (["siamese.keras", "--data", "valid.npz", "--html", "/"], "`--html` must be the path of a file"),
        (
            ["siamese.keras", "--data", "valid.npz", "--html", "r.txt"],
            "`--html` must .* ends with .html; got '.*r.txt'",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(folder, capsys, arguments, message):
    assert diagnose(folder, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("keras-siamese diagnose: ")
    assert re.search(message, said.err, re.DOTALL), said.err
    assert "Traceback" not in said.err


def test_help_states_the_exit_status(capsys):
    with pytest.raises(SystemExit):
        main(["diagnose", "--help"])
    assert "1 if a finding is a warning or an error" in " ".join(capsys.readouterr().out.split())
