"""Packages whose code waits: one module is imported without its siblings, and the package is whole for who asks."""

import subprocess
import sys
import textwrap

import pytest


def python(code: str, *path) -> str:
    environment = "import sys; sys.path[:0] = sys.argv[1:]\n"
    command = [sys.executable, "-c", environment + textwrap.dedent(code), *map(str, path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def games(tmp_path):
    """A package that, imported whole, imports `slow` and `quick`, and lists them."""
    (tmp_path / "games" / "board").mkdir(parents=True)
    (tmp_path / "games" / "__init__.py").write_text("from games import board\n__all__ = ['count']\ncount = 2\n")
    (tmp_path / "games" / "board" / "__init__.py").write_text("from games.board import quick, slow\n")
    (tmp_path / "games" / "board" / "quick.py").write_text("class Quick: ...\n")
    (tmp_path / "games" / "board" / "slow.py").write_text("")
    return tmp_path


BEGIN = """
    from jaxrl.envs.deferred import defer
    defer("games", "games.board")
    import games.board.quick
    from games.board.quick import Quick
    assert "games.board.slow" not in sys.modules
"""


@pytest.mark.parametrize(
    "line",
    [
        "import games; assert games.count == 2",
        "from games import count, board",
        "from games import *; assert count == 2",
        "import games; assert 'count' in dir(games)",
        "from games.board import slow",
        "import games.board.slow; assert games.board.slow and games.count == 2",
    ],
)
def test_the_package_is_whole_for_whoever_imports_it(games, line):
    code = BEGIN + f"    {line}\n    import games; assert games.count == 2\n    import games.board.slow"
    python(code + "; assert games.board.quick.Quick is Quick and type(games).__name__ == 'module'", games)


def test_what_is_not_there_and_what_fails_is_said_as_by_any_import(games):
    absent = "try: games.missing\n    except AttributeError as error: print(error)"
    assert python(BEGIN + f"    {absent}", games) == "module 'games' has no attribute 'missing'"
    absent = "try: defer('no_games')\n    except ModuleNotFoundError as error: print(error.name)"
    assert python(BEGIN + f"    {absent}", games) == "no_games"
    (games / "games" / "__init__.py").write_text("raise ImportError('broken')\n")
    again = "for _ in (1, 2):\n        try: from games import count\n        except ImportError as error: print(error)"
    assert python(BEGIN + f"    {again}", games) == "broken\nbroken"


def test_a_package_that_is_imported_already_is_left_alone(games):
    code = """
    import games
    from jaxrl.envs.deferred import defer
    before = games
    defer("games", "games.board")
    assert sys.modules["games"] is before and type(before).__name__ == "module"
    """
    python(code, games)


def test_of_gymnax_only_the_game_asked_for_is_imported_and_the_rest_is_there_for_its_user():
    code = """
    import jaxrl
    env = jaxrl.make("gymnax/CartPole-v1")
    assert not {"seaborn", "matplotlib", "pandas", "gymnax.registration"} & set(sys.modules)
    assert "gymnax.environments.classic_control.pendulum" not in sys.modules
    import gymnax
    theirs, params = gymnax.make("CartPole-v1")
    assert type(theirs) is type(env.raw) is gymnax.environments.classic_control.CartPole
    assert gymnax.environments.spaces.Box and "seaborn" in sys.modules
    gymnax.register("Mine", type(theirs))
    assert jaxrl.make("gymnax/Mine").truncates is False and "gymnax/Mine" in jaxrl.envs.registry.names()
    """
    python(code)
