"""jaxrl report: one page about a run, about several, or about a sweep."""

import json
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from jaxrl.cli.experiment import file_for
from jaxrl.reports.page import write_report
from jaxrl.reports.page.collected import collect
from jaxrl.reports.sweep import write_sweep_report
from jaxrl.reports.sweep.ranking import SWEEP, read_sweep
from jaxrl.reports.sweep.verdict import sentences
from jaxrl.runs.loading import about_run
from jaxrl.types import InputError


def report(
    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="PATH [PATH ...]")]], *, out: Path | None = None
) -> None:
    """Write one HTML page about runs: results, curves, animation, samples, settings, and the command to run it again.

    It needs no network and no other file. Runs that differ by nothing but the seed become one curve with a band. The
    directory of a sweep, also of one under way, becomes a page about it: which configuration is best and how sure that
    is, a ranking, the sensitivity to each setting, heat maps of pairs, and curves.

    Args:
        runs: Directories of runs, or of one sweep.
        out: The file to write; by default report.html in the first directory.
    """
    if not runs:
        raise InputError("name at least one run, as in jaxrl report runs/mine, or the directory of a sweep")
    sweeps = [run for run in runs if (run / SWEEP).is_file()]
    if sweeps and len(runs) > 1:
        raise InputError(f"{sweeps[0]} holds a sweep, which has a page of its own; name it alone")
    if sweeps:
        sweep = read_sweep(sweeps[0])
        path = write_sweep_report(file_for(out or sweeps[0] / "report.html"), sweep)
        print(f"report      {path}\nverdict     {sentences(sweep)[0]}")
        print(json.dumps({"report": str(path), "members": len(sweep.members), "configs": len(sweep.ranked)}))
        return
    records = [collect(run, about_run(run)) for run in runs]
    path = write_report(file_for(out or next(iter(runs)) / "report.html"), records)
    print(f"report      {path}")
    print(json.dumps({"report": str(path), "runs": len(records)}))
