"""A run as a folder that plays without JAX."""

from jaxrl.runs.exporting.folder import Exported as Exported
from jaxrl.runs.exporting.folder import export as export
from jaxrl.runs.exporting.folder import export_loaded as export_loaded
