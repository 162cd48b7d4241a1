"""Who joins whom: nothing is started here (tests/scripts/test_launch.py does)."""

import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.training import processes

NAMES = (*processes._OURS, "TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES", "SLURM_STEP_NUM_TASKS")


@pytest.mark.parametrize(
    "env, joined",
    [
        ({}, None),
        ({"SLURM_STEP_NUM_TASKS": "1", "TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"SLURM_STEP_NUM_TASKS": "4"}, ()),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, ()),
        ({"JAX_COORDINATOR_ADDRESS": "auto"}, ()),
        (dict(zip(processes._OURS, ("host:1234", "3", "2"), strict=True)), ("host:1234", 3, 2)),
    ],
)
def test_the_others_are_joined_where_there_are_any(env, joined, monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with mock.patch.object(jax.distributed, "initialize") as initialize, mock.patch.object(sys, "excepthook"):
        processes.initialize()
    assert (initialize.call_args and initialize.call_args.args) == joined


@pytest.mark.parametrize(
    "env, gpus",
    [
        ({}, None),  # no CUDA: nothing to say
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_LOCALID": None}, None),  # no SLURM
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "JAX_LOCAL_DEVICE_IDS": "2"}, None),  # said already
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [0, 1, 2, 3]),  # JAX would take the first
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "tasks": "2", "SLURM_LOCALID": "1"}, [2, 3]),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "tasks": "4(x2),2", "SLURM_LOCALID": "3"}, [3]),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "tasks": "4(x2),2", "SLURM_NODEID": "2", "SLURM_LOCALID": "1"}, [2, 3]),
        ({"CUDA_VISIBLE_DEVICES": "0", "tasks": "4", "SLURM_LOCALID": "3"}, [0]),  # --gpus-per-task: JAX would take 3
        ({"CUDA_VISIBLE_DEVICES": "0,1", "tasks": "2", "SLURM_LOCALID": "1", "SLURM_GPUS_ON_NODE": "4"}, [0, 1]),
    ],
)
def test_tasks_of_slurm_share_the_gpus_that_they_see(env, gpus):
    env = {"SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": env.get("tasks", "1(x3)"), **env}
    assert processes.own_gpus({name: value for name, value in env.items() if value is not None}) == gpus


def test_gpus_that_do_not_come_out_even_are_refused():
    env = {"SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "3", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    with pytest.raises(ValueError, match="4 GPUs cannot be dealt to 3 tasks"):
        processes.own_gpus(env)


def test_what_jax_does_not_find_is_a_sentence(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    unfound = ValueError("coordinator_address should be defined.")
    said = "does not find the other processes .coord.*SLURM_STEP_NUM_TASKS=1"
    with mock.patch.object(jax.distributed, "initialize", side_effect=unfound), pytest.raises(ValueError, match=said):
        processes.initialize()


def test_what_is_half_told_is_refused(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    with pytest.raises(ValueError, match="JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES must be set too"):
        processes.initialize()


def test_an_address_without_a_port_is_a_sentence(monkeypatch):
    for name, value in zip(processes._OURS, ("host", "2", "0"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="JAX_COORDINATOR_ADDRESS = 'host' names no port; set HOST:PORT"):
        processes.initialize()


def test_what_is_no_number_is_a_sentence(monkeypatch):
    for name, value in zip(processes._OURS, ("host:1234", "two", "0"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="JAX_NUM_PROCESSES = 'two' is no whole number"):
        processes.initialize()


def test_one_process_is_the_first_and_agrees_with_itself():
    assert processes.is_first() and processes.agreed(3, 7) == (3, 7)
    x = {"a": jnp.arange(3)}
    assert processes.placed(x, None) is x and np.array_equal(processes.gathered([x["a"]])[0], [0, 1, 2])
