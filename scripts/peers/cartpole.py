"""CartPole with PureJaxRL's settings, and tasks that Gymnasium steps: who is faster, and do all learn as well?"""

from peers.arithmetic import Interval, interval
from peers.bench import COLUMNS, Bench, cells, compared, told
from peers.environments import NotMeasured
from peers.settings import CARTPOLE, SB3, SB3_STEPS


def throughput(bench: Bench, arms: tuple[str, ...], cases: list[tuple[int, int]], steps: int, rounds: int):
    """Whole trainings of about `steps` steps in turns, for each case of (environments, agents side by side).

    Returns the columns and rows of the table, and the figures behind it.
    """
    rows, figures = [], []
    for num_envs, agents in cases:
        updates = max(1, round(steps / (agents * num_envs * CARTPOLE["num_steps"])))
        case = {"num_envs": num_envs, "agents": agents, "updates": updates}
        usable = tuple(arm for arm in arms if agents == 1 or arm not in ("sb3", "sbx"))
        found = bench.rounds(usable, {"measure": "speed", "settings": CARTPOLE, **case}, rounds)
        ratios = {
            arm: {clock: compared(found, arm, clock)._asdict() for clock in ("cpu", "wall")}
            for arm in found
            if arm != "jaxrl"
        }
        figures.append({**case, "calls": found, "ratios": ratios})
        rows += [(str(num_envs), str(agents), arm, *cells(found, arm)) for arm in ("jaxrl", *usable)]
    return ("envs", "agents", "arm", *COLUMNS), rows, {"cases": figures, "settings": CARTPOLE}


def on_host(bench: Bench, task: str, num_envs: tuple[int, ...], steps: int, rounds: int):
    """The same beside Stable-Baselines3, with its settings, where Gymnasium steps the environments of both, one after
    the other in the process that learns.
    """
    rows, figures = [], []
    for n in num_envs:
        settings = {**SB3, "num_steps": SB3_STEPS // n}
        case = {"num_envs": n, "agents": 1, "updates": max(1, steps // SB3_STEPS), "task": task}
        found = bench.rounds(("sb3",), {"measure": "on_host", "settings": settings, **case}, rounds)
        ratios = {clock: compared(found, "sb3", clock)._asdict() for clock in ("cpu", "wall")} if "sb3" in found else {}
        figures.append({**case, "calls": found, "ratios": ratios})
        rows += [(str(n), arm, *cells(found, arm)) for arm in ("jaxrl", "sb3")]
    return ("envs", "arm", *COLUMNS), rows, {"cases": figures, "settings": SB3}


def learning(bench: Bench, arms: tuple[str, ...], num_envs: int, steps: int, seeds: int):
    """Mean return of the episodes that ended in the last tenth of training, actions sampled, one number a seed.

    Returns the columns and rows of the table, and the figures behind it.
    """
    updates = max(10, steps // (num_envs * CARTPOLE["num_steps"]))
    question = {"measure": "return", "settings": CARTPOLE, "num_envs": num_envs, "agents": 1, "updates": updates}
    found = {arm: returns(bench, arm, question, seeds) for arm in ("jaxrl", *arms)}
    intervals = {arm: interval(values) for arm, values in found.items() if values}
    rows = []
    for arm, values in found.items():
        if not values:
            rows.append((arm, "not measured", "", "", ""))
            continue
        i = intervals[arm]
        same = "" if arm == "jaxrl" or "jaxrl" not in intervals else beside(i, intervals["jaxrl"])
        spread = f"{min(values):.0f} … {max(values):.0f}"
        rows.append((arm, f"{i.mean:.1f}", f"{i.low:.1f} … {i.high:.1f}", spread, same))
    columns = ("arm", "mean return", "95 % interval", f"least and most of {seeds} seeds", "interval overlaps jaxrl's")
    return columns, rows, {"returns": found, "updates": updates, "num_envs": num_envs, "settings": CARTPOLE}


def beside(theirs: Interval, ours: Interval) -> str:
    """Whether two intervals overlap, and who is higher where they do not."""
    if theirs.overlaps(ours):
        return "yes"
    return "no: higher than jaxrl's" if theirs.mean > ours.mean else "no: lower than jaxrl's"


def returns(bench: Bench, arm: str, question: dict, seeds: int) -> list[float]:
    """One arm's final returns; none where it cannot be measured."""
    worker = bench.start(arm, question)
    if worker is None:
        return []
    try:
        found = []
        for seed in range(seeds):
            found.append(worker.ask(seed)["return"])
            told(f"{arm}, seed {seed}: {found[-1]:.1f}")
        return found
    except NotMeasured as reason:
        bench.miss(arm, reason)
        return []
    finally:
        worker.close()
