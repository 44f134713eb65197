"""Do the monitors attach to every form of siamese program, and what do they add to an epoch?

Each form of `tests/support/programs.py` is compiled with a loss as people would choose it and trained for three epochs
on drawn pairs, whose label 1 means same, with a `DivergenceMonitor` that gets the held-out pairs and no other argument.
Recorded for each form and backend: whether that works; whether the scores are the model's own output, as `predict`
gives it; whether the monitor knows which label means same and whether the output is a distance; and the seconds of the
monitor's own calls, also divided by the rest of the same epochs.

    python benchmarks/attach.py                    # minutes
    python benchmarks/attach.py --toy              # seconds: few forms, few pairs; writes nothing
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import measure

ROOT = Path(__file__).resolve().parent.parent
EMBEDDINGS = ("concatenated_embeddings", "stacked_embeddings", "list_of_embeddings")  # they compare in their loss
DISTANCES = (
    *("operations", "shared_layers", "ids_and_masks", "dicts_on_each_side", "auxiliary_output", "unshared"),
    *("preprocessed_on_one_side", "two_distances_in_a_list", "two_distances_in_a_row", "stacked_pairs"),
    *("stacked_pairs_cut_by_lambda", "split_channels", "mixed_precision", "subclass_around_a_functional_model"),
    *("subclass_that_cannot_be_traced", "triplets_sliced_out_of_one_sequence", *EMBEDDINGS),
)
RELATIVE = 1e-6  # difference of scores, over the largest, up to which they count as equal
SIDE_BY_SIDE = {"pairs_side_by_side": 2, "triplets_sliced_out_of_one_sequence": 3}  # in one input, on its axis 1
LOGITS = ("merged_by_layers", "skip_connection", "inputs_beside_embeddings", "raw_inputs_beside_embeddings")
TOY = ("absolute_difference", "operations", "two_distances_in_a_row")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch,jax,tensorflow", help="comma-separated")
    parser.add_argument("--pairs", type=int, default=1000, help="training pairs")
    parser.add_argument("--held", type=int, default=400, help="held-out pairs")
    parser.add_argument("--only", default="", help="forms whose name contains this")
    parser.add_argument("--toy", action="store_true", help="three forms, few pairs, nothing written")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = arguments()
    if options.toy:
        options.pairs, options.held = 64, 40
    if options.worker:
        work(options)
        return
    found = {}
    for backend in options.backends.split(","):
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", backend]
        out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        rows = found[backend] = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
        right = [sum(bool(row.get(what)) for row in rows.values()) for what in ("attaches", "same_score", "direction")]
        counts = f"{right[0]} attach, {right[1]} score as predict does, {right[2]} directions are right"
        print(f"{backend}: of {len(rows)} forms {counts}", flush=True)
        for name, row in rows.items():
            if "error" in row:
                print(f"  {name}: {row['error']}")
    if not options.toy and not options.only:
        about = measure.surroundings("tensorflow", "jax", "torch")
        rows = measure.read("attach").get("rows", {}) | found  # backends may be measured one after the other
        print(measure.write("attach", {"surroundings": about, "command": "python benchmarks/attach.py", "rows": rows}))


def sides_of(inputs):
    """The flat indices of each side in `inputs`, as a list of lists; None if one array holds both."""
    from keras import tree

    if not isinstance(inputs, (list, tuple)):
        return None
    if len(inputs) == 4:  # ids, ids, mask, mask
        return [[0, 2], [1, 3]]
    size = len(tree.flatten(inputs[0]))
    return [list(range(start, start + size)) for start in range(0, size * len(inputs), size)]


def drawn(inputs, count, rng, side_by_side=0):
    """`(x, same)`: random pairs in the structure of `inputs`; those that are the same are alike, third items not."""
    import numpy as np
    from keras import tree

    same = (np.arange(count) % 2).astype("float32")

    def fresh(like, shape):
        if like.dtype.kind == "f":
            return rng.normal(size=(count, *shape)).astype(like.dtype)
        return rng.integers(0, like.max() + 1, (count, *shape)).astype(like.dtype)

    def partner(one, like):
        near = one + 0.1 * rng.normal(size=one.shape).astype(one.dtype) if one.dtype.kind == "f" else one
        return np.where(same.reshape(-1, *[1] * (one.ndim - 1)) == 1, near, fresh(like, one.shape[1:]))

    places = sides_of(inputs)
    if side_by_side:
        shape = [inputs.shape[1] // side_by_side, *inputs.shape[2:]]
        items = [fresh(inputs, shape) for _ in range(side_by_side)]
        items[1] = partner(items[0], inputs)
        return np.concatenate(items, axis=1).astype(inputs.dtype), same
    if places is None:
        axis = 1 if inputs.ndim == 4 else inputs.ndim - 1
        left = fresh(inputs, [size for place, size in enumerate(inputs.shape) if place not in (0, axis)])
        return np.stack([left, partner(left, inputs)], axis).astype(inputs.dtype), same
    arrays = tree.flatten(inputs)
    for first, second, *third in zip(*places, strict=True):
        like = arrays[first]
        arrays[first] = fresh(like, like.shape[1:])
        arrays[second] = partner(arrays[first], like)
        for place in third:
            arrays[place] = fresh(like, like.shape[1:])
    return tree.pack_sequence_as(inputs, arrays), same


def prepared(name, same):
    """`(loss, y)`: what `compile` and `fit` of a form get; `(None, same)` if no loss of Keras suits it."""
    import numpy as np
    from keras import losses, ops

    def contrastive(y_true, distance):
        y = ops.reshape(ops.cast(y_true, distance.dtype), ops.shape(distance))
        return ops.mean(y * distance**2 + (1 - y) * ops.maximum(2 - distance, 0) ** 2)

    def triplet(near, far):
        return ops.mean(ops.maximum(near - far + 1, 0))

    def of_row(y_true, row):
        return triplet(row[:, 0], row[:, 1])

    def of_embeddings(y_true, z):
        a, p, n = ops.unstack(ops.reshape(z, (-1, 3, 4)), 3, axis=1)
        return triplet(ops.sum((a - p) ** 2, axis=1), ops.sum((a - n) ** 2, axis=1))

    if name == "list_of_embeddings":
        return None, same
    if name == "two_distances_in_a_list":
        return [contrastive, contrastive], [np.ones_like(same), np.zeros_like(same)]
    if name in ("two_distances_in_a_row", "triplets_sliced_out_of_one_sequence"):
        return of_row, same
    if name in EMBEDDINGS:
        return of_embeddings, same
    if name == "auxiliary_output":
        return ["categorical_crossentropy", contrastive], [np.eye(5)[np.arange(len(same)) % 5], same]
    if name == "two_classes":
        return "categorical_crossentropy", np.eye(2)[same.astype(int)]
    if name in DISTANCES:
        return contrastive, same
    if name in LOGITS:
        return losses.BinaryCrossentropy(from_logits=True), same
    return "mse" if name == "bidirectional_names" else "binary_crossentropy", same


def own_outputs(name, model, x):
    """Columns `(n,)` of what `model.predict` gives, one of which compares the first two sides."""
    import numpy as np
    from keras import tree

    outputs = tree.flatten(model.predict(x, verbose=0))
    rows = [np.asarray(one, "float64").reshape(len(one), -1) for one in outputs]
    if name in EMBEDDINGS:
        z = np.concatenate(rows, axis=1).reshape(len(rows[0]), -1, 4)
        return [np.linalg.norm(z[:, 0] - z[:, 1], axis=1)]
    return [column for one in rows for column in one.T]


def timed(monitor):
    """Makes `monitor` add the seconds of its calls within epochs to its list `spent`, and returns it."""
    monitor.spent = []

    def watched(hook):
        def call(*arguments, **named):
            start = time.perf_counter()
            hook(*arguments, **named)
            monitor.spent.append(time.perf_counter() - start)

        return call

    monitor.on_epoch_begin, monitor.on_epoch_end = watched(monitor.on_epoch_begin), watched(monitor.on_epoch_end)
    return monitor


def examined(name, make, options):
    """One row of the results: what happens with the form `name`."""
    import keras
    import numpy as np

    import keras_siamese as ks

    keras.utils.set_random_seed(0)
    model, inputs = make()
    rng = np.random.default_rng(0)
    x, same = drawn(inputs, options.pairs, rng, SIDE_BY_SIDE.get(name, 0))
    held_x, held_same = drawn(inputs, options.held, rng, SIDE_BY_SIDE.get(name, 0))
    places, row = sides_of(inputs), {}
    loss, y = prepared(name, same)
    held = held_x if places is None or len(places) == 2 else held_x[:2]
    _, held_y = (None, held_same) if places and len(places) == 3 else prepared(name, held_same)
    monitor = timed(ks.callbacks.DivergenceMonitor((held, held_y)))

    class Stopwatch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            whole.append(time.perf_counter() - self.start)

    whole = []
    if loss is None:
        monitor.set_model(model)
    else:
        model.compile(keras.optimizers.Adam(1e-3), loss=loss)
        model.fit(x, y, epochs=3, batch_size=64, callbacks=[monitor, Stopwatch()], verbose=0)
    scores, anatomy = monitor.measure().scores, monitor.attach()
    if loss is not None:  # without the first epoch, in which steps are compiled
        own = [begin + end for begin, end in zip(monitor.spent[::2], monitor.spent[1::2], strict=True)]
        rest = [both - end for both, end in zip(whole, monitor.spent[1::2], strict=True)]
        row["seconds"] = statistics.median(own[1:])
        row["overhead"] = statistics.median(one / other for one, other in zip(own[1:], rest[1:], strict=True))
    asked = held_x if places is None or len(places) == 2 else [*held, held[1]]
    sign = -1 if name in DISTANCES else 1
    # Of whole triplets, the first scores are those of anchor and positive.
    gaps = [np.abs(sign * column - scores[: len(column)]).max() for column in own_outputs(name, model, asked)]
    gap = float(min(gaps) / max(np.abs(scores).max(), 1e-12))
    row |= {"attaches": True, "gap": gap, "same_score": gap <= RELATIVE}
    kind = anatomy.output_kind == ("distance" if sign < 0 else "score")
    row["direction"] = bool(kind and (anatomy.direction is None or anatomy.direction.similar_label == 1))
    return row


def work(options):
    sys.path.insert(0, str(ROOT))
    from tests.support.programs import PROGRAMS

    rows = {}
    for name, make in PROGRAMS.items():
        if (name in TOY or not options.toy) and options.only in name:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    rows[name] = examined(name, make, options)
                except Exception as error:  # what a form may raise is what is counted
                    rows[name] = {"attaches": False, "error": f"{type(error).__name__}: {str(error)[:200]}"}
    print(json.dumps(rows))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
