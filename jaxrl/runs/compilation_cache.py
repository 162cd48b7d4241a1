"""Compiled programs, kept between processes."""

import os
import warnings
from pathlib import Path

import jax

from jaxrl.lm.pretrained.assets import cache


def enable_compilation_cache() -> str | None:
    """Let JAX keep what it compiles in $JAXRL_CACHE/xla; return the directory that it uses, or None if there is none.

    A directory of the user's own (JAX_COMPILATION_CACHE_DIR, or jax.config) stays, as do all settings that go with it,
    and JAX_ENABLE_COMPILATION_CACHE=0 turns it off. A directory in which others can write is not used, with a warning:
    whoever writes there can run code here.
    """
    if not jax.config.jax_enable_compilation_cache:
        return None
    if jax.config.jax_compilation_cache_dir:
        return jax.config.jax_compilation_cache_dir
    path = cache() / "xla"
    fault = _fault(path)
    if fault is not None:
        remedy = "name another directory by JAXRL_CACHE, or do without by JAX_ENABLE_COMPILATION_CACHE=0"
        warnings.warn(f"compiled programs are not kept between runs: {path} {fault}; {remedy}", stacklevel=2)
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    # Small programs too: there are dozens of them, and each takes longer to compile than to read.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return str(path)


def _fault(path: Path) -> str | None:
    """What is wrong with a directory, which is made if it is not there; its mode becomes 0700."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
            return "belongs to another user"
        if found.st_mode & 0o022:
            return "can be written by others, and what is in it may be theirs (remove it, and it is made anew)"
        path.chmod(0o700)
    except OSError as error:
        return f"cannot be used ({error.strerror})"
    return None if os.access(path, os.R_OK | os.W_OK | os.X_OK) else "cannot be written"
