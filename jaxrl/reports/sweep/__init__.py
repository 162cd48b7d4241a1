"""A report of a sweep: one HTML page that needs nothing else, also while the sweep is under way."""

from pathlib import Path

from jaxrl.reports.page import save_page
from jaxrl.reports.sweep.ranking import Sweep, read_sweep
from jaxrl.reports.sweep.sections import body, title


def write_sweep_report(path: str | Path, sweep: str | Path | Sweep) -> Path:
    """Write the page about a sweep, given by its directory or as it was read, and return its path.

    Raises InputError as `read_sweep` does.
    """
    sweep = sweep if isinstance(sweep, Sweep) else read_sweep(sweep)
    return save_page(Path(path), title(sweep), body(sweep))
