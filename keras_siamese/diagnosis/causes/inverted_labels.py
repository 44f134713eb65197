"""Inverted labels: the pair labels say "different" where they mean "same". Pairs are then ranked worse than chance,
which noise cannot do.

Training pairs of known identity tell more: an encoder that ranks *them* worse than chance was trained to. Held-out
pairs alone count if the training data are not known. If they are known and training pairs are ranked well, held-out
pairs ranked worse than chance mean that the held-out pair labels are inverted.

A loss that pulls the wrong way may also stop where it ranks pairs like chance: training has then taken away what the
encoder knew before it. Neither wrong labels nor a weak encoder do that, if a linear model shows that the labels are
right, nor does a collapse, which leaves no spread.

A head with weights of its own may also rank pairs worse than chance because it has not found its sign yet. So its
ranking counts only if the inputs do not show that the labels are right; see `head_sign`.
"""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.advice import has_signs, is_own_loss, turned_labels
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, Signal, change, is_imperfect, signals_of


class InvertedLabels(Cause):
    stage = "labels"
    reads = ("auc",)

    def judge(self, facts):
        errors, critical = facts["below_chance"], facts["below_chance_critical"]
        is_below, is_above = errors > critical, errors < -critical
        signals = {"auc": Signal(facts["auc"], None, 0.5)}
        signals["standard_errors_below_half"] = Signal(errors, critical, 0.0)
        trained = facts.get("train_below_chance")
        if trained is not None:
            reach = facts["train_below_chance_critical"]
            signals["train_auc"] = Signal(facts["train_auc"], None, 0.5)
            signals["train_standard_errors_below_half"] = Signal(trained, reach, 0.0)
        what = self.contradiction(facts, signals)
        if what is not None and is_imperfect(facts, limits.FAILED_EER):
            return self.in_training(facts, what, signals, limits.STRONGEST)
        follows = facts.get("train_input_auc", facts.get("input_auc", 0.5)) - 0.5 > limits.LABELS_CLEAR
        if facts.get("learned_head") and follows:
            return RuledOut(self.name, signals)
        worse = f"Held-out pairs are ranked worse than chance (AUC {facts['auc']:.3f}"
        if is_below and trained is not None and trained < -reach and "identities" not in facts:
            what = f"{worse}), although training pairs are ranked well: the labels of the held-out pairs are inverted."
            advice = "monitor = ks.callbacks.DivergenceMonitor(validation, similar_label=0)"
            repair = change(validation_similar_label=1)
            return self.found(facts, "error", what, signals, errors / critical, repair, advice)
        if is_below and trained is None:
            what = (
                f"{worse}, {errors:.1f} standard errors below ½): labels are inverted, either in the loss or in these "
                "pairs."
            )
            return self.in_training(facts, what, signals, errors / critical)
        if trained is not None and trained > reach and not is_above:
            what = (
                f"Even training pairs are ranked worse than chance (AUC {facts['train_auc']:.3f}, {trained:.1f} "
                "standard errors below ½): the loss pulls impostors together and pushes genuine pairs apart, since "
                "its labels are inverted."
            )
            return self.in_training(facts, what, signals, trained / reach)
        if self.has_unlearned(facts):
            signals |= signals_of(facts, train_eer=None, untrained_eer=None, linear_train_eer=limits.BAD_EER)
            what = (
                f"Training pairs are told apart worse than by the untrained encoder (EER {facts['train_eer']:.3f}, "
                f"before {facts['untrained_eer']:.3f}), although a linear model tells them apart (EER "
                f"{facts['linear_train_eer']:.3f}): the loss pulls impostors together, since its labels are inverted."
            )
            strength = (facts["train_eer"] - facts["untrained_eer"]) / limits.UNLEARNED_BY
            return self.in_training(facts, what, signals, strength)
        return RuledOut(self.name, signals)

    @staticmethod
    def has_unlearned(facts):
        """Whether steps of a usual size have made the encoder worse than it was, with labels that are right."""
        if any(name not in facts for name in ("train_eer", "untrained_eer", "linear_train_eer", "spread")):
            return False
        if facts.get("learned_head") or facts["spread"] < limits.POINT or not is_imperfect(facts, limits.FAILED_EER):
            return False
        steps = facts.get("update_size_first", facts.get("weights_grown", 1.0) / limits.LARGE_GROWTH)
        lost = facts["train_eer"] - facts["untrained_eer"]
        is_told_apart = facts["linear_train_eer"] < limits.BAD_EER
        return bool(lost > limits.UNLEARNED_BY and steps <= limits.LARGE_UPDATE and is_told_apart)

    def contradiction(self, facts, signals):
        """What contradicts the labels of training without a look at the ranking, as a sentence, or None."""
        of_loss, of_pairs = facts.get("loss_similar_label"), facts.get("pairs_similar_label")
        if None not in (of_loss, of_pairs) and of_loss != of_pairs:
            signals |= {"similar_label_of_loss": Signal(of_loss), "similar_label_of_pairs": Signal(of_pairs)}
            return (
                f'The loss takes the label {of_loss:g} for "same", but the training pairs use the label '
                f"{of_pairs:g}: the loss pulls impostors together and pushes genuine pairs apart."
            )
        told, held_out = facts.get("train_input_auc", 0.5) - 0.5, facts.get("input_auc", 0.5) - 0.5
        if min(-told, held_out) > limits.LABELS_CLEAR:
            signals |= {"train_input_auc": Signal(0.5 + told, None, 0.5)}
            signals |= {"input_auc": Signal(0.5 + held_out, None, 0.5)}
            return (
                f"In the raw inputs, genuine held-out pairs are closer than impostors (AUC {0.5 + held_out:.2f}), "
                f'and training pairs that are labelled "same" are farther apart (AUC {0.5 + told:.2f}): the '
                "training labels mean the opposite."
            )
        equal, wanted = facts.get("equal_end", 0), facts.get("wanted_end", 0)
        if equal * wanted < 0 and not facts.get("learned_head", 1):
            signals |= {"output_of_equal_embeddings": Signal(equal, None, wanted)}
            now, asked = ("highest", "lowest") if equal > 0 else ("lowest", "highest")
            return (
                f"Equal embeddings give the {now} output, and the loss asks for the {asked} one for pairs that are the "
                "same: it takes their label for the other one."
            )
        return None

    def in_training(self, facts, what, signals, strength):
        """The finding that the labels in the loss are inverted."""
        wanted = int(facts.get("loss_similar_label", 1 - facts.get("same_label", 0)))
        if is_own_loss(facts) and "loss_similar_label" in facts:
            repaired = (
                f"# either: if label {1 - wanted} means the same in your pairs\n"
                f"loss = ks.losses.{facts.words['loss']}(similar_label={1 - wanted})\n"
            )
        else:  # the labels of the held-out pairs are right if they contradict those of training
            repaired = f"# either: turn the labels\n{turned_labels(facts, held_out='input_auc' not in signals)}\n"
        option = "" if wanted else ", similar_label=0"
        advice = (
            f"{repaired}# or: let the package make the pairs, whose label {wanted} means the same\n"
            f"train = ks.data.PairSequence(x, labels{option})"
        )
        if has_signs(facts) and not is_own_loss(facts):  # pairs of the package have labels 0 and 1
            advice = turned_labels(facts, held_out="input_auc" not in signals)

        def apply(recipe):
            return {**recipe, "similar_label": 1 - recipe.get("similar_label", 1)}

        return self.found(facts, "error", what, signals, strength, apply, advice)
