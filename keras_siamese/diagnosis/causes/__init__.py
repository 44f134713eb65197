"""The causes: for each, the facts it reads, when it is found, when it is ruled out, and the repair.

A run fails on new identities in one of two ways. Either training did its job, the training identities are told apart
and others are not: then the cause is in how much they have in common (`memorising`). Or training itself did not get
there: then it is in the labels, the pairs, the loss, the optimizer or the encoder. Some causes are seen directly
whatever the figures say (unshared weights, leakage, an inverted convention), some need a null (label noise), and what
remains unexplained of a failed training is `weak_features`. `threshold` and `leakage` are about figures alone.

Which modules there are is found in the folder: a new cause is a new subclass of `Cause` in a file here.

    findings, others = examine(evidence.facts)
    findings[0].cause, findings[0].advice
    recipe = findings[0].apply({"margin": 1.0, "similar_label": 1})
"""

import importlib
import pkgutil
from dataclasses import replace

from keras_siamese.diagnosis.causes.base import SEVERITIES, Cause, Finding, NotExamined, RuledOut, Signal

__all__ = ["CAUSES", "Cause", "Finding", "NotExamined", "RuledOut", "Signal", "examine", "explaining_flags", "names"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
CAUSES = tuple(cause() for cause in Cause.__subclasses__())


def names():
    """Identifiers of the causes that are examined."""
    return [cause.name for cause in CAUSES]


def explaining_flags(findings):
    """Those of the `findings` that can be why AUC and EER do not follow the loss."""
    able = {cause.name for cause in CAUSES if cause.explains_flag}
    return [finding for finding in findings if finding.cause in able]


def examine(facts):
    """Examines every cause.

    Returns:
        `(findings, others)`: the findings ranked, most severe and strongest first, those that another one explains as
        well marked and last; and the `RuledOut` and `NotExamined` answers.
    """
    answers = [cause.examine(facts) for cause in CAUSES]
    findings = [answer for answer in answers if isinstance(answer, Finding)]
    return rank(findings), [answer for answer in answers if not isinstance(answer, Finding)]


def rank(findings):
    """Most severe first, then strongest; a finding that another one explains comes last, marked and only "info".

    Of two that explain each other the first stays.
    """
    findings = sorted(findings, key=lambda finding: (-SEVERITIES.index(finding.severity), -finding.strength))
    ranked = []
    for place, finding in enumerate(findings):
        by = next(
            (
                other.cause
                for other_place, other in enumerate(findings)
                if finding.cause in other.explains and (other.cause not in finding.explains or other_place < place)
            ),
            None,
        )
        ranked.append(replace(finding, explained_by=by, severity="info") if by else finding)
    return sorted(ranked, key=lambda finding: finding.explained_by is not None)
