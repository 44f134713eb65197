"""Timing and memory of several sides of one question, in one process, in turns.

Contract: a *side* is a function without arguments that does the work once and returns when it is done. `alternate` runs
all sides round by round, so that whatever else the machine does slows each of them alike; medians and ratios of medians
come out. `peak_memory` is the growth of the process's resident memory while a side runs once, on Linux, or of the
device's.

    seconds = alternate({"ours": ours, "peer": peer}, rounds=7)
    ratio = seconds["peer"] / seconds["ours"]
"""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import re
import resource
import signal
import statistics
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


class TooLong(Exception):
    """A side took longer than it was given."""


@contextlib.contextmanager
def time_limit(seconds):
    """Raises `TooLong` in the block after `seconds`."""

    def stop(signum, frame):
        raise TooLong(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def alternate(sides, rounds=7, budget=20.0, warm=()):
    """Median seconds of each side, by name. One run warms up those not in `warm`; rounds end early once all sides have
    had `budget` seconds.
    """
    for name, run in sides.items():
        if name not in warm:
            run()
    taken = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
        if sum(map(sum, taken.values())) > budget * len(sides):
            break
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def resident():
    """Resident memory now and at its highest since the mark was last cleared, in bytes."""
    status = Path("/proc/self/status").read_text()
    return tuple(1024 * int(re.search(rf"{field}:\s+(\d+)", status).group(1)) for field in ("VmRSS", "VmHWM"))


def peak_memory(run):
    """Bytes by which resident memory grows at most while `run` runs once; None where the system does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before, _ = resident()
    run()
    return max(0, resident()[1] - before)


def limit_memory(gigabytes):
    """Lets an allocation beyond `gigabytes` fail with an error, where it would bring the machine down."""
    resource.setrlimit(resource.RLIMIT_AS, (int(gigabytes * 2**30), resource.RLIM_INFINITY))


def surroundings(*packages):
    """Date, processor, cores and versions, as a table's footnote needs them."""
    model = (
        re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if os.path.exists("/proc/cpuinfo")
        else None
    )
    versions = {}
    for package in ("keras", "numpy", *packages):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "date": datetime.date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "processor": model.group(1).strip() if model else platform.processor(),
        "python": platform.python_version(),
        "versions": versions,
    }


def read(name):
    """What a benchmark found last, or nothing."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(name, found):
    """Keeps what a benchmark found in `results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
