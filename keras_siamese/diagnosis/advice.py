"""Advice as code: for the labels of the user's pairs, and with what its names stand for.

Contract: functions of text and `Facts`; they give lines of code. "same_label" is the label, 0 or 1, of pairs that are
the same in what the user's `fit` is given. A loss that is advised is for this label. Alternatives stand below comments
that begin with "either" and "or".

    pair_loss(facts, margin=1)              # "ks.losses.ContrastiveLoss(margin=1, similar_label=0)"
    explained("encoder.summary()")          # "encoder.summary()\\n# encoder: your network of one input, which …"
"""

import ast
import builtins
import textwrap

WIDTH = 100  # columns of a comment
PACKAGES = {"ks", "keras", "np"}
NAMES = {
    "x": "your samples, one in each row",
    "labels": "the identity of each sample",
    "x_valid": "held-out samples",
    "labels_valid": "the identity of each held-out sample",
    "test": "samples and identities, or pairs, for the final figures",
    "validation": "the validation data that you pass now",
    "raw_train": "training samples as they are read",
    "raw_valid": "held-out samples as they are read",
    "prepare": "your preprocessing, a function",
    "left_train": "the first items of training pairs",
    "right_train": "the second items of training pairs",
    "left": "the first items of held-out pairs",
    "right": "the second items of these pairs",
    "y": "the labels of your pairs",
    "y_valid": "the labels of your held-out pairs",
    "train": "the training data that give batches, a sequence",
    "encoder": "your network of one input, which embeds a sample",
    "backbone": "the pretrained network in the encoder",
    "inputs": "what the encoder is called with",
    "siamese": "your model of two inputs",
    "model": "your model of two inputs",
    "u": "the embedding of the first input",
    "v": "the embedding of the second input",
    "merged": "what your model computes of both embeddings",
    "squared": "squared distances",
    "cosine": "cosines of the embeddings of pairs",
    "z": "embeddings, one in each row",
    "loss": "your loss",
    "learning_rate": "the rate that you use now",
    "epochs": "the number of epochs",
    "path": "the file of pretrained weights",
    "monitor": "your DivergenceMonitor",
    "diagnosis": "`monitor.diagnosis`, or what `ks.diagnose` returned",
    "change": "your augmentation",
    "history": "what `fit` returned",
}


# Lines that augment samples, by what these are; see `facts.inputs.kind_of`.
AUGMENT = {
    "images": "augment = ks.data.image_augmenter(rotation_range=15, zoom_range=0.1)",
    "numbers": 'augment = lambda x, rng: x + rng.normal(0, 0.1 * x.std(), x.shape).astype("float32")  # of a batch',
    "ids": "augment = lambda ids, rng: np.where(rng.random(ids.shape) < 0.1, 0, ids)  # drops one in ten; 0 is padding",
    "others": "augment = change  # your function (batch, rng) → batch, which keeps what tells identities apart",
}


def for_samples(advice, facts):
    """`advice` with the augmentation of images in it replaced by one of the samples that the run has."""
    return advice.replace(AUGMENT["images"], AUGMENT[facts.words.get("samples", "images")])


def pair_loss(facts, name="ContrastiveLoss", **options):
    """The loss of this package of class `name` with `options`, as code, for the label that means the same."""
    label = facts.get("same_label", facts.get("loss_similar_label", 1))
    if label == 0 and (name == "ContrastiveLoss" or "loss_similar_label" in facts):
        options["similar_label"] = 0
    return f"ks.losses.{name}({', '.join(f'{option}={value}' for option, value in options.items())})"


def is_own_loss(facts):
    """Whether the program is compiled with a loss of this package, so that its options can be advised."""
    return bool(facts.get("loss_of_package"))


def turned_labels(facts, held_out=True):
    """The labels of the user's pairs turned, 0 and 1 or −1 and 1, as lines of code; also those of the `held_out` pairs,
    if these are given as pairs.
    """
    names = ["y", "y_valid"] if held_out and "identities" not in facts else ["y"]
    return "\n".join(f"{name} = {'-' if has_signs(facts) else '1 - '}{name}" for name in names)


def trains_on_pairs(facts):
    """Whether the training data that are known are pairs, of which no sample's identity is known."""
    return "train_auc" in facts and "train_identities" not in facts


def has_signs(facts):
    """Whether the labels of the user's pairs are −1 and 1."""
    return facts.get("lowest_label", 0) < 0


def label_of(facts, same):
    """The label of the user's pairs that are the `same`, or not."""
    is_high = bool(facts.get("same_label", 1)) == same
    return 1 if is_high else -1 if has_signs(facts) else 0


def logistic_head(facts):
    """A head that gives the probability of the same identity and its loss, as lines of code."""
    lines = [
        'p = ks.layers.LogisticHead()(ks.layers.DistanceLayer("euclidean")([u, v]))  # sigmoid(b - a * d)',
        "model = keras.Model(model.inputs, p)",
        'model.compile("adam", "binary_crossentropy")',
    ]
    turned = facts.get("same_label") == 0
    if has_signs(facts):
        lines.append(f"y = (y {'<' if turned else '>'} 0).astype(int)  # 1 means the same, 0 means different")
    elif turned:
        lines.append("y = 1 - y  # p is the probability of the same identity, so 1 must mean the same")
    return "\n".join(lines)


def smaller_rate(facts):
    """A tenth of the learning rate, as code: a number if the rate is known."""
    return f"{facts['learning_rate'] / 10:.2g}" if "learning_rate" in facts else "learning_rate / 10"


def explained(code):
    """`code` and, as a comment at its end, what each name stands for that it uses and does not define."""
    meanings = "; ".join(f"{name}: {NAMES[name]}" for name in free_names(code) if name in NAMES)
    if not meanings:
        return code
    comment = textwrap.wrap(meanings, WIDTH, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)
    return "\n".join([code, *comment])


def free_names(code):
    """The names that `code` uses before it defines them, in their order.

    >>> free_names("a = b + c\\nprint(a, b)")
    ['b', 'c']
    """
    known, free = PACKAGES | set(dir(builtins)), []
    for statement in ast.parse(code).body:
        names = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
        names.sort(key=lambda node: (node.lineno, node.col_offset))
        free += [one.id for one in names if isinstance(one.ctx, ast.Load) and one.id not in known]
        known |= {one.id for one in names}
    return list(dict.fromkeys(free))
