"""What a sweep says, in plain sentences: which configuration is best, and how sure that is."""

from collections.abc import Sequence

from jaxrl.reports.page.tables import number
from jaxrl.reports.sweep.ranking import Configuration, Sweep
from jaxrl.reports.sweep.separation import LEVEL, Separation, separated

_MOST = 8  # configurations that a sentence names


def sentences(sweep: Sweep) -> list[str]:
    """The first sentence says the most; those after it how it was found."""
    if sweep.floor is None or not sweep.ranked:
        lost = sweep.members and all(member.diverged for member in sweep.members)
        return ["Every member diverged." if lost else "No member has been evaluated yet: there is nothing to rank."]
    best, compared = sweep.ranked[0], sweep.compared
    head = "" if sweep.ended else f"So far, after {best.reached:.0%} of training: "
    if sweep.method == "pbt":
        return _population(head, best, len(sweep.ranked))
    if len(compared) == 1:
        return [head + f"{_leads(best)}{_alone(sweep)}", *_diverged(sweep)]
    if len(best.scores) == 1:
        return [*_one_seed(head, best, compared), *_diverged(sweep)]
    found = separated(compared)
    return [head + _tells(best, found), *_rule(best, found, sweep), *_diverged(sweep)]


def _leads(best: Configuration) -> str:
    """Who leads, with what, over how many seeds."""
    if len(best.scores) == 1:
        return f"{best.name} ended with a score of {number(best.iqm)}, of one seed"
    told = "" if best.low is None else f", 95 % interval {number(best.low)} to {number(best.high)}"
    none = " (too few for an interval)" if best.low is None else ""
    return (
        f"{best.name} has an interquartile mean score of {number(best.iqm)}{told}, over {len(best.scores)} seeds{none}"
    )


def _alone(sweep: Sweep) -> str:
    if len(sweep.ranked) == 1:
        return "; it is the only configuration that was evaluated."
    return (
        f"; it is the only one of {len(sweep.ranked)} that was evaluated so far into training, so no other can be "
        "compared with its last score."
    )


def _population(head: str, best: Configuration, count: int) -> list[str]:
    return [
        f"{head}member {best.index} of the population ends best, with a score of {number(best.iqm)}.",
        f"Its {count} members copied each other's parameters and settings on the way, so they are one experiment and "
        f"not {count}: how much another population would differ, this one does not say. Its settings are a schedule "
        "over steps, shown below, of which the table has only the end.",
    ]


def _one_seed(head: str, best: Configuration, compared: Sequence[Configuration]) -> list[str]:
    others = "one" if len(compared) == 2 else len(compared) - 1
    return [
        f"{head}{best.name} has the highest score, {number(best.iqm)}, but the evidence does not separate it from the "
        f"other {others}: each configuration has one seed, and one seed cannot tell a better configuration from a "
        "luckier one.",
        f"The best of {len(compared)} single scores is likely higher than that configuration would score again. Run "
        "the first few of the table with 10 seeds or more, and compare those.",
    ]


def _tells(best: Configuration, found: Separation) -> str:
    others = len(found.apart) + len(found.together)
    if not found.together:
        which = "the other one" if others == 1 else f"all {others} others"
        return f"{_leads(best)}, and the evidence sets it apart from {which}."
    if not found.apart:
        which = "the other one" if others == 1 else f"any of the {others} others"
        return f"{_leads(best)}, but the evidence does not separate it from {which}."
    names = ", ".join(str(other.index) for other in found.together[:_MOST])
    more = len(found.together) - _MOST
    names += f" and {more} more" if more > 0 else ""
    return (
        f"{_leads(best)}, but the evidence does not separate it from {len(found.together)} of the {others} other"
        f"{'s' * (others > 1)}: config{'s' * (len(found.together) > 1)} {names}."
    )


def _rule(best: Configuration, found: Separation, sweep: Sweep) -> list[str]:
    others = len(found.apart) + len(found.together)
    left_out = int(sweep.about.get("num_configs") or len(sweep.ranked)) - others - 1
    among = f" of these {others + 1}" if left_out > 0 else ""
    told = [
        "A configuration counts as set apart where a one-sided Mann-Whitney U test of its seeds' last scores against "
        f"the best's gives p < {LEVEL:g} / {others} = {found.level:.2g}: divided by the number of comparisons, so that "
        f"with 95 % confidence the truly best configuration{among} is the named one or one not set apart from it. The "
        "best was chosen by these very seeds: on new ones it likely scores a little lower, which its interval does not "
        "know."
    ]
    if left_out > 0:
        many = f"{left_out} configuration{'s' * (left_out > 1)}"
        told.append(
            f"Not compared: {many} that stopped earlier or did not come as far yet, of which this says nothing."
        )
    if not found.able:
        told.append(
            f"{len(best.scores)} seeds cannot set any of {others + 1} configurations apart by this rule, whatever they "
            f"score: it takes {found.seeds} of each, or fewer configurations."
        )
    return told


def _diverged(sweep: Sweep) -> list[str]:
    count = sum(member.diverged for member in sweep.members)
    if not count:
        return []
    return [
        f"{count} of {len(sweep.members)} members diverged. They are kept, and each counts with {number(sweep.floor)}, "
        "the lowest score of any that had not. The interquartile mean leaves out the lowest quarter of the seeds, "
        "so a few that diverge need not lower it: look at the worst seed, too."
    ]
