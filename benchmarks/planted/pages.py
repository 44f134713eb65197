"""Writes the figures of the fault benchmark as Markdown: targets, families, causes, pairs, baselines, single runs."""

TARGETS = {
    "detected": ("detected", "≥ .95"),
    "false_alarms": ("healthy runs with an alarm", "≤ .02"),
    "at_1": ("cause@1: named first, or its repair restores the outcome", "≥ .85"),
    "at_3": ("cause@3", "≥ .95"),
    "named": ("the planted cause is named first", ""),
    "repaired": ("applying the first advice restores ≥ 80 %", ""),
    "abstained": ("undetermined", ""),
}
TEST_TARGETS = {
    "named_after_tests": ("named first, after its suspects were tested", "≥ .93"),
    "named_by_rules": ("named first in the same runs, without tests", ""),
    "detected": ("detected, after tests", ""),
    "false_alarms": ("healthy runs with an alarm, after tests", ""),
}
PAIR_TARGETS = {
    "both": ("both are named in the first three places", "≥ .70"),
    "one": ("one of them is", ""),
    "first": ("one of them is named first", ""),
    "detected": ("detected", ""),
}


def faults(found, table):
    """Targets; families; causes and what was named instead; pairs; baselines; each miss, alarm, discarded planting."""
    parts = [overall, tests, restored, by_family, by_cause, pairs, baselines]
    return "\n\n".join(filter(None, [*(part(found, table) for part in parts), by_name(found)]))


def targets(figures, wanted, table):
    lines = []
    for name, (what, target) in wanted.items():
        share, low, high = figures[name]
        lines.append([what, "" if share is None else f"{share:.3f}", f"{low:.3f} – {high:.3f}", target])
    return table(["figure", "share", "95 % interval", "target"], lines)


def overall(found, table):
    total = sum(found["controls"].values())
    flags = found["flagged"]
    kinds = len(found["controls"])
    text = (
        f"{found['faults']} faulty runs in which the planted fault does harm, {total} healthy runs of {kinds} "
        f"kinds. A divergence was flagged in {flags['faults']} of the faulty runs (first flag at epoch "
        f"{flags['median_first_epoch']:.0f}, median) and in {flags['controls']} healthy runs."
    )
    return targets(found["overall"], TARGETS, table) + "\n\n" + text


def tests(found, table):
    """Runs whose suspects were tested by experiments; nothing if there are none."""
    judged = found.get("tests", {"runs": 0})
    if not judged["runs"]:
        return ""
    kinds = {"planted": "of the planted cause", "other": "of another cause"}
    said = [
        f"{kinds[kind]} {', '.join(f'{count} {verdict}' for verdict, count in sorted(verdicts.items()))}"
        for kind, verdicts in judged["verdicts"].items()
    ]
    text = (
        f"Suspects were tested in {judged['runs']} of these faulty runs and {judged['controls']} healthy ones. "
        f"Verdicts {'; '.join(said)}. All tests of a run take at most half of its epochs, and "
        f"{judged['median_seconds']:.1f} s in the median; the fit itself takes "
        f"{judged['median_seconds_of_the_fit']:.1f} s."
    )
    return targets(judged, TEST_TARGETS, table) + "\n\n" + text


def restored(found, table):
    """Programs that `ks.repair` has trained; nothing if there are none."""
    judged = found.get("restored", {"runs": 0})
    if not judged["runs"]:
        return ""
    of_data = judged["data"]
    restores = "`ks.repair` restores ≥ 80 % of the lost EER"
    wanted = {
        "restored": (f"{restores}: faults in the program", "≥ .90"),
        "changed": ("it changes the program", ""),
        "of_data": (f"{restores}: faults in the data", ""),
    }
    text = (
        f"{judged['runs'] + of_data['runs']} faulty programs were given to `ks.repair`. All attempts on a program "
        f"together took {judged['mean_epochs']:.0f} epochs in the mean, besides the tests and the short runs that "
        f"compare learning rates. {of_data['runs']} of the faults lie in the data, so training can repair them only in "
        "part: wrong labels, blurred inputs, and pairs without identities of which few are genuine. Left out "
        "are faults that training cannot repair at all: wrong figures (leakage, thresholds, an inverted metric), "
        "wrong held-out inputs, and data that lack identities, most of their samples, or the right pairs. Runs that "
        "have lost less than two standard deviations of healthy runs are left out, too."
    )
    names, lines = ("runs", "restored", "changed"), []
    for where, one in (("program", judged), ("data", of_data)):
        lines += [
            [f"`{cause}`", where, *(str(count[name]) for name in names)] for cause, count in one["causes"].items()
        ]
    by_cause = table(["planted", "fault in", "programs", "restored", "changed"], lines)
    return "\n\n".join([targets({**judged, "of_data": of_data["restored"]}, wanted, table), text, by_cause])


def by_family(found, table):
    """The targets of each family of programs, with intervals; nothing if figures were recorded without families."""
    names, lines = ("detected", "false_alarms", "at_1", "at_3"), []
    for family, figures in found.get("families", {}).items():
        shown = [figures[name] for name in names]
        shares = ["" if share is None else f"{share:.2f} ({low:.2f} – {high:.2f})" for share, low, high in shown]
        lines.append([family, str(figures["runs"]), str(figures["controls"]), *shares])
    header = ["family", "faulty", "healthy", "detected", "healthy runs with an alarm", "@1", "@3"]
    return table(header, lines) if lines else ""


def pairs(found, table):
    """Runs with two faults; nothing if there are none."""
    judged = found.get("pairs", {"runs": 0})
    if not judged["runs"]:
        return ""
    lines = [
        [name.replace(" + ", " and "), *(str(count.get(part, 0)) for part in ("runs", "both", "one", "first"))]
        for name, count in judged["pairs"].items()
    ]
    by_pair = table(["two faults", "runs", "both in the first three", "one of them", "one named first"], lines)
    left_out = [f"{name} “{dose}” on {base}" for base, name, dose in judged["left_out"]]
    text = (
        f"{judged['runs']} runs with two faults, each of which does harm alone or makes the other worse. "
        f"Pairs that were left out, because not both of their faults do harm: {'; '.join(left_out) or 'none'}."
    )
    return "\n\n".join([targets(judged["overall"], PAIR_TARGETS, table), by_pair, text])


def by_cause(found, table):
    lines = []
    for cause, count in found["causes"].items():
        runs = count["runs"]
        shares = [f"{count.get(name, 0) / runs:.2f}" for name in ("detected", "named", "at_1", "at_3")]
        repaired = f"{count.get('repaired', 0)} of {count.get('repairs', 0)}"
        others = {name: times for name, times in found["confusion"][cause].items() if name != cause}
        taken = ", ".join(f"{name} {times}" for name, times in sorted(others.items(), key=lambda one: -one[1]))
        lines.append([f"`{cause}`", str(runs), *shares, repaired, taken])
    return table(["planted", "runs", "detected", "named first", "@1", "@3", "repaired", "named first instead"], lines)


def baselines(found, table):
    total, faulty = sum(found["controls"].values()), found["faults"]
    detected, alarms = found["overall"]["detected"][0], found["overall"]["false_alarms"][0]
    lines = [["this diagnosis", f"{detected:.2f}", f"{alarms:.2f}", f"{found['overall']['named'][0]:.2f}"]]
    for rule, count in found["baselines"].items():
        shares = [f"{count['detected'] / faulty:.2f}", f"{count['false_alarms'] / total:.2f}"]
        named = f"{count['named'] / faulty:.2f}" if count.get("named") else ""
        lines.append([rule.replace("_", " "), *shares, named])
    lines.append(["always name the most frequent cause", "", "", f"{found['majority'] / faulty:.2f}"])
    return table(
        ["rule, on the same logs", "faulty runs with an alarm", "healthy runs with an alarm", "cause named first"],
        lines,
    )


def by_name(found):
    discarded = [
        f"{plant['cause']} “{plant['dose']}” on {plant['base']} (d = {plant['d']:.2g})"
        for plant in found["plantings"]
        if not plant["kept"]
    ]
    alarms = [
        f"{' '.join(map(str, one['run'][:1] + one['run'][2:]))}: {', '.join(one['named'])}"
        for one in found["false_alarms"]
    ]
    worse = [f"{name} on {base} (EER + {harm:.2f})" for base, name, harm in found.get("unhealthy", [])]
    missed = {}
    for miss in found["misses"]:
        base, _, cause, dose, seed = miss["run"]
        named = ", ".join(miss["named"]) or "nothing"
        restored = ", whose repair restores the outcome" if miss["restored"] else ""
        key = f"{cause} “{dose}” on {base}: {named}{restored}"
        missed.setdefault(key, []).append(str(seed))
    lines = [f"- {key} (seeds {', '.join(seeds)})" for key, seeds in sorted(missed.items())]
    return (
        f"Healthy runs with an alarm: {'; '.join(alarms) or 'none'}.\n\n"
        f"Controls that were left out, as they verify worse than healthy runs: {'; '.join(worse) or 'none'}.\n\n"
        f"Planted faults that were left out, because they do no significant harm: {'; '.join(discarded) or 'none'}.\n\n"
        "<details><summary>All runs in which another cause, or none, was named first</summary>\n\n"
        + "\n".join(lines)
        + "\n\n</details>"
    )


COUNTS = ("detected", "alarms", "named", "judged_otherwise")


def sensitivity(found, table):
    """The limits that matter, each with the change in runs at half and at double its value; then the others."""
    halves, limits = found["halves"], found["limits"]
    lines, unmoved, measured = [], [], []
    for name, limit in limits.items():
        rows = {half: of["varied"][name] for half, of in halves.items()}
        if None in rows.values():
            measured.append(name)
            continue
        cells = [moved(rows[half][what], of["as_it_is"]) for half, of in halves.items() for what in ("half", "double")]
        if any(cells):
            lines.append([f"`{name}`", f"{limit['value']:g} {limit['unit']}", *cells])
        else:
            unmoved.append(name)
    header = ["limit", *(f"{half}, {what}" for half in halves for what in ("half", "double"))]
    sizes = [
        f"{half.capitalize()} half, with the limits as they are: {of['as_it_is']['detected']} of {of['faults']} faulty "
        f"runs are detected, and in {of['as_it_is']['named']} the planted cause is named first. "
        f"{of['as_it_is']['alarms']} of {of['controls']} healthy runs have an alarm."
        for half, of in halves.items()
    ]
    return "\n\n".join(
        [
            *sizes,
            table(header, lines),
            f"{len(unmoved)} limits change no judgement: {listed(unmoved)}.",
            f"{len(measured)} limits are used when facts are measured or drawn, so that records cannot tell: "
            f"{listed(measured)}.",
        ]
    )


def moved(counts, usual):
    """The changes of the `COUNTS` as text, empty if there is none."""
    changes = [counts[name] - usual[name] for name in COUNTS]
    return " / ".join(f"{change:+d}".replace("-", "−") if change else "0" for change in changes) if any(changes) else ""


def listed(names):
    return ", ".join(f"`{name}`" for name in names) or "none"
