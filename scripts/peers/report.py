"""What a comparison leaves: a table on the terminal, all figures as JSON, and a table in Markdown for BENCHMARKS.md."""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

# Of the packages of an arm, those that its figures depend on; the JSON has all.
_TOLD = (
    "jax jaxlib flax optax distrax gymnax gymnasium brax mujoco-mjx rejax torch stable-baselines3 sbx-rl numpy".split()
)


def machine() -> dict:
    """Processor, cores, date and load, before anything runs."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return {
        "processor": models[0] if models else "unknown",
        "cores": os.cpu_count(),
        "pinned to": cores,
        "date": time.strftime("%F"),
        "load": round(os.getloadavg()[0], 2),
    }


def versions(about: dict) -> str:
    """One line on the environment of an arm."""
    packages = {name.lower().replace("_", "-"): version for name, version in about["packages"].items()}
    told = [f"{name} {packages[name]}" for name in _TOLD if name in packages]
    threads = [f"{name} {value}" for name, value in about["threads"].items()]
    return ", ".join([f"Python {about['python']}", *told, f"{about['cores']} core(s)", *threads])


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def show(tables: Sequence[tuple], about: dict, arms: dict[str, dict], figures: dict, out: Path, to: Path) -> None:
    """Print the tables; write everything to `out`, and the Markdown to `to`.

    tables: of (title, columns, rows), in words. about: of the machine. arms: name -> what its process said of its
    environment. figures: all that was measured.
    """
    about = {**about, "load after": round(os.getloadavg()[0], 2)}
    console, told = (
        Console(width=None if sys.stdout.isatty() else 140),
        ", ".join(f"{name} {value}" for name, value in about.items()),
    )
    notes = [told, *(f"{name}: {versions(arm)}" for name, arm in arms.items())]
    for title, columns, rows in tables:
        table = Table(*columns, title=title)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print("\n".join(notes), markup=False, highlight=False)
    for path in (out, to):
        path.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": about, "arms": arms, **figures}, indent=1) + "\n")
    shown = [f"{title}\n\n{markdown(columns, rows)}" for title, columns, rows in tables]
    to.write_text("\n\n".join([*shown, "\n".join(f"- {line}" for line in notes)]) + "\n")
    console.print(f"figures     {out}\nMarkdown    {to}", markup=False)
