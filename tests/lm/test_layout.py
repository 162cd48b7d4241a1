"""Language models on a mesh of devices: what is learned there is what one device learns, wherever the parts lie."""

import collections
import functools
import re
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from jaxrl import DPO, GRPO, KTO, RLHF, SFT, ModelParallel, Schedule, replace, run, train
from jaxrl.data import Data
from jaxrl.data.prompts import PromptRows
from jaxrl.lm import LMConfig, ModelConfig, generate, language_model, layout, load_model, save_model
from jaxrl.lm.pretrained.safetensors_folder import SafeTensors
from jaxrl.lm.settings import Sampling
from jaxrl.training.parallel import over_devices
from jaxrl.training.programs import program
from tests.algorithms.test_dpo import batch_of, moved, pairs
from tests.helpers.devices import run_on_eight

MODEL = language_model(ModelConfig(24, 16, 32, 2, 4, 2, 4, 64))
PARAMS = moved(MODEL.init(jax.random.key(0)), 0.2)
PAIRS = pairs(16, 10, 4)
MESHES = {
    "fsdp": ModelParallel(fsdp=8),
    "tensor": ModelParallel(tensor=2),
    "both": ModelParallel(data=2, fsdp=2, tensor=2),
}
SETTINGS = {"learning_rate": 1e-3, "adam_eps": 1e-3, "warmup": 0.0, "batch_size": 16, "epochs": 3, "max_updates": 3}
CHUNKED, ADAPTED = LMConfig(logit_chunk=5), LMConfig(logit_chunk=5, lora_rank=4)
CONFIGS = {
    "dpo": replace(DPO(lm=CHUNKED), **SETTINGS),
    "kto": replace(KTO(lm=CHUNKED), **SETTINGS),
    "rlhf": replace(RLHF(lm=ADAPTED, sampling=Sampling(6)), eval_prompts=16, num_minibatches=1, **SETTINGS),
    "lora": replace(DPO(lm=ADAPTED), micro_batch_size=8, **SETTINGS),
    "sft": replace(SFT(lm=CHUNKED), **SETTINGS),
    "grpo": replace(GRPO(lm=CHUNKED, sampling=Sampling(6)), **SETTINGS),
}
EQUAL = [*(("dpo", where) for where in MESHES), ("kto", "both"), ("rlhf", "both")]  # others agree too, and take long
QUICK = {"schedule": Schedule(logs=3, evals=1, saves=3), "progress": False}


def given(name):
    """What it learns from."""
    if name in ("rlhf", "grpo"):
        rows = PromptRows(PAIRS.chosen.tokens, PAIRS.chosen.prompt_length, np.arange(16, dtype=np.int32))
        return {"data": Data((rows,), (rows,)), "reward": lambda rows: jnp.mean(rows.tokens / 24.0, 1), "stop": (3,)}
    labels = np.arange(16) % 2 == 0
    rows = {"kto": PAIRS.chosen._replace(label=labels.astype(np.float32)), "sft": PAIRS.chosen}.get(name, PAIRS)
    return {"data": Data((rows,), (rows,))}


def on(name, where):
    return replace(CONFIGS[name], parallel=MESHES[where])


@functools.cache
def learned(name, where=None):
    """{path: numbers} of the learner after three updates and their metrics; on the mesh of that name, or one device."""
    config, more = CONFIGS[name] if where is None else on(name, where), given(name)

    def whole(params, key):
        return train(config, key, network=MODEL, params=params, **more)

    state, metrics = jax.jit(whole)(PARAMS, jax.random.key(3))
    leaves = jax.tree_util.tree_leaves_with_path((state.learner, {name: x.value for name, x in metrics.items()}))
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}


def told(params, learner, batch, keys):
    """Of one update, and of what the model says to eight prompts."""
    after, metrics = jax.jit(CONFIGS["dpo"].make(MODEL, PARAMS, 10).update)(jax.random.key(1), learner, batch)
    rows = batch.rows.chosen
    said = generate(MODEL, params, rows.tokens, rows.prompt_length, keys, max_new_tokens=5, stop=(3,))
    found = [after.trained, metrics["loss"].value, MODEL.apply(params, rows.tokens), said]
    return {str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(found))}


def arguments():
    learner = CONFIGS["dpo"].make(MODEL, PARAMS, 10).init(jax.random.key(0))
    learner = learner._replace(trained=moved(PARAMS))
    return PARAMS, learner, batch_of(pairs(8, 10, 4)), jax.random.split(jax.random.key(0), 8)


def told_by_explicit_axes():
    """As `jax.make_mesh` makes them unasked."""
    mesh = jax.make_mesh((8,), ("data",))
    assert mesh.axis_types == (AxisType.Explicit,)
    whole, rows = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    params, learner, batch, keys = arguments()
    with jax.set_mesh(mesh):
        return told(*jax.device_put((params, learner), whole), *jax.device_put((batch, keys), rows))


def collectives(where):
    """The operations between devices of an update of DPO, and the shapes of what they carry."""
    p = program(on("dpo", where), network=MODEL, params=PARAMS, **given("dpo"))
    state = jax.eval_shape(p.init, jax.random.key(0))
    places = p.places(state)
    state = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), state, places)
    text = jax.jit(p.step, out_shardings=(places, None)).lower(state).compile().as_text()
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast"
    found = re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text)
    return {f"{kind} {shape}" for shapes, kind in found for shape in re.findall(r"f32\[[\d,]*\]", shapes)}


def loaded_by_parts(folder):
    """(whether it is what was saved, numbers read in all, the most at once, how many there are, and the largest)."""
    save_model(folder, MODEL.config, PARAMS)
    mesh, reads, part = layout.mesh_of(MESHES["both"]), [], SafeTensors.part

    def counted(self, name, where):
        found = part(self, name, where)
        reads.append(found.size)
        return found

    with mock.patch.object(SafeTensors, "part", counted):
        dealt = load_model(folder, with_tokenizer=False, places=functools.partial(layout.parameter_places, mesh)).params
    leaves = jax.tree.leaves(PARAMS)
    same = all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(dealt), leaves, strict=True))
    assert all(
        x.sharding == y
        for x, y in zip(*map(jax.tree.leaves, (dealt, layout.parameter_places(mesh, dealt))), strict=True)
    )
    return np.array([same, sum(reads), max(reads), sum(x.size for x in leaves), 32 * 16])


def main(folder):
    with mock.patch.object(layout, "_SMALL", 16):
        found = {f"{n} {w} {path}": x for n, w in EQUAL for path, x in learned(n, w).items()}
        run(on("dpo", "both"), 3, folder / "run", network=MODEL, params=PARAMS, **given("dpo"), **QUICK)
        found |= {f"crossed {where}": np.array(sorted(collectives(where))) for where in ("fsdp", "tensor")}
        found["parts"] = loaded_by_parts(folder / "model")
    found |= {f"explicit {name}": x for name, x in told_by_explicit_axes().items()}
    np.savez(folder / "found.npz", **found)


@pytest.fixture(scope="module")
def on_eight(tmp_path_factory):
    """(what `main` found on eight devices, the directory of its run)."""
    folder = tmp_path_factory.mktemp("eight")
    run_on_eight(__name__, folder)
    return dict(np.load(folder / "found.npz")), folder / "run"


def alike(found, begins, expected):
    there = {path.removeprefix(begins): x for path, x in found.items() if path.startswith(begins)}
    assert there.keys() == expected.keys() and len(there) > 15
    for path, x in expected.items():
        np.testing.assert_allclose(there[path], x, rtol=1e-5, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("name, where", EQUAL)
def test_a_mesh_learns_what_one_device_does(on_eight, name, where):
    alike(on_eight[0], f"{name} {where} ", learned(name))


def test_a_mesh_with_explicit_axes_is_as_good(on_eight):
    alike(on_eight[0], "explicit ", told(*arguments()))


def test_parameters_are_gathered_and_rows_never(on_eight):
    """What crosses between devices: weights and their gradients where "fsdp" deals them, activations where "tensor"
    does. Rows are [16, 10] of each answer, and 16 wide."""
    crossed = {where: collections.Counter(on_eight[0][f"crossed {where}"].tolist()) for where in ("fsdp", "tensor")}
    matrices = {x.shape[-2:] for x in jax.tree.leaves(PARAMS) if x.ndim >= 2 and x.shape[-2:] != (2, 16)}
    gathered = {tuple(map(int, re.findall(r"\d+", one)[1:])) for one in crossed["fsdp"] if "all-gather" in one}
    assert matrices <= gathered and gathered - matrices <= {(16,)}  # the weights of rows
    assert not any(re.search(r"\[(16|32|4|2),10", one) for one in crossed["fsdp"])
    assert {one.split()[0] for one in crossed["tensor"]} == {"all-reduce"}
    assert "all-reduce f32[32,10,16]" in crossed["tensor"]


def test_each_device_reads_its_part_of_the_weights(on_eight):
    same, read, most, numbers, largest = on_eight[0]["parts"]
    assert same and read == numbers and most <= largest / 4


def test_a_run_on_a_mesh_goes_on_with_one_device(on_eight, tmp_path):
    found, run_dir = on_eight
    newest = max((run_dir / "checkpoints").iterdir(), key=lambda step: int(step.name))
    newest.rename(tmp_path / newest.name)  # as if it had been stopped before
    with pytest.warns(UserWarning, match="resuming where devices was 8, is 1"):
        ended = run(CONFIGS["dpo"], 3, run_dir, resume=True, network=MODEL, params=PARAMS, **given("dpo"), **QUICK)
    assert int(ended.state.num_steps) == 48
    straight = run(CONFIGS["dpo"], 3, tmp_path / "one", network=MODEL, params=PARAMS, **given("dpo"), **QUICK)
    for x, y in zip(*(jax.tree.leaves(r.state.learner) for r in (ended, straight)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_where_parameters_and_moments_lie():
    mesh = AbstractMesh((2, 2, 2), layout.AXES, axis_types=(AxisType.Auto,) * 3)
    with mock.patch.object(layout, "_SMALL", 16):
        learner = jax.eval_shape(CONFIGS["dpo"].make(MODEL, PARAMS, 10).init, jax.random.key(0))
        adapters = jax.eval_shape(CONFIGS["lora"].make(MODEL, PARAMS, 10).init, jax.random.key(0)).trained
        places = [layout.parameter_places(mesh, x) for x in (learner.trained, learner.opt_state[0].mu, adapters)]
    *trunks, adapters = [
        {jax.tree_util.keystr(path): tuple(place.spec) for path, place in jax.tree_util.tree_leaves_with_path(x)}
        for x in places
    ]
    for trunk in trunks:
        assert trunk[".embed.value"] == ("tensor", "fsdp") and trunk[".head.kernel.value"] == ("fsdp", "tensor")
        assert trunk[".layers.q_proj.kernel.value"] == (None, "fsdp", "tensor")
        assert trunk[".layers.down_proj.kernel.value"] == (None, "tensor", "fsdp")
        assert trunk[".layers.attn_norm.weight.value"] == (None, None) and trunk[".norm.weight.value"] == (None,)
    assert adapters["['q_proj'].a"] == (None, "fsdp", None) and adapters["['o_proj'].b"] == (None, None, "fsdp")
    assert adapters["['q_proj'].b"] == (None, "fsdp", "tensor") and adapters["['o_proj'].a"] == (None, "tensor", "fsdp")


def test_what_devices_there_are_decides_how_rows_are_dealt():
    with mock.patch.object(jax, "device_count", lambda: 8):
        assert over_devices(CONFIGS["dpo"]).parallel.data == 8
        assert over_devices(replace(CONFIGS["dpo"], parallel=ModelParallel(fsdp=2, tensor=2))).parallel.data == 2
        assert over_devices(CONFIGS["lora"]).parallel.data == 8  # of eight rows at once
        assert over_devices(replace(CONFIGS["lora"], micro_batch_size=4)).parallel.data == 4
        assert over_devices(replace(CONFIGS["rlhf"], num_minibatches=4)).parallel.data == 4
        assert over_devices(on("dpo", "both")) == on("dpo", "both")
    assert over_devices(CONFIGS["dpo"]).parallel.data == 1


@pytest.mark.parametrize(
    "parallel, remedy",
    [
        (ModelParallel(data=3), "leave parallel.data out, and let the rows of a gradient .* be a multiple of 8$"),
        (ModelParallel(data=1, tensor=2), "be a multiple of 4$"),
        (ModelParallel(fsdp=3), "take parallel.fsdp and parallel.tensor whose product divides 8$"),
    ],
)
def test_processes_leave_no_device_idle(parallel, remedy):
    with (
        mock.patch.object(jax, "device_count", lambda: 8),
        mock.patch.object(jax, "process_count", lambda: 2),
        pytest.raises(ValueError, match=remedy),
    ):
        layout.mesh_of(parallel)


@pytest.mark.parametrize(
    "changes, devices, wrong",
    [
        ({"parallel": ModelParallel(fsdp=2)}, 1, r"parallel.fsdp = 2 × .* takes 2 devices, and there are 1; make"),
        (
            {"parallel": ModelParallel(data=3)},
            8,
            r"16 rows, .* cannot be dealt to .* = 3 devices; set micro_batch_size",
        ),
        ({"parallel": ModelParallel(data=8), "micro_batch_size": 4}, 8, r"4 rows, .* to a multiple of 8"),
        ({"parallel": ModelParallel(tensor=4)}, 8, r"2 key-value heads cannot be dealt to parallel.tensor = 4; try 2"),
        ({"parallel": ModelParallel(fsdp=16)}, 8, r"takes 16 devices, and there are 8; make one smaller$"),
        ({"parallel": ModelParallel(data=0)}, 8, r"parallel.data = 0"),
    ],
)
def test_what_does_not_come_out_even_is_said_before_anything_is_compiled(changes, devices, wrong):
    mesh = AbstractMesh((3, 1, 1), layout.AXES, axis_types=(AxisType.Auto,) * 3)
    with (
        mock.patch.object(jax, "device_count", lambda: devices),
        mock.patch.object(
            jax, "make_mesh", lambda sizes, axes, **_: AbstractMesh(sizes, axes, axis_types=mesh.axis_types)
        ),
        mock.patch.object(jax, "devices", lambda: [None] * devices),
        pytest.raises(ValueError, match=wrong),
    ):
        program(replace(CONFIGS["dpo"], **changes), network=MODEL, params=PARAMS, **given("dpo"))


def test_another_mesh_than_the_one_that_is_set_is_refused():
    mesh = AbstractMesh((2, 2, 2), layout.AXES, axis_types=(AxisType.Auto,) * 3)
    config = replace(CONFIGS["dpo"], parallel=ModelParallel(fsdp=4))
    with jax.sharding.use_abstract_mesh(mesh):
        assert over_devices(CONFIGS["dpo"]) == CONFIGS["dpo"]
        with pytest.raises(ValueError, match="the mesh that is set is .* leave"):
            program(config, network=MODEL, params=PARAMS, **given("dpo"))


def test_a_run_under_explicit_axes_is_refused():
    mesh = AbstractMesh((2, 2, 2), layout.AXES, axis_types=(AxisType.Explicit,) * 3)
    with jax.sharding.use_abstract_mesh(mesh), pytest.raises(ValueError, match="has explicit axes, .*AxisType.Auto"):
        layout.mesh_of(ModelParallel())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
