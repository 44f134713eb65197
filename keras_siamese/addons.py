"""TensorFlow Addons next to Keras 3: `load()` imports it, `loss()` makes one of its losses a Keras 3 loss.

Contract: tensorflow-addons 0.23, its last release, is written against Keras 2. It is imported with `tf.keras` being
`tf_keras` for as long as the import takes, and not a moment longer. `_checks`, `_export`, `ops`, `losses` and
`distances` are all of the package that is used here, and nothing of TensorFlow is imported before a function asks for
it: the extra ``addons`` and Python < 3.12 are needed to call TensorFlow Addons, not to import this module or to load a
saved model.

    tfa = addons.load()                                                # the module, on any backend
    encoder.compile("adam", loss=addons.loss("TripletSemiHardLoss", margin=0.5))
    siamese.compile("adam", loss=addons.loss(tfa.losses.ContrastiveLoss(margin=1.0)))

The classes of `keras_siamese.losses` with the same names have the same defaults and values, on all backends and without
TensorFlow Addons; docs/migration.md has the table.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import sys
import threading
import warnings
from typing import NamedTuple

import keras
from keras import ops

from keras_siamese._checks import check_choice, check_installed, check_number
from keras_siamese._export import export
from keras_siamese.losses.base import SiameseLoss, refuse_margin
from keras_siamese.ops import at_least_float32, pair_rows, row_vector

__all__ = ["AddonsLoss", "load", "loss"]

_lock = threading.RLock()
_imported = {}  # modules of TensorFlow Addons that were imported here, by name


class Addon(NamedTuple):
    """What is known of a TFA loss without importing it."""

    function: str
    expects: str
    defaults: dict
    of_batch: bool = True  # one number for the batch, or one a row


DISTANCE_METRICS = ("L2", "squared-L2", "angular")
FOCAL = {"from_logits": False, "alpha": 0.25, "gamma": 2.0}
ADDONS = {
    "ContrastiveLoss": Addon("contrastive_loss", "distance", {"margin": 1.0}, of_batch=False),
    "TripletSemiHardLoss": Addon("triplet_semihard_loss", "embedding", {"margin": 1.0, "distance_metric": "L2"}),
    "TripletHardLoss": Addon("triplet_hard_loss", "embedding", {"margin": 1.0, "soft": False, "distance_metric": "L2"}),
    "LiftedStructLoss": Addon("lifted_struct_loss", "embedding", {"margin": 1.0}),
    "NpairsLoss": Addon("npairs_loss", "similarity matrix", {}),
    "NpairsMultilabelLoss": Addon("npairs_multilabel_loss", "similarity matrix", {}),
    "SigmoidFocalCrossEntropy": Addon("sigmoid_focal_crossentropy", "score", FOCAL, of_batch=False),
}


def load():
    """Imports tensorflow-addons 0.23 in a Keras 3 process and returns the module; a second call returns it again.

    While the import runs, `tf.keras` is `tf_keras` for every thread of the process: load before starting threads that
    use it. Afterwards `tf.keras` and `sys.modules` are as they were, `tf.keras.Model is keras.Model` included, whether
    the import succeeded or not. The warnings about TFA's end of life and its range of TensorFlow versions are not
    shown. What is imported works on TensorFlow's tensors and `tf_keras`' classes whatever Keras's backend is: its
    functions on any tensors (images and text in a `tf.data` pipeline, say), its losses through `loss`. Its layers,
    optimizers and metrics are those of `tf_keras` and take no part in a Keras 3 model.

    The extra ``addons`` brings it, on Python < 3.12. tf-keras has to be of TensorFlow's own version: next to an older
    TensorFlow 2.x install ``"keras-siamese[addons]" "tf-keras~=2.x.0"``, or pip brings the newest TensorFlow along.
    With ``TF_USE_LEGACY_KERAS=1`` a plain import fails as well, and this one works.

    Raises:
        ImportError: if TensorFlow, tf-keras or TensorFlow Addons is missing, does not fit, or does not import.
    """
    with _lock:
        if sys.modules.get("tensorflow_addons") is not None:
            return importlib.import_module("tensorflow_addons")
        if sys.version_info >= (3, 12):
            raise ImportError(
                "tensorflow-addons 0.23, the last, has no wheel for Python 3.12 or newer, and this is Python "
                f"{sys.version_info[0]}.{sys.version_info[1]}: use its losses' counterparts in keras_siamese.losses, "
                "which have their values; the table is in docs/migration.md"
            )
        tensorflow = check_installed("tensorflow", "tensorflow")
        check_fitting(tensorflow.__version__)
        tf_keras = check_installed("tf_keras", "addons")
        if importlib.util.find_spec("tensorflow_addons") is None:
            check_installed("tensorflow_addons", "addons")
        # What a failed plain import left behind is bound to Keras 3; what a failed `load` left is right, and repeating
        # it would register TFA's gradients a second time, which TensorFlow refuses.
        for name, module in modules_below("tensorflow_addons").items():
            if _imported.get(name) is not module:
                del sys.modules[name]
        try:
            with legacy_keras(tensorflow, tf_keras), warnings.catch_warnings():
                own = r"tensorflow_addons\.utils\.(tfa_eol_msg|ensure_tf_install)$"
                warnings.filterwarnings("ignore", category=UserWarning, module=own)
                return importlib.import_module("tensorflow_addons")
        except Exception as error:
            raise ImportError(
                f"tensorflow-addons does not import beside TensorFlow {tensorflow.__version__} and tf-keras "
                f"{tf_keras.__version__}: {type(error).__name__}: {error}"
            ) from error
        finally:
            _imported.update(modules_below("tensorflow_addons"))


def check_fitting(tensorflow_version):
    """Refuses a tf-keras of another version than TensorFlow's, which would fail somewhere inside."""
    try:
        found = importlib.metadata.version("tf-keras")
    except importlib.metadata.PackageNotFoundError:
        return
    wanted = ".".join(tensorflow_version.split(".")[:2])
    if ".".join(found.split(".")[:2]) != wanted:
        raise ImportError(
            f"TensorFlow {tensorflow_version} needs tf-keras {wanted}, and {found} is installed: "
            f'pip install "tf-keras~={wanted}.0"'
        )


def modules_below(*names):
    """The imported modules of these names, and those below them."""
    found = list(sys.modules.items())
    return {name: module for name, module in found if any(f"{name}.".startswith(f"{top}.") for top in names)}


@contextlib.contextmanager
def legacy_keras(tensorflow, tf_keras):
    """`tensorflow.keras` is `tf_keras`, and `keras.src.engine` its engine; everything is put back at the end."""
    aliased = ("tensorflow.keras", "keras.src.engine")
    engine = importlib.import_module("tf_keras.src.engine.keras_tensor")
    modules, attribute = modules_below(*aliased), vars(tensorflow)["keras"]
    try:
        for name in modules:
            del sys.modules[name]
        # Each submodule under its alias: a missing one would be executed a second time and take its place in
        # `tf_keras`.
        for name, module in modules_below("tf_keras").items():
            if not f"{name}.".startswith("tf_keras.src."):
                sys.modules["tensorflow.keras" + name.removeprefix("tf_keras")] = module
        sys.modules["keras.src.engine"] = sys.modules["tf_keras.src.engine"]
        sys.modules["keras.src.engine.keras_tensor"] = engine
        tensorflow.keras = tf_keras
        yield
    finally:
        for name in modules_below(*aliased):
            del sys.modules[name]
        sys.modules.update(modules)
        tensorflow.keras = attribute


def loss(obj, **options):
    """A loss of TensorFlow Addons as a Keras 3 loss: an `AddonsLoss`, checked against the installed TFA.

    Args:
        obj: a TFA loss instance (``tfa.losses.TripletSemiHardLoss(margin=0.5)``), class or function, or its name
            ("TripletSemiHardLoss", "triplet_semihard_loss").
        **options: the TFA loss's own (`margin`, …), where `obj` is not an instance, which has them; and `reduction`,
            `name`, `dtype` as in `AddonsLoss`. An instance's reduction "none" becomes the mean, as in Keras 2's `fit`.

    Raises:
        RuntimeError: if Keras's backend is not TensorFlow.
        ImportError: as `load`.

    Example:

    ```python
    encoder.compile("adam", loss=ks.addons.loss("triplet_semihard_loss", margin=0.5))
    ```
    """
    check_backend()
    tfa = load()
    name = name_of(obj, tfa)
    shared = {key: options.pop(key) for key in ("reduction", "name", "dtype") if key in options}
    if isinstance(obj, keras_loss(tfa)):
        if options:
            raise TypeError(f"`obj` is a {name} that has its options; got also {', '.join(options)}. Give its class")
        config = obj.get_config()
        options = {key: config[key] for key in ADDONS[name].defaults}
        # "auto" and "none" became the mean inside Keras 2's `fit`.
        if config["reduction"] == "sum":
            shared.setdefault("reduction", "sum")
        if config["name"] is not None:
            shared.setdefault("name", config["name"])
    return AddonsLoss(name, options, **shared)


def keras_loss(tfa):
    """The base class of TFA's losses, that of `tf_keras`."""
    return tfa.losses.NpairsLoss.__bases__[0]


def name_of(obj, tfa):
    """The class name in `ADDONS` of a TFA loss, however it is given."""
    for name, addon in ADDONS.items():
        cls, function = getattr(tfa.losses, name), getattr(tfa.losses, addon.function)
        if (isinstance(obj, str) and obj in (name, addon.function)) or obj is cls or obj is function:
            return name
        # Not a subclass: what it overrides could not be built again from the name.
        if type(obj) is cls:
            return name
    raise ValueError(
        f"`obj` must be one of TensorFlow Addons' losses {', '.join(ADDONS)}, as instance, class, function or name; "
        f"got {obj!r}"
    )


def check_backend():
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            f"TensorFlow Addons' losses need Keras's TensorFlow backend, and this is {backend}, whose gradients do not "
            "pass through TensorFlow: use their counterparts in keras_siamese.losses, which have their values; the "
            "table is in docs/migration.md"
        )


@export
class AddonsLoss(SiameseLoss):
    """The value of a TensorFlow Addons loss, as a Keras 3 loss that saves, loads and copies like any other.

    y_true and y_pred as the TFA loss takes them: for `ContrastiveLoss` y_true `(batch,)` 1 = same and y_pred
    `(batch, 1)` distances, which are aligned; for `SigmoidFocalCrossEntropy` y_pred `(batch, 1)` probabilities of being
    the same; for the triplet losses and `LiftedStructLoss` y_true `(batch,)` identities and y_pred `(batch, dim)`
    embeddings; for `NpairsLoss` identities and y_pred `(batch, batch)` similarities; for `NpairsMultilabelLoss` y_true
    `(batch, classes)` of 0 and 1. Identities are compared as integers, whatever their size, and all is computed in at
    least float32.

    All but `ContrastiveLoss` and `SigmoidFocalCrossEntropy` are one number L for the batch, not one a row: `call`
    returns it in each of the `(batch,)` rows, so the mean is L, ``reduction="sum"`` gives batch·L, and `sample_weight`
    or `class_weight`, which cannot reach inside L, are refused. Where TFA's value is NaN (a batch without a positive
    pair) so is this one; `keras_siamese.losses` masks such rows.

    Built from a name, it can be made, saved and loaded where TensorFlow Addons is missing and on any backend; calling
    it needs TFA and the TensorFlow backend. `loss` checks both at once.

    Args:
        loss: the name of the TFA class, such as "TripletSemiHardLoss".
        options: dict of that class's own options; those left out have TFA's defaults. A `distance_metric` that is a
            function is registered with ``keras.saving.register_keras_serializable()`` if the model is to be saved.
        reduction, name, dtype: as in `keras.losses.Loss`; a 16-bit dtype computes in float32.

    Example:

    >>> loss = AddonsLoss("TripletSemiHardLoss", {"margin": 0.5})
    >>> loss.options
    {'margin': 0.5, 'distance_metric': 'L2'}
    """

    def __init__(self, loss, options=None, reduction="sum_over_batch_size", name=None, dtype=None, **unknown):
        addon = ADDONS[check_choice("loss", loss, tuple(ADDONS))]
        super().__init__(reduction, name or addon.function, wide_dtype(dtype), **unknown)
        self.loss = loss
        self.options = check_options(loss, addon.defaults, {} if options is None else options)
        self.expects = addon.expects

    def __call__(self, y_true, y_pred, sample_weight=None):
        if ADDONS[self.loss].of_batch:
            if sample_weight is not None:
                raise ValueError(
                    f"{self.loss} of TensorFlow Addons is one number for the batch: it takes no `sample_weight` or "
                    f"`class_weight`; got one of shape {tuple(ops.shape(sample_weight))}"
                )
            if self.loss != "NpairsMultilabelLoss":
                # Keras casts y_true to floats, in which large identities would collide; rows of the batch do not.
                y_true = first_row(row_vector("y_true", y_true))
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true, y_pred):
        check_backend()
        function = getattr(load().losses, ADDONS[self.loss].function)
        y_pred = at_least_float32(y_pred)
        if not ADDONS[self.loss].of_batch:
            return function(*self.aligned(y_true, y_pred), **self.options)
        if self.loss != "NpairsMultilabelLoss":
            y_true = row_vector("y_true", y_true)
        y_pred = check_rows(self, y_true, y_pred)
        value = function(y_true, y_pred, **self.options)
        return ops.broadcast_to(value, (ops.shape(y_pred)[0],))

    def aligned(self, y_true, y_pred):
        """`(batch,)` each; `(batch, 1)` for the focal loss, which sums over its last axis."""
        rows = pair_rows(y_true, y_pred)
        return rows if self.loss == "ContrastiveLoss" else [ops.expand_dims(row, 1) for row in rows]

    def check_output(self, kind, bounds):
        if self.expects == "similarity matrix":
            raise ValueError(
                f"{self.loss} of TensorFlow Addons expects y_pred to hold the similarities (batch, batch) of all rows, "
                f"and the model puts out {kind}s: let a model end in keras.ops.matmul(z, keras.ops.transpose(z))"
            )
        super().check_output(kind, bounds)

    def check_reach(self, low, high):
        if self.loss == "ContrastiveLoss":
            refuse_margin(self, "margin", self.options["margin"], high, low, high)

    def get_config(self):
        options = {key: serialised(value) if callable(value) else value for key, value in self.options.items()}
        return {**super().get_config(), "loss": self.loss, "options": options}

    @classmethod
    def from_config(cls, config):
        written = config.get("options") or {}
        options = {key: deserialised(value) if isinstance(value, dict) else value for key, value in written.items()}
        return cls(**{**config, "options": options})


def wide_dtype(dtype):
    """`dtype`, or float32 in the place of a policy that computes in 16 bits."""
    policy = keras.dtype_policies.get(dtype or keras.backend.floatx())
    return "float32" if policy.compute_dtype in ("float16", "bfloat16") else dtype


def check_options(loss, defaults, options):
    """The options of a TFA loss, complete and cleaned: plain numbers, so that they can be written into a file."""
    if not isinstance(options, dict) or set(options) - set(defaults):
        takes = ", ".join(defaults) or "none"
        raise TypeError(f"`options` must be a dict of {loss}'s own options ({takes}); got {options!r}")
    cleaned = {}
    for name, default in defaults.items():
        value = options.get(name, default)
        if name == "distance_metric":
            cleaned[name] = value if callable(value) else check_choice(name, value, DISTANCE_METRICS)
        elif isinstance(default, bool):
            cleaned[name] = bool(check_choice(name, value, (True, False)))
        else:
            cleaned[name] = check_number(name, scalar(value), low=0, open_high=True)
    return cleaned


def scalar(value):
    """A NumPy or tensor scalar as a Python number; anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def serialised(function):
    name = keras.saving.get_registered_name(function)
    if keras.saving.get_registered_object(name) is not function:
        raise ValueError(
            f"The distance_metric {getattr(function, '__name__', function)!r} cannot be saved so that it loads again: "
            "decorate it with @keras.saving.register_keras_serializable()"
        )
    return {"function": name}


def deserialised(written):
    function = keras.saving.get_registered_object(written["function"])
    if function is None:
        raise ValueError(
            f"The distance_metric {written['function']!r} is not registered here: import the module that defines it "
            "before loading"
        )
    return function


def first_row(labels):
    """For each of the labels `(batch,)` the first row that has the same: `(batch,)`, int32 in [0, batch)."""
    same = ops.equal(ops.expand_dims(labels, 1), ops.expand_dims(labels, 0))
    rows = ops.arange(ops.shape(labels)[0], dtype="int32")
    return ops.min(ops.where(same, ops.expand_dims(rows, 0), ops.shape(labels)[0]), axis=1)


def check_rows(loss, y_true, y_pred):
    """y_pred, if it is a matrix with a row for each of y_true, and square where it has to be; TFA would broadcast."""
    shapes = f"{tuple(y_true.shape)} and {tuple(y_pred.shape)}"
    if len(y_pred.shape) != 2 or unequal(y_true.shape[0], y_pred.shape[0]):
        raise ValueError(f"`y_true` and `y_pred` of {loss.loss} must be (batch, …) and (batch, columns); got {shapes}")
    if loss.loss == "NpairsMultilabelLoss" and len(y_true.shape) != 2:
        raise ValueError(f"`y_true` of {loss.loss} must have shape (batch, classes); got {tuple(y_true.shape)}")
    if loss.expects == "similarity matrix":
        rows, columns = y_pred.shape
        # A known width over an open batch is an embedding's; a product of the batch with itself has two open sides.
        if rows != columns:
            raise ValueError(
                f"`y_pred` of {loss.loss} must hold the similarities (batch, batch) of all rows; got "
                f"{tuple(y_pred.shape)}"
            )
        if rows is None:
            tensorflow = sys.modules["tensorflow"]
            message = f"y_pred of {loss.loss} must hold the similarities (batch, batch) of all rows"
            square = tensorflow.debugging.assert_equal(*ops.shape(y_pred), message=message)
            # Before TFA's operations, which would fail first and say less.
            with tensorflow.control_dependencies([square]):
                return tensorflow.identity(y_pred)
    return y_pred


def unequal(size, other):
    return None not in (size, other) and size != other
