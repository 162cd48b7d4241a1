"""jaxrl: pure-functional reinforcement learning in JAX, from CartPole to humanoids to language models.

    config = jaxrl.PPO(env=jaxrl.EnvConfig("gymnax/CartPole-v1", num_envs=8))
    state, metrics = jax.jit(jaxrl.train)(config, jax.random.key(0))

    tuned = jaxrl.finetune(jaxrl.SFT(data=jaxrl.DataConfig("mine.jsonl")))

Nothing here is imported before it is asked for from an environment package: they are slow.
"""

from jaxrl import data as data
from jaxrl import envs as envs
from jaxrl import lm as lm
from jaxrl import networks as networks

# algorithms, one config each
from jaxrl.algorithms import A2C as A2C
from jaxrl.algorithms import DPO as DPO
from jaxrl.algorithms import GRPO as GRPO
from jaxrl.algorithms import KTO as KTO
from jaxrl.algorithms import PPO as PPO
from jaxrl.algorithms import RLHF as RLHF
from jaxrl.algorithms import SFT as SFT
from jaxrl.algorithms import OnlineDPO as OnlineDPO
from jaxrl.algorithms import Reinforce as Reinforce
from jaxrl.algorithms import Reward as Reward
from jaxrl.algorithms import control_program as control_program

# data and models
from jaxrl.data import Data as Data
from jaxrl.data import DataConfig as DataConfig
from jaxrl.data import Loop as Loop
from jaxrl.envs import make as make
from jaxrl.envs import to_gymnasium as to_gymnasium
from jaxrl.envs import to_gymnasium_vector as to_gymnasium_vector
from jaxrl.envs import vectorize as vectorize
from jaxrl.evaluators import evaluate as evaluate
from jaxrl.lm import LMConfig as LMConfig
from jaxrl.lm import ModelParallel as ModelParallel

# functions of arrays
from jaxrl.ops import losses as losses
from jaxrl.ops import metrics as metrics
from jaxrl.ops import returns as returns
from jaxrl.ops.optimizers import AdamW as AdamW

# drivers
from jaxrl.runs import Schedule as Schedule
from jaxrl.runs import export as export
from jaxrl.runs import finetune as finetune
from jaxrl.runs import load_divergence as load_divergence
from jaxrl.runs import load_policy as load_policy
from jaxrl.runs import run as run

# configs and sweeps
from jaxrl.settings import EnvConfig as EnvConfig
from jaxrl.settings import Parallel as Parallel
from jaxrl.settings import axes as axes
from jaxrl.settings import config as config
from jaxrl.settings import replace as replace
from jaxrl.settings import stack as stack
from jaxrl.settings import static as static
from jaxrl.sources import episodes as episodes
from jaxrl.sources import rollouts as rollouts
from jaxrl.sweeps import Plan as Plan
from jaxrl.sweeps import sweep as sweep
from jaxrl.training import program as program
from jaxrl.training import train as train

# the core types
from jaxrl.types import Algorithm as Algorithm
from jaxrl.types import Network as Network
from jaxrl.types import Program as Program
from jaxrl.types import Source as Source
from jaxrl.types import Step as Step
from jaxrl.types import TrainState as TrainState
from jaxrl.types import Transition as Transition
