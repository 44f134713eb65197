"""The planted faults and the healthy controls: recipes with one change.

`FAULTS[cause][dose]` and `CONTROLS[name]` are functions that take a base recipe and return the changed one. They return
None if the change does not apply to the base: for example, a batch of identities has no pairs that could be imbalanced.
"""


def changed(only=None, **options):
    """A planting that sets `options`, on bases of the family `only`, or on all bases."""
    return lambda base: {**base, **options} if only in (None, base["family"]) else None


def scaled(**factors):
    return lambda base: {**base, **{name: base[name] * factor for name, factor in factors.items()}}


def both(contrastive, triplet):
    """One planting for each family."""
    return lambda base: (contrastive if base["family"] == "contrastive" else triplet)(base)


def far_margin(base):
    """A margin a hundred times as large, without normalisation: on unit vectors the loss would refuse it."""
    return {**base, "margin": 100 * base["margin"], "normalize": False}


PAIRS, TRIPLETS = "contrastive", "triplet"
FAULTS = {
    "weak_features": {
        "4 units": changed(width=4, activation="tanh"),
        "frozen random encoder": changed(trainable="head", embedding_dim=4),
        "blurred input": changed(blur=1.5),
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
        "1:200": changed(PAIRS, positive_fraction=1 / 201),
    },
    "identity_imbalance": {"90 % of two": changed(share_of_two=0.9), "97 % of two": changed(share_of_two=0.97)},
    "wrong_distance": {
        "trained on cosine, verified on raw L2": changed(
            TRIPLETS, normalize=False, distance="cosine", verify_distance="euclidean"
        ),
        "trained on cosine, verified by the inner product of varied norms": changed(
            TRIPLETS, normalize=False, distance="cosine", verify_distance="inner_product"
        ),
        "trained on cosine, verified by the largest difference": changed(
            TRIPLETS, normalize=False, distance="cosine", verify_distance="chebyshev"
        ),
    },
    "margin": {"× .01": scaled(margin=0.01), "× 100": far_margin},
    "mining": {
        "only easy pairs": both(changed(easy_pairs=True), changed(positives="easy", negatives="easy")),
        "hardest on noisy labels": changed(TRIPLETS, positives="hard", negatives="hard", label_noise=0.1),
    },
    "learning_rate": {"× 100": scaled(learning_rate=100), "× 1e-4": scaled(learning_rate=1e-4)},
    "memorising": {
        "5 identities, long": changed(identities=5, epochs=20),
        "12 identities, long": changed(identities=12, epochs=20),
    },
    "label_noise": {"20 %": changed(label_noise=0.2), "40 %": changed(label_noise=0.4)},
    "leakage": {"same images": changed(leak="images"), "same identities": changed(leak="identities")},
    "threshold": {
        "fixed .5": changed(threshold=-0.5),
        "fixed 1": changed(threshold=-1.0),
        "tuned on train": changed(threshold="train"),
    },
    "inverted_labels": {
        "in the loss": changed(PAIRS, similar_label=0),
        "in the metric only": changed(validation_similar_label=0),
    },
    "input_scale": {
        "× 255": changed(input_scale=255.0, activation="tanh"),
        "one tower only": changed(PAIRS, tower_scale=255.0, activation="tanh"),
    },
    "unshared_weights": {"two encoders": changed(PAIRS, shared=False)},
    "batch_norm": {
        "momentum .999": changed(batch_normalization=True, momentum=0.999),
        "one-identity batches": changed(PAIRS, batch_normalization=True, one_identity=True, joint=False),
    },
}
CONTROLS = {
    "healthy": changed(),
    "healthy but hard": changed(noise=1.4),
    "slow starter": changed(schedule="warm-up", epochs=16),
    "small validation": changed(validation_pairs=200),
    "long plateau after success": changed(epochs=30),
    "near-perfect": changed(noise=0.3),
    "benign 1:5 imbalance": both(changed(positive_fraction=1 / 6), changed(share_of_two=0.1)),
    "inputs in [0, 255], rescaled inside": changed(rescale=255.0),
    "restarts of the learning rate": changed(schedule="restarts", epochs=16),
    "2-D embeddings": changed(embedding_dim=2, normalize=False, noise=0.3),
    "large but fine margin": both(changed(margin=1.6), changed(margin=0.8)),
    "frozen backbone, fine-tuned head": changed(pretrained=True, trainable="head"),
    "BatchNormalization": changed(batch_normalization=True, momentum=0.9),
}
