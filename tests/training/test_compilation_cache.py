"""The cache of compiled programs: on by default, the user's own left alone, and never where others can write."""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import jax
import pytest

from jaxrl.training import compilation_cache
from jaxrl.training.compilation_cache import enable_compilation_cache


@pytest.fixture
def unset(tmp_path, monkeypatch):
    """JAX without a directory for compiled programs, and jaxrl's where nothing lies yet."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("JAXRL_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache" / "xla"
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_directory_is_for_its_user_alone(unset):
    used = enable_compilation_cache()
    assert used == jax.config.jax_compilation_cache_dir and Path(used).parent == unset
    assert unset.stat().st_mode & 0o777 == 0o700
    jax.config.update("jax_compilation_cache_dir", None)
    unset.chmod(0o755)
    enable_compilation_cache()
    assert unset.stat().st_mode & 0o777 == 0o700


def test_a_directory_of_the_users_own_is_respected(unset, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 7.0)
    assert enable_compilation_cache() == str(tmp_path / "own") == jax.config.jax_compilation_cache_dir
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 7.0 and not unset.exists()


def again() -> Path:
    jax.config.update("jax_compilation_cache_dir", None)
    return Path(enable_compilation_cache())


def test_another_processor_has_a_directory_of_its_own(unset, monkeypatch):
    here = again()
    monkeypatch.setattr(compilation_cache, "processor", lambda: {"model": "another", "flags": "others"})
    assert again() != here and again().parent == here.parent


def test_what_was_written_in_part_is_removed_and_what_is_whole_stays(unset):
    """As a process killed while it writes, or a full disk, leaves it; later too, beside what was looked at before."""
    path, whole = again(), zlib.compress(b"a program")
    for name in ("first", "second"):
        (path / f"{name}-cache").write_bytes(whole)
        (path / f"{name}_cut-cache").write_bytes(whole[:-3])
        (path / f"{name}_empty-cache").write_bytes(b"")
        assert again() == path
        assert not list(path.glob(f"{name}_*")) and (path / f"{name}-cache").read_bytes() == whole


def test_what_was_used_longest_ago_goes_first(unset, monkeypatch):
    path, whole = again(), zlib.compress(b"a program")
    for i, name in enumerate(("b", "a", "c")):
        (path / f"{name}-cache").write_bytes(whole)
        os.utime(path / f"{name}-cache", (1000 + i, 1000 + i))
    monkeypatch.setattr(compilation_cache, "_MOST", 2 * len(whole))
    assert sorted(file.name for file in again().glob("*-cache")) == ["a-cache", "c-cache"]


def test_jax_s_switch_turns_it_off(unset):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert enable_compilation_cache() is None and jax.config.jax_compilation_cache_dir is None
        assert not unset.exists()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)


def test_a_directory_of_another_user_is_not_used(unset, monkeypatch):
    unset.mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: unset.stat().st_uid + 1)
    with pytest.warns(UserWarning, match=r"not kept between runs: .*xla belongs to another user; name another"):
        assert enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_a_directory_that_others_could_write_is_not_used(unset):
    unset.mkdir(parents=True)
    unset.chmod(0o777)
    with pytest.warns(UserWarning, match="can be written by others"):
        assert enable_compilation_cache() is None


def test_a_directory_that_cannot_be_made_or_written_is_not_used(unset, monkeypatch):
    unset.parent.write_text("")
    with pytest.warns(UserWarning, match="cannot be used"):
        assert enable_compilation_cache() is None
    unset.parent.unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)  # of the superuser's it would be true
    with pytest.warns(UserWarning, match="cannot be written"):
        assert enable_compilation_cache() is None


def test_a_second_process_compiles_nothing_of_a_run_whatever_its_seed(tmp_path):
    code = """
import sys, jax
from jaxrl import PPO, EnvConfig, Schedule, run
seed, directory = int(sys.argv[1]), sys.argv[2]
seen = {"hits": 0, "misses": 0}
def listen(event, **_):
    for kind in seen:
        seen[kind] += event == f"/jax/compilation_cache/cache_{kind}"
jax.monitoring.register_event_listener(listen)
config = PPO(env=EnvConfig(num_envs=4, eval_episodes=4), total_steps=128, num_steps=16)
run(config, seed, directory, schedule=Schedule(2, 1, 1), progress=False)
print(seen["hits"], seen["misses"])
"""
    environment = {**os.environ, "JAXRL_CACHE": str(tmp_path / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)

    def child(seed: int) -> tuple[int, int]:
        command = [sys.executable, "-c", code, str(seed), str(tmp_path / f"run{seed}")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return tuple(map(int, done.stdout.split()))

    first, second = child(0), child(1)
    assert first[1] > 0 and second[0] > 0 and second[1] == 0
