"""Measures time and memory of several sides of a comparison in one process, in turns.

Contract: a *side* is a function without arguments that does the work once and returns when it is done. `alternate` runs
all sides round by round, so that other work on the machine slows all of them equally. It returns medians. `peak_memory`
returns by how much the resident memory of the process grows while a side runs once (Linux only).

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
    """Raised if a side takes longer than its time limit."""


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
    """Median seconds of each side, by name.

    Sides that are not in `warm` run once before as a warm-up. The rounds stop early when the sides have used `budget`
    seconds each on average.
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
    """Resident memory in bytes: now, and the highest value since the mark was last cleared."""
    status = Path("/proc/self/status").read_text()
    return tuple(1024 * int(re.search(rf"{field}:\s+(\d+)", status).group(1)) for field in ("VmRSS", "VmHWM"))


def peak_memory(run):
    """Largest growth of resident memory, in bytes, while `run` runs once; None if the system does not report it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before, _ = resident()
    run()
    return max(0, resident()[1] - before)


def limit_memory(gigabytes):
    """Limits the memory of this process, so that a larger allocation raises an error."""
    resource.setrlimit(resource.RLIMIT_AS, (int(gigabytes * 2**30), resource.RLIM_INFINITY))


def surroundings(*packages):
    """Date, processor, cores and versions for the footnote of a table."""
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
    """Returns the last results of a benchmark, or an empty dict."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(name, found):
    """Writes the results of a benchmark into `results/NAME.json` and returns the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
