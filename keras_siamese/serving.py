"""Exports: a verifier for a runtime that has no Keras, in which it decides as it did.

Contract: a built `SiameseWrapper` and a format in; what `keras.Model.export` needs to write that format, and errors
that say what a backend cannot do before it has tried, out. The formats are Keras's: "tf_saved_model" (TensorFlow, JAX),
"onnx" (all three), "litert" (TensorFlow; PyTorch, for one pair at a time). `verifier` imports it; it imports `scoring`.

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
OUTPUTS = ("accept", "probability", "score")  # in the order in which every backend flattens a dict
# Format: the backends that Keras exports it from.
BACKENDS = {
    "tf_saved_model": ("tensorflow", "jax"),
    "onnx": ("tensorflow", "jax", "torch"),
    "litert": ("tensorflow", "torch"),
}
# What Keras imports for it, beside the backend itself, and the extra that brings it.
PACKAGES = {
    ("tf_saved_model", "jax"): ("tensorflow", "tensorflow"),
    ("onnx", "tensorflow"): ("tf2onnx", "onnx"),
    ("onnx", "torch"): ("onnx", "onnx"),
    ("onnx", "jax"): ("jax2onnx", "onnx-jax"),
}


def check_format(format):
    """Refuses a format that the backend cannot export, or whose packages are not installed.

    Formats that are not in `BACKENDS` are left to Keras, which knows what it has.
    """
    backend = keras.backend.backend()
    if backend not in BACKENDS.get(format, (backend,)):
        others = " or ".join(repr(name) for name, backends in BACKENDS.items() if backend in backends)
        raise ValueError(
            f"`format` must be one that Keras exports from the {backend} backend, {others}; got {format!r}. A saved "
            f"verifier loads on every backend: export it from a process with KERAS_BACKEND={BACKENDS[format][0]}"
        )
    if (format, backend) in PACKAGES:
        module, extra = PACKAGES[format, backend]
        if importlib.util.find_spec(module) is None:  # importing TensorFlow takes seconds
            check_installed(module, extra)
    if format == "litert" and backend == "torch" and importlib.util.find_spec("litert_torch") is None:
        raise ImportError(
            "litert_torch is needed here and is not installed: pip install litert-torch; it is in no extra, since it "
            "pins packages that others need newer"
        )
    if format != "tf_saved_model" and tuple(map(int, keras.__version__.split(".")[:2])) < (3, 8):
        # It takes any format, and writes a SavedModel.
        raise ValueError(
            f"`format` must be 'tf_saved_model' with Keras {keras.__version__}, which writes no other; got {format!r}"
        )


def signature(siamese, rows=None):
    """What `export` takes as `input_signature`: the pair, its inputs named "left" and "right".

    Those of an encoder with several inputs are "left_a", "left_b", … by their keys or numbers.

    Args:
        siamese: the `SiameseWrapper`, built.
        rows: number of pairs at once, None for any.
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
    """Path, as "_a_0", and shape of each leaf of nested shapes, in the order of `keras.tree`."""
    if isinstance(shapes, tuple):
        yield path, shapes
    elif isinstance(shapes, dict):
        for key in sorted(shapes):
            yield from named_shapes(f"{path}_{key}", shapes[key])
    else:
        for place, one in enumerate(shapes):
            yield from named_shapes(f"{path}_{place}", one)


def packed_as(shapes, leaves):
    """The iterator `leaves` in the structure of nested shapes."""
    if isinstance(shapes, tuple):
        return next(leaves)
    if isinstance(shapes, dict):
        packed = {key: packed_as(shapes[key], leaves) for key in sorted(shapes)}
        return {key: packed[key] for key in shapes}
    return [packed_as(one, leaves) for one in shapes]


def options(siamese, format, given):
    """The options of `keras.Model.export`: those `given`, and the signature where Keras takes one and none is given."""
    takes = inspect.signature(keras.Model.export).parameters
    if "input_signature" not in takes or given.get("input_signature") is not None:
        return given
    # LiteRT from PyTorch has fixed shapes.
    rows = 1 if format == "litert" and keras.backend.backend() == "torch" else None
    return {**given, "input_signature": signature(siamese, rows)}


@contextlib.contextmanager
def each_tower_apart(siamese):
    """Runs the encoder once a side, as exporters need it, who take the number of rows in a joint run for a constant."""
    joint, siamese.joint = siamese.joint, False
    try:
        yield
    finally:
        siamese.joint = joint


def name_outputs(path):
    """Gives the outputs of the ONNX file at `path` their names; only TensorFlow's exporter keeps them."""
    onnx = check_installed("onnx", "onnx")
    model = onnx.load(path)
    if [output.name for output in model.graph.output] == list(OUTPUTS):
        return
    for output, name in zip(model.graph.output, OUTPUTS, strict=True):
        model.graph.node.append(onnx.helper.make_node("Identity", [output.name], [name]))
        output.name = name
    onnx.save(model, path)
