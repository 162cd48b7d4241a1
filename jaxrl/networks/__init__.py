"""Networks: ours are Flax NNX modules; any pair of init and apply will do."""

from jaxrl.networks.checks import check_distribution as check_distribution
from jaxrl.networks.checks import check_outputs as check_outputs
from jaxrl.networks.initializers import orthogonal as orthogonal
from jaxrl.networks.mlp import MLP as MLP
from jaxrl.networks.mlp import ActorCritic as ActorCritic
from jaxrl.networks.mlp import actor_critic as actor_critic
