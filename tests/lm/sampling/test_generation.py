"""Sampling: the text a cache gives is the text without one, drawn from the distribution that was asked for."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.lm.log_probs import per_token_log_probs
from jaxrl.lm.sampling import Generation, generate, stream
from jaxrl.lm.transformer import language_model
from jaxrl.ops.platform import tuned
from tests.helpers.compare import compile_events
from tests.helpers.drawing import frequencies_fit, softmax, sorted_out
from tests.helpers.families import config_of, params_of

VOCAB, NEW = 97, 8
CONFIG = config_of("llama", vocab_size=VOCAB, num_hidden_layers=2)
MODEL, PARAMS = language_model(CONFIG), params_of(CONFIG)
KEYS = jax.random.split(jax.random.key(7), 3)
LENGTH = np.array([6, 1, 4], np.int32)
PROMPTS = np.random.default_rng(0).integers(0, VOCAB, (3, 6), np.int32)
logits_of = jax.jit(MODEL.apply)


def say(prompts=PROMPTS, length=LENGTH, keys=KEYS, model=MODEL, **settings) -> Generation:
    return jax.tree.map(
        np.asarray, generate(model, PARAMS, prompts, length, keys, **{"max_new_tokens": NEW, **settings})
    )


def completions(out):
    return [row[p:n].tolist() for row, p, n in zip(out.tokens, out.prompt_length, out.length, strict=True)]


def likelihoods(out):
    return [row[p:n] for row, p, n in zip(out.log_prob, out.prompt_length, out.length, strict=True)]


# --- the text


@pytest.fixture(scope="module")
def plain():
    """Sampled with nothing left out."""
    return say()


def recomputed(rows, length):
    """The likeliest continuations, all of the text read again for every token."""
    rows, length = np.pad(np.where(np.arange(6) < length[:, None], rows, 0), ((0, 0), (0, NEW))), length.copy()
    said = []
    for _ in range(NEW):
        said.append(np.asarray(logits_of(PARAMS, rows))[np.arange(3), length - 1].argmax(-1))
        rows[np.arange(3), length] = said[-1]
        length += 1
    return np.stack(said, axis=1).tolist()


def test_greedy_text_is_that_of_full_recomputation():
    out = say(temperature=0.0)
    assert completions(out) == recomputed(PROMPTS, LENGTH)
    assert (out.log_prob == 0).all() and not out.finished.any()


def test_a_generation_is_prompt_then_completion_then_zeros(plain):
    assert plain.tokens.shape == plain.log_prob.shape == (3, 6 + NEW)
    assert plain.tokens.dtype == np.int32 and plain.log_prob.dtype == np.float32
    np.testing.assert_array_equal(plain.prompt_length, LENGTH)
    np.testing.assert_array_equal(plain.length, LENGTH + NEW)
    for row, logp, prompt, p, n in zip(plain.tokens, plain.log_prob, PROMPTS, LENGTH, plain.length, strict=True):
        np.testing.assert_array_equal(row[:p], prompt[:p])
        assert (row[n:] == 0).all() and (logp[:p] == 0).all() and (logp[n:] == 0).all() and (logp[p:n] < 0).all()
        assert (row >= 0).all() and (row < VOCAB).all()


@pytest.mark.device
def test_sampled_log_probs_are_those_that_losses_see(plain):
    found = np.asarray(per_token_log_probs(MODEL, PARAMS, plain.tokens, chunk=None).log_prob)
    for logp, row, p, n in zip(found, plain.log_prob, LENGTH, plain.length, strict=True):
        np.testing.assert_allclose(row[p:n], logp[p - 1 : n - 1], rtol=0, atol=1e-4)


# --- what is left out


TRUNCATED = {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05}


def test_truncated_log_probs_are_those_of_the_truncated_distribution():
    out = say(**TRUNCATED)
    raw, sizes = np.asarray(logits_of(PARAMS, out.tokens), np.float64), []
    for b in range(3):
        for place in range(out.prompt_length[b], out.length[b]):
            logits = raw[b, place - 1] / 0.7
            stay = sorted_out(logits, 20, 0.8, 0.05)
            token = out.tokens[b, place]
            assert stay[token]
            expected = logits[token] - np.log(np.exp(logits[stay]).sum())
            np.testing.assert_allclose(out.log_prob[b, place], expected, rtol=0, atol=1e-4)
            sizes.append(stay.sum())
    assert 1 < np.mean(sizes) < 20


def test_a_model_is_sampled_at_its_own_frequencies():
    rows = 4_000
    prompts, keys = np.repeat(PROMPTS[:1], rows, axis=0), jax.random.split(jax.random.key(3), rows)
    out = say(prompts, np.full(rows, 6, np.int32), keys, max_new_tokens=1, temperature=0.8, top_k=30)
    logits = np.asarray(logits_of(PARAMS, PROMPTS[:1]), np.float64)[0, -1] / 0.8
    p = softmax(np.where(sorted_out(logits, 30), logits, -np.inf))
    drawn = out.tokens[:, 6]
    assert out.tokens.shape == (rows, 7) and len(set(drawn.tolist())) > 10
    assert frequencies_fit(drawn, p)
    np.testing.assert_allclose(out.log_prob[:, 6], np.log(p[drawn]), rtol=0, atol=1e-4)


# --- rows


@pytest.mark.device
def test_a_row_does_not_depend_on_its_neighbours_their_order_or_the_padding(plain):
    order = np.array([2, 0, 1])
    neighbours = np.where(np.arange(3)[:, None] == 1, PROMPTS, (PROMPTS + 1) % VOCAB)
    filled = np.where(np.arange(6) < LENGTH[:, None], PROMPTS, VOCAB - 1)
    wider = np.pad(filled, ((0, 0), (0, 4)), constant_values=5)
    cases = [
        (say(PROMPTS[order], LENGTH[order], KEYS[order]), order),
        (say(neighbours, LENGTH, KEYS), [None, 1, None]),
        (say(filled), range(3)),
        (say(wider), range(3)),
    ]
    for out, origins in cases:
        for place, row in enumerate(origins):
            if row is not None:
                assert completions(out)[place] == completions(plain)[row]
                np.testing.assert_allclose(likelihoods(out)[place], likelihoods(plain)[row], rtol=0, atol=1e-5)
    assert completions(cases[1][0])[0] != completions(plain)[0]


def test_rows_of_one_prompt_differ_by_their_keys_only(plain):
    out = say(np.repeat(PROMPTS[:1], 3, 0), np.full(3, 6, np.int32), KEYS[np.array([0, 0, 1])])
    assert completions(out)[0] == completions(out)[1] == completions(plain)[0]
    assert completions(out)[2] != completions(out)[0]


# --- the end


@pytest.fixture(scope="module")
def stopped(plain):
    """The same draws, with a token that row 0 says third to stop at, and one that is in its prompt; and these two."""
    stop = (completions(plain)[0][2], int(PROMPTS[0, 2]))
    return say(stop=stop), stop


def test_a_stop_token_ends_its_row_and_is_part_of_it(plain, stopped):
    out, stop = stopped
    for row, whole in enumerate(completions(plain)):
        ends = [i for i, token in enumerate(whole) if token in stop]
        expected = whole[: ends[0] + 1] if ends else whole
        assert completions(out)[row] == expected and out.finished[row] == bool(ends)
        n = out.length[row]
        assert (out.tokens[row, n:] == 0).all() and (out.log_prob[row, n:] == 0).all()
        np.testing.assert_allclose(likelihoods(out)[row], likelihoods(plain)[row][: len(expected)], rtol=0, atol=1e-6)
    assert out.length[0] == LENGTH[0] + 3 and out.finished[0] and not out.finished.all()


def test_generation_ends_once_all_rows_have():
    steps = []

    def extend(*args):
        jax.debug.callback(lambda: steps.append(1))
        return MODEL.extend(*args)

    counted = MODEL._replace(extend=extend)
    slow, fast = (recomputed(PROMPTS, LENGTH)[row] for row in (0, 2))
    assert slow[3] not in slow[:3] and fast[0] not in slow[:4], "choose another seed"
    for row, count in ((0, 4), (2, 1)):  # one says a stop token fourth, one at once
        steps.clear()
        one = slice(row, row + 1)
        settings = {"temperature": 0.0, "max_new_tokens": 100, "stop": (slow[3], fast[0])}
        out = say(PROMPTS[one], LENGTH[one], KEYS[one], counted, **settings)
        jax.effects_barrier()
        assert out.length[0] == LENGTH[row] + count and out.finished[0]
        assert len(steps) == count - 1


def test_one_new_token(plain):
    assert completions(say(max_new_tokens=1)) == [row[:1] for row in completions(plain)]


def test_a_stream_gives_what_generate_gives(stopped):
    out, stop = stopped
    for row in range(3):
        prompt = PROMPTS[row, : LENGTH[row]].tolist()
        said = stream(MODEL, PARAMS, prompt, KEYS[row], max_new_tokens=NEW, stop=stop)
        assert list(said) == completions(out)[row]


# --- rows that have ended leave the batch

MANY, OFTEN = 16, tuple(range(0, VOCAB, 7))  # a token in seven ends its row
MANY_PROMPTS = np.random.default_rng(5).integers(0, VOCAB, (MANY, 6), np.int32)
MANY_LENGTH = np.random.default_rng(6).integers(1, 7, MANY).astype(np.int32)
MANY_KEYS = jax.random.split(jax.random.key(1), MANY)
STEPS = []


def extend_and_tell(params, layers, given, *rest):
    jax.debug.callback(lambda: STEPS.append(len(given)))
    return MODEL.extend(params, layers, given, *rest)


TELLING = MODEL._replace(extend=extend_and_tell)


def many(halve_above, order=np.arange(MANY), **settings):
    """What many rows say, and of how many rows each step was."""
    STEPS.clear()
    asked = (MANY_PROMPTS[order], MANY_LENGTH[order], MANY_KEYS[order])
    with tuned(halve_above=halve_above):
        out = say(*asked, TELLING, **{"stop": OFTEN, "max_new_tokens": 24, **settings})
    jax.effects_barrier()
    return out, STEPS.copy()


def assert_same(found, expected):
    for name, a, b in zip(Generation._fields, found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 if name == "log_prob" else 0, err_msg=name)


@pytest.fixture(scope="module")
def to_the_end():
    """All rows in every step."""
    return many(None)


def test_a_row_says_the_same_whether_or_not_others_leave(to_the_end):
    (whole, all_rows), (halved, fewer) = to_the_end, many(4)
    assert_same(halved, whole)
    said = whole.length - whole.prompt_length
    assert len(set(said)) > 5, "choose rows that end at more different times"
    going_on = [(said > step).sum() for step in range(1, len(all_rows) + 1)]
    assert set(all_rows) == {16} and set(fewer) == {16, 8, 4}
    assert fewer == [next(width for width in (4, 8, 16) if width >= count) for count in going_on]


@pytest.mark.device
def test_nor_does_their_order_matter_where_they_leave(to_the_end):
    order = np.random.default_rng(0).permutation(MANY)
    assert_same(many(4, order)[0], jax.tree.map(lambda x: x[order], to_the_end[0]))


def test_rows_that_all_end_together_are_never_halved():
    (whole, all_rows), (halved, fewer) = (many(above, np.full(MANY, 2)) for above in (None, 4))
    assert_same(halved, whole)
    assert fewer == all_rows and set(fewer) == {16} and halved.finished.all()


def test_rows_may_be_cut_before_any_are_halved(to_the_end):
    halved, fewer = many(4, max_new_tokens=3)
    assert fewer == [16, 16]
    assert completions(halved) == [row[:3] for row in completions(to_the_end[0])]


def test_rows_are_halved_twice_at_most(to_the_end):
    quartered, fewer = many(1)
    assert_same(quartered, to_the_end[0])
    assert min(fewer) == 4


def test_an_odd_number_of_rows_is_halved_too(stopped):
    expected, stop = stopped
    with tuned(halve_above=1):
        assert_same(say(stop=stop), expected)


@pytest.mark.parametrize("in_turns", [True, False])
def test_models_side_by_side_say_what_each_says_alone(in_turns):
    models, keys = np.array([1.0, 1.2], np.float32), jnp.stack([MANY_KEYS, MANY_KEYS[::-1]])
    model = MODEL._replace(init=str(in_turns))  # another one: what was traced with other choices is not used again

    def one(scale, keys, model=model):
        params = jax.tree.map(lambda x: x * scale, PARAMS)
        return generate(model, params, MANY_PROMPTS, MANY_LENGTH, keys, max_new_tokens=24, stop=OFTEN)

    with tuned(halve_above=4, agents_in_turns=in_turns):
        together = jax.jit(jax.vmap(one))(models, keys)
    assert (together.length[0] != together.length[1]).any()
    with tuned(halve_above=None):
        for i in range(2):
            assert_same(jax.tree.map(lambda x, i=i: x[i], together), one(models[i], keys[i], TELLING))


# --- programs and mistakes


def test_a_new_temperature_compiles_nothing():
    def texts():
        return [completions(say(temperature=t)) for t in (0.0, 0.3, 1.0, 2.5)]

    texts()
    seen = []
    assert compile_events(lambda: seen.extend(texts())) == 0
    assert len({str(text) for text in seen}) == 4


def test_within_a_larger_program_only_shapes_are_looked_at():
    f = partial(generate, MODEL, max_new_tokens=NEW)
    out = jax.eval_shape(lambda t, n, k, heat: f(PARAMS, t, n, k, temperature=heat), PROMPTS, LENGTH, KEYS, 0.5)
    assert out.tokens.shape == (3, 6 + NEW)


def swapped(token):
    """The prompts with another token in place of one."""
    made = PROMPTS.copy()
    made[0, 3] = token
    return made


MISTAKES = [
    ({"length": [6, 0, 4]}, "prompt 2 is empty; give it a token to go on from"),
    ({"length": [6, 7, 4]}, "a prompt length is 7, but tokens have only 6 columns"),
    ({"max_new_tokens": 123}, r"a prompt of 6 tokens and max_new_tokens = 123 .* context of 128; .* at most 122 "),
    ({"max_new_tokens": 0}, "max_new_tokens = 0; it must be at least 1"),
    ({"prompts": swapped(97)}, "token 97 is not in the vocabulary of 97"),
    ({"prompts": swapped(-1)}, "token -1 is not in the vocabulary"),
    ({"temperature": -0.5}, "temperature = -0.5; it must be 0"),
    ({"temperature": float("nan")}, "temperature = nan"),
    ({"top_k": -1}, "top_k = -1; it must be 0"),
    ({"top_p": 0.0}, "top_p = 0; it must be above 0"),
    ({"top_p": 1.5}, "top_p = 1.5; .* at most 1"),
    ({"min_p": -0.1}, "min_p = -0.1; it must be between 0"),
    ({"min_p": 1.1}, "min_p = 1.1; it must be between 0"),
]


@pytest.mark.parametrize(("given", "message"), MISTAKES)
def test_mistakes_are_sentences(given, message):
    asked = SimpleNamespace(**{"prompts": PROMPTS, "length": LENGTH, "max_new_tokens": NEW, **given})
    asked.length = np.asarray(asked.length, np.int32)
    with pytest.raises(ValueError, match=message):
        say(**vars(asked))
    asked.prompts, settings = asked.prompts[0].tolist(), vars(asked)
    if "length" not in given:
        prompt, _ = settings.pop("prompts"), settings.pop("length")
        with pytest.raises(ValueError, match=message):
            next(stream(MODEL, PARAMS, prompt, KEYS[0], **settings))


def test_an_empty_prompt_of_a_stream_is_refused():
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        next(stream(MODEL, PARAMS, [], KEYS[0], max_new_tokens=4))


def test_padding_may_hold_anything(plain):
    out = say(np.where(np.arange(6) < LENGTH[:, None], PROMPTS, -7))
    assert completions(out) == completions(plain)
    assert (out.tokens >= 0).all()
