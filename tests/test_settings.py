import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from jaxrl import cli
from jaxrl.algorithms import A2C, ALGORITHMS, DPO, KTO, PPO, SFT, Reinforce
from jaxrl.config_file import from_dict, load_config, save_config, to_dict
from jaxrl.data.settings import Loop
from jaxrl.lm.settings import LMConfig
from jaxrl.ops.optimizers import AdamW
from jaxrl.settings import EnvConfig, axes, check, config, float32, leaf, replace, stack, static


@config
class Inner:
    size: int = static(3, at_least=1)
    rate: float = leaf(0.5, 0.0, 1.0)


@config
class Outer:
    inner: Inner = Inner()
    mode: str = static("fast", choices=("fast", "slow"))
    widths: tuple[int, ...] = static((4, 5))
    rate: float = leaf(0.1, 0.0)
    shift: float = leaf(0.0)


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def read(tmp_path, algorithm="", env=""):
    """Load a PPO config with some further lines in each section."""
    return load_config(
        write(tmp_path, f"algorithm:\n  name: ppo\n  {algorithm}\nenv:\n  num_envs: 8\n  {env}\n"), ALGORITHMS
    )


# --- a config is a pytree ---------------------------------------------------------------------------------------------


def test_floats_and_those_of_nested_configs_are_leaves_and_the_rest_is_static():
    leaves, tree = jax.tree.flatten(Outer())
    assert leaves == [0.5, 0.1, 0.0]
    assert jax.tree.unflatten(tree, leaves) == Outer()
    assert tree != jax.tree.structure(Outer(mode="slow"))


def test_an_equal_config_hashes_equally_and_a_different_one_is_different():
    assert hash(PPO()) == hash(PPO(learning_rate=3e-4)) and PPO() == PPO(learning_rate=3e-4)
    assert len({PPO(), PPO(gamma=0.5), PPO(num_steps=64), PPO()}) == 3


@pytest.mark.parametrize("make", [PPO, A2C, Reinforce, Outer])
def test_a_config_passes_through_jit_unchanged(make):
    out = jax.jit(lambda c: c)(make())
    assert jax.tree.structure(out) == jax.tree.structure(make())
    np.testing.assert_array_equal(jax.tree.leaves(out), np.float32(jax.tree.leaves(make())))


def test_a_config_can_be_a_static_argument():
    f = jax.jit(lambda c, x: c.rate * x, static_argnums=0)
    assert f(Outer(rate=2.0), 3.0) == 6.0


def test_fields_cannot_be_assigned():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PPO().gamma = 0.5


def test_the_gradient_with_respect_to_a_config_is_a_config():
    grad = jax.grad(lambda c: c.rate**2 + 3 * c.inner.rate)(Outer(rate=4.0))
    assert (grad.rate, grad.inner.rate, grad.shift) == (8.0, 3.0, 0.0)


@pytest.mark.parametrize(
    "one", [1, 1.0, np.int32(1), np.int64(1), np.float16(1), np.float32(1), np.float64(1)], ids=repr
)
def test_any_kind_of_number_for_a_float_leaf_runs_the_same_program(one):
    traces = []

    @jax.jit
    def f(c):
        traces.append(c)
        return c.rate * 2 + c.inner.rate

    f(Outer(rate=0.25, inner=Inner(rate=0.75)))
    assert f(Outer(rate=one, inner=Inner(rate=one))) == 3.0
    assert len(traces) == 1


def test_a_new_static_field_traces_a_new_program():
    traces = []
    f = jax.jit(lambda c: traces.append(c) or c.rate)
    for size in (1, 2, 2):
        f(Outer(inner=Inner(size=size)))
    assert len(traces) == 2


@pytest.mark.parametrize("number", [2, 2.0, np.float64(2), np.array(2), jnp.array(2), jnp.array(2.0)], ids=repr)
def test_float32_gives_every_kind_of_leaf_the_same_type(number):
    converted = float32(Outer(rate=number)).rate
    assert converted == 2.0 and converted.dtype == jnp.float32 and not converted.weak_type


def test_a_list_for_a_static_field_becomes_a_tuple():
    assert hash(PPO(hidden=[32, 16])) == hash(PPO(hidden=(32, 16)))


def make_with(annotation, default):
    return config(type("Bad", (), {"__annotations__": {"field": annotation}, "field": default}))


@pytest.mark.parametrize(
    ("annotation", "default"),
    [(int, 3), (str, "a"), (tuple, ()), (int, leaf(3)), (float, static(0.5)), (Inner, static(Inner()))],
)
def test_an_undeclared_field_is_a_type_error_that_names_it(annotation, default):
    with pytest.raises(TypeError, match=r"Bad\.field"):
        make_with(annotation, default)


# --- check ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Outer(rate=-0.1), ["rate", "-0.1", "at least 0"]),
        (Outer(inner=Inner(rate=1.5)), ["inner.rate", "1.5", "between 0 and 1"]),
        (Outer(inner=Inner(rate=-1e-9)), ["inner.rate", "between 0 and 1"]),
        (Outer(inner=Inner(size=0)), ["inner.size", "0", "at least 1"]),
        (Outer(rate=math.nan), ["rate", "nan"]),
        (Outer(rate=jnp.array([1.0, -2.0])), ["rate", "-2", "at least 0"]),
        (Outer(mode="fats"), ["mode", "'fats'", "'fast'", "'slow'", "did you mean 'fast'"]),
        (PPO(gamma=1.01), ["gamma", "1.01", "between 0 and 1"]),
        (PPO(env=EnvConfig(resets="fersh")), ["env.resets", "did you mean 'fresh'"]),
        (PPO(env=EnvConfig(num_envs=0)), ["env.num_envs", "at least 1"]),
    ],
)
def test_check_names_the_field_the_value_and_the_remedy(bad, words):
    with pytest.raises(ValueError) as error:
        check(bad)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    "good",
    [
        Outer(rate=0.0, inner=Inner(rate=0.0, size=1)),
        Outer(rate=1e30, inner=Inner(rate=1.0)),
        PPO(max_grad_norm=math.inf, value_clip=math.inf),
        Outer(shift=-1e30, mode="slow"),
        PPO(env=EnvConfig(time_limit=None)),
        PPO(),
        A2C(),
        Reinforce(),
    ],
)
def test_check_accepts_the_ends_of_every_range_and_the_defaults(good):
    check(good)


def test_check_skips_tracers_but_still_holds_static_fields():
    assert jax.jit(lambda c: (check(c), c.rate)[1])(Outer(rate=-1.0)) == -1.0
    with pytest.raises(ValueError, match="mode"):
        jax.jit(lambda c: (check(c), c.rate)[1])(Outer(mode="x"))


@pytest.mark.parametrize(
    ("num_envs", "num_steps", "num_minibatches", "by"), [(8, 125, 16, "step"), (6, 128, 4, "env"), (3, 1, 2, "step")]
)
def test_the_number_of_minibatches_that_ppo_suggests_is_accepted(num_envs, num_steps, num_minibatches, by):
    bad = PPO(
        env=EnvConfig(num_envs=num_envs),
        num_steps=num_steps,
        num_minibatches=num_minibatches,
        minibatches_by=by,
        total_steps=num_envs * num_steps * 10,
    )
    with pytest.raises(ValueError, match="not divisible by num_minibatches") as error:
        check(bad)
    check(replace(bad, num_minibatches=int(str(error.value).rpartition("try ")[2])))


def test_none_is_not_one_of_the_choices():
    with pytest.raises(ValueError, match="mode"):
        check(Outer(mode=None))


# --- replace, stack, axes ---------------------------------------------------------------------------------------------


def test_replace_changes_a_copy():
    old = Outer()
    new = replace(old, rate=0.7, widths=[1])
    assert (new.rate, new.widths, new.inner) == (0.7, (1,), old.inner) and old == Outer()


def test_replace_names_the_closest_field_for_an_unknown_one():
    with pytest.raises(ValueError, match=r"unknown field learning_rat of PPO.*'learning_rate'"):
        replace(PPO(), learning_rat=1.0)


def test_replace_lists_the_fields_where_none_is_close():
    with pytest.raises(ValueError, match="Inner has size, rate"):
        replace(Inner(), qqq=1.0)


@config
class Twice:
    inner: Inner = Inner()
    other: Inner = Inner(rate=0.25)
    width: int = static(2)


@config
class Deep:
    outer: Outer = Outer()


def test_replace_reaches_into_the_one_nested_config_that_has_the_field():
    new = replace(SFT(), epochs=2, learning_rate=2e-3, lora_rank=8)
    assert new == SFT(lm=LMConfig(lora_rank=8), loop=Loop(batch_size=16, epochs=2), optimizer=AdamW(learning_rate=2e-3))
    assert replace(Outer(), size=5, mode="slow") == Outer(inner=Inner(size=5), mode="slow")
    assert replace(Deep(), size=5).outer.inner.size == 5


def test_replace_prefers_a_field_of_its_own_and_what_is_given_with_it():
    assert replace(Outer(), rate=0.7) == Outer(rate=0.7)  # not inner.rate
    assert replace(Outer(), size=5, inner=Inner(rate=0.9)) == Outer(inner=Inner(size=5, rate=0.9))


def test_replace_refuses_a_name_that_several_nested_configs_have():
    with pytest.raises(ValueError, match=r"rate of Twice could be inner\.rate or other\.rate; replace the nested"):
        replace(Twice(), rate=0.5)


def test_replace_names_the_closest_field_of_a_nested_config_too():
    with pytest.raises(ValueError, match="unknown field siez of Outer; did you mean 'size'"):
        replace(Outer(), siez=1)


def test_replace_reaches_leaves_that_are_stacked_or_traced():
    swept = replace(SFT(), learning_rate=jnp.array([1e-3, 1e-2]))
    assert axes(swept).optimizer.learning_rate == 0 and axes(swept).optimizer.warmup is None
    assert jax.jit(lambda rate: replace(SFT(), learning_rate=rate).optimizer.learning_rate)(0.5) == 0.5


def test_the_command_line_is_flat_and_keeps_the_algorithms_own_defaults():
    argv = "--learning-rate 1e-3 --batch-size 8 --micro-batch-size 2 --lora-rank 4 --loss ipo".split()
    expected = replace(DPO(loss="ipo"), learning_rate=1e-3, batch_size=8, micro_batch_size=2, lora_rank=4)
    assert cli.parse(DPO(), None, argv)[0] == expected
    assert cli.parse(KTO(), None, [])[0] == KTO()


def test_the_command_line_refuses_what_nothing_reads_with_a_sentence(capsys):
    with pytest.raises(SystemExit):
        cli.parse(DPO(), None, ["--loss", "ipo", "--label-smoothing", "0.4"])
    said = "error: label_smoothing = 0.4 is not read by loss = 'ipo'; leave it out, or use dpo, robust or exo\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(("cls", "rate", "batch"), [(SFT, 2e-5, 16), (DPO, 1e-6, 64), (KTO, 1e-6, 64)])
def test_every_algorithm_has_a_learning_rate_and_a_batch_of_its_own(cls, rate, batch):
    check(cls())
    assert (cls().optimizer.learning_rate, cls().loop.batch_size) == (rate, batch)
    for missing in (AdamW, Loop):
        with pytest.raises(TypeError):
            missing()


def test_stack_gives_every_leaf_a_leading_axis_in_order():
    stacked = stack([Outer(rate=1, inner=Inner(rate=0.25)), Outer(rate=2.0), Outer(rate=3.0)])
    np.testing.assert_array_equal(stacked.rate, [1, 2, 3])
    np.testing.assert_array_equal(stacked.inner.rate, [0.25, 0.5, 0.5])
    assert stacked.rate.dtype == jnp.float32 and stacked.widths == (4, 5)
    check(stacked)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Outer(mode="slow"), r"mode \('fast' and 'slow'\)"),
        (Outer(inner=Inner(size=4)), r"inner\.size \(3 and 4\)"),
        (Outer(widths=(4,)), "widths"),
        (Inner(), "Outer"),
    ],
)
def test_stack_refuses_configs_of_different_programs_and_says_where_they_differ(other, words):
    with pytest.raises(ValueError, match=words):
        stack([Outer(), Outer(rate=3.0), other])


def test_stack_refuses_nothing():
    with pytest.raises(ValueError, match="at least one"):
        stack([])


def rates(c):
    return c.rate * 10 + c.inner.rate


def test_a_vmap_over_a_stacked_config_equals_a_loop():
    configs = [Outer(rate=r, inner=Inner(rate=s)) for r, s in [(1.0, 0.1), (2.0, 0.2), (3.0, 0.3)]]
    stacked = stack(configs)
    np.testing.assert_allclose(jax.vmap(rates, (axes(stacked),))(stacked), [rates(c) for c in configs], rtol=1e-6)


def test_axes_maps_only_the_leaves_that_have_an_axis():
    swept = replace(Outer(), rate=jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(jax.vmap(rates, (axes(swept),))(swept), [10.5, 20.5])


# --- dictionaries and files -------------------------------------------------------------------------------------------

ROUND_TRIPS = [
    PPO(),
    A2C(),
    Reinforce(),
    PPO(
        env=EnvConfig(name="brax/hopper", num_envs=4, backend="spring", time_limit=100, action_repeat=2, resets="pool"),
        total_steps=4096,
        num_steps=32,
        learning_rate=1e-5,
        value_clip=0.2,
        target_kl=math.inf,
        hidden=(32,),
        critic_hidden=(),
        normalize_obs=True,
    ),
    PPO(learning_rate=np.float32(1e-3), reward_scale=-3),
    replace(SFT(), learning_rate=1e-3, max_grad_norm=math.inf, micro_batch_size=4, buckets=(32, 64)),
    replace(DPO(loss="simpo", gamma=0.5), epochs=3),
]


@pytest.mark.parametrize("c", ROUND_TRIPS)
def test_save_then_load_gives_an_equal_config(tmp_path, c):
    save_config(c, tmp_path / "c.yaml")
    loaded = load_config(tmp_path / "c.yaml", ALGORITHMS)
    assert loaded == c and hash(loaded) == hash(c)


def test_a_config_of_ones_own_is_named_by_its_module(tmp_path):
    save_config(Outer(rate=0.25), tmp_path / "c.yaml")
    assert yaml.safe_load((tmp_path / "c.yaml").read_text())["algorithm"]["name"] == "tests.test_settings:Outer"
    assert load_config(tmp_path / "c.yaml", ALGORITHMS) == Outer(rate=0.25)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere:Outer", r"'nowhere:Outer' is not found here \(No module named 'nowhere'\); .* PYTHONPATH=FOLDER"),
        ("tests.test_settings:Gone", "is not found here .*has no attribute 'Gone'"),
        ("tests.test_settings:ROUND_TRIPS", "is no config; decorate the class with @jaxrl.config"),
        ("outer", "is not one of reinforce, .* and no module:Class of your own"),
    ],
)
def test_a_config_that_is_not_found_is_said(tmp_path, name, sentence):
    (tmp_path / "c.yaml").write_text(f"algorithm:\n  name: {name}\n")
    with pytest.raises(ValueError, match=sentence):
        load_config(tmp_path / "c.yaml", ALGORITHMS)


@pytest.mark.parametrize("c", ROUND_TRIPS)
def test_to_dict_is_plain_and_from_dict_inverts_it(c):
    plain = to_dict(c)
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain
    assert from_dict(type(c), plain) == c


def test_an_array_leaf_is_saved_as_a_number():
    assert to_dict(float32(Outer(rate=0.5)))["rate"] == 0.5
    assert to_dict(stack([Inner(rate=0.25), Inner(rate=0.5)]))["rate"] == [0.25, 0.5]


def test_load_reads_every_kind_of_field(tmp_path):
    c = read(
        tmp_path,
        "learning_rate: 3e-4\n  gamma: 1\n  total_steps: 1_024\n  hidden: [8, 4]\n  normalize_obs: true\n"
        "  value_clip: .inf",
        "name: brax/humanoid\n  backend: mjx\n  time_limit: 5",
    )
    assert (c.learning_rate, c.gamma, c.total_steps, c.hidden, c.normalize_obs) == (3e-4, 1.0, 1024, (8, 4), True)
    assert isinstance(c.learning_rate, float) and isinstance(c.gamma, float) and c.value_clip == math.inf
    assert c.env == EnvConfig(name="brax/humanoid", num_envs=8, backend="mjx", time_limit=5)
    assert c.num_epochs == PPO().num_epochs


@pytest.mark.parametrize(
    ("algorithm", "env", "words"),
    [
        ("learnign_rate: 1e-3", "", ["learnign_rate", "did you mean 'learning_rate'"]),
        ("", "num_env: 4", ["env.num_env", "did you mean 'num_envs'"]),
        ("learning_rate: fast", "", ["learning_rate", "'fast'", "float"]),
        ("learning_rate: true", "", ["learning_rate", "True"]),
        ("learning_rate: [1e-3]", "", ["learning_rate", "number"]),
        ("learning_rate:", "", ["learning_rate", "number"]),
        ("num_steps: 12.5", "", ["num_steps", "12.5", "whole"]),
        ("num_steps: yes", "", ["num_steps", "True"]),
        ("num_epochs: many", "", ["num_epochs", "int"]),
        ("normalize_obs: 1", "", ["normalize_obs", "true or false"]),
        ("normalize_obs: 'false'", "", ["normalize_obs", "true or false"]),
        ("gamma: 1.5", "", ["gamma", "between 0 and 1"]),
        ("minibatches_by: steps", "", ["minibatches_by", "did you mean 'step'"]),
        ("", "resets: pol", ["env.resets", "did you mean 'pool'"]),
        ("learning_rate: .inf", "", ["learning_rate = inf is not finite"]),
    ],
)
def test_load_refuses_what_it_cannot_mean_and_says_why(tmp_path, algorithm, env, words):
    with pytest.raises(ValueError) as error:
        read(tmp_path, algorithm, env)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("algorithm:\n  name: pop\n", ["'pop'", "reinforce, a2c, ppo, sft"]),
        ("algorithm:\n  gamma: 0.9\n", ["algorithm.name", "None"]),
        ("env:\n  num_envs: 3\n", ["`algorithm:`"]),
        ("algorithm:\n  name: ppo\nenvs:\n  num_envs: 3\n", ["no section `envs:`", "`algorithm:`, `env:`"]),
        ("algorithm:\n  name: ppo\nenv: gymnax/CartPole-v1\n", ["env", "gymnax/CartPole-v1"]),
        ("- ppo\n", ["section `algorithm:`"]),
        ("", ["section `algorithm:`"]),
    ],
)
def test_load_refuses_a_document_of_another_form(tmp_path, text, words):
    with pytest.raises(ValueError) as error:
        load_config(write(tmp_path, text), ALGORITHMS)
    assert all(word in str(error.value) for word in words), error.value


def test_sections_of_nested_configs_keep_the_algorithms_own_defaults(tmp_path):
    text = "algorithm:\n  name: dpo\n  beta: 0.5\nloop:\n  epochs: 2\noptimizer:\n  warmup: 0.0\n"
    assert load_config(write(tmp_path, text), ALGORITHMS) == replace(DPO(beta=0.5), epochs=2, warmup=0.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("algorithm:\n  name: dpo\n  learning_rate: 1e-4\n", "^learning_rate belongs to the section `optimizer:`$"),
        ("algorithm:\n  name: kto\n  batch_size: 8\n", "^batch_size belongs to the section `loop:`$"),
        ("algorithm:\n  name: ppo\n  num_envs: 8\n", "^num_envs belongs to the section `env:`$"),
        ("algorithm:\n  name: sft\noptimizer:\n  epochs: 8\n", "unknown field optimizer.epochs of AdamW; AdamW has"),
    ],
)
def test_a_field_in_the_wrong_section_is_told_its_own(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        load_config(write(tmp_path, text), ALGORITHMS)


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ValueError, match=r"no config file at .*absent\.yaml"):
        load_config(tmp_path / "absent.yaml", ALGORITHMS)


def test_load_builds_no_objects_that_a_file_asks_for(tmp_path):
    path = write(tmp_path, "algorithm: !!python/object/apply:os.getcwd []\n")
    with pytest.raises((ValueError, yaml.YAMLError)):
        load_config(path, ALGORITHMS)


@pytest.mark.parametrize(
    ("algorithm", "env", "field"),
    [
        pytest.param("total_steps: .inf", "", "total_steps"),
        pytest.param("", "time_limit: soon", "time_limit"),
        pytest.param("", "time_limit: 10.5", "time_limit"),
        pytest.param("", "name: 5", "name"),
        pytest.param("", "backend: 5", "backend"),
        pytest.param("activation: 5", "", "activation"),
        pytest.param("hidden: 64", "", "hidden"),
        pytest.param("hidden: [64, a]", "", "hidden"),
        pytest.param("hidden: [64.5]", "", "hidden"),
        pytest.param("minibatches_by:", "", "minibatches_by"),
        pytest.param("gamma: 0.5\n  gamma: 0.9", "", "gamma"),
    ],
)
def test_load_refuses_a_value_of_a_wrong_type(tmp_path, algorithm, env, field):
    with pytest.raises(ValueError, match=field):
        read(tmp_path, algorithm, env)


@pytest.mark.parametrize(
    "text",
    ["algorithm: ppo\n", "algorithm:\n  name: [ppo]\n", "algorithm: {name: ppo\n"],
    ids=["text", "list", "syntax"],
)
def test_load_explains_a_malformed_document(tmp_path, text):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match="algorithm") as error:
        load_config(path, ALGORITHMS)
    assert str(path) in str(error.value)


def test_what_a_file_does_not_say_is_the_algorithms_default(tmp_path):
    assert load_config(write(tmp_path, "algorithm:\n  name: a2c\n"), ALGORITHMS) == A2C()


# --- the options of an environment ------------------------------------------------------------------------------------


def test_options_of_an_environment_are_static_and_compared_by_value_and_type():
    one = EnvConfig(options={"size": 5, "slippery": True})
    assert hash(one) == hash(EnvConfig(options={"slippery": True, "size": 5}))
    assert one == EnvConfig(options={"slippery": True, "size": 5})
    assert len({EnvConfig(options={"size": x}) for x in (1, 1.0, True, "1")}) == 4
    assert jax.tree.leaves(one) == [] and jax.jit(lambda c: c)(one) == one
    assert replace(one, num_envs=2).options == {"size": 5, "slippery": True}


def test_options_survive_a_file_and_numbers_with_exponents_are_numbers(tmp_path):
    options = {"size": 5, "slippery": True, "dt": 0.5, "kind": "ice"}
    save_config(PPO(env=EnvConfig(options=options)), tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml", ALGORITHMS).env == EnvConfig(options=options)
    assert type(to_dict(EnvConfig(options=options))["options"]) is dict
    assert read(tmp_path, env="options: {dt: 1e-3, kind: '1'}").env.options == {"dt": 1e-3, "kind": "1"}


@pytest.mark.parametrize("options", [{"size": [1]}, {"size": None}, {3: 1}, "size", {"size": {"x": 1}}], ids=repr)
def test_options_are_names_with_plain_values(options):
    with pytest.raises(ValueError, match="options = .* is of the wrong type"):
        check(EnvConfig(options=options))


def test_options_are_given_on_the_command_line_in_pairs():
    import tyro

    argv = ["--options", "size", "5", "slippery", "True", "dt", "0.5", "kind", "ice"]
    parsed = tyro.cli(tyro.conf.OmitArgPrefixes[PPO], args=["--num-envs", "2", *argv], default=PPO())
    assert parsed.env == EnvConfig(num_envs=2, options={"size": 5, "slippery": True, "dt": 0.5, "kind": "ice"})
    assert tyro.cli(tyro.conf.OmitArgPrefixes[PPO], args=[], default=PPO()) == PPO()


def test_every_width_of_a_tuple_is_held_to_the_range():
    @config
    class Wide:
        hidden: tuple[int, ...] | None = static((4,), at_least=1)

    check(Wide(None))
    with pytest.raises(ValueError, match="hidden = 0 is out of range; it must be at least 1"):
        check(Wide((64, 0)))


def test_a_post_init_of_ones_own_is_run():
    @config
    class Mine:
        rate: float = 1e-3

        def __post_init__(self):
            seen.append(type(self.rate))

    seen: list = []
    Mine(rate=1)
    assert seen == [float], "after the fields have been given their types"


POSTPONED = """
from __future__ import annotations
from jaxrl import EnvConfig, config, static

@config
class Mine:
    env: EnvConfig = EnvConfig(num_envs=3)
    rate: float = 1e-3
    size: int = static(3, at_least=1)
"""


def test_annotations_may_be_postponed(tmp_path):
    names: dict = {"__name__": "postponed"}
    exec(compile(POSTPONED, "postponed", "exec", dont_inherit=True), names)
    made = names["Mine"](rate=2)
    assert jax.tree.leaves(made) == [2.0] and made.env.num_envs == 3
    check(made)
    with pytest.raises(ValueError, match="size = 0 is out of range"):
        check(names["Mine"](size=0))


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan, np.float32("inf"), jnp.array([1.0, jnp.inf])], ids=repr)
def test_numbers_must_be_finite_where_infinity_means_nothing(bad):
    with pytest.raises(ValueError, match=r"rate = .* is not finite, and infinity means nothing here"):
        check(Outer(rate=bad))
