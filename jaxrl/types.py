"""The core types. Everything is a pytree; every verb is a pure function.

Letters used in shapes everywhere: T time, N environments, B batch, A action dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Key = PRNGKeyArray
PyTree = Any
Params = PyTree
Learner = PyTree
Memory = PyTree
Batch = PyTree
Carry = PyTree
Metrics = dict[str, Any]


class InputError(ValueError):
    """What a person gave cannot be right: a sentence that names the field, the value and a remedy.

    Its own kind, so that a command line may shorten it to the sentence and leave every other error its traceback.
    """


def check_key(key: Any, call: str) -> None:
    """Raises InputError for a number where a key is meant, as the last argument of `call`."""
    if jnp.ndim(key) == 0 and not jnp.issubdtype(getattr(key, "dtype", jnp.int32), jax.dtypes.prng_key):
        raise InputError(f"key is a number, perhaps a seed; give a key, as in {call}, jax.random.key(0))")


class HostFailed(InputError):
    """What the host was asked between two compiled programs has failed; what was learned before is worth keeping."""


class RewardFailed(HostFailed):
    """A function of texts that scores completions raised, or gave something that is no list of numbers. The sentence
    names the text."""


class Step(NamedTuple):
    """What one raw environment step says.

    next_obs: the true successor of this transition, never the first observation of another episode.
    terminated: the MDP ended here: nothing to bootstrap. truncated: the clock ran out: bootstrap from next_obs. Both
    at once count as terminated.
    info: a flat dict of arrays, the same names, shapes and dtypes at every step; {} if there is nothing to say.
    """

    next_obs: PyTree
    reward: Float[Array, "*n"]
    terminated: Bool[Array, "*n"]
    truncated: Bool[Array, "*n"]
    info: dict[str, Any]


class Transition(NamedTuple):
    """A rollout: leading axes [T, N] in all but `memory`.

    action: what the distribution sampled, before any clipping or tanh, so that scoring it again gives `log_prob`.
    first: obs begins an episode: whatever the policy remembers is of another one.
    memory: the policy's, as it was before the first step of the rollout, leading axis [N]: sequences can be scored
    again from there. info["playing"] is added by the source `episodes`.
    """

    obs: PyTree
    action: PyTree
    log_prob: Float[Array, "*n"]
    reward: Float[Array, "*n"]
    terminated: Bool[Array, "*n"]
    truncated: Bool[Array, "*n"]
    next_obs: PyTree
    info: dict[str, Any]
    first: Bool[Array, "*n"]
    memory: Memory = ()


class Network(NamedTuple):
    """Any function with parameters.

    init(key) -> params: any pytree, from any library; called inside `jit` and `vmap`.
    apply(params, *inputs) -> outputs: pure, for inputs with any number of leading axes. For the control algorithms
    here: apply(params, obs) -> (distribution, value), value of exactly the leading axes of obs, without a last 1.

    memory(num_envs) -> the memory to start with, leading axis [num_envs] in every leaf; None for a network that
    remembers nothing. With one it is apply(params, obs, first, memory) -> (distribution, value, memories): of one step,
    obs and first [N] and memories [N] after it; or of a sequence, obs and first [T, N], memory [N] as it was before
    its first step, memories [T, N] after each. Where `first` is set the memory counts for nothing.
    """

    init: Callable[[Key], Params]
    apply: Callable[..., Any]
    memory: Callable[[int], Memory] | None = None


def no_memory(num_envs: int) -> Memory:
    """Of a policy that remembers nothing."""
    return ()


class Algorithm(NamedTuple):
    """What learns. All functions are pure and may be called inside a trace.

    init(key) -> learner: everything that is carried from update to update; a pytree of arrays of fixed shapes.
    update(key, learner, batch) -> (learner, metrics): one update. metrics: {name: Mean}, the same names every time.
    policy(learner, memory, obs, first) -> (memory, distribution): acts for N environments at once. obs: leading axis
    [N]; first [N]: which of them begin an episode: their memory must be reset before acting.
    Sample the distribution to explore, take its mode to evaluate. None for those that learn from data.
    memory(num_envs) -> the memory to start with, leading axis [num_envs] in every leaf; () if there is none.
    measure(key, learner, batch) -> metrics of a batch that is not learned from. None where that means nothing.
    by_env(learner) -> a learner of bools: which of its leaves are of environments, their axis first. None: none is.
    """

    init: Callable[[Key], Learner]
    update: Callable[[Key, Learner, Batch], tuple[Learner, Metrics]]
    policy: Callable[[Learner, Memory, PyTree, Bool[Array, " N"]], tuple[Memory, Any]] | None = None
    memory: Callable[[int], Memory] = no_memory
    measure: Callable[[Key, Learner, Batch], Metrics] | None = None
    by_env: Callable[[Learner], PyTree] | None = None


class Source(NamedTuple):
    """Where batches come from. Pure functions, called inside a trace.

    init(key) -> carry: all that the source remembers: environments and what they show, or a cursor in the data.
    collect(key, learner, carry) -> (carry, batch): the next batch, of the same shapes every time.

    host(batch) -> the batch as it is learned from, where no compiled program can make it: a function of NumPy arrays,
    called between collecting and learning, such as the score of texts, or rollouts in environments that live on the
    host. None where there is none. hosted(shapes of a batch) -> shapes of what `host` makes of it; None if the same.
    """

    init: Callable[[Key], Carry]
    collect: Callable[[Key, Learner, Carry], tuple[Carry, Batch]]
    host: Callable[[Batch], Batch] | None = None
    hosted: Callable[[Batch], Batch] | None = None


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


class Finding(NamedTuple):
    """What a check found. wrong: what is the matter and what to write instead; None where all is well. note: what is
    worth knowing of it."""

    check: str
    wrong: str | None = None
    note: str | None = None


class Unit(NamedTuple):
    """What a step is: its name among the figures, and on the axis of a plot."""

    name: str
    label: str


class Evaluator(NamedTuple):
    """One way to judge a learner: before training, along the way, and at the end.

    name: of the evaluator, and of the file of what it keeps.
    measure(key, learner, case) -> pytree of arrays: pure; compiled once, before training. case: a traced number in
    `cases`, the things it can be asked, such as the policy, the zero action and random ones; the first is asked at
    every evaluation, the others at the end only.
    read(case, measured) -> {figure: number}, on the host, of a case by its name.
    brief: whether measuring takes less time than compiling it well would; then it is compiled quickly instead.
    prefix: of these figures in the rows of metrics; the final figures go without it.
    at_start: measured before the first update, too. before: figures of that which the final figures repeat as
    NAME_before.
    score(figures) -> how good the learner is, higher is better: the checkpoint of the best is kept.
    check_start(figures): raises InputError if what was measured before the first update cannot be.
    keep(measured) -> rows of text worth reading, which the driver appends to NAME.jsonl with the step.
    panels: of the learning curve. references: horizontal lines of its first panel, label -> final figure.
    """

    name: str
    measure: Callable[[Key, Learner, Int[Array, ""]], PyTree]
    read: Callable[[str, PyTree], dict[str, float]]
    cases: tuple[str, ...] = ("",)
    brief: bool = False
    prefix: str = "eval_"
    at_start: bool = False
    before: tuple[str, ...] = ()
    check_start: Callable[[dict[str, float]], None] | None = None
    keep: Callable[[PyTree], list[dict[str, Any]]] | None = None
    score: Callable[[dict[str, float]], float] | None = None
    panels: tuple[Panel, ...] = ()
    references: Mapping[str, str] = {}


class Program(NamedTuple):
    """One training run: what `config.program(**given)` makes, and all that the drivers know of it.

    algorithm, source: what learns, and from what.
    total_steps, steps_per_update: how long, in steps of `unit`; the first must be a multiple of the second.
    evaluators: how it is judged. headline: what a progress bar says, label -> metrics of which it shows the first
    that is there.
    label: names the run's directory. overrides: settings that something given stands in for, by their path, as in
    {"env.name": "my.module:Maze"}: a run's config names what was really run, and run.json has its hash.
    export(learner) -> parameters that make a model of their own, or None if that means nothing. adapters(learner) ->
    what of it are adapters, where they alone are worth saving.
    places(state) -> a Sharding for every leaf of a state: where it lies. None: all on one device. given_places(given)
    -> the same of what the program was given; None leaves it where it is.
    check() raises InputError for what is seen by tracing alone, as a policy that does not fit its environment. Asked
    once, by `training.programs.program`: a run makes its program anew within each of its compiled functions.
    """

    algorithm: Algorithm
    source: Source
    total_steps: int
    steps_per_update: int
    unit: Unit
    evaluators: Sequence[Evaluator] = ()
    headline: Mapping[str, tuple[str, ...]] = {}
    label: str = "run"
    overrides: Mapping[str, Any] = {}
    export: Callable[[Learner], Params] | None = None
    adapters: Callable[[Learner], Params] | None = None
    places: Callable[[TrainState], PyTree] | None = None
    given_places: Callable[[dict[str, Any]], PyTree] | None = None
    check: Callable[[], None] = lambda: None

    @property
    def host(self) -> Callable[[Batch], Batch] | None:
        """The source's part on the host, if it has one: the driver calls it between collecting and learning."""
        return self.source.host

    @property
    def num_updates(self) -> int:
        """Updates of the whole run."""
        return self.total_steps // self.steps_per_update

    def init(self, key: Key) -> TrainState:
        """The state before the first update."""
        key, k_learner, k_source = jax.random.split(key, 3)
        learner, carry = self.algorithm.init(k_learner), self.source.init(k_source)
        return TrainState(key, learner, carry, jnp.zeros((), jnp.int32))

    def batch(self, state: TrainState) -> Batch:
        """What the next step will learn from."""
        return self.collect(state)[1]

    def step(self, state: TrainState) -> tuple[TrainState, Metrics]:
        """update ∘ collect: one training step of whatever learns from whatever. Raises InputError for a program with a
        part on the host."""
        if self.host is not None:
            raise InputError(
                "part of this program runs on the host, a reward of texts or environments of Gymnasium, which no "
                "compiled program can call; train with `run` or `finetune`"
            )
        return self.learn(*self.collect(state))

    def collect(self, state: TrainState) -> tuple[TrainState, Batch]:
        """The first half of a step: what is learned from next."""
        carry, batch = self.source.collect(jax.random.split(state.key, 3)[1], state.learner, state.carry)
        return state._replace(carry=carry), batch

    def learn(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """The second half."""
        key, _, k_update = jax.random.split(state.key, 3)
        learner, metrics = self.algorithm.update(k_update, state.learner, batch)
        return TrainState(key, learner, state.carry, state.num_steps + self.steps_per_update), metrics
