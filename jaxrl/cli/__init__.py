"""The command line: what experiments need of it, and the command `jaxrl`."""

from jaxrl.algorithms import ALGORITHMS as ALGORITHMS
from jaxrl.cli.experiment import Options as Options
from jaxrl.cli.experiment import launch as launch
from jaxrl.cli.experiment import named as named
from jaxrl.cli.experiment import names as names
from jaxrl.cli.experiment import parse as parse
from jaxrl.cli.experiment import preset as preset
from jaxrl.cli.experiment import report as report
from jaxrl.cli.experiment import sentences as sentences
from jaxrl.cli.training import finetune as finetune
from jaxrl.cli.training import train as train
from jaxrl.training.compilation_cache import enable_compilation_cache as enable_compilation_cache
