"""Advice as code, for the labels of the user's pairs.

Contract: functions of `Facts`; they give lines of code. "same_label" is the label, 0 or 1, of pairs that are the same
in what the user's `fit` is given. A loss that is advised is for this label.

    pair_loss(facts, margin=1)    # "ks.losses.ContrastiveLoss(margin=1, similar_label=0)"
"""


def pair_loss(facts, name="ContrastiveLoss", **options):
    """The loss of this package of class `name` with `options`, as code, for the label that means the same."""
    label = facts.get("same_label", facts.get("loss_similar_label", 1))
    if label == 0 and (name == "ContrastiveLoss" or "loss_similar_label" in facts):
        options["similar_label"] = 0
    return f"ks.losses.{name}({', '.join(f'{option}={value}' for option, value in options.items())})"


def logistic_head(facts):
    """A head that gives the probability of the same identity and its loss, as lines of code."""
    lines = [
        'p = ks.layers.LogisticHead()(ks.layers.DistanceLayer("euclidean")([u, v]))  # sigmoid(b - a * d)',
        'model.compile("adam", "binary_crossentropy")',
    ]
    if facts.get("same_label") == 0:
        lines.append("y = 1 - y  # p is the probability of the same identity, so 1 must mean the same")
    return "\n".join(lines)
