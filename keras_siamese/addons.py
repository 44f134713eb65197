"""TensorFlow Addons (TFA) with Keras 3: `load()` imports it, `loss()` makes one of its losses a Keras 3 loss.

Contract: tensorflow-addons 0.23, the last release, was written for Keras 2. So `tf.keras` is `tf_keras` while it is
imported, and only then. The extra ``addons`` and Python < 3.12 are needed to call TFA, but not to import this module or
to load a saved model.

    tfa = addons.load()                                                # the module, on any backend
    encoder.compile("adam", loss=addons.loss("TripletSemiHardLoss", margin=0.5))
    siamese.compile("adam", loss=addons.loss(tfa.losses.ContrastiveLoss(margin=1.0)))

The classes of `keras_siamese.losses` with the same names have the same defaults and values. They work on all backends
and do not need TFA; see the table in docs/migration.md.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import sys
import threading
import warnings
from types import ModuleType
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_siamese._checks import check_choice, check_installed, check_number
from keras_siamese._export import export, function_name, function_of
from keras_siamese._types import Self, Tensor
from keras_siamese.losses.base import SiameseLoss, refuse_margin
from keras_siamese.ops import at_least_float32, pair_rows, row_vector

__all__ = ["AddonsLoss", "load", "loss"]

INSTEAD = "use the losses of the same names in keras_siamese.losses, which have the same values"
INSTEAD += "; see the table in docs/migration.md"
_lock = threading.RLock()
_imported = {}  # modules of TensorFlow Addons that `load` imported, by name


class Addon(NamedTuple):
    """Properties of a TFA loss, so that TFA need not be imported."""

    function: str
    expects: str
    defaults: dict
    of_batch: bool = True  # whether the loss is one number for the batch instead of one for each row


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


def load() -> ModuleType:
    """Import tensorflow-addons 0.23 in a Keras 3 process and return the module. Further calls return it again.

    During the import, `tf.keras` is `tf_keras` in every thread of the process, so call `load` before you start threads
    that use it. Afterwards `tf.keras` and `sys.modules` are as before (`tf.keras.Model is keras.Model`), also if the
    import failed. TFA's warnings about its end of life and its TensorFlow versions are hidden. Whatever Keras's backend
    is, you can use TFA's functions on TensorFlow tensors (for example in a `tf.data` pipeline) and its losses through
    `loss`. Its layers, optimizers and metrics belong to `tf_keras` and do not work in a Keras 3 model.

    The extra ``addons`` installs it on Python < 3.12. tf-keras must have TensorFlow's version: with an older TensorFlow
    2.x, install ``"keras-siamese[addons]" "tf-keras~=2.x.0"``, or else pip installs the newest TensorFlow. This also
    works with ``TF_USE_LEGACY_KERAS=1``, with which a plain import fails too.

    Raises:
        ImportError: if TensorFlow, tf-keras or TFA is missing, has the wrong version, or cannot be imported.
    """
    with _lock:
        if sys.modules.get("tensorflow_addons") is not None:
            return importlib.import_module("tensorflow_addons")
        if sys.version_info >= (3, 12):
            why = "tensorflow-addons 0.23, the last, has no wheel for Python 3.12 or newer, and this is Python"
            raise ImportError(f"{why} {sys.version_info[0]}.{sys.version_info[1]}: {INSTEAD}")
        tensorflow = check_installed("tensorflow", "tensorflow")
        check_fitting(tensorflow.__version__)
        tf_keras = check_installed("tf_keras", "addons")
        if importlib.util.find_spec("tensorflow_addons") is None:
            check_installed("tensorflow_addons", "addons")
        # Modules left by a failed plain import are bound to Keras 3, so they are removed. Those left by a failed `load`
        # are kept: a second import would register TFA's gradients again, which TensorFlow refuses.
        for name, module in modules_below("tensorflow_addons").items():
            if _imported.get(name) is not module:
                del sys.modules[name]
        try:
            with legacy_keras(tensorflow, tf_keras), warnings.catch_warnings():
                own = r"tensorflow_addons\.utils\.(tfa_eol_msg|ensure_tf_install)$"
                warnings.filterwarnings("ignore", category=UserWarning, module=own)
                return importlib.import_module("tensorflow_addons")
        except Exception as error:
            versions = f"TensorFlow {tensorflow.__version__} and tf-keras {tf_keras.__version__}"
            message = f"tensorflow-addons cannot be imported with {versions}: {type(error).__name__}: {error}"
            raise ImportError(message) from error
        finally:
            _imported.update(modules_below("tensorflow_addons"))


def check_fitting(tensorflow_version):
    """Refuse a tf-keras whose version differs from TensorFlow's, because it would fail with an obscure error."""
    try:
        found = importlib.metadata.version("tf-keras")
    except importlib.metadata.PackageNotFoundError:
        return
    wanted = ".".join(tensorflow_version.split(".")[:2])
    if ".".join(found.split(".")[:2]) != wanted:
        problem = f"TensorFlow {tensorflow_version} needs tf-keras {wanted}, and {found} is installed"
        raise ImportError(f'{problem}: pip install "tf-keras~={wanted}.0"')


def modules_below(*names):
    """The imported modules with these names, and their submodules."""
    found = list(sys.modules.items())
    return {name: module for name, module in found if any(f"{name}.".startswith(f"{top}.") for top in names)}


@contextlib.contextmanager
def legacy_keras(tensorflow, tf_keras):
    """Make `tensorflow.keras` be `tf_keras` and `keras.src.engine` be its engine; restore both at the end."""
    aliased = ("tensorflow.keras", "keras.src.engine")
    engine = importlib.import_module("tf_keras.src.engine.keras_tensor")
    modules, attribute = modules_below(*aliased), vars(tensorflow)["keras"]
    try:
        for name in modules:
            del sys.modules[name]
        # Every submodule needs an alias: without one it would be executed again and replace the one in `tf_keras`.
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


def loss(obj: Any, **options: Any) -> AddonsLoss:
    """Make a Keras 3 loss of a TensorFlow Addons loss: an `AddonsLoss`, checked against the installed TFA.

    Args:
        obj: a TFA loss instance (``tfa.losses.TripletSemiHardLoss(margin=0.5)``), class or function, or its name
            ("TripletSemiHardLoss", "triplet_semihard_loss").
        **options: the TFA loss's own options (`margin`, …), unless `obj` is an instance, which has them already; and
            `reduction`, `name`, `dtype` as in `AddonsLoss`. The reduction "none" of an instance becomes the mean, as in
            Keras 2's `fit`.

    Raises:
        RuntimeError: if Keras's backend is not TensorFlow.
        ImportError: as `load`.

    ```python
    encoder.compile("adam", loss=ks.addons.loss("triplet_semihard_loss", margin=0.5))
    ```
    """
    check_backend()
    tfa = load()
    name = name_of(obj, tfa)
    shared = {key: options.pop(key) for key in ("reduction", "name", "dtype") if key in options}
    if type(obj) is getattr(tfa.losses, name):
        if options:
            given = ", ".join(options)
            raise TypeError(f"`obj` is a {name} instance, which has its options; got also {given}. Pass its class")
        config = obj.get_config()
        options = {key: config[key] for key in ADDONS[name].defaults}
        # Keras 2's `fit` took the mean for "auto" and "none".
        if config["reduction"] == "sum":
            shared.setdefault("reduction", "sum")
        if config["name"] is not None:
            shared.setdefault("name", config["name"])
    return AddonsLoss(name, options, **shared)


def name_of(obj, tfa):
    """The class name in `ADDONS` of a TFA loss that is given as instance, class, function or name."""
    for name, addon in ADDONS.items():
        cls, function = getattr(tfa.losses, name), getattr(tfa.losses, addon.function)
        # A subclass is refused, because its overrides could not be rebuilt from the name.
        is_named = isinstance(obj, str) and obj in (name, addon.function)
        if is_named or obj is cls or obj is function or type(obj) is cls:
            return name
    known = f"{', '.join(ADDONS)} (instance, class, function or name)"
    raise ValueError(f"`obj` must be one of TensorFlow Addons' losses {known}; got {obj!r}")


def check_backend():
    backend = keras.backend.backend()
    if backend != "tensorflow":
        problem = f"this is {backend}, whose gradients do not pass through TensorFlow"
        raise RuntimeError(f"TensorFlow Addons' losses need Keras's TensorFlow backend, and {problem}: {INSTEAD}")


@export
class AddonsLoss(SiameseLoss):
    """A TensorFlow Addons loss as a Keras 3 loss, which can be saved, loaded and copied like any other.

    y_true and y_pred are what the TFA loss takes. `ContrastiveLoss`: y_true `(batch,)`, 1 = same, and distances
    `(batch, 1)`, which are aligned. `SigmoidFocalCrossEntropy`: the same labels, and probabilities `(batch, 1)` that
    they are the same. The triplet losses and `LiftedStructLoss`: identities `(batch,)` and embeddings `(batch, dim)`.
    `NpairsLoss`: identities and similarities `(batch, batch)`. `NpairsMultilabelLoss`: y_true `(batch, classes)` of 0
    and 1, and similarities. Large identities stay distinct, and everything is computed in at least float32.

    `ContrastiveLoss` and `SigmoidFocalCrossEntropy` give one value for each row. The others are one number L for the
    batch: `call` returns L in each of the `(batch,)` rows, so the mean is L and ``reduction="sum"`` gives batch·L;
    `sample_weight` and `class_weight` are refused, because they cannot be applied inside L. If TFA's value is NaN (a
    batch without a positive pair), this value is NaN too; `keras_siamese.losses` masks such rows.

    It can be made, saved and loaded without TFA and on any backend. Calling it needs TFA and the TensorFlow backend;
    `loss` checks both at once.

    Args:
        loss: name of the TFA class, such as "TripletSemiHardLoss".
        options: dict of that class's own options; the defaults are TFA's. To save the model, a `distance_metric` that
            is a function must be registered with ``keras.saving.register_keras_serializable()``.
        reduction, name, dtype: as in `keras.losses.Loss`; a 16-bit dtype computes in float32.

    >>> loss = AddonsLoss("TripletSemiHardLoss", {"margin": 0.5})
    >>> loss.options
    {'margin': 0.5, 'distance_metric': 'L2'}
    """

    def __init__(
        self,
        loss: str,
        options: dict[str, Any] | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **unknown: Any,
    ) -> None:
        addon = ADDONS[check_choice("loss", loss, tuple(ADDONS))]
        super().__init__(reduction, name or addon.function, wide_dtype(dtype), **unknown)
        self.loss = loss
        self.options = check_options(loss, addon.defaults, {} if options is None else options)
        self.expects = addon.expects

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Tensor:
        if ADDONS[self.loss].of_batch:
            if sample_weight is not None:
                why = f"{self.loss} of TensorFlow Addons is one number for the batch"
                found = f"weights of shape {tuple(ops.shape(sample_weight))}"
                raise ValueError(f"{why}, so `sample_weight` and `class_weight` must be None; got {found}")
            if self.loss != "NpairsMultilabelLoss":
                # Keras casts y_true to floats, in which large identities may become equal; row numbers do not.
                y_true = first_row(row_vector("y_true", y_true))
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        check_backend()
        function = getattr(load().losses, ADDONS[self.loss].function)
        y_pred = at_least_float32(y_pred)
        if not ADDONS[self.loss].of_batch:
            rows = pair_rows(y_true, y_pred)
            if self.loss == "SigmoidFocalCrossEntropy":  # it sums over the last axis
                rows = [ops.expand_dims(row, 1) for row in rows]
            return function(*rows, **self.options)
        if self.loss != "NpairsMultilabelLoss":
            y_true = row_vector("y_true", y_true)
        y_pred = check_rows(self, y_true, y_pred)
        return ops.broadcast_to(function(y_true, y_pred, **self.options), (ops.shape(y_pred)[0],))

    def check_reach(self, low: float, high: float) -> None:
        if self.loss == "ContrastiveLoss":
            refuse_margin(self, "margin", self.options["margin"], high, low, high)

    def get_config(self) -> dict[str, Any]:
        options = dict(self.options)
        if callable(metric := options.get("distance_metric")):
            options["distance_metric"] = {"function": function_name("distance_metric", metric)}
        return {**super().get_config(), "loss": self.loss, "options": options}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        options = dict(config.get("options") or {})
        if isinstance(metric := options.get("distance_metric"), dict):
            options["distance_metric"] = function_of("distance_metric", metric["function"])
        return cls(**{**config, "options": options})


def wide_dtype(dtype):
    """`dtype`, or float32 if `dtype` is a policy that computes in 16 bits."""
    policy = keras.dtype_policies.get(dtype or keras.backend.floatx())
    return "float32" if policy.compute_dtype in ("float16", "bfloat16") else dtype


def check_options(loss, defaults, options):
    """Return all options of a TFA loss, with its defaults, as plain values that can be written to a file."""
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
    """Return a NumPy or tensor scalar as a Python number, and anything else unchanged."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def first_row(labels):
    """For each of the labels `(batch,)`, the first row with the same label: `(batch,)`, int32 in [0, batch)."""
    same = ops.equal(ops.expand_dims(labels, 1), ops.expand_dims(labels, 0))
    rows = ops.arange(ops.shape(labels)[0], dtype="int32")
    return ops.min(ops.where(same, ops.expand_dims(rows, 0), ops.shape(labels)[0]), axis=1)


def check_rows(loss, y_true, y_pred):
    """Return y_pred if it has one row for each row of y_true and is square if needed. TFA itself would broadcast."""
    shapes, rows = f"{tuple(y_true.shape)} and {tuple(y_pred.shape)}", (y_true.shape[0], y_pred.shape[0])
    if len(y_pred.shape) != 2 or (None not in rows and rows[0] != rows[1]):
        raise ValueError(f"`y_true` and `y_pred` of {loss.loss} must be (batch, …) and (batch, columns); got {shapes}")
    if loss.loss == "NpairsMultilabelLoss" and len(y_true.shape) != 2:
        raise ValueError(f"`y_true` of {loss.loss} must have shape (batch, classes); got {tuple(y_true.shape)}")
    if loss.expects == "similarity matrix":
        message = f"`y_pred` of {loss.loss} must hold the similarities (batch, batch) of all rows"
        # With an unknown batch size, a known width means embeddings; similarities have two unknown sides.
        if y_pred.shape[0] != y_pred.shape[1]:
            raise ValueError(f"{message}; got {tuple(y_pred.shape)}")
        if y_pred.shape[0] is None:
            tensorflow = sys.modules["tensorflow"]
            square = tensorflow.debugging.assert_equal(*ops.shape(y_pred), message=message)
            # Run the check before TFA's operations, whose own error says less.
            with tensorflow.control_dependencies([square]):
                return tensorflow.identity(y_pred)
    return y_pred
