"""The losses of TensorFlow Addons as Keras 3 losses: values and gradients are TFA's; configuration and refusals."""

import copy
import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import addons
from keras_siamese.addons import ADDONS, AddonsLoss
from keras_siamese.losses import SiameseLoss
from tests.support.addons_here import with_tfa
from tests.support.gradients import gradient

RNG = np.random.default_rng(11)
IDS = np.array([4, 7, 4, 1, 1, 7, 1, 9])  # uneven, one singleton
EMBEDDINGS = RNG.normal(size=(8, 3)).astype("float32")
SIMILARITIES = RNG.normal(size=(8, 8)).astype("float32")
SAME = np.array([1, 0, 0, 1, 0])
DISTANCES = np.array([0.3, 0.8, 1.4, 1.1, 0.05], "float32")
MULTILABEL = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 1, 0]])
PROBABILITIES = np.array([0.9, 0.2, 0.7, 0.4, 0.1], "float32")


@keras.saving.register_keras_serializable("addons_test")
def manhattan_matrix(z):
    return ops.sum(ops.abs(ops.expand_dims(z, 1) - ops.expand_dims(z, 0)), axis=-1)


BATCHES = {
    "ContrastiveLoss": (SAME, DISTANCES),
    "SigmoidFocalCrossEntropy": (SAME.astype("float32"), PROBABILITIES),
    "NpairsLoss": (IDS, SIMILARITIES),
    "NpairsMultilabelLoss": (MULTILABEL, SIMILARITIES),
}
CASES = [
    ("ContrastiveLoss", {}),
    ("ContrastiveLoss", {"margin": 0.6}),
    ("TripletSemiHardLoss", {}),
    ("TripletSemiHardLoss", {"margin": 0.3, "distance_metric": "squared-L2"}),
    ("TripletSemiHardLoss", {"distance_metric": "angular"}),
    ("TripletSemiHardLoss", {"distance_metric": manhattan_matrix}),
    ("TripletHardLoss", {"margin": 0.4}),
    ("TripletHardLoss", {"soft": True, "distance_metric": "angular"}),
    ("LiftedStructLoss", {"margin": 0.7}),
    ("NpairsLoss", {}),
    ("NpairsMultilabelLoss", {}),
    ("SigmoidFocalCrossEntropy", {"alpha": 0.4, "gamma": 1.5}),
]
OF_BATCH = [name for name, addon in ADDONS.items() if addon.of_batch]


def batch(name):
    return BATCHES.get(name, (IDS, EMBEDDINGS))


def directly(name, options, y_true, y_pred):
    """The mean of what TFA gives, called by its class as in Keras 2."""
    loss = getattr(addons.load().losses, name)(**options)
    return float(np.mean(loss.call(y_true, y_pred)))


def value(loss, y_true, y_pred, **kwargs):
    return ops.convert_to_numpy(loss(y_true, y_pred, **kwargs))


# Values


@with_tfa
@pytest.mark.tensorflow
@pytest.mark.parametrize(("name", "options"), CASES)
def test_value_is_tfas(name, options):
    y_true, y_pred = batch(name)
    expected = directly(name, options, *((y_true, y_pred) if y_pred.ndim == 2 else columns(name)))
    assert np.isfinite(expected)
    assert expected > 0
    assert value(addons.loss(name, **options), y_true, y_pred) == pytest.approx(expected, rel=1e-6)


def columns(name):
    """Labels and outputs of the pair losses in the shape that TFA means: `(batch,)`, or `(batch, 1)` for the focal."""
    y_true, y_pred = batch(name)
    return (y_true, y_pred) if name == "ContrastiveLoss" else (y_true[:, None], y_pred[:, None])


@with_tfa
@pytest.mark.tensorflow
@pytest.mark.parametrize(("name", "options"), CASES)
def test_gradient_is_tfas(name, options):
    y_true, y_pred = batch(name)
    theirs = getattr(addons.load().losses, name)(**options)
    aligned = y_true if y_pred.ndim == 2 else columns(name)[0]
    shaped = y_pred if y_pred.ndim == 2 else columns(name)[1]
    (ours,) = gradient(lambda z: addons.loss(name, **options)(y_true, z), y_pred)
    (expected,) = gradient(lambda z: ops.mean(theirs.call(aligned, z)), shaped)
    np.testing.assert_allclose(ours, expected.reshape(ours.shape), rtol=1e-5, atol=1e-7)
    assert np.abs(ours).max() > 0


@with_tfa
@pytest.mark.tensorflow
def test_the_comparison_rejects_another_margin():
    for name in ("ContrastiveLoss", "TripletSemiHardLoss", "TripletHardLoss", "LiftedStructLoss"):
        y_true, y_pred = batch(name)
        other = directly(name, {"margin": 0.5}, y_true, y_pred)
        assert value(addons.loss(name, margin=0.4), y_true, y_pred) != pytest.approx(other, rel=1e-2), name


@with_tfa
@pytest.mark.tensorflow
def test_distances_of_a_siamese_model_are_aligned_where_tfa_would_broadcast():
    tfa = addons.load()
    rows = directly("ContrastiveLoss", {}, SAME, DISTANCES)
    # The output of a SiameseWrapper passed directly to TFA: a (5, 5) matrix, and another number.
    accident = tfa.losses.contrastive_loss(SAME, DISTANCES[:, None])
    assert accident.shape == (5, 5)
    assert float(np.mean(accident)) != pytest.approx(rows, rel=1e-2)
    for y_true in (SAME, SAME[:, None]):
        for y_pred in (DISTANCES, DISTANCES[:, None]):
            assert value(addons.loss("ContrastiveLoss"), y_true, y_pred) == pytest.approx(rows, rel=1e-6)


@with_tfa
def test_the_table_is_what_tfa_has():
    tfa = addons.load()
    for name, addon in ADDONS.items():
        cls, function = getattr(tfa.losses, name), getattr(tfa.losses, addon.function)
        parameters = inspect.signature(cls.__init__).parameters
        own = {key: option.default for key, option in parameters.items() if option.kind is not option.VAR_KEYWORD}
        assert {key: own[key] for key in own if key not in ("self", "reduction", "name")} == addon.defaults, name
        accepted = list(inspect.signature(function.python_function).parameters)[2:]
        assert set(addon.defaults) <= set(accepted), name


@with_tfa
@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ADDONS)
def test_however_it_is_given_the_loss_is_the_same(name):
    tfa = addons.load()
    options = {"margin": 0.3} if "margin" in ADDONS[name].defaults else {}
    cls, function = getattr(tfa.losses, name), getattr(tfa.losses, ADDONS[name].function)
    given = [addons.loss(obj, **options) for obj in (name, ADDONS[name].function, cls, function)]
    given.append(addons.loss(cls(**options)))
    assert all(type(loss) is AddonsLoss and isinstance(loss, SiameseLoss) for loss in given)
    configs = [{**loss.get_config(), "name": None} for loss in given]
    assert all(config == configs[0] for config in configs)
    assert all(loss.options == {**ADDONS[name].defaults, **options} for loss in given)
    assert [loss.reduction for loss in given] == ["sum_over_batch_size"] * 5


@with_tfa
@pytest.mark.tensorflow
def test_name_and_reduction_of_an_instance_are_kept():
    tfa = addons.load()
    loss = addons.loss(tfa.losses.ContrastiveLoss(margin=np.float32(0.5), reduction="sum", name="pairs"))
    assert loss.get_config() == {
        "name": "pairs",
        "reduction": "sum",
        "loss": "ContrastiveLoss",
        "options": {"margin": 0.5},
    }
    assert addons.loss(tfa.losses.ContrastiveLoss(), reduction="sum", name="own").name == "own"


@with_tfa
@pytest.mark.tensorflow
@pytest.mark.parametrize("name", OF_BATCH)
def test_rows_of_a_batch_loss_are_its_value(name):
    y_true, y_pred = batch(name)
    mean = value(addons.loss(name), y_true, y_pred)
    np.testing.assert_allclose(value(addons.loss(name, reduction="none"), y_true, y_pred), np.full(8, mean), rtol=1e-6)
    assert value(addons.loss(name, reduction="sum"), y_true, y_pred) == pytest.approx(8 * mean, rel=1e-6)


@with_tfa
@pytest.mark.tensorflow
def test_weights_weigh_rows_where_there_are_rows_and_are_refused_elsewhere():
    weights = np.array([1.0, 0.0, 2.0, 0.5, 3.0])
    rows = value(addons.loss("ContrastiveLoss", reduction="none"), SAME, DISTANCES)
    weighted = value(addons.loss("ContrastiveLoss"), SAME, DISTANCES, sample_weight=weights)
    assert weighted == pytest.approx(float(np.sum(rows * weights) / 5), rel=1e-6)
    for name in OF_BATCH:
        with pytest.raises(ValueError, match=rf"{name}.*one number for the batch.*sample_weight.*\(8,\)"):
            addons.loss(name)(*batch(name), sample_weight=np.ones(8))


@with_tfa
@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["TripletSemiHardLoss", "TripletHardLoss", "LiftedStructLoss", "NpairsLoss"])
def test_large_identities_do_not_collide(name):
    _, y_pred = batch(name)
    large = np.array([2**40, 2**40 + 1, 2**40, 2**24, 2**24, 2**40 + 1, 2**24, 2**24 + 1])
    expected = value(addons.loss(name), IDS, y_pred)
    for dtype in ("float32", "float16", "bfloat16"):
        loss = addons.loss(name, dtype=dtype)
        assert loss.dtype == "float32"
        for labels in (large, large[:, None]):
            assert value(loss, labels, y_pred) == pytest.approx(float(expected), rel=1e-6)
    collided = directly("NpairsLoss", {}, large.astype("float32"), SIMILARITIES)
    assert collided != pytest.approx(directly("NpairsLoss", {}, IDS, SIMILARITIES), rel=1e-3)


@with_tfa
@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ADDONS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_outputs_are_computed_in_float32(name, dtype):
    y_true, y_pred = batch(name)
    half = ops.cast(y_pred, dtype)
    expected = value(addons.loss(name), y_true, ops.cast(half, "float32"))
    found = addons.loss(name)(y_true, half)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


# Configuration, on every backend and without TensorFlow Addons


@pytest.mark.each_backend
@pytest.mark.parametrize(("name", "options"), CASES)
def test_config_and_copies(name, options):
    loss = AddonsLoss(name, options, reduction="sum", name="own")
    written = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    again = keras.saving.deserialize_keras_object(written, safe_mode=True)
    for other in (again, copy.deepcopy(loss), AddonsLoss.from_config(loss.get_config())):
        assert type(other) is AddonsLoss
        assert other.get_config() == loss.get_config()
        assert other.options == {**ADDONS[name].defaults, **options}
        assert other.expects == ADDONS[name].expects


def test_a_distance_metric_that_cannot_be_found_again_is_refused():
    loss = AddonsLoss("TripletHardLoss", {"distance_metric": lambda z: z})
    with pytest.raises(ValueError, match=r"'<lambda>' cannot be saved, .*register_keras_serializable"):
        loss.get_config()
    config = AddonsLoss("TripletHardLoss", {"distance_metric": manhattan_matrix}).get_config()
    assert config["options"]["distance_metric"] == {"function": "addons_test>manhattan_matrix"}
    config["options"]["distance_metric"] = {"function": "other>gone"}
    with pytest.raises(ValueError, match="'other>gone' is not registered"):
        AddonsLoss.from_config(config)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("TripletSemiHard", {}, ValueError, "`loss` must be one of 'ContrastiveLoss'.*got 'TripletSemiHard'"),
        ("NpairsLoss", {"margin": 1.0}, TypeError, r"NpairsLoss's own options \(none\); got {'margin'"),
        ("LiftedStructLoss", {"soft": True}, TypeError, r"options \(margin\)"),
        ("LiftedStructLoss", "margin", TypeError, "must be a dict"),
        ("ContrastiveLoss", {"margin": -1}, ValueError, "`margin` must be in"),
        ("ContrastiveLoss", {"margin": np.ones(2)}, TypeError, "`margin` must be a number"),
        ("TripletHardLoss", {"soft": "yes"}, ValueError, "`soft` must be one of"),
        ("TripletHardLoss", {"distance_metric": "l2"}, ValueError, "`distance_metric` must be one of 'L2'.*got 'l2'"),
    ],
)
def test_wrong_options_are_refused(name, options, error, message):
    with pytest.raises(error, match=message):
        AddonsLoss(name, options)


def test_an_unknown_keyword_is_refused():
    with pytest.raises(TypeError, match="AddonsLoss takes the options loss, options, .*; got margin"):
        AddonsLoss("ContrastiveLoss", margin=1.0)


# Refusals


@with_tfa
@pytest.mark.tensorflow
def test_what_is_no_loss_of_tfas_is_refused():
    tfa = addons.load()

    class Own(tfa.losses.TripletSemiHardLoss):
        pass

    for obj in (
        tfa.losses.GIoULoss(),
        tfa.losses.giou_loss,
        Own(),
        Own,
        "GIoULoss",
        keras.losses.MeanSquaredError(),
        None,
    ):
        with pytest.raises(ValueError, match="must be one of TensorFlow Addons' losses ContrastiveLoss, .* got"):
            addons.loss(obj)
    with pytest.raises(TypeError, match="which has its options; got also margin"):
        addons.loss(tfa.losses.ContrastiveLoss(), margin=2.0)
    with pytest.raises(TypeError, match="got {'margn': 2.0}"):
        addons.loss(tfa.losses.ContrastiveLoss, margn=2.0)


@with_tfa
@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "y_true", "y_pred", "message"),
    [
        ("TripletSemiHardLoss", np.eye(8), EMBEDDINGS, r"`y_true` must have shape \(batch,\).*\(8, 8\)"),
        ("TripletSemiHardLoss", IDS[:7], EMBEDDINGS, r"got \(7,\) and \(8, 3\)"),
        ("TripletHardLoss", IDS, EMBEDDINGS[:, 0], r"got \(8,\) and \(8,\)"),
        ("ContrastiveLoss", IDS, EMBEDDINGS, r"`y_pred` must have shape \(batch,\) or \(batch, 1\); got \(8, 3\)"),
        ("NpairsLoss", IDS, EMBEDDINGS, r"similarities \(batch, batch\).*got \(8, 3\)"),
        ("NpairsLoss", IDS, EMBEDDINGS[:, :1], r"similarities \(batch, batch\).*got \(8, 1\)"),
        ("NpairsMultilabelLoss", IDS, SIMILARITIES, r"`y_true` .* must have shape \(batch, classes\); got \(8,\)"),
    ],
)
def test_shapes_that_tfa_would_broadcast_are_refused(name, y_true, y_pred, message):
    with pytest.raises(ValueError, match=message):
        addons.loss(name)(y_true, y_pred)


@pytest.mark.jax
@pytest.mark.torch
def test_other_backends_are_told_where_to_go():
    message = rf"TensorFlow backend, and this is {keras.backend.backend()}.*docs/migration\.md"
    for call in (
        lambda: addons.loss("ContrastiveLoss"),
        lambda: AddonsLoss("ContrastiveLoss")(SAME, DISTANCES),
        lambda: AddonsLoss("TripletHardLoss")(IDS, EMBEDDINGS),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()
