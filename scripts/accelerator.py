"""One part of scripts/on_accelerator.sh: its rows, one after the other, each kept in results.json as it ends.

A row that is done is not run again; one that fails is kept with its reason; one whose process died is found out at the
next start. What each row measures is told in accelerator_rows.py.
"""

import argparse
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import jax
from accelerator_rows import PARTS, Asked

from jaxrl import cli
from jaxrl.cli.benchmark import surroundings
from jaxrl.types import InputError

_MUST_AGREE = ("platform", "device", "devices", "jax", "precision", "smoke")
DIED = "its process died or was stopped before it ended"


class Results:
    """results.json and results.md in a folder. Raises InputError for figures that are of another machine."""

    def __init__(self, folder: Path, about: dict[str, Any]):
        self.path, found = folder / "results.json", {}
        if self.path.is_file():
            found = json.loads(self.path.read_text())
            for name in _MUST_AGREE:
                was, now = found["machine"].get(name), about[name]
                if was != now:
                    raise InputError(f"{self.path} holds figures with {name} = {was}, not {now}; name another OUT")
        self.machine, self.rows = found.get("machine", about), found.get("rows", {})
        for row in self.rows.values():
            if row["status"] == "begun":
                row |= {"status": "failed", "reason": DIED}

    def wants(self, name: str, again: bool) -> bool:
        """Whether a row is still to be run."""
        status = self.rows.get(name, {"status": "unfinished"})["status"]
        return status == "unfinished" or (again and status == "failed")

    def put(self, name: str, **row: Any) -> None:
        """Keep a row, on disk too."""
        self.rows[name] = row
        self.save()

    def save(self) -> None:
        """Write both files; a crash leaves the old ones."""
        text = json.dumps({"machine": self.machine, "rows": self.rows}, indent=1) + "\n"
        for path, content in ((self.path, text), (self.path.with_suffix(".md"), self.markdown())):
            draft = path.with_suffix(".part")
            draft.write_text(content)
            os.replace(draft, path)

    def markdown(self) -> str:
        """A table for people, one line a row."""
        m = self.machine
        versions = ", ".join(
            f"{name} {m[name]}" for name in ("python", "jax", "jaxlib", "flax", "optax", "brax", "gymnax")
        )
        about = f"{m['devices']} × {m['device']} ({m['platform']}), {m['cores']} cores of {m['model']}, {versions}"
        about += f", matrix products at precision {m['precision']}, XLA_FLAGS '{m['xla_flags']}', {m['date']}"
        lines = ["# Measured on an accelerator" + (" (smoke run: sizes mean nothing)" if m["smoke"] else "")]
        lines += ["", about + ".", "", "| part | what | result | seconds |", "|---|---|---|---|"]
        for name, row in sorted(self.rows.items(), key=lambda item: item[1]["part"]):
            said = row.get("headline") or f"{row['status']}: {row.get('reason', DIED)}"
            if row.get("headline") and row["status"] != "done":
                said = f"{row['status']}: {said}"
            said = said.replace("|", "/").replace("\n", " ")
            lines.append(f"| {row['part']} | {name} | {said} | {row.get('seconds', '')} |")
        return "\n".join(lines) + "\n"


def run_part(number: int, results: Results, asked: Asked, again: bool) -> None:
    """Its rows in order, as long as there is time to begin another."""
    for name, row in PARTS[number](asked).items():
        if not results.wants(name, again):
            continue
        if asked.left() < 0.1 * asked.minutes * 60:
            print(f"part {number}: no time left for {name}; call it again")
            return
        began = time.time()
        results.put(name, part=number, status="begun")
        try:
            found = row()
        except (
            Exception
        ) as error:  # out of memory, a compiler's limit, a package that is not there: go on with the rest
            traceback.print_exc()
            text = (str(error).strip() or repr(error)).splitlines()[0][:300]
            found = {"status": "failed", "reason": f"{type(error).__name__}: {text}"}
        results.put(name, **{"part": number, "status": "done", **found, "seconds": round(time.time() - began, 1)})
        print(f"{name}: {found.get('headline') or found.get('reason')}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", type=int, choices=sorted(PARTS))
    parser.add_argument("--state", type=Path, required=True, help="the folder of results.json")
    parser.add_argument("--minutes", type=float, default=8.0, help="no row is begun in the last tenth of them")
    parser.add_argument("--smoke", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--again", action="store_true", help="run failed rows once more")
    given = parser.parse_args()
    if given.smoke:
        cli.enable_compilation_cache()  # never where compile times are reported
    elif jax.default_backend() == "cpu":
        print("no accelerator: these sizes take hours on a CPU (--smoke is small)", file=sys.stderr)
    with cli.sentences():
        results = Results(given.state, {**surroundings(), "smoke": given.smoke})
        run_part(given.part, results, Asked(given.smoke, given.state, given.minutes), given.again)


if __name__ == "__main__":
    main()
