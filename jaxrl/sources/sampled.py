"""Completions that the policy itself says, as a source of batches: prompts, sampling with a cache, the reward, and the
log-probs of what was said under the policy and its reference.

Those log-probs are the training path's, never the sampler's, whose are of the tempered and truncated distribution and
of other kernels: with these the ratio of a first update is 1.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl.data.prompts import PromptRows
from jaxrl.lm.log_probs import TokenRows, completion_stats
from jaxrl.lm.sampling import Generation, generate
from jaxrl.lm.transformer import LanguageModel
from jaxrl.ops.minibatch import map_parts
from jaxrl.sources.rows import batches
from jaxrl.types import Key, Learner, Params, PyTree, Source


class Completed(NamedTuple):
    """B prompts with what was said after them, right-padded; those of one prompt lie next to each other.

    length: of both, an end token included. finished: whether it ended, and was not cut. row: which prompt. log_prob,
    ref_log_prob [B, T]: of the completion's tokens from place 0 on, under the policy that said them and the reference;
    0 beyond. score: its reward; valid: whether that was finite; late: whether it came too late, and counts as none.
    """

    tokens: Int[Array, "B S"]
    prompt_length: Int[Array, " B"]
    length: Int[Array, " B"]
    finished: Bool[Array, " B"]
    row: Int[Array, " B"]
    log_prob: Float[Array, "B T"]
    ref_log_prob: Float[Array, "B T"]
    score: Float[Array, " B"]
    valid: Bool[Array, " B"]
    late: Bool[Array, " B"]

    @property
    def completion_length(self) -> Int[Array, " B"]:
        """Tokens that were said."""
        return self.length - self.prompt_length

    @property
    def real(self) -> Bool[Array, "B T"]:
        """Which places of [B, T] are tokens that were said."""
        return jnp.arange(self.log_prob.shape[1]) < self.completion_length[:, None]


Reward = Callable[[TokenRows], Float[Array, " B"]]


class Sampler(NamedTuple):
    """How completions are made and measured.

    model, reference: the parameters of the second are what KL is to. sampling: as for `generate`. stop: tokens that end
    a completion. reward(TokenRows) -> [B]: a function of tokens, in the compiled program; None leaves scores 0, for the
    host to fill in. micro_batch_size, chunk: rows, and tokens' logits, that exist at the same time while scoring.
    """

    model: LanguageModel
    reference: Params
    sampling: dict[str, Any]
    stop: tuple[int, ...]
    reward: Reward | None
    micro_batch_size: int | None = None
    chunk: int | None = None

    def say(self, params: Params, asked: PromptRows, keys: Key) -> Generation:
        """A completion of each prompt, by the keys [B]."""
        return generate(self.model, params, asked.tokens, asked.length, keys, stop=self.stop, **self.sampling)

    def log_probs(self, params: Params, said: TokenRows) -> Float[Array, "B T"]:
        """Of the tokens that were said, from place 0 on."""

        def part(some: TokenRows) -> Float[Array, "b T"]:
            stats, _ = completion_stats(self.model, params, some, self.chunk)
            return of_completion(stats.log_prob, some, self.sampling["max_new_tokens"])

        return map_parts(part, said, self.micro_batch_size)

    def measured(
        self, params: Params, said: TokenRows, finished: Bool[Array, " B"], row: Int[Array, " B"]
    ) -> Completed:
        """What was said, with its log-probs under these parameters and the reference, and its score."""
        log_prob, ref_log_prob = self.log_probs(params, said), self.log_probs(self.reference, said)
        none = jnp.zeros(len(finished), bool)
        score = none.astype(jnp.float32) if self.reward is None else self.reward(said).astype(jnp.float32)
        return contained(Completed(*said, finished, row, log_prob, ref_log_prob, score, valid=~none, late=none))


def completions(
    sampler: Sampler,
    params_of: Callable[[Learner], tuple[Params, Params]],
    prompts: tuple[PromptRows, ...],
    num_prompts: int,
    per_prompt: int = 1,
) -> Source:
    """Batches of num_prompts · per_prompt completions, Completed.

    params_of(learner) -> (parameters to sample with, parameters to score with): equal up to rounding. prompts: by
    width, of which each batch has one.
    """
    rows, widest = batches(prompts, num_prompts), max(p.tokens.shape[1] for p in prompts)

    def said_at(b: int, params: Params, asked: PromptRows, keys: Key) -> tuple[Array, Array, Array]:
        width = prompts[b].tokens.shape[1]
        made = sampler.say(params, asked._replace(tokens=asked.tokens[:, :width]), keys)
        return jnp.pad(made.tokens, ((0, 0), (0, widest - width))), made.length, made.finished

    def collect(key: Key, learner: Learner, carry: PyTree) -> tuple[PyTree, Completed]:
        k_rows, k_said = jax.random.split(key)
        carry, drawn = rows.collect(k_rows, learner, carry)
        asked: PromptRows = jax.tree.map(lambda x: jnp.repeat(x, per_prompt, axis=0), drawn.batch.rows)
        to_sample, to_score = params_of(learner)
        keys, at = jax.random.split(k_said, len(asked.length)), [partial(said_at, b) for b in range(len(prompts))]
        tokens, length, finished = jax.lax.switch(drawn.bucket, at, to_sample, asked, keys)
        return carry, sampler.measured(to_score, TokenRows(tokens, asked.length, length), finished, asked.row)

    return Source(rows.init, collect)


def contained(made: Completed) -> Completed:
    """With `valid` where the score is finite, and 0 in place of one that is not."""
    valid = jnp.isfinite(made.score)
    return made._replace(score=jnp.where(valid, made.score, 0.0), valid=valid)


def of_completion(x: Float[Array, "B L"], rows: PyTree, room: int) -> Float[Array, "B T"]:
    """What `per_token_log_probs` says of a row's own completion, from place 0 on. x: [B, L - 1], of the token after."""
    place = rows.prompt_length[:, None] - 1 + jnp.arange(room)
    found = jnp.take_along_axis(x, jnp.minimum(place, x.shape[1] - 1), axis=1)
    return jnp.where(jnp.arange(room) < (rows.length - rows.prompt_length)[:, None], found, 0.0)
