"""Algorithms, one file each. A new one that ships with jaxrl gets its line in ALGORITHMS: its name in YAML."""

from jaxrl.algorithms.a2c import A2C as A2C
from jaxrl.algorithms.dpo import DPO as DPO
from jaxrl.algorithms.grpo import GRPO as GRPO
from jaxrl.algorithms.kto import KTO as KTO
from jaxrl.algorithms.online_dpo import OnlineDPO as OnlineDPO
from jaxrl.algorithms.ppo import PPO as PPO
from jaxrl.algorithms.programs import control_program as control_program
from jaxrl.algorithms.programs import language_program as language_program
from jaxrl.algorithms.reinforce import Reinforce as Reinforce
from jaxrl.algorithms.reward_model import Reward as Reward
from jaxrl.algorithms.rlhf import RLHF as RLHF
from jaxrl.algorithms.sft import SFT as SFT

ALGORITHMS = {cls.__name__.lower(): cls for cls in (Reinforce, A2C, PPO, SFT, Reward, DPO, KTO, RLHF, GRPO, OnlineDPO)}
