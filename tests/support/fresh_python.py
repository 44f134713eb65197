"""A fresh Python, for what an import does.

The code prints JSON on its last line:

    fresh("import json; print(json.dumps(1))", KERAS_BACKEND="jax") == 1
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def fresh(code, *arguments, **environment):
    """What a fresh Python prints last, read as JSON, with this checkout before all else and `environment` on top."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def virtual_devices(count):
    """The environment of a process in which JAX has `count` devices, which are this machine's CPU.

    `NPROC` gives it more threads than devices: with as many, two programs that run at once can take threads from each
    other and wait for ever.
    """
    return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}", "NPROC": str(4 * count)}
