"""Compiled programs, kept between processes."""

import os
import warnings
import zlib
from hashlib import sha256
from pathlib import Path

import jax

from jaxrl.lm.pretrained.assets import cache
from jaxrl.ops.platform import processor
from jaxrl.types import InputError

_MOST = 2 * 2**30  # bytes; a program takes a few MiB
_CHECKED = ".checked"


def enable_compilation_cache() -> str | None:
    """Let JAX keep what it compiles in $JAXRL_CACHE/xla/PROCESSOR; return the directory that it uses, or None if there
    is none. PROCESSOR stands for its model and instructions: where machines share a home, none loads what another's
    could execute and its own cannot. Programs beyond 2 GiB are removed, those used longest ago first.

    A directory of the user's own (JAX_COMPILATION_CACHE_DIR, or jax.config) stays, as do all settings that go with it,
    and JAX_ENABLE_COMPILATION_CACHE=0 turns it off. A directory in which others can write is not used, with a warning:
    whoever writes there can run code here.
    """
    if not jax.config.jax_enable_compilation_cache:
        return None
    if jax.config.jax_compilation_cache_dir:
        return jax.config.jax_compilation_cache_dir
    try:
        root = cache() / "xla"
    except InputError as error:
        warnings.warn(f"compiled programs are not kept between runs: {error}", stacklevel=2)
        return None
    path = root / sha256(repr(processor()).encode()).hexdigest()[:12]
    fault = _fault(root) or _fault(path)
    if fault is not None:
        remedy = "name another directory by JAXRL_CACHE, or do without by JAX_ENABLE_COMPILATION_CACHE=0"
        warnings.warn(f"compiled programs are not kept between runs: {root} {fault}; {remedy}", stacklevel=2)
        return None
    _tidy(path)
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


def _tidy(path: Path) -> None:
    """Remove programs that were written in part, by a process that was killed or a disk that was full: JAX would warn
    of them at every start, compile again, and never replace them. Only what is newer than the last look is read.
    """
    looked = path / _CHECKED
    since = looked.stat().st_mtime if looked.exists() else 0.0
    looked.touch()
    left = []
    for file in path.glob("*-cache"):
        try:
            about = file.stat()
            if about.st_mtime < since or _whole(file):
                left.append((max(about.st_atime, about.st_mtime), about.st_size, file))
            else:
                file.unlink()
        except FileNotFoundError:  # another process tidies too
            continue
    over = sum(size for _, size, _ in left) - _MOST
    for _, size, file in sorted(left):
        if over <= 0:
            break
        file.unlink(missing_ok=True)
        over -= size


def _whole(file: Path) -> bool:
    data = file.read_bytes()
    if data.startswith(b"\x28\xb5\x2f\xfd"):  # Zstandard, where that is installed: not for us to read
        return True
    try:
        return bool(zlib.decompress(data))
    except zlib.error:
        return False
