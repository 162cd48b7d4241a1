"""What needs several devices, in a process that has them."""

import os
import subprocess
import sys
from pathlib import Path


def run_on_eight(module: str, folder: Path) -> None:
    """`python -m module folder` with eight virtual devices, from the checkout."""
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", module, str(folder)],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=Path(__file__).parent.parent.parent,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    assert "rematerialization" not in done.stderr  # XLA says so where it gathers what it need not
