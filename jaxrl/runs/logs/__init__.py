"""What a run writes and shows while it goes."""

from jaxrl.runs.logs.files import Logger as Logger
from jaxrl.runs.logs.files import write_csv as write_csv
from jaxrl.runs.logs.progress import Bar as Bar
from jaxrl.runs.logs.progress import plain_lines as plain_lines
from jaxrl.runs.logs.weights_and_biases import WandbRun as WandbRun
from jaxrl.runs.logs.weights_and_biases import check_wandb as check_wandb
