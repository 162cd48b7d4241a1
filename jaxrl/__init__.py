"""jaxrl: pure-functional reinforcement learning in JAX."""

from jaxrl import envs as envs
from jaxrl import losses as losses
from jaxrl import metrics as metrics
from jaxrl import networks as networks
from jaxrl import returns as returns
from jaxrl.algorithms.ppo import PPO as PPO
from jaxrl.config import EnvConfig as EnvConfig
from jaxrl.config import axes as axes
from jaxrl.config import config as config
from jaxrl.config import replace as replace
from jaxrl.config import stack as stack
from jaxrl.config import static as static
from jaxrl.envs import make as make
from jaxrl.envs import vectorize as vectorize
from jaxrl.train import train as train
