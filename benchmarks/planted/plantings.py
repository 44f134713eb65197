"""The planted faults, pairs of faults, and the healthy controls: recipes with one change, or with two.

`FAULTS[cause][dose]` and `CONTROLS[name]` are functions that take a base recipe and return the changed one. They return
None if the change does not apply to the base: for example, a batch of identities has no pairs that could be imbalanced.
`TOGETHER` lists pairs of faults.

    planting_of("fault", "margin", "× .01")(BASES["digits-contrastive"])
    planting_of("pair", "label_noise + leakage", "40 % + same images")(BASES["digits-supcon"])
"""

from planted.recipes import BATCHES, HEADS, PAIRS, PROXIES, TRIPLETS

BY_IDENTITY = TRIPLETS, BATCHES, PROXIES  # trained on batches of identities
OURS = PAIRS, *BY_IDENTITY
AND = " + "  # between the names of two faults


def changed(*only, **options):
    """A planting that sets `options`, on bases of the families `only`, or on all bases."""
    return lambda base: {**base, **options} if not only or base["family"] in only else None


def of(*data):
    """Limits a planting to bases of these `data`."""
    return lambda planting: lambda base: planting(base) if base["data"] in data else None


of_images = of("digits", "garments")
of_scans = of("digits", "garments", "blobs")
of_numbers = of("digits", "garments", "blobs", "text")  # which, unlike token ids, can be scaled


def fine_tuned(is_fine_tuned, planting):
    """Limits a planting to bases that start from a pretrained encoder, or to the others."""
    return lambda base: planting(base) if base["pretrained"] is is_fine_tuned else None


def scaled(*only, **factors):
    def planting(base):
        if only and base["family"] not in only:
            return None
        return {**base, **{name: base[name] * factor for name, factor in factors.items()}}

    return planting


def both(contrastive, triplet, head=None):
    """One planting for each of these families; None for a family to which it does not apply."""
    plantings = {PAIRS: contrastive, TRIPLETS: triplet, HEADS: head}
    return lambda base: plantings[base["family"]](base) if plantings.get(base["family"]) else None


def either(*plantings):
    """The first of the `plantings` that applies."""
    return lambda base: next(filter(None, (planting(base) for planting in plantings)), None)


def in_form(name, **options):
    """A planting that makes a plain program compare in the form `name`; see `heads`."""
    return changed(HEADS, form=name, **options)


def far_margin(base):
    """A margin a hundred times as large, without normalisation: on unit vectors the loss would refuse it."""
    return {**base, "margin": 100 * base["margin"], "normalize": False}


FAULTS = {
    "weak_features": {
        "4 units": changed(*OURS, width=4, activation="tanh"),
        "frozen random encoder": fine_tuned(False, changed(*OURS, trainable="head", embedding_dim=4)),
        "blurred input": of_scans(changed(*OURS, blur=1.5)),
    },
    "collapse": {
        "hardest mining, rate × 30, no norm": both(
            changed(learning_rate=0.09, normalize=False, online=True),
            changed(positives="hard", negatives="hard", learning_rate=0.09, normalize=False),
        ),
        "no negatives": changed(PAIRS, positive_fraction=1.0),
    },
    "pair_imbalance": {
        "1:50": changed(PAIRS, positive_fraction=1 / 51),
        "1:200": changed(PAIRS, HEADS, positive_fraction=1 / 201),
    },
    "identity_imbalance": {
        "90 % of two": changed(*OURS, share_of_two=0.9),
        "97 % of two": changed(*OURS, share_of_two=0.97),
    },
    "wrong_distance": {
        "trained on cosine, verified on raw L2": changed(
            *BY_IDENTITY, normalize=False, distance="cosine", verify_distance="euclidean"
        ),
        "trained on cosine, verified by the inner product of varied norms": changed(
            TRIPLETS, normalize=False, distance="cosine", verify_distance="inner_product"
        ),
        "trained on cosine, verified by the largest difference": changed(
            TRIPLETS, normalize=False, distance="cosine", verify_distance="chebyshev"
        ),
    },
    "margin": {
        "× .01": both(*2 * [scaled(margin=0.01)], in_form("distance", margin=0.01)),
        "× 100": both(far_margin, far_margin),
        "temperature × 100": scaled(BATCHES, PROXIES, temperature=100),
        "temperature × .01": scaled(BATCHES, PROXIES, temperature=0.01),
    },
    "mining": {
        "only easy pairs": both(of_numbers(changed(easy_pairs=True)), changed(positives="easy", negatives="easy")),
        "hardest on noisy labels": changed(TRIPLETS, positives="hard", negatives="hard", label_noise=0.1),
    },
    "learning_rate": {"× 100": scaled(learning_rate=100), "× 1e-4": scaled(learning_rate=1e-4)},
    "memorising": {
        "5 identities, long": changed(identities=5, epochs=20),
        "12 identities, long": changed(*OURS, identities=12, epochs=20),
    },
    "label_noise": {"20 %": changed(*OURS, label_noise=0.2), "40 %": changed(label_noise=0.4)},
    "leakage": {"same images": changed(leak="images"), "same identities": changed(*OURS, leak="identities")},
    "threshold": {
        "fixed .5": changed(*OURS, threshold=-0.5),
        "fixed 1": changed(*OURS, threshold=-1.0),
        "tuned on train": changed(*OURS, threshold="train"),
        "logged accuracy, at .5": changed(HEADS, threshold="logged"),
    },
    "inverted_labels": {
        "in the loss": both(changed(similar_label=0), None, in_form("distance", similar_label=0)),
        "in the metric only": changed(*OURS, validation_similar_label=0),
    },
    "input_scale": {
        "× 255": of_numbers(fine_tuned(False, changed(input_scale=255.0, activation="tanh"))),
        "one tower only": of_numbers(changed(PAIRS, tower_scale=255.0, activation="tanh")),
        "pretrained on [0, 1], fine-tuned on [0, 255]": fine_tuned(
            True, changed(*OURS, input_scale=255.0, pretrained_at=1 / 255, activation="tanh")
        ),
    },
    "unshared_weights": {"two encoders": changed(PAIRS, HEADS, shared=False)},
    "unreachable_output": {
        "sigmoid of a distance": in_form("sigmoid of a distance"),
        "softmax over one unit": in_form("softmax over one unit"),
        "cosine distance, margin 5": in_form("cosine distance", margin=5.0),
    },
    "head_sign": {
        "normalised distance": in_form("normalised distance", start=-1.0),
        "distance": in_form("weighted distance", start=2.0),
        "cosine": in_form("weighted cosine", start=-5.0),
    },
    "nan_gradient": {
        "root of 0": in_form("distance", epsilon=0.0, copies=0.01, dropout=0.0),
        "division by a norm of 0": in_form("cosine distance", epsilon=0.0, blank=0.02),
    },
    "frozen_part": {
        "trainable=False, new weights": changed(HEADS, trainable=False, embedding_dim=8),
        "stop_gradient": changed(HEADS, trainable="stopped", embedding_dim=8),
        "only the proxies learn": changed(PROXIES, trainable=False, embedding_dim=8),
    },
    "preprocessing_mismatch": {
        "held-out not scaled": of_numbers(changed(HEADS, preprocessing="not scaled")),
        "one held-out side not scaled": of_numbers(changed(HEADS, preprocessing="one side not scaled")),
        "held-out inverted": of_images(changed(HEADS, preprocessing="inverted")),
        "held-out turned": of_images(changed(HEADS, preprocessing="turned")),
    },
    "loss_mismatch": {
        "cross-entropy of a distance": in_form("cross-entropy of a distance"),
        "cross-entropy of logits": in_form("cross-entropy of logits"),
        "contrastive loss of a similarity": in_form("contrastive loss of a similarity"),
    },
    "pair_construction": {
        "one item twice": changed(HEADS, pairs="one item twice"),
        "labels left behind": changed(HEADS, pairs="labels left behind"),
        "40 pairs": changed(HEADS, pairs="few, again and again"),
        "one side constant": changed(HEADS, pairs="one side constant"),
    },
    "batch_norm": {
        "pretrained on inputs × 255, momentum .9999": of_scans(
            changed(HEADS, depth=3, batch_normalization=True, pretrained=True, pretrained_at=255.0, momentum=0.9999)
        ),
        "momentum .999": changed(*OURS, batch_normalization=True, momentum=0.999),
        "one-identity batches": changed(PAIRS, batch_normalization=True, one_identity=True, joint=False),
    },
}
CONTROLS = {
    "healthy": changed(),
    "healthy but hard": of_scans(either(changed(*OURS, noise=1.4), changed(HEADS, noise=1.0))),
    "slow starter": changed(*OURS, schedule="warm-up", epochs=16),
    "small validation": changed(validation_pairs=200),
    "long plateau after success": changed(*OURS, epochs=30),
    "near-perfect": changed(noise=0.3),
    "benign 1:5 imbalance": either(
        changed(PAIRS, HEADS, positive_fraction=1 / 6), changed(*BY_IDENTITY, share_of_two=0.1)
    ),
    "inputs in [0, 255], rescaled inside": of_numbers(changed(*OURS, rescale=255.0)),
    "restarts of the learning rate": changed(*OURS, schedule="restarts", epochs=16),
    "2-D embeddings": of_scans(changed(PAIRS, TRIPLETS, embedding_dim=2, normalize=False, noise=0.3)),
    "large but fine margin": both(changed(margin=1.6), changed(margin=0.8)),
    "frozen backbone, fine-tuned head": of_scans(changed(pretrained=True, trainable="head")),
    "BatchNormalization": changed(batch_normalization=True, momentum=0.9),
    "normalised distance, right sign": in_form("normalised distance", start=1.0),
    "weighted distance, right sign": in_form("weighted distance", start=-2.0),
    "weighted cosine, right sign": in_form("weighted cosine", start=5.0),
    "logits": in_form("logits"),
    "cosine, squared error": in_form("cosine, squared error"),
    "distance, margin in reach": in_form("distance", margin=2.0),
    "cosine distance, margin in reach": in_form("cosine distance", margin=1.0),
    "root with ε, equal pairs": in_form("distance", copies=0.01),
    "frozen pretrained encoder": of_images(changed(HEADS, pretrained=True, trainable=False)),
    "pretrained on the same inputs": of_scans(
        changed(HEADS, depth=3, batch_normalization=True, pretrained=True, momentum=0.9)
    ),
    "held-out brighter": of_scans(changed(HEADS, preprocessing="brighter")),
    "held-out noisier": of_scans(changed(HEADS, preprocessing="noisier")),
    "held-out lit from one side": of_scans(changed(HEADS, preprocessing="lit from one side")),
    "few pairs are enough": of_scans(changed(HEADS, pairs_drawn=1000, noise=0.3)),
    "each pair twice": changed(HEADS, pairs="each twice", pairs_drawn=6000),
    "exponential of a distance": in_form("exponential of a distance"),
    "two classes": in_form("two classes"),
    "temperature × 2": scaled(BATCHES, PROXIES, temperature=2),
    "margin of 0": changed(PROXIES, margin=0.0),
}
# Controls whose data are harder on purpose. The others are healthy only if they verify as well as the healthy run does.
HARDER = ("healthy but hard", "small validation", "2-D embeddings", "frozen backbone, fine-tuned head")
HARDER += ("frozen pretrained encoder", "held-out brighter", "held-out noisier", "held-out lit from one side")
# Other right names of a fault, which say what was planted as well.
ALSO_RIGHT = {
    ("collapse", "hardest mining, rate × 30, no norm"): ("learning_rate", "mining"),
    ("weak_features", "frozen random encoder"): ("frozen_part",),
    ("unreachable_output", "cosine distance, margin 5"): ("margin",),
}
NOISE, IMBALANCE, LEAK = ("label_noise", "40 %"), ("pair_imbalance", "1:200"), ("leakage", "same images")
FEW = ("memorising", "12 identities, long")
TOGETHER = (  # pairs of faults that real programs have at once
    (("learning_rate", "× 100"), NOISE),
    (("learning_rate", "× 1e-4"), IMBALANCE),
    (IMBALANCE, ("input_scale", "× 255")),
    (("input_scale", "× 255"), NOISE),
    (NOISE, ("identity_imbalance", "90 % of two")),
    (NOISE, LEAK),
    (FEW, LEAK),
    (("margin", "× .01"), FEW),
    (FEW, ("threshold", "tuned on train")),
    (("inverted_labels", "in the metric only"), LEAK),
    (("inverted_labels", "in the loss"), IMBALANCE),
    (("mining", "only easy pairs"), NOISE),
    (("wrong_distance", "trained on cosine, verified on raw L2"), NOISE),
    (("batch_norm", "momentum .999"), NOISE),
    (("unshared_weights", "two encoders"), NOISE),
    (("unreachable_output", "sigmoid of a distance"), IMBALANCE),
    (("preprocessing_mismatch", "held-out not scaled"), NOISE),
    (("frozen_part", "trainable=False, new weights"), ("pair_construction", "one item twice")),
    (("head_sign", "distance"), ("memorising", "5 identities, long")),
)


def combined(first, second):
    """The planting of two faults `(cause, dose)`: None where one of them does not apply."""

    def planting(base):
        once = FAULTS[first[0]][first[1]](base)
        return once and FAULTS[second[0]][second[1]](once)

    return planting


def split_pair(name, dose):
    """`((cause, dose), (cause, dose))` of a pair by the `name` and `dose` of its records."""
    return tuple(zip(name.split(AND), dose.split(AND), strict=True))


def every():
    """`(kind, name, dose)` of every control, fault and pair."""
    yield from (("control", name, "") for name in CONTROLS)
    yield from (("fault", cause, dose) for cause, doses in FAULTS.items() for dose in doses)
    yield from (("pair", *map(AND.join, zip(*pair, strict=True))) for pair in TOGETHER)


def planting_of(kind, name, dose):
    """The function that plants a control, fault or pair into a base recipe."""
    if kind == "pair":
        return combined(*split_pair(name, dose))
    return CONTROLS[name] if kind == "control" else FAULTS[name][dose]
