"""From the rewards of completions to the advantages of their tokens: arrays in, arrays out.

Letters: B completions, T tokens of a completion (right-padded), G completions of one prompt.
"""

from jaxrl.ops.rlhf.advantages import completion_gae as completion_gae
from jaxrl.ops.rlhf.advantages import group_advantage as group_advantage
from jaxrl.ops.rlhf.advantages import rloo_advantage as rloo_advantage
from jaxrl.ops.rlhf.advantages import token_rewards as token_rewards
from jaxrl.ops.rlhf.advantages import whiten as whiten
from jaxrl.ops.rlhf.kl import KL_ESTIMATES as KL_ESTIMATES
from jaxrl.ops.rlhf.kl import adapted as adapted
from jaxrl.ops.rlhf.kl import kl_estimate as kl_estimate
