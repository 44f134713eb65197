"""Pair construction: training pairs, or their labels, are not made as they should be.

Genuine pairs are one item twice, equal pairs have different labels, one side is always the same item, a few pairs are
shown again and again, or labels do not follow the pairs (after both were shuffled apart).
"""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, change, is_imperfect, signals_of


class PairConstruction(Cause):
    stage = "labels"
    reads = ("identical_genuine",)
    needs = "training pairs of your own: train=([left, right], y)"
    advice = "train = ks.data.PairSequence(x, labels)  # draws new pairs in each epoch\nsiamese.fit(train, epochs=20)"

    in_one_order = (
        "order = np.random.default_rng(0).permutation(len(y))\n"
        "left, right, y = left[order], right[order], y[order]  # all three in one order"
    )

    def judge(self, facts):
        signals = signals_of(
            facts,
            identical_genuine=(limits.MOST_PAIRS, 0.0),
            identical_genuine_held_out=None,
            contradictory_pairs=(limits.CONTRADICTED, 0.0),
            constant_side=(limits.MOST_PAIRS, 0.0),
            times_shown=(limits.TIMES_SHOWN, 1.0),
            train_input_auc=(None, 0.5),
            input_auc=(None, 0.5),
        )
        what = self.mistake(facts) if is_imperfect(facts, limits.FAILED_EER) else None
        if what is not None:
            return self.found(facts, "error", what, signals, limits.STRONGEST, change(pairs="drawn"))
        what = self.held_out_labels_lost(facts)
        if what is None:
            return RuledOut(self.name, signals)
        return self.found(facts, "error", what, signals, limits.STRONGEST, None, self.in_one_order)

    def mistake(self, facts):
        """What is wrong with the pairs, as a sentence, or None."""
        if facts["identical_genuine"] > limits.MOST_PAIRS:
            return (
                f"{facts['identical_genuine']:.0%} of the genuine training pairs are one item twice, and their "
                "distance is 0 for any encoder: nothing teaches it which differences to ignore."
            )
        if facts.get("contradictory_pairs", 0.0) > limits.CONTRADICTED:
            share = facts["contradictory_pairs"]
            return f"{share:.0%} of the training pairs occur with both labels: impostor pairs are genuine ones too."
        if facts.get("constant_side", 0.0) > limits.MOST_PAIRS:
            share = facts["constant_side"]
            return f"One side of {share:.0%} of the training pairs is the same item: the encoder sees hardly any other."
        repeated = facts.get("times_shown", 1.0)
        if repeated > limits.TIMES_SHOWN and facts["pairs_of_items"] > limits.TIMES_SHOWN:
            return (
                f"Each training pair is shown {repeated:.0f} times in an epoch, although the items allow "
                f"{facts['pairs_of_items']:.0f} times as many pairs."
            )
        return self.labels_lost(facts)

    def labels_lost(self, facts):
        """That labels do not follow the pairs, as a sentence, or None."""
        if "train_input_auc" not in facts or "input_auc" not in facts:
            return None
        trained, held_out = (facts[name] - 0.5 for name in ("train_input_auc", "input_auc"))
        if not is_lost(trained, facts["train_input_auc_se"], held_out):
            return None
        return (
            "In the raw inputs, genuine held-out pairs are closer than impostors (AUC "
            f"{0.5 + held_out:.2f}), but genuine training pairs are not (AUC {0.5 + trained:.2f}): the training labels "
            "do not follow their pairs."
        )

    def held_out_labels_lost(self, facts):
        """The same of the held-out labels, if the network tells held-out pairs apart no better than chance."""
        if "train_input_auc" not in facts or "input_auc_se" not in facts:
            return None
        trained, held_out = (facts[name] - 0.5 for name in ("train_input_auc", "input_auc"))
        is_chance = 0.5 - facts["eer"] < limits.ERRORS_WORSE * facts["eer_se"]
        # Raw inputs also tell nothing if one side of the held-out pairs was prepared in another way.
        apart = facts.get("held_out_towers", 0.0) - facts.get("drawn_towers", 0.0), facts.get("held_out_spread", 0.0)
        is_prepared = max(map(abs, apart)) <= limits.SCALES_APART and facts.get("turned", 0.0) <= limits.TURNED
        if not is_chance or not is_prepared or not is_lost(held_out, facts["input_auc_se"], trained):
            return None
        return (
            "In the raw inputs, genuine training pairs are closer than impostors (AUC "
            f"{0.5 + trained:.2f}), but genuine held-out pairs are not (AUC {0.5 + held_out:.2f}), and the network "
            "tells these apart no better than chance: the held-out labels do not follow their pairs."
        )


def is_lost(told, error, by_others):
    """Whether raw inputs say nothing of some labels, although they say much `by_others`: AUCs of both less ½, and the
    standard `error` of the first.
    """
    reach = limits.ERRORS_WORSE * error
    if by_others < limits.LABELS_CLEAR or abs(told) > max(reach, limits.LABELS_LOST * by_others):
        return False
    return abs(told) <= by_others / 2 and by_others - abs(told) >= reach
