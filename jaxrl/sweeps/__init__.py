"""Sweeps: many configurations times many seeds, in as few compiled programs as they have shapes, and one table."""

from jaxrl.sweeps.driver import SweepResult as SweepResult
from jaxrl.sweeps.driver import sweep as sweep
from jaxrl.sweeps.loading import load_member as load_member
from jaxrl.sweeps.loading import load_policy as load_policy
from jaxrl.sweeps.loading import merge as merge
from jaxrl.sweeps.space import swept as swept
from jaxrl.sweeps.tasks import Plan as Plan
