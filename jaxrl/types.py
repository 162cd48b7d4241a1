"""The core types. Everything is a pytree; every verb is a pure function.

Letters used in shapes everywhere: T time, N environments, B batch, A action dimensions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Key = PRNGKeyArray
PyTree = Any
Params = PyTree
Learner = PyTree
Memory = PyTree
Batch = PyTree
Carry = PyTree
Metrics = dict[str, Any]


class Step(NamedTuple):
    """What one raw environment step says.

    next_obs: the true successor of this transition, never the first observation of another episode.
    terminated: the MDP ended here: nothing to bootstrap. truncated: the clock ran out: bootstrap from next_obs.
    """

    next_obs: PyTree
    reward: Float[Array, "*n"]
    terminated: Bool[Array, "*n"]
    truncated: Bool[Array, "*n"]
    info: dict[str, Any]


class Transition(NamedTuple):
    """A rollout: leading axes [T, N]. `action` is what the distribution sampled, before any clipping or tanh."""

    obs: PyTree
    action: PyTree
    log_prob: Float[Array, "*n"]
    reward: Float[Array, "*n"]
    terminated: Bool[Array, "*n"]
    truncated: Bool[Array, "*n"]
    next_obs: PyTree
    info: dict[str, Any]


class Network(NamedTuple):
    """init(key) -> params; apply(params, *inputs) -> outputs. `params` is any pytree, from any library."""

    init: Callable[[Key], Params]
    apply: Callable[..., Any]


class Algorithm(NamedTuple):
    """init(key) -> learner; update(key, learner, batch) -> (learner, metrics).

    policy(learner, memory, obs) -> (memory, distribution): sample it to explore, take its mode to evaluate.
    measure(learner, batch) -> metrics: of a batch that is not learned from, for those that learn from data.
    """

    init: Callable[[Key], Learner]
    update: Callable[[Key, Learner, Batch], tuple[Learner, Metrics]]
    policy: Callable[[Learner, Memory, PyTree], tuple[Memory, Any]] | None
    measure: Callable[[Learner, Batch], Metrics] | None = None


class Source(NamedTuple):
    """Where batches come from: init(key) -> carry; collect(key, learner, carry) -> (carry, batch).

    A source whose batches differ in shape has a tuple of collects, and branch(carry) says which of them is next.
    """

    init: Callable[[Key], Carry]
    collect: Callable[[Key, Learner, Carry], tuple[Carry, Batch]] | tuple[Callable, ...]
    branch: Callable[[Carry], Int[Array, ""]] | None = None


class TrainState(NamedTuple):
    """All that is needed to go on: the one object a checkpoint holds. `num_steps` counts environment steps,
    or rows of data (those that fill up a last batch included)."""

    key: Key
    learner: Learner
    carry: Carry
    num_steps: Int[Array, ""]


class Line(NamedTuple):
    """A metric and what the legend calls it. Metrics of evaluations are drawn with markers."""

    metric: str
    label: str


class Panel(NamedTuple):
    """One pair of axes: what is on y, and its lines."""

    ylabel: str
    lines: tuple[Line, ...]
