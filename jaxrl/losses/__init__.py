"""Losses: functions of arrays that return one value per element."""

from jaxrl.losses.policy_gradient import approx_kl as approx_kl
from jaxrl.losses.policy_gradient import clipped as clipped
from jaxrl.losses.policy_gradient import clipped_surrogate_loss as clipped_surrogate_loss
from jaxrl.losses.policy_gradient import policy_gradient_loss as policy_gradient_loss
from jaxrl.losses.value import clipped_value_loss as clipped_value_loss
from jaxrl.losses.value import value_loss as value_loss
