"""Computes figures from records: harmful planted faults, named causes, healthy runs with an alarm.

The causes are examined again from the recorded facts, so that the figures describe the current code of the causes.
"""

from collections import Counter, defaultdict

import numpy as np
from scipy.special import betaincinv
from scipy.stats import ttest_rel

from keras_siamese.diagnosis import causes
from keras_siamese.diagnosis.facts.table import Facts
from keras_siamese.diagnosis.suspects import suspects_of
from planted.baselines import BASELINES

ALARMING = ("warning", "error")
RESTORED = 0.8  # share of the lost outcome that a repair must restore


def named_by(record):
    """Ranked `Finding`s of a record that raise an alarm; None if embeddings were not finite and no cause is found.

    Older records of runs that ended with NaN have no facts.
    """
    if record["facts"] is None:
        return None
    facts = Facts(record["facts"]["numbers"], record["facts"]["words"], {})
    found = [finding for finding in causes.examine(facts)[0] if finding.severity in ALARMING]
    return None if not found and "not_finite" in facts else found


def named_first_three(record):
    """The first three suspects of a record, by name: what alarms, what another finding explains, and near misses."""
    if record["facts"] is None:
        return []
    facts = Facts(record["facts"]["numbers"], record["facts"]["words"], {})
    return [suspect.cause for suspect in suspects_of(facts, causes.examine(facts)[0])[:3]]


def key_of(record):
    return tuple(record[name] for name in ("base", "kind", "name", "dose", "seed"))


def harm_of(fault, healthy):
    """By how much a planted fault makes the outcome worse than that of the healthy run with the same base and seed.

    For leakage it is by how much the held-out EER looks better than it is.
    """
    if fault["name"] == "leakage":
        eers = [one["facts"]["numbers"].get("eer", 0.5) if one["facts"] else 0.5 for one in (healthy, fault)]
        return eers[0] - eers[1]
    return fault["outcome"] - healthy["outcome"]


def killed(records):
    """`{(base, cause, dose): (kept, harm, p, d, runs)}`: which faults do harm, by a paired t-test over seeds."""
    healthy = {(r["base"], r["seed"]): r for r in records if r["kind"] == "control" and r["name"] == "healthy"}
    harms = defaultdict(list)
    for record in records:
        if record["kind"] == "fault" and (record["base"], record["seed"]) in healthy:
            harm = harm_of(record, healthy[record["base"], record["seed"]])
            harms[record["base"], record["name"], record["dose"]].append(harm)
    found = {}
    for key, values in harms.items():
        values = np.array(values)
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        d = float(values.mean() / spread) if spread else float(len(values) > 1 and values.mean() > 0) * 1e3
        p = float(ttest_rel(values, np.zeros(len(values)), alternative="greater").pvalue) if spread else float(d == 0)
        found[key] = (bool(p < 0.05 and d >= 0.5), float(values.mean()), p, d, len(values))
    return found


def clopper_pearson(hits, total, confidence=0.95):
    """`(share, low, high)`: a binomial share and its Clopper–Pearson interval."""
    if total == 0:
        return None, 0.0, 1.0
    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, total - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, total - hits, 1 - tail)) if hits < total else 1.0
    return hits / total, low, high


def is_restored(fault, repaired, healthy):
    """Whether the repaired run restores at least `RESTORED` of what the fault cost."""
    lost = fault["outcome"] - healthy["outcome"]
    return lost > 0 and fault["outcome"] - repaired["outcome"] >= RESTORED * lost


def judged(records):
    """All figures of a half, as plain dicts and lists."""
    kill = killed(records)
    healthy = {(r["base"], r["seed"]): r for r in records if r["kind"] == "control" and r["name"] == "healthy"}
    repairs = {(*key_of(r)[:1], *key_of(r)[2:]): r for r in records if r["kind"] == "repair"}
    faults = [r for r in records if r["kind"] == "fault" and kill.get(plant_of(r), (False,))[0]]
    controls = [r for r in records if r["kind"] == "control"]
    by_cause, confusion, misses = defaultdict(Counter), defaultdict(Counter), []
    for record in faults:
        findings = named_by(record)
        names = ["undetermined"] if findings is None else [finding.cause for finding in findings]
        repair = repairs.get((record["base"], record["name"], record["dose"], record["seed"]))
        repair = None if record["name"] == "leakage" else repair  # leakage costs nothing that a repair could restore
        restores = repair is not None and is_restored(record, repair, healthy[record["base"], record["seed"]])
        count = by_cause[record["name"]]
        count["runs"] += 1
        count["detected"] += bool(names)
        count["named"] += names[:1] == [record["name"]]
        count["at_1"] += names[:1] == [record["name"]] or (bool(names) and restores)
        count["at_3"] += record["name"] in named_first_three(record) or (bool(names) and restores)
        count["abstained"] += names[:1] == ["undetermined"]
        count["repaired"] += restores
        count["repairs"] += repair is not None
        confusion[record["name"]][names[0] if names else "nothing"] += 1
        if names[:1] != [record["name"]]:
            misses.append({"run": list(key_of(record)), "named": names[:3], "restored": restores})
    alarms = [(record, named_by(record)) for record in controls]
    false = [
        {"run": list(key_of(record)), "named": [finding.cause for finding in found or ()]}
        for record, found in alarms
        if found or found is None
    ]
    return {
        "plantings": [
            {"base": base, "cause": cause, "dose": dose, "kept": kept, "harm": harm, "p": p, "d": d, "runs": runs}
            for (base, cause, dose), (kept, harm, p, d, runs) in sorted(kill.items())
        ],
        "causes": {cause: dict(count) for cause, count in sorted(by_cause.items())},
        "confusion": {cause: dict(count) for cause, count in sorted(confusion.items())},
        "controls": dict(Counter(record["name"] for record in controls)),
        "false_alarms": false,
        "misses": misses,
        "flagged": {
            "faults": sum(bool(record["flags"]) for record in faults),
            "controls": sum(bool(record["flags"]) for record in controls),
            "median_first_epoch": float(np.median([r["flags"][0] + 1 for r in faults if r["flags"]] or [0])),
        },
        "baselines": {
            rule.__name__: {
                "detected": sum(map(rule, faults)),
                "false_alarms": sum(map(rule, controls)),
            }
            for rule in BASELINES
        },
        "majority": max((dict(count).get("runs", 0) for count in by_cause.values()), default=0),
        "faults": len(faults),
        "overall": overall(by_cause, len(false), len(controls)),
    }


def plant_of(record):
    return record["base"], record["name"], record["dose"]


def overall(by_cause, false, controls):
    """The figure of each target with its interval."""
    total = sum(by_cause.values(), Counter())
    runs = total["runs"]
    shares = {name: clopper_pearson(total[name], runs) for name in ("detected", "named", "at_1", "at_3", "abstained")}
    shares["repaired"] = clopper_pearson(total["repaired"], total["repairs"])
    shares["false_alarms"] = clopper_pearson(false, controls)
    return {name: list(share) for name, share in shares.items()}
