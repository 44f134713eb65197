"""The causes, one in each file: the facts it reads, when it is found or ruled out, its wording, advice and repair.

A run fails on new identities in one of two ways. Either training did its job and the training identities are told
apart, but others are not: then the cause is how much they have in common (`memorising`). Or training itself failed:
then the cause is in the labels, the pairs, the loss, the optimizer or the encoder. Some causes are seen directly
(unshared weights, leakage, an inverted convention), some need a comparison with held-out data (label noise), and what
remains unexplained of a failed training is `weak_features`. `threshold` and `leakage` are about figures alone.

A new cause is a new file here with one subclass of `Cause`; nothing else has to know it.

    findings, others = examine(facts)
    findings[0].cause, findings[0].advice
    recipe = findings[0].apply({"margin": 1.0, "similar_label": 1})
"""

import importlib
import pkgutil

from keras_siamese._files import SideWork
from keras_siamese.diagnosis.causes.base import Cause, Finding, NotExamined, RuledOut, Signal, answer_of
from keras_siamese.diagnosis.ranking import STAGES, rank

__all__ = ["CAUSES", "Cause", "Finding", "NotExamined", "RuledOut", "Signal", "examine", "explaining_flags", "names"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
CAUSES = tuple(sorted((cause() for cause in Cause.__subclasses__()), key=lambda cause: STAGES.index(cause.stage)))


def names():
    """Identifiers of the causes that are examined."""
    return [cause.name for cause in CAUSES]


def explaining_flags(findings):
    """Those of the `findings` that can be the reason why AUC and EER do not follow the loss."""
    return [finding for finding in findings if finding.explains_flag and finding.cause != "undetermined"]


def examine(facts, side=None):
    """Examines every cause; of a run that has left NaN in its weights, those that can be judged without its embeddings.

    Args:
        facts: the `Facts` of the run.
        side: the `SideWork` that is told of a cause that raises; the cause is then `NotExamined`. None raises.

    Returns:
        `(findings, others)`: the findings as `ranking.rank` sorts them, and the `RuledOut` and `NotExamined` answers.
    """
    side = SideWork(strict=True) if side is None else side
    causes = [cause for cause in CAUSES if cause.after_nan or "not_finite" not in facts]
    answers = [answer_of(cause, facts, side) for cause in causes]
    findings = [answer for answer in answers if isinstance(answer, Finding)]
    return rank(findings), [answer for answer in answers if not isinstance(answer, Finding)]
