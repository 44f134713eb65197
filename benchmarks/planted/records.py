"""Records runs as plain dicts for JSON: what was planted, the outcome, and the measured facts."""

import time
from collections import Counter

from keras_siamese.diagnosis.experiments.confirm import tested
from keras_siamese.diagnosis.facts.embeddings import HEALTH
from planted import heads, plantings, programs, recipes

KINDS = ("control", "fault", "pair")
FEW_CONTROLS = 6


def jobs(bases, seeds, kinds=KINDS, causes=None, few=False):
    """`(base, kind, name, dose, seed)` of each run. Seeds are the outer loop, so that a part is balanced.

    Args:
        bases, seeds: which ones.
        kinds: which of `KINDS`; the healthy control always runs, because harm is measured against it.
        causes: only faults of these causes, and pairs in which one is; None for all.
        few: of each cause only the first variant that applies and those of the pairs, and only the first `FEW_CONTROLS`
            controls.
    """
    paired = {fault for pair in plantings.TOGETHER for fault in pair}
    for seed in seeds:
        for base in bases:
            seen = Counter()
            for kind, name, dose in plantings.every():
                if plantings.planting_of(kind, name, dose)(recipes.BASES[base]) is None:
                    continue
                seen[kind, name] += 1
                seen[kind] += 1
                if few and seen[kind] > FEW_CONTROLS and kind == "control":
                    continue
                if few and seen[kind, name] > 1 and (name, dose) not in paired:
                    continue
                if name != "healthy" and (kind not in kinds or not is_of(causes, kind, name)):
                    continue
                yield base, kind, name, dose, seed


def is_of(causes, kind, name):
    return causes is None or (kind != "control" and bool(set(causes) & set(name.split(plantings.AND))))


def recipe_of(job):
    base, kind, name, dose, _ = job
    return plantings.planting_of(kind, name, dose)(recipes.BASES[base])


def record_of(job, recipe=None, with_tests=False):
    """Trains the recipe of `job`, or `recipe` if given, and returns the record of the run.

    If it is `with_tests`, the suspects are tested by experiments, as `diagnose(confirm=True)` does.
    """
    recipe = recipe or recipe_of(job)
    started = time.perf_counter()
    found = (heads if recipe["family"] == recipes.HEADS else programs).run(recipe, job[-1])
    fitted = time.perf_counter() - started
    monitor = found.monitor
    diagnosis = monitor.diagnosis
    record = dict(zip(("base", "kind", "name", "dose", "seed"), job, strict=True))
    record |= {
        "outcome": found.outcome,
        "seconds": round(fitted, 2),
        "history": {name: rounded(curve) for name, curve in monitor.history.items() if name not in HEALTH},
        "logs": {name: rounded(curve) for name, curve in found.logs.items() if name in ("loss", "val_loss")},
        "flags": [flag.epoch for flag in diagnosis.flags] if diagnosis else [],
        "facts": facts_of(diagnosis),
    }
    if found.fitted is not None:
        record["fitted"] = found.fitted
    return {**record, **tests_of(diagnosis)} if with_tests else record


def tests_of(diagnosis):
    """What experiments have found of the suspects, by cause, and what they cost."""
    started = time.perf_counter()
    findings = () if diagnosis is None else tested(diagnosis).findings
    tests = {one.cause: one.confirmation.to_dict() for one in findings if one.confirmation is not None}
    taken = sum(test["steps"] for test in tests.values())
    trained = max((test["steps"] for test in tests.values()), default=0)
    return {"tests": tests, "test_seconds": round(time.perf_counter() - started, 2), "test_steps": taken + trained}


def restored_record_of(job, recipe):
    """The record of a `recipe` that `ks.repair` has trained: its outcome, and what was changed."""
    started = time.perf_counter()
    outcome, repair = (heads if recipe["family"] == recipes.HEADS else programs).repaired(recipe, job[-1])
    base, _, *rest = job
    record = dict(zip(("base", "kind", "name", "dose", "seed"), (base, "restored", *rest), strict=True))
    kept = [[one.cause, sorted(one.options)] for one in repair.kept[1:]]
    spent = sum(one.epochs for one in repair.attempts)
    seconds = round(time.perf_counter() - started, 2)
    return {**record, "outcome": outcome, "kept": kept, "epochs": spent, "seconds": seconds, "why": repair.why}


def facts_of(diagnosis):
    """The facts of a run; of one that ended with NaN, those that can be measured without its embeddings."""
    if diagnosis is None:
        return None
    facts = diagnosis.facts.to_dict()
    facts["numbers"] = {name: float(f"{value:.6g}") for name, value in facts["numbers"].items()}
    return {**facts, "rows": {name: len(rows) for name, rows in facts["rows"].items()}}


def rounded(curve):
    return [float(f"{value:.6g}") for value in curve]
