"""How fast: arms that are measured, what the machine could do at most, and whether a choice was worth it."""

from jaxrl.benchmarks.ablation import CHOICES as CHOICES
from jaxrl.benchmarks.ablation import ablate as ablate
from jaxrl.benchmarks.arms import ARMS as ARMS
from jaxrl.benchmarks.ceilings import Ceilings as Ceilings
from jaxrl.benchmarks.throughput import Plan as Plan
from jaxrl.benchmarks.throughput import measure as measure
