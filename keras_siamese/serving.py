"""Export of a verifier for runtimes without Keras.

Contract: takes a built siamese model and a format, and returns what `keras.Model.export` needs to write that format.
Raises an error before the export starts if the backend cannot write it.

    verifier.export("verifier.onnx", format="onnx")
    session = onnxruntime.InferenceSession("verifier.onnx")
    accept, probability, score = session.run(None, {"left": left, "right": right})      # each (n, 1)
"""

import contextlib
import importlib.util
import inspect
import itertools

import keras
from keras import tree

from keras_siamese._checks import check_installed
from keras_siamese._files import replacing
from keras_siamese.attach.graph import is_functional
from keras_siamese.layers.siamese import map_shapes

SIDES = ("left", "right")
OUTPUTS = ("accept", "probability", "score")  # every backend flattens a dict in this order
# For each format, the backends that Keras exports it from.
EVERY = ("tensorflow", "jax", "torch")
BACKENDS = {"tf_saved_model": ("tensorflow", "jax"), "onnx": EVERY, "litert": ("tensorflow", "torch")}
# The package that Keras needs besides the backend, and the extra that installs it.
PACKAGES = {
    ("tf_saved_model", "jax"): ("tensorflow", "tensorflow"),
    ("onnx", "tensorflow"): ("tf2onnx", "onnx"),
    ("onnx", "torch"): ("onnx", "onnx"),
    ("onnx", "jax"): ("jax2onnx", "onnx-jax"),
}


def check_format(format):
    """Refuse a format that the backend cannot export, or whose packages are missing. Keras itself checks the others."""
    backend = keras.backend.backend()
    if backend not in BACKENDS.get(format, (backend,)):
        others = " or ".join(repr(name) for name, backends in BACKENDS.items() if backend in backends)
        hint = f"load it in a process with KERAS_BACKEND={BACKENDS[format][0]}, and export it there"
        must = f"`format` must be one that Keras exports from the {backend} backend, {others}"
        raise ValueError(f"{must}; got {format!r}. Save the verifier, {hint}")
    if (format, backend) in PACKAGES:
        module, extra = PACKAGES[format, backend]
        if importlib.util.find_spec(module) is None:  # importing TensorFlow takes seconds
            check_installed(module, extra)
    if format == "litert" and backend == "torch" and importlib.util.find_spec("litert_torch") is None:
        why = "No extra installs it, because it requires old versions of packages that other extras need newer"
        raise ImportError(f"litert_torch is needed here and is not installed: pip install litert-torch. {why}")
    if format != "tf_saved_model" and tuple(map(int, keras.__version__.split(".")[:2])) < (3, 8):
        # Keras before 3.8 accepts any format and writes a SavedModel.
        must = f"`format` must be 'tf_saved_model' with Keras {keras.__version__}, which writes no other"
        raise ValueError(f"{must}; got {format!r}. Install Keras 3.8 or newer")


def signature(siamese, rows=None):
    """The `input_signature` of `keras.Model.export` for a built siamese model, for batches of `rows` pairs (None: any).

    The inputs are named "left" and "right". If the encoder has several inputs, their keys or numbers are appended:
    "left_a", "left_b", and so on.
    """
    tower = siamese._tower_shapes[0]
    encoder = getattr(siamese, "anatomy", siamese).encoder
    dtypes = [tensor.dtype for tensor in encoder.inputs] if is_functional(encoder) else []
    if len(dtypes) != len(tree.flatten(map_shapes(len, tower))):
        dtypes = itertools.repeat("float32")
    return [tuple(named_specs(side, tower, rows, iter(dtypes)) for side in SIDES)]


def named_specs(name, shapes, rows, dtypes):
    """An `InputSpec` for each of the nested shapes, named by its path such as "left_a_0".

    `dtypes` is an iterator of their dtypes, in the order of `keras.tree`, which sorts the keys of dicts.
    """
    if isinstance(shapes, tuple):
        return keras.InputSpec(dtype=next(dtypes), shape=(rows, *shapes[1:]), name=name)
    if isinstance(shapes, dict):
        specs = {key: named_specs(f"{name}_{key}", shapes[key], rows, dtypes) for key in sorted(shapes)}
        return {key: specs[key] for key in shapes}
    return [named_specs(f"{name}_{place}", one, rows, dtypes) for place, one in enumerate(shapes)]


def options(siamese, format, given):
    """The options of `keras.Model.export`: those `given`, and a signature if Keras takes one and none is given."""
    takes = inspect.signature(keras.Model.export).parameters
    if "input_signature" not in takes or given.get("input_signature") is not None:
        return given
    # LiteRT files from PyTorch have fixed shapes.
    rows = 1 if format == "litert" and keras.backend.backend() == "torch" else None
    return {**given, "input_signature": signature(siamese, rows)}


@contextlib.contextmanager
def each_tower_apart(siamese):
    """Run the encoder once for each side. In a joint run, exporters would fix the number of rows as a constant."""
    joint, siamese.joint = siamese.joint, False
    try:
        yield
    finally:
        siamese.joint = joint


def name_outputs(path):
    """Name the outputs of the ONNX file at `path`. Only TensorFlow's exporter keeps their names."""
    onnx = check_installed("onnx", "onnx")
    model = onnx.load(path)
    if [output.name for output in model.graph.output] == list(OUTPUTS):
        return
    for output, name in zip(model.graph.output, OUTPUTS, strict=True):
        model.graph.node.append(onnx.helper.make_node("Identity", [output.name], [name]))
        output.name = name
    with replacing(path) as draft:
        onnx.save(model, draft)
