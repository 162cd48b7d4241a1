"""Ways to get a batch: acting in environments, rows of data."""

from jaxrl.sources.rollout import episodes as episodes
from jaxrl.sources.rollout import rollouts as rollouts
from jaxrl.sources.rows import Bucketed as Bucketed
from jaxrl.sources.rows import Cursor as Cursor
from jaxrl.sources.rows import at_own_width as at_own_width
from jaxrl.sources.rows import batches as batches
from jaxrl.sources.rows import batches_per_epoch as batches_per_epoch
from jaxrl.sources.sampled import Completed as Completed
from jaxrl.sources.sampled import completions as completions
from jaxrl.sources.sampled import contained as contained
