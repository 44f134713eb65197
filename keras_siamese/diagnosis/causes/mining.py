"""Mining: training is shown only pairs that are too easy, so nothing is left to learn; or only the hardest, which have
wrong labels or collapse the embedding.
"""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import (
    TRAINING_DATA,
    Cause,
    RuledOut,
    Signal,
    change,
    is_imperfect,
    shown_are_easy,
    signals_of,
)


class Mining(Cause):
    stage = "data"
    reads = ("train_auc",)
    needs = TRAINING_DATA
    advice = (
        "# either: for batches of identities\n"
        'loss = ks.losses.BatchTripletLoss(positives="all", negatives="semi_hard")\n'
        "# or: for pairs, a callback that finds hard partners under the current encoder\n"
        "refresh = ks.callbacks.HardPairRefresh(train, every=5)"
    )

    other_pairs = (
        "order = np.random.default_rng(0).permutation(len(left))\n"
        "impostors = left, right[order]  # impostor pairs of the items of genuine pairs"
    )

    def judge(self, facts):
        shown = [facts[name] for name in ("drawn_auc", "mined_accuracy") if name in facts]
        missed = 1 - facts["train_auc"]
        signals = {"missed_of_all_pairs": Signal(missed, limits.MISSED)}
        signals |= signals_of(facts, drawn_auc=None, mined_accuracy=1 - limits.MOST_PAIRS)
        signals |= signals_of(facts, crossed_eer=(limits.BAD_EER, facts["train_eer"]), train_eer=limits.TOLD_APART)
        signals |= signals_of(facts, train_input_eer=limits.UNLEARNED, untrained_eer=limits.UNLEARNED)
        if shown_are_easy(facts) and is_imperfect(facts, limits.FAILED_EER):
            what = (
                f"The training pairs are told apart (EER {facts['train_eer']:.3f}), but genuine pairs are not "
                f"told from pairs of their own items (EER {facts['crossed_eer']:.3f}): the impostor pairs are too easy."
            )
            strength = facts["crossed_eer"] / limits.TOLD_APART
            return self.found(facts, "error", what, signals, strength, change(easy_pairs=False), self.other_pairs)
        if not shown or missed <= limits.MISSED or not is_imperfect(facts):
            return RuledOut(self.name, signals)
        easy = 1 - max(shown)
        signals["missed_of_shown_over_all"] = Signal(easy / missed, limits.EASY, 1.0)
        wrong = 1 - facts.get("mined_accuracy", 1.0)
        held_out = facts.get("impostor_like_held_out", 0.0)
        noisy = facts.get("impostor_like", 0.0) > held_out + limits.LABEL_EXCESS
        steady = facts.get("update_size_first", 0.0) < limits.LARGE_UPDATE  # larger steps are the first to blame
        # A few pairs may be easy by chance.
        is_clear = missed - easy > limits.ERRORS_WORSE * facts.get("drawn_auc_se", 0.0)
        if easy < limits.EASY * missed and is_clear:
            what = (
                f"{easy:.1%} of the pairs that training is shown are ranked wrongly, but {missed:.1%} of all training "
                "pairs: training sees only easy pairs."
            )
            severity = "error" if missed > limits.TWICE * limits.MISSED else "warning"
            strength = limits.EASY * missed / max(easy, limits.SMALLEST_SHARE)
        elif wrong > limits.MOST_PAIRS and steady and (noisy or facts["spacing"] < limits.POINT):
            what = (
                f"{wrong:.0%} of the triplets that the loss selects are ranked wrongly, but {missed:.1%} of all pairs: "
                f"the hardest ones {'have wrong labels' if noisy else 'collapse the embedding'}."
            )
            severity, strength = "error", limits.STRONGEST
        else:
            return RuledOut(self.name, signals)
        repair = change(positives="all", negatives="all", easy_pairs=False, online=False)
        return self.found(facts, severity, what, signals, strength, repair)
