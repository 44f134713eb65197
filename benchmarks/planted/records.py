"""Records runs as plain dicts for JSON: what was planted, the outcome, and the measured facts."""

import time

from keras_siamese.diagnosis.facts.embeddings import HEALTH
from planted import heads, plantings, programs


def jobs(bases, seeds, causes=None, controls=None):
    """`(base, kind, name, dose, seed)` of each run. Seeds are the outer loop, so that a part is balanced."""
    for seed in seeds:
        for base in bases:
            for name, planting in plantings.CONTROLS.items():
                if (controls is None or name in controls) and planting(programs.BASES[base]) is not None:
                    yield base, "control", name, "", seed
            for cause, doses in plantings.FAULTS.items():
                for dose, planting in doses.items():
                    if (causes is None or cause in causes) and planting(programs.BASES[base]) is not None:
                        yield base, "fault", cause, dose, seed


def recipe_of(job):
    base, kind, name, dose, _ = job
    planting = plantings.CONTROLS[name] if kind == "control" else plantings.FAULTS[name][dose]
    return planting(programs.BASES[base])


def record_of(job, recipe=None):
    """Trains the recipe of `job`, or `recipe` if given, and returns the record of the run."""
    recipe = recipe or recipe_of(job)
    started = time.perf_counter()
    found = (heads if recipe["family"] == "head" else programs).run(recipe, job[-1])
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
    return record


def facts_of(diagnosis):
    """The facts of a run; of one that ended with NaN, those that can be measured without its embeddings."""
    if diagnosis is None:
        return None
    facts = diagnosis.facts.to_dict()
    facts["numbers"] = {name: float(f"{value:.6g}") for name, value in facts["numbers"].items()}
    return {**facts, "rows": {name: len(rows) for name, rows in facts["rows"].items()}}


def rounded(curve):
    return [float(f"{value:.6g}") for value in curve]
