"""Base programs of the fault benchmark as *recipes*: plain dicts with the argument names of the package.

A base program is a data set and a program, such as "digits-contrastive". `Finding.apply` changes a recipe. `programs`
and `heads` train by it, `samples` makes its data.

    recipe = {**BASES["digits-contrastive"], "margin": 100.0}
    family_of("digits-supcon")                              # "batch loss"
"""

from planted.samples import IDENTITIES, SAMPLES

PAIRS, TRIPLETS, HEADS, BATCHES, PROXIES = "contrastive", "triplet", "head", "batch loss", "proxy loss"
TUNED = "fine-tuned"  # trained like a triplet program, from a pretrained encoder
COMMON = {
    "identities": IDENTITIES,
    "samples": SAMPLES,
    "epochs": 10,
    "batches": 18,
    "learning_rate": 3e-3,
    "schedule": None,
    "normalize": True,
    "embedding_dim": 32,
    "width": 128,
    "depth": 1,
    "activation": "relu",
    "dropout": 0.0,
    "online": False,
    "trainable": True,
    "batch_normalization": False,
    "momentum": 0.99,
    "joint": True,
    "loss": None,
    "margin": None,
    "temperature": None,  # of the cosines in a batch or proxy loss
    "distance": "euclidean",
    "verify_distance": None,
    "similar_label": 1,
    "validation_similar_label": 1,
    "positive_fraction": 0.5,
    "positives": "all",
    "negatives": "all",
    "easy_pairs": False,
    "label_noise": 0.0,
    "share_of_two": 0.0,
    "weighting": "natural",
    "one_identity": False,
    "leak": None,
    "threshold": None,
    "input_scale": 1.0,
    "rescale": 1.0,
    "tower_scale": 1.0,
    "shared": True,
    "blur": 0.0,
    "augment": False,
    "early_stopping": False,
    "noise": 1.0,
    "validation_pairs": None,
    "pretrained": False,
    "pretrained_at": 1.0,
    "new_head": False,
}
HEAD = {
    "form": "absolute difference",
    "head": None,
    "margin": 1.0,
    "start": 1.0,
    "epsilon": 1e-7,
    "dropout": 0.2,
    "noise": 0.8,
    "normalize": False,
    "pairs": "drawn",
    "pairs_drawn": 3000,
    "learning_rate": 5e-3,
    "copies": 0.0,
    "blank": 0.0,
    "preprocessing": "same",
}
FINE_TUNED = {"pretrained": True, "new_head": True, "depth": 2, "learning_rate": 1e-3}
TRIPLET = {"family": TRIPLETS, "loss": "BatchTriplet", "margin": 0.2}
PROXY = {"distance": "cosine", "learning_rate": 1e-2}
PROGRAMS = {  # program: (family that is reported, options)
    "contrastive": (PAIRS, {"margin": 1.0}),
    "triplet": (TRIPLETS, TRIPLET),
    "head": (HEADS, HEAD),
    "supcon": (BATCHES, {"loss": "SupCon", "temperature": 0.1, "distance": "cosine"}),
    "ntxent": (BATCHES, {"loss": "NTXent", "temperature": 0.07, "distance": "cosine"}),
    "multisimilarity": (BATCHES, {"loss": "MultiSimilarity", "temperature": 0.02, "distance": "cosine"}),
    "smoothap": (BATCHES, {"loss": "SmoothAP", "temperature": 0.01, "distance": "cosine"}),
    "arcface": (PROXIES, {**PROXY, "loss": "ArcFace", "margin": 0.2, "temperature": 1 / 16}),
    "proxyanchor": (PROXIES, {**PROXY, "loss": "ProxyAnchor", "margin": 0.1, "temperature": 1 / 32}),
    "tuned": (TUNED, {**TRIPLET, **FINE_TUNED}),
}
DATA = {"digits": {}, "garments": {}, "blobs": {}, "text": {}, "tokens": {"noise": 0.25}}
OWN = {"text-head": {"noise": 0.5, "dropout": 0.5}}  # options that one base program needs to be healthy
BASES = {
    f"{data}-{program}": {
        **COMMON,
        "data": data,
        "family": family,
        **DATA[data],
        **options,
        **OWN.get(f"{data}-{program}", {}),
    }
    for data in DATA
    for program, (family, options) in PROGRAMS.items()
}
# Thresholds are chosen on the tuning half and frozen before anyone looks at the test half. Each half has all families
# and all kinds of data; each batch and proxy loss is in one half only. The programs that are added to each half below
# were assigned before any fault was planted in them.
TUNING = ("digits-contrastive", "garments-triplet", "blobs-triplet", "digits-head")
TUNING += ("digits-supcon", "garments-smoothap", "blobs-arcface", "digits-tuned", "text-contrastive", "tokens-triplet")
TEST = ("digits-triplet", "garments-contrastive", "blobs-contrastive", "garments-head", "blobs-head")
TEST += (
    "digits-ntxent",
    "garments-multisimilarity",
    "blobs-proxyanchor",
    "garments-tuned",
    "text-head",
    "tokens-contrastive",
)


def family_of(base):
    """The family of a base program, under which its figures are reported."""
    return PROGRAMS[base.split("-")[1]][0]
