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
