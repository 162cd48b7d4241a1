"""How a run is judged while it goes: episodes of a policy, or the loss on rows held out. Compiled once, before it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.evaluators.episodes import BEHAVIOURS, evaluate, figures
from jaxrl.ops import metrics as m
from jaxrl.types import Key, Learner, Line, Panel, TrainState


class EpisodeJudge:
    """Whole episodes of the deterministic policy; at the end the zero and the random action for comparison."""

    unit = "environment steps"
    panels = (
        Panel(
            "episode return",
            (
                Line("episode_return", "while training, actions sampled"),
                Line("eval_return", "evaluation, deterministic"),
            ),
        ),
        Panel(
            "episode length",
            (Line("episode_length", "while training"), Line("eval_episode_length", "evaluation")),
        ),
    )

    def __init__(self, policy: Callable, config: Any, arrays: Any, env: Any, learner: Learner, episodes: int):
        """policy(config, arrays) -> `algorithm.policy`; config and arrays are traced."""

        def evaluation(config, arrays, learner, key, behaviour):
            act = policy(config, arrays)
            return evaluate(config.env, act, learner, key, num_episodes=episodes, behaviour=behaviour, body=env)

        number = jnp.zeros((), jnp.int32)
        compiled = jax.jit(evaluation).lower(config, arrays, learner, jax.random.key(0), number).compile()
        self._play = lambda learner, key, name: figures(
            compiled(config, arrays, learner, key, jnp.asarray(BEHAVIOURS.index(name), jnp.int32))
        )

    def start(self, state: TrainState, key: Key) -> dict[str, float]:
        """What is known before the first update."""
        return {}

    def along(self, state: TrainState, key: Key) -> dict[str, float]:
        """What an evaluation adds to a row of metrics."""
        found = self._play(state.learner, key, "mode")
        return {f"eval_{name}": value for name, value in found.items() if name != "episodes"}

    def final(self, state: TrainState, key: Key, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The figures of a run that has ended."""
        found = {name: self._play(state.learner, key, name) for name in ("mode", "zero", "random")}
        references = {"zero_action_return": found["zero"]["return"], "random_return": found["random"]["return"]}
        return {**found["mode"], **references}

    def references(self, final: dict[str, Any]) -> dict[str, float]:
        """Horizontal lines of the learning curve."""
        return {"zero action": final["zero_action_return"], "random actions": final["random_return"]}

    def line(self, row: dict[str, float]) -> str:
        """What the progress bar says."""
        return f"return {row.get('eval_return', row.get('episode_return', float('nan'))):.1f}"


class HeldOutJudge:
    """The algorithm's own metrics on the rows held out, before, along and after, and `probe`'s figures beside them."""

    unit = "rows"
    panels = (
        Panel("loss", (Line("loss", "training batches"), Line("eval_loss", "held-out rows"))),
        Panel(
            "implicit reward",
            (
                Line("rewards/chosen", "chosen"),
                Line("rewards/rejected", "rejected"),
                Line("eval_rewards/chosen", "chosen, held out"),
                Line("eval_rewards/rejected", "rejected, held out"),
            ),
        ),
        Panel("KL, nats", (Line("eval_sample_kl_k3", "to the model before"),)),
        Panel("gradient norm", (Line("grad_norm", "before clipping"),)),
    )

    def __init__(self, measure: Callable, config: Any, arrays: Any, learner: Learner, probe: Callable | None):
        """measure(config, arrays) -> the program's `measure`; config and arrays are traced. probe(state, key) ->
        figures.
        """
        apply = jax.jit(lambda config, arrays, learner: measure(config, arrays)(learner))
        compiled = apply.lower(config, arrays, learner).compile()
        self._measure = lambda learner: m.values(compiled(config, arrays, learner))
        self._check = getattr(config, "check_start", lambda metrics: None)
        self._probe = probe or (lambda state, key: {})

    def start(self, state: TrainState, key: Key) -> dict[str, float]:
        """What is known before the first update. Raises ValueError if it is not what the algorithm starts with."""
        found = self._values(state)
        self._check(found)
        return self.along(state, key, found)

    def along(self, state: TrainState, key: Key, found: dict[str, float] | None = None) -> dict[str, float]:
        """What an evaluation adds to a row of metrics."""
        found = (found or self._values(state)) | self._probe(state, key)
        return {f"eval_{name}": value for name, value in found.items()}

    def final(self, state: TrainState, key: Key, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The figures of a run that has ended, and the held-out loss before it began."""
        last = rows[-1] if "eval_loss" in rows[-1] else self.along(state, key)
        found = {name.removeprefix("eval_"): x for name, x in last.items() if name.startswith("eval_")}
        return {**found, "loss_before": rows[0]["eval_loss"]}

    def _values(self, state: TrainState) -> dict[str, float]:
        return {name: float(value) for name, value in self._measure(state.learner).items()}

    def references(self, final: dict[str, Any]) -> dict[str, float]:
        """Horizontal lines of the learning curve."""
        return {"held out, before": final["loss_before"]}

    def line(self, row: dict[str, float]) -> str:
        """What the progress bar says."""
        held_out = f", held out {row['eval_loss']:.3f}" if "eval_loss" in row else ""
        return f"loss {row['loss']:.3f}{held_out}"
