"""Pictures of measurements."""

from collections.abc import Sequence
from pathlib import Path

_STYLES = {"physics": ("C7", "s"), "acting": ("C2", "^"), "rollout": ("C0", "D"), "training": ("C3", "o")}


def throughput_picture(path: Path, rows: Sequence[dict], title: str) -> Path:
    """Steps per second against environments, both logarithmic: a pair of axes for each environment and number of
    agents, a line for each arm, bars from the slowest to the fastest round, the most that training could reach dotted.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in rows if "median" in row]
    settings = list(dict.fromkeys((row["env"], row["backend"], row["agents"]) for row in rows))
    width = min(3, max(1, len(settings)))
    height = max(1, -(-len(settings) // width))
    figure = Figure(figsize=(1 + 5 * width, 0.6 + 4 * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(height, width, squeeze=False).flat)
    for axis, setting in zip(axes, settings, strict=False):
        _draw(axis, setting, [r for r in rows if (r["env"], r["backend"], r["agents"]) == setting])
    for axis in axes[len(settings) :]:
        axis.set_visible(False)
    seen = {}
    for axis in axes[: len(settings)]:
        handles, labels = axis.get_legend_handles_labels()
        seen |= dict(zip(labels, handles, strict=True))
    names = [name for name in (*_STYLES, "training, at most") if name in seen]
    columns = len(names) if width > 1 else 3  # below the axes: within, it would lie on some line
    figure.legend([seen[name] for name in names], names, loc="outside lower center", ncols=columns, fontsize=8)
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _draw(axis, setting: tuple, rows: Sequence[dict]) -> None:
    env, backend, agents = setting
    for arm, (color, marker) in _STYLES.items():
        own = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["num_envs"])
        if not own:
            continue
        x, y = [r["num_envs"] for r in own], [r["median"] for r in own]
        bars = [[r["median"] - r["min"] for r in own], [r["max"] - r["median"] for r in own]]
        size = {"acting": 9}.get(arm, 5)  # hollow around rollout's, with which it often coincides
        fill = "none" if arm == "acting" else "full"
        axis.errorbar(x, y, bars, color=color, marker=marker, markersize=size, fillstyle=fill, capsize=3, label=arm)
        if arm == "training":
            most = [r["floor"] for r in own]
            axis.plot(x, most, color=color, linestyle=":", marker="_", markersize=12, label="training, at most")
    numbers = sorted({row["num_envs"] for row in rows})
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.minorticks_off()
    axis.set_xticks(numbers, [f"{n:,}" for n in numbers], rotation=45 if len(numbers) > 5 else 0)
    low = min(r["min"] for r in rows)
    high = max(max(r["max"], r["floor"] if r["arm"] == "training" else 0) for r in rows)
    ticks = [m * 10**e for e in range(-1, 13) for m in (1, 2, 5) if low / 1.5 <= m * 10**e <= high * 1.5]
    axis.set_yticks(ticks, [short(y) for y in ticks])
    axis.set_ylim(low / 1.4, high * 1.4)
    axis.set_xlabel("environments" + (" of each agent" if agents > 1 else ""))
    axis.set_ylabel("environment steps per second")
    name = f"{env} ({backend})" if backend else env
    axis.set_title(f"{name}, {agents} agent{'s' * (agents > 1)}", fontsize=10)
    axis.grid(alpha=0.3)


def short(number: float, digits: int = 3) -> str:
    """Three digits and a unit: 11_647 is 11.6k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * size:
            return f"{number / size:.{digits}g}{unit}"
    return f"{number:.{digits}g}"
