"""Export of a verifier for runtimes without Keras.

Contract: takes a built siamese model and a format, and returns what `keras.Model.export` needs to write that format.
Raises an error before the export starts if the backend cannot write the format. The formats are those of Keras:
"tf_saved_model" (TensorFlow, JAX), "onnx" (all three), "litert" (TensorFlow; PyTorch for one pair at a time).
`verifier` imports this module, which imports `scoring`.

    verifier.export("verifier.onnx", format="onnx")
    session = onnxruntime.InferenceSession("verifier.onnx")
    accept, probability, score = session.run(None, {"left": left, "right": right})      # each (n, 1)
"""

import contextlib
import importlib.util
import inspect

import keras

from keras_siamese._checks import check_installed
from keras_siamese.scoring import known

SIDES = ("left", "right")
OUTPUTS = ("accept", "probability", "score")  # every backend flattens a dict in this order
# For each format, the backends that Keras exports it from.
BACKENDS = {
    "tf_saved_model": ("tensorflow", "jax"),
    "onnx": ("tensorflow", "jax", "torch"),
    "litert": ("tensorflow", "torch"),
}
# The package that Keras needs besides the backend, and the extra that installs it.
PACKAGES = {
    ("tf_saved_model", "jax"): ("tensorflow", "tensorflow"),
    ("onnx", "tensorflow"): ("tf2onnx", "onnx"),
    ("onnx", "torch"): ("onnx", "onnx"),
    ("onnx", "jax"): ("jax2onnx", "onnx-jax"),
}


def check_format(format):
    """Refuse a format that the backend cannot export, or whose packages are not installed.

    Keras itself checks the formats that are not in `BACKENDS`.
    """
    backend = keras.backend.backend()
    if backend not in BACKENDS.get(format, (backend,)):
        others = " or ".join(repr(name) for name, backends in BACKENDS.items() if backend in backends)
        raise ValueError(
            f"`format` must be one that Keras exports from the {backend} backend, {others}; got {format!r}. Save the "
            f"verifier, load it in a process with KERAS_BACKEND={BACKENDS[format][0]}, and export it there"
        )
    if (format, backend) in PACKAGES:
        module, extra = PACKAGES[format, backend]
        if importlib.util.find_spec(module) is None:  # importing TensorFlow takes seconds
            check_installed(module, extra)
    if format == "litert" and backend == "torch" and importlib.util.find_spec("litert_torch") is None:
        raise ImportError(
            "litert_torch is needed here and is not installed: pip install litert-torch. No extra installs it, because "
            "it requires old versions of packages that other extras need newer"
        )
    if format != "tf_saved_model" and tuple(map(int, keras.__version__.split(".")[:2])) < (3, 8):
        # Keras before 3.8 accepts any format and writes a SavedModel.
        raise ValueError(
            f"`format` must be 'tf_saved_model' with Keras {keras.__version__}, which writes no other; got {format!r}. "
            "Install Keras 3.8 or newer"
        )


def signature(siamese, rows=None):
    """Make the `input_signature` of `keras.Model.export`: a pair of inputs named "left" and "right".

    If the encoder has several inputs, they are named "left_a", "left_b", … by their keys or numbers.

    Args:
        siamese: the siamese model, built.
        rows: number of pairs in a batch, None for any.
    """
    tower = siamese._tower_shapes[0]
    dtypes = [tensor.dtype for tensor in known(siamese.encoder, "inputs") or []]
    leaves = list(named_shapes("", tower))
    if len(dtypes) != len(leaves):
        dtypes = ["float32"] * len(leaves)
    pair = []
    for side in SIDES:
        specs = [
            keras.InputSpec(dtype=dtype, shape=(rows, *shape[1:]), name=side + path)
            for (path, shape), dtype in zip(leaves, dtypes, strict=True)
        ]
        pair.append(packed_as(tower, iter(specs)))
    return [tuple(pair)]


def named_shapes(path, shapes):
    """Yield the path (such as "_a_0") and the shape of each leaf of nested shapes, in the order of `keras.tree`."""
    if isinstance(shapes, tuple):
        yield path, shapes
    elif isinstance(shapes, dict):
        for key in sorted(shapes):
            yield from named_shapes(f"{path}_{key}", shapes[key])
    else:
        for place, one in enumerate(shapes):
            yield from named_shapes(f"{path}_{place}", one)


def packed_as(shapes, leaves):
    """Pack the items of the iterator `leaves` into the structure of the nested shapes."""
    if isinstance(shapes, tuple):
        return next(leaves)
    if isinstance(shapes, dict):
        packed = {key: packed_as(shapes[key], leaves) for key in sorted(shapes)}
        return {key: packed[key] for key in shapes}
    return [packed_as(one, leaves) for one in shapes]


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
    onnx.save(model, path)
