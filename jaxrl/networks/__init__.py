"""Networks: ours are Flax NNX modules; any pair of init and apply will do."""

from jaxrl.networks.checks import check_distribution as check_distribution
from jaxrl.networks.checks import check_outputs as check_outputs
from jaxrl.networks.initializers import orthogonal as orthogonal
from jaxrl.networks.memory import remembers as remembers
from jaxrl.networks.memory import successor_value as successor_value
from jaxrl.networks.memory import successor_values as successor_values
from jaxrl.networks.memory import with_memory as with_memory
from jaxrl.networks.mlp import MLP as MLP
from jaxrl.networks.mlp import ActorCritic as ActorCritic
from jaxrl.networks.mlp import actor_critic as actor_critic
from jaxrl.networks.mlp import network_of as network_of
