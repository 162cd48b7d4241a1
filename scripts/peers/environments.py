"""Each arm's own Python, with exact pins: made on first use, or given."""

import subprocess
import sys
from pathlib import Path

_JAX = ("jax==0.10.2", "jaxlib==0.10.2", "flax==0.12.8", "optax==0.2.8", "distrax==0.1.9", "numpy==2.4.6")
_GYMNAX = ("gymnax==0.0.9", "gymnasium==1.4.0", "rejax==0.1.3", "brax==0.14.2", "mujoco==3.17.0", "mujoco-mjx==3.17.0")
_TORCH = ("torch==2.13.0", "stable-baselines3==2.9.2", "gymnasium[mujoco]==1.3.0", "mujoco==3.17.0", "numpy==2.4.6")
PINS = {  # PureJaxRL and rejax need gymnax < 1
    "gymnax-0": (*_JAX, *_GYMNAX),
    "sb3": _TORCH,
    "sbx": (*_TORCH, *_JAX[:4], "sbx-rl==0.28.0"),
}
HOME = {"purejaxrl": "gymnax-0", "rejax": "gymnax-0", "brax": "gymnax-0", "sb3": "sb3", "sbx": "sbx"}


class NotMeasured(Exception):
    """An arm that cannot be run, and why in one line."""


def given(pairs: tuple[str, ...]) -> dict[str, str]:
    """arm -> Python, from "ARM=PYTHON". Raises ValueError with a sentence for what is not of that form."""
    found = {}
    for pair in pairs:
        name, equals, python = pair.partition("=")
        if not equals or not python or name not in HOME:
            raise ValueError(f"--env {pair} is not ARM=PYTHON with an ARM of {', '.join(HOME)}")
        found[name] = python
    return found


def python_of(arm: str, pythons: dict[str, str], folder: Path) -> str:
    """The Python that runs an arm. Raises NotMeasured where its environment cannot be made."""
    if arm == "jaxrl":
        return sys.executable
    if arm in pythons:
        if not Path(pythons[arm]).is_file():
            raise NotMeasured(f"there is no {pythons[arm]}")
        return pythons[arm]
    place, pins = folder / HOME[arm], PINS[HOME[arm]]
    mark, python = place / ".installed", place / "bin" / "python"
    if not mark.is_file() or mark.read_text() != "\n".join(pins):
        print(f"installing {', '.join(pins)} into {place} (once; some minutes)", file=sys.stderr)
        _checked([sys.executable, "-m", "venv", "--clear", str(place)])
        _checked([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins])
        mark.write_text("\n".join(pins))
    return str(python.absolute())


def _checked(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise NotMeasured(f"its environment could not be made: {errors[-1]}")
