"""Environments: the protocol, vectorisation, adapters. Adapters import their package when first asked for."""

from jaxrl.envs.base import Environment as Environment
from jaxrl.envs.check import check_environment as check_environment
from jaxrl.envs.registry import make as make
from jaxrl.envs.registry import names as names
from jaxrl.envs.registry import to_gymnasium as to_gymnasium
from jaxrl.envs.registry import to_gymnasium_vector as to_gymnasium_vector
from jaxrl.envs.vector import VectorEnv as VectorEnv
from jaxrl.envs.vector import vectorize as vectorize
