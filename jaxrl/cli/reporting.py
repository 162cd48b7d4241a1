"""jaxrl report: one page about a run, or about several."""

import json
from pathlib import Path

from tyro.conf import Positional

from jaxrl.reports.page import write_report
from jaxrl.reports.page.collected import collect
from jaxrl.runs.loading import about_run


def report(runs: Positional[tuple[Path, ...]], *, out: Path | None = None) -> None:
    """Write one HTML page about runs: results, curves, animation, samples, settings, and the command to run it again.

    It needs no network and no other file. Runs that differ by nothing but the seed become one curve with a band.

    Args:
        runs: Directories of runs.
        out: The file to write; by default report.html in the directory of the first run.
    """
    records = [collect(run, about_run(run)) for run in runs]
    path = write_report(out or runs[0] / "report.html", records)
    print(f"report      {path}")
    print(json.dumps({"report": str(path), "runs": len(records)}))
