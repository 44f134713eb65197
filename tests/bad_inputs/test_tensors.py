"""`distances`, `metrics`, `losses` and `layers` with unusual arrays and tensors."""

import keras
import numpy as np
import pytest

from keras_siamese import distances, layers, losses, metrics
from tests.support import roundtrip
from tests.support.unusual import Room, taking

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 4)).astype("float32")
UNIT = X[:8] / np.linalg.norm(X[:8], axis=1, keepdims=True)
NUMBERS = RNG.random(16).astype("float32")
SAME = (np.arange(16) % 2).astype("float32")
IDENTITIES = np.arange(8) // 2


def examples(room):
    return {name: roundtrip.EXAMPLES[name]() for name in roundtrip.EXAMPLES if name in room.__all__}


def measured(metric, **given):
    metric.reset_state()
    metric.update_state(**given)
    return metric.result()


def of_distances():
    calls = {}
    for name, distance in examples(distances).items():
        if isinstance(distance, keras.layers.Layer):
            distance.build((None, 4))
        calls[f"{name}.rowwise"] = taking(["a", "b"], distance.rowwise)
        calls[f"{name}.pairwise"] = taking(["a", "b"], distance.pairwise)
    return Room(calls, {"a": X[:8], "b": X[8:]}, tensors=True)


def of_metrics():
    names = ["y_true", "y_pred", "sample_weight"]
    calls = {
        name: taking(names, lambda metric=metric, **given: measured(metric, **given))
        for name, metric in examples(metrics).items()
    }
    return Room(calls, {"y_true": SAME, "y_pred": NUMBERS, "sample_weight": 1 - NUMBERS}, tensors=True)


def kind_of(loss):
    """What a loss takes: "triplet", several classes, several centers, or as in its `expects`."""
    if isinstance(loss, losses.NpairsMultilabelLoss):
        return "classes"
    if loss.kind == "triplet" or getattr(loss, "several_centers", False):
        return loss.kind if loss.kind == "triplet" else "centers"
    return loss.expects


COSINES = 0.9 * UNIT @ UNIT[:5].T
GIVEN = {
    "distance": {"y_true": SAME[:8], "y_pred": NUMBERS[:8]},
    "score": {"y_true": SAME[:8], "y_pred": NUMBERS[:8]},
    "triplet": {"y_true": 0.0, "y_pred": NUMBERS[:15].reshape(5, 3)},
    "embedding": {"y_true": IDENTITIES, "y_pred": UNIT},
    "similarity matrix": {"y_true": IDENTITIES, "y_pred": UNIT @ UNIT.T},
    "classes": {"y_true": (RNG.random((8, 3)) < 0.5).astype("float32"), "y_pred": UNIT @ UNIT.T},
    "cosine": {"y_true": IDENTITIES, "y_pred": COSINES},
    "centers": {"y_true": IDENTITIES, "y_pred": np.stack([COSINES, 0.5 * COSINES], axis=2)},
}


def of_losses(kind):
    calls = {
        name: taking(["y_true", "y_pred"], loss) for name, loss in examples(losses).items() if kind_of(loss) == kind
    }
    return Room(calls, GIVEN[kind], tensors=True)


# Of cut embeddings, as `SiameseWrapper` and `ProxyLogits` compare them.
CUT = {
    "pairs": (losses.ContrastiveLoss(), SAME[:8], NUMBERS.reshape(8, 2, 1)),
    "triplets": (losses.TripletLoss(), 0.0, NUMBERS.reshape(4, 2, 2)),
    "cosines": (losses.ArcFaceLoss(), IDENTITIES, np.stack([COSINES, 0.5 * COSINES], axis=1)),
}


def of_cut(kind):
    inner, y_true, y_pred = CUT[kind]
    loss = losses.MatryoshkaLoss(inner, [4, 2])
    calls = {f"MatryoshkaLoss.{kind}": taking(["y_true", "y_pred"], loss)}
    return Room(calls, {"y_true": y_true, "y_pred": y_pred}, tensors=True)


def of_layers():
    apart, logits, cut = layers.DistanceLayer(), layers.ProxyLogits(5), layers.ProxyLogits(5, dims=[4, 2])
    calls = {
        "DistanceLayer": lambda left, right: apart([left, right]),
        "LogisticHead": taking(["distance"], layers.LogisticHead()),
        "ProxyLogits": lambda left: logits(left),
        "ProxyLogits.dims": lambda left: cut(left),
        "GeneralizedMeanPooling1D": lambda steps: layers.GeneralizedMeanPooling1D()(steps),
        "TokenPooling": lambda steps: layers.TokenPooling("max")(steps),
        "GeneralizedMeanPooling2D": lambda images: layers.GeneralizedMeanPooling2D()(images),
    }
    given = {"left": X[:8], "right": X[8:], "distance": NUMBERS[:, None]}
    given |= {"steps": X.reshape(4, 4, 4), "images": X.reshape(2, 4, 4, 2)}
    return Room(calls, given, tensors=True, also=("a", "b", "inputs", "tensor"), is_layer=True)


def of_models():
    siamese = layers.SiameseWrapper(roundtrip.encoder())
    siamese((X, X))
    calls = {"SiameseWrapper": lambda left, right: siamese((left, right))}
    options = {"also": ("inputs",), "is_layer": True, "without": ("complex",)}  # that is the encoder's business
    return Room(calls, {"left": X[:8], "right": X[8:]}, tensors=True, **options)


ROOMS = {"distances": of_distances(), "metrics": of_metrics(), "layers": of_layers(), "models": of_models()}
ROOMS |= {f"losses on {kind}": of_losses(kind) for kind in GIVEN} | {f"cut {kind}": of_cut(kind) for kind in CUT}


@pytest.mark.parametrize(("room", "name"), [(room, name) for room in ROOMS for name in ROOMS[room].calls])
def test_each_case_is_answered_or_refused_by_name(room, name):
    assert ROOMS[room].wrong(name) == {}


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_cases(room):
    assert len(list(ROOMS[room].cases())) >= 14
