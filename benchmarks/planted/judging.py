"""Computes figures from records: harmful planted faults and pairs of faults, named causes, healthy runs with an alarm.

The causes are examined again from the recorded facts, so that the figures describe the current code of the causes.
"""

from collections import Counter, defaultdict

import numpy as np
from scipy.special import betaincinv
from scipy.stats import ttest_rel

from keras_siamese.diagnosis import causes
from keras_siamese.diagnosis.experiments.confirm import Confirmation, findings_by
from keras_siamese.diagnosis.facts.table import Facts
from keras_siamese.diagnosis.suspects import suspects_of
from planted.baselines import BASELINES
from planted.plantings import ALSO_RIGHT, HARDER, split_pair
from planted.recipes import HEADS, family_of

ALARMING = ("warning", "error")
FIGURES = ("detected", "named", "at_1", "at_3", "abstained")
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


def alarms_of(record):
    """The causes by which a record raises an alarm, ranked; "undetermined" if nothing explains an end with NaN."""
    findings = named_by(record)
    return ["undetermined"] if findings is None else [finding.cause for finding in findings]


def named_first_three(record):
    """The first three suspects of a record, by name: what alarms, what another finding explains, and near misses."""
    if record["facts"] is None:
        return []
    facts = Facts(record["facts"]["numbers"], record["facts"]["words"], {})
    return [suspect.cause for suspect in suspects_of(facts, causes.examine(facts)[0])[:3]]


def named_after_tests(record):
    """The causes by which a record raises an alarm, ranked, after its suspects were tested."""
    if record["facts"] is None or "not_finite" in record["facts"]["numbers"]:
        return alarms_of(record)
    facts = Facts(record["facts"]["numbers"], record["facts"]["words"], {})
    findings = causes.examine(facts)[0]
    found = {cause: Confirmation(**test) for cause, test in record["tests"].items()}
    ranked = findings_by(found, findings, suspects_of(facts, findings))
    return [finding.cause for finding in ranked if finding.severity in ALARMING]


def is_right(record, names):
    """Whether one of the causes `names` is what was planted in the run of the `record`."""
    return not {record["name"], *ALSO_RIGHT.get((record["name"], record["dose"]), ())}.isdisjoint(names)


def is_repairable(record):
    """Whether training can make good what a fault costs. It cannot if figures or held-out inputs are wrong, or if the
    data lack what is needed: identities, most of their samples, or the right pairs.
    """
    elsewhere = ("leakage", "threshold", "preprocessing_mismatch")
    elsewhere += ("memorising", "identity_imbalance", "pair_construction")
    return record["name"] not in elsewhere and record["dose"] != "in the metric only"


def key_of(record):
    return tuple(record[name] for name in ("base", "kind", "name", "dose", "seed"))


def harm_of(fault, healthy):
    """By how much a planted fault makes the outcome worse than that of the healthy run with the same base and seed.

    For leakage it is by how much the held-out EER looks better than it is. A threshold is compared with the one that is
    best on the validation pairs of the same run, because an error rate is no EER, and a distance with which only the
    figures are made with the one that was trained.
    """
    if fault["name"] == "leakage":
        eers = [one["facts"]["numbers"].get("eer", 0.5) if one["facts"] else 0.5 for one in (healthy, fault)]
        return eers[0] - eers[1]
    if "fitted" in fault and fault["kind"] == "fault":
        return fault["outcome"] - fault["fitted"]
    return fault["outcome"] - healthy["outcome"]


def killed(records):
    """`{(base, cause, dose): (kept, harm, p, d, runs)}`: which faults do harm, by a paired t-test over seeds."""
    healthy = {(r["base"], r["seed"]): r for r in records if r["kind"] == "control" and r["name"] == "healthy"}
    harms = defaultdict(list)
    for record in records:
        if record["kind"] == "fault" and (record["base"], record["seed"]) in healthy:
            harm = harm_of(record, healthy[record["base"], record["seed"]])
            harms[record["base"], record["name"], record["dose"]].append(harm)
    return {key: tested(values) for key, values in harms.items()}


def unhealthy_controls(records, healthy):
    """`{(base, name): harm}` of the controls that verify worse than the healthy run of their program, by the test that
    a fault must pass, and lose a quarter of its EER at least: another form of a program may suit its data badly.
    """
    harms = defaultdict(list)
    for record in records:
        sound = healthy.get((record["base"], record["seed"]))
        if record["kind"] == "control" and record["name"] not in ("healthy", *HARDER) and sound is not None:
            harms[record["base"], record["name"]].append((record["outcome"] - sound["outcome"], sound["outcome"]))
    means = {key: np.mean(values, axis=0) for key, values in harms.items()}
    return {
        key: float(means[key][0])
        for key, values in harms.items()
        if tested([harm for harm, _ in values])[0] and means[key][0] > 0.25 * means[key][1]
    }


def tested(harms):
    """`(kept, harm, p, d, runs)` of the harms over seeds, by a t-test."""
    values = np.array(harms)
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    d = float(values.mean() / spread) if spread else float(len(values) > 1 and values.mean() > 0) * 1e3
    p = float(ttest_rel(values, np.zeros(len(values)), alternative="greater").pvalue) if spread else float(d == 0)
    return bool(p < 0.05 and d >= 0.5), float(values.mean()), p, d, len(values)


def pairs_kept(records, kill):
    """`{(base, name, dose): kept}` of pairs: whether both faults do harm.

    They do if each alone does, or if the run with both is worse than that with either.
    """
    alone, pairs = {key_of(record): record for record in records if record["kind"] == "fault"}, defaultdict(list)
    for record in records:
        if record["kind"] == "pair":
            pairs[plant_of(record)].append(record)

    def is_worse(runs, base, fault):
        others = [alone.get((base, "fault", *fault, run["seed"])) for run in runs]
        harms = [run["outcome"] - other["outcome"] for run, other in zip(runs, others, strict=True) if other]
        return bool(harms) and tested(harms)[0]

    found = {}
    for (base, name, dose), runs in pairs.items():
        faults = split_pair(name, dose)
        each = all(kill.get((base, *fault), (False,))[0] for fault in faults)
        found[base, name, dose] = each or all(is_worse(runs, base, fault) for fault in faults)
    return found


def clopper_pearson(hits, total, confidence=0.95):
    """`(share, low, high)`: a binomial share and its Clopper–Pearson interval."""
    if total == 0:
        return None, 0.0, 1.0
    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, total - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, total - hits, 1 - tail)) if hits < total else 1.0
    return hits / total, low, high


def lies_in_data(record):
    """Whether a fault of which training can make good a part has spoiled the data: labels are wrong, the inputs lack
    their detail, or of the pairs that are given few are genuine.
    """
    has_few = record["name"] == "pair_imbalance" and family_of(record["base"]) == HEADS
    return record["name"] == "label_noise" or record["dose"] == "blurred input" or has_few


def is_restored(fault, repaired, healthy):
    """Whether the repaired run restores at least `RESTORED` of what the fault cost."""
    lost = harm_of(fault, healthy)
    return lost > 0 and fault["outcome"] - repaired["outcome"] >= RESTORED * lost


def judged(records):
    """All figures of a half, as plain dicts and lists."""
    kill = killed(records)
    healthy = {(r["base"], r["seed"]): r for r in records if r["kind"] == "control" and r["name"] == "healthy"}
    repairs = {(*key_of(r)[:1], *key_of(r)[2:]): r for r in records if r["kind"] == "repair"}
    faults = [r for r in records if r["kind"] == "fault" and kill.get(plant_of(r), (False,))[0]]
    unhealthy = unhealthy_controls(records, healthy)
    controls = [r for r in records if r["kind"] == "control" and (r["base"], r["name"]) not in unhealthy]
    by_cause, by_family = defaultdict(Counter), defaultdict(Counter)
    confusion, misses = defaultdict(Counter), []
    for record in faults:
        repair = repairs.get((record["base"], record["name"], record["dose"], record["seed"]))
        count, names = counted(record, repair, healthy[record["base"], record["seed"]])
        by_cause[record["name"]].update(count)
        by_family[family_of(record["base"])].update(count)
        confusion[record["name"]][names[0] if names else "nothing"] += 1
        if not count["named"]:
            misses.append({"run": list(key_of(record)), "named": names[:3], "restored": bool(count["repaired"])})
    false = []
    for record in controls:
        names = alarms_of(record)
        if names:
            false.append({"run": list(key_of(record)), "named": names})
        by_family[family_of(record["base"])].update(controls=1, false_alarms=bool(names))
    return {
        "plantings": [
            {"base": base, "cause": cause, "dose": dose, "kept": kept, "harm": harm, "p": p, "d": d, "runs": runs}
            for (base, cause, dose), (kept, harm, p, d, runs) in sorted(kill.items())
        ],
        "causes": {cause: dict(count) for cause, count in sorted(by_cause.items())},
        "families": {family: figures(count) for family, count in sorted(by_family.items())},
        "pairs": judged_pairs(records, kill),
        "tests": judged_tests(faults, controls),
        "restored": judged_restored(records, kill, healthy),
        "confusion": {cause: dict(count) for cause, count in sorted(confusion.items())},
        "controls": dict(Counter(record["name"] for record in controls)),
        "unhealthy": [[*key, harm] for key, harm in sorted(unhealthy.items())],
        "false_alarms": false,
        "misses": misses,
        "flagged": {
            "faults": sum(bool(record["flags"]) for record in faults),
            "controls": sum(bool(record["flags"]) for record in controls),
            "median_first_epoch": float(np.median([r["flags"][0] + 1 for r in faults if r["flags"]] or [0])),
        },
        "baselines": {rule.__name__: judged_baseline(rule, faults, controls) for rule in BASELINES},
        "majority": max((dict(count).get("runs", 0) for count in by_cause.values()), default=0),
        "faults": len(faults),
        "overall": figures(sum(by_family.values(), Counter())),
    }


def counted(record, repair, healthy):
    """`(counts, names)` of a faulty run: what counts for it, and the causes by which it raises an alarm."""
    names = alarms_of(record)
    repair = None if record["name"] == "leakage" else repair  # leakage costs nothing that a repair could restore
    restores = repair is not None and is_restored(record, repair, healthy)
    is_first = is_right(record, names[:1])
    counts = {
        "runs": 1,
        "detected": bool(names),
        "named": is_first,
        "at_1": is_first or (bool(names) and restores),
        "at_3": is_right(record, named_first_three(record)) or (bool(names) and restores),
        "abstained": names[:1] == ["undetermined"],
        "repaired": restores,
        "repairs": repair is not None,
    }
    return Counter({name: int(value) for name, value in counts.items()}), names


def judged_tests(faults, controls):
    """Figures of the runs whose suspects were tested: the first name by rules alone and after the tests, and the cost.

    The cost is the share of the run's own training steps that all tests of a run took together.
    """
    faults, controls = ([run for run in runs if "tests" in run] for runs in (faults, controls))
    count, verdicts = Counter(runs=len(faults), controls=len(controls)), defaultdict(Counter)
    for record in faults:
        alarms, names = alarms_of(record), named_after_tests(record)
        count.update(rules=is_right(record, alarms[:1]), tests=is_right(record, names[:1]), detected=bool(names))
        for cause, test in record["tests"].items():
            verdicts["planted" if is_right(record, [cause]) else "other"][test["verdict"]] += 1
    count.update(false_alarms=sum(bool(named_after_tests(record)) for record in controls))
    cost = [record["test_seconds"] for record in faults if record["test_steps"]]
    return {
        "named_by_rules": list(clopper_pearson(count["rules"], count["runs"])),
        "named_after_tests": list(clopper_pearson(count["tests"], count["runs"])),
        "detected": list(clopper_pearson(count["detected"], count["runs"])),
        "false_alarms": list(clopper_pearson(count["false_alarms"], count["controls"])),
        "runs": count["runs"],
        "controls": count["controls"],
        "verdicts": {kind: dict(found) for kind, found in sorted(verdicts.items())},
        "median_seconds": float(np.median(cost or [0.0])),
        "median_seconds_of_the_fit": float(np.median([record["seconds"] for record in faults] or [0.0])),
    }


def judged_restored(records, kill, healthy):
    """How often `ks.repair` restores at least `RESTORED` of the lost outcome, of the runs that training can repair:
    figures of faults in the program, with counts by fault, and the same of faults in the data under "data".

    Counted are runs that have lost more than healthy runs of the same program differ from seed to seed: two standard
    deviations of these.
    """
    faults = {(*plant_of(run), run["seed"]): run for run in records if run["kind"] == "fault"}
    outcomes, counts = defaultdict(list), {False: defaultdict(Counter), True: defaultdict(Counter)}
    for run in healthy.values():
        outcomes[run["base"]].append(run["outcome"])
    for record in records:
        fault = faults.get((*plant_of(record), record["seed"]))
        if record["kind"] != "restored" or fault is None or not is_repairable(fault) or not kill[plant_of(record)][0]:
            continue
        sound = healthy[record["base"], record["seed"]]
        if harm_of(fault, sound) <= 2 * np.std(outcomes[record["base"]], ddof=1):
            continue
        count = {"runs": 1, "restored": int(is_restored(fault, record, sound)), "changed": int(bool(record["kept"]))}
        counts[lies_in_data(fault)][record["name"]].update({**count, "epochs": record["epochs"]})
    return {**restored_figures(counts[False]), "data": restored_figures(counts[True])}


def restored_figures(counts):
    """The figures of what `judged_restored` has counted, a `Counter` by fault."""
    total = sum(counts.values(), Counter())
    return {
        "restored": list(clopper_pearson(total["restored"], total["runs"])),
        "changed": list(clopper_pearson(total["changed"], total["runs"])),
        "runs": total["runs"],
        "mean_epochs": total["epochs"] / max(total["runs"], 1),
        "causes": {cause: dict(count) for cause, count in sorted(counts.items())},
    }


def judged_pairs(records, kill):
    """Figures of the runs with two faults: whether both, or one, are named in the first three places."""
    kept, counts = pairs_kept(records, kill), defaultdict(Counter)
    for record in records:
        if record["kind"] != "pair" or not kept[plant_of(record)]:
            continue
        planted = {cause for cause, _ in split_pair(record["name"], record["dose"])}
        alarms, names = alarms_of(record), set(named_first_three(record))
        count = {"runs": 1, "detected": alarms, "first": alarms[:1] and alarms[0] in planted}
        count |= {"one": planted & names, "both": planted <= names}
        counts[record["name"]].update({name: int(bool(value)) for name, value in count.items()})
    total = sum(counts.values(), Counter())
    names = ("detected", "first", "one", "both")
    return {
        "overall": {name: list(clopper_pearson(total[name], total["runs"])) for name in names},
        "pairs": {name: dict(count) for name, count in sorted(counts.items())},
        "runs": total["runs"],
        "left_out": [list(key) for key, is_kept in sorted(kept.items()) if not is_kept],
    }


def judged_baseline(rule, faults, controls):
    """On how many runs a published or simple rule alarms, and in how many it names the planted cause first."""
    names = [rule(record) for record in faults]
    return {
        "detected": sum(map(bool, names)),
        "named": sum(is_right(record, found[:1]) for found, record in zip(names, faults, strict=True)),
        "false_alarms": sum(bool(rule(record)) for record in controls),
    }


def plant_of(record):
    return record["base"], record["name"], record["dose"]


def figures(count):
    """`{figure: [share, low, high]}` of the counts of faulty and healthy runs, with their numbers."""
    shares = {name: clopper_pearson(count[name], count["runs"]) for name in FIGURES}
    shares["repaired"] = clopper_pearson(count["repaired"], count["repairs"])
    shares["false_alarms"] = clopper_pearson(count["false_alarms"], count["controls"])
    return {name: list(share) for name, share in shares.items()} | {name: count[name] for name in ("runs", "controls")}
