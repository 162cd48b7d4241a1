"""The pure drivers: jit them, vmap them."""

from jaxrl.training.loop import train as train
from jaxrl.training.programs import program as program
from jaxrl.training.programs import takes as takes
