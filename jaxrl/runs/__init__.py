"""The host driver and what it keeps: directories, logs, checkpoints."""

from jaxrl.runs.directory import NotSaved as NotSaved
from jaxrl.runs.divergence import Diverged as Diverged
from jaxrl.runs.driver import RunResult as RunResult
from jaxrl.runs.driver import Schedule as Schedule
from jaxrl.runs.driver import run as run
from jaxrl.runs.exporting import export as export
from jaxrl.runs.finetuning import Tuned as Tuned
from jaxrl.runs.finetuning import finetune as finetune
from jaxrl.runs.loading import load_divergence as load_divergence
from jaxrl.runs.loading import load_policy as load_policy
from jaxrl.runs.preemption import Stopped as Stopped
