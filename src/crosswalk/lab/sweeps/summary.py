"""What a sweep has found: its best trials, which parameters mattered, how to repeat the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from crosswalk.lab.pool import command_of
from crosswalk.lab.sweeps.parameters import Value, short
from crosswalk.lab.sweeps.search import open_study, values_of
from crosswalk.lab.sweeps.trials import LocalSweep
from crosswalk.words import counted

if TYPE_CHECKING:
    from optuna.study import Study

BEST = 10
"""Trials of the printed table."""

ENOUGH = 4
"""Trials that ended from which on importances are estimated."""

STATES = {"COMPLETE": "ended", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "unfinished"}


class TrialResult(NamedTuple):
    """One trial.

    Attributes:
        number: From 0.
        state: A value of `STATES`.
        value: Best over its epochs, as a fraction; of a trial stopped early its last; None where
            there is none.
        epoch: Number of epochs after which ``value`` was measured.
        values: Of the parameters.
        seconds: Time it took, all sessions together.
        folder: Name of its run folder.
        code: Digest of the code it ran.
        error: Why it failed.
    """

    number: int
    state: str
    value: float | None
    epoch: int | None
    values: dict[str, Value]
    seconds: float
    folder: str | None
    code: str | None
    error: str | None


class SweepSummary(NamedTuple):
    """All trials in their order, and how much each parameter explains, the most first."""

    trials: list[TrialResult]
    importances: dict[str, float]

    @property
    def ranked(self) -> list[TrialResult]:
        """Trials that ended, the best first; of equal ones the earlier."""
        ended = [trial for trial in self.trials if trial.state == "ended"]
        return sorted(ended, key=lambda trial: (-(trial.value or 0.0), trial.number))

    @property
    def failed(self) -> list[TrialResult]:
        """Trials that gave nothing."""
        return [trial for trial in self.trials if trial.state == "failed"]

    @property
    def ties(self) -> str:
        """Trials as good as the first of `ranked`, in words; empty where there is none."""
        best = [each for each in self.ranked if each.value == self.ranked[0].value]
        if len(best) < 2:
            return ""
        others = ", ".join(str(each.number) for each in best[1 : BEST + 1])
        more = f" and {len(best) - BEST - 1} more" if len(best) > BEST + 1 else ""
        return f"Trial {best[0].number} is the earliest of equals; as good: {others}{more}."


def summarize(sweep: LocalSweep) -> SweepSummary:
    """Return what a sweep has found so far."""
    study = open_study(sweep.folder, sweep.file)
    trials = [
        TrialResult(
            number=trial.number,
            state=STATES[trial.state.name],
            value=trial.value,
            epoch=trial.user_attrs.get("epoch"),
            values=values_of(sweep.file, trial.params),
            seconds=round(trial.user_attrs.get("seconds", 0.0), 1),
            folder=trial.user_attrs.get("folder"),
            code=trial.user_attrs.get("code"),
            error=trial.user_attrs.get("error"),
        )
        for trial in study.get_trials(deepcopy=False)
    ]
    return SweepSummary(trials, importances(study))


def importances(study: Study) -> dict[str, float]:
    """Return the share of the spread between trials that each parameter explains (fANOVA).

    Only trials that ended count. Empty where they are fewer than `ENOUGH` or all equal.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    values = {trial.value for trial in study.get_trials(states=(TrialState.COMPLETE,))}
    ended = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    if ended < ENOUGH or len(values) < 2:
        return {}
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in shares.items()}


def best_command(sweep: LocalSweep, best: TrialResult) -> str:
    """Return the command that repeats a trial as a run of its own."""
    return command_of(sweep.trial_overrides(best.values))


def as_text(sweep: LocalSweep, summary: SweepSummary, width: int = 10**4) -> str:
    """Return the summary as it is printed in a terminal of some width.

    Trials stand in rows, or one in each column where their rows are too wide.
    """
    ranked, metric = summary.ranked, sweep.file.metric
    lines = [states_of(summary.trials), *_failures(sweep, summary)]
    names = list(sweep.file.parameters)
    header = ["trial", metric, "epoch", *names]
    rows = [
        [
            str(each.number),
            percent(each.value),
            str(each.epoch),
            *map(short, each.values.values()),
        ]
        for each in ranked[:BEST]
    ]
    if not ranked:
        return "\n".join([*lines, "No trial has ended yet, so there is no best one."])
    lines += ["", *_aligned(header, rows, width), ""]
    lines += [*importance_lines(summary), ""]
    lines += [summary.ties] if summary.ties else []
    lines += [f"Repeat the best:\n  {best_command(sweep, ranked[0])}"]
    return "\n".join([*lines, *notes_on(sweep, summary)])


def _failures(sweep: LocalSweep, summary: SweepSummary) -> list[str]:
    """Return why trials failed, a line each, and where each said it; `BEST` at most."""
    lines = []
    for trial in summary.failed:
        said = (trial.error or "").splitlines() or ["no reason was kept"]
        why = ": ".join(dict.fromkeys([said[0], said[-1]]))
        log = f"; see {sweep.folder / 'logs' / trial.folder}.log" if trial.folder else ""
        lines.append(f"Failed: trial {trial.number}: {why.rstrip('.')}{log}")
    more = [f"... and {len(lines) - BEST} more, see trials.json"] if len(lines) > BEST else []
    return [*lines[:BEST], *more]


def importance_lines(summary: SweepSummary) -> list[str]:
    """Return the importances in words, and from how many trials they are."""
    ended = len(summary.ranked)
    if not summary.importances:
        if ended >= ENOUGH:
            return [f"No importances: all {ended} ended trials are ties, equally good."]
        return [f"Importances need {ENOUGH} ended trials; there are {ended}."]
    few = "; few, so read them with care" if ended < 30 else ""
    shares = ", ".join(f"{name} {share:.0%}" for name, share in summary.importances.items())
    return [f"Importance of the parameters (fANOVA of {ended} trials{few}): {shares}"]


def notes_on(sweep: LocalSweep, summary: SweepSummary) -> list[str]:
    """Return what a reader of the numbers should know."""
    notes = []
    codes: dict[tuple[Value, ...], set[str]] = {}  # that of another loss is other code by itself
    for trial in summary.trials:
        words = tuple(value for value in trial.values.values() if isinstance(value, str))
        codes.setdefault(words, set()).update({trial.code} if trial.code else ())
    versions = max(map(len, codes.values()), default=0)
    if versions > 1:
        notes.append(
            f"Note: the code changed during the sweep ({versions} versions, see trials.json), "
            "so not all trials are comparable."
        )
    if sweep.file.metric.startswith("test/"):
        notes.append("Note: trials were compared on test, so the best test result is too good.")
    return notes


def states_of(trials: Sequence[TrialResult]) -> str:
    """Return how many trials there are in each state, in words."""
    counts: Mapping[str, int] = {
        state: sum(trial.state == state for trial in trials) for state in STATES.values()
    }
    parts = [f"{count} {state}" for state, count in counts.items() if count]
    if not trials:
        return "No trials yet."
    return f"{counted(len(trials), 'trial')}: {', '.join(parts)}."


def percent(value: float | None) -> str:
    """Return a fraction in percent."""
    return "-" if value is None else f"{100 * value:.2f}"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return the rows below their header, or both turned, as many rows at a time as there is room.

    Example:
        >>> _aligned(["trial", "optim.lr"], [["0", "0.25"], ["1", "0.5"]], width=20)
        ['trial  optim.lr', '    0      0.25', '    1       0.5']
        >>> _aligned(["trial", "optim.lr"], [["0", "0.25"], ["1", "0.5"]], width=14)
        ['trial     0', 'optim.lr  0.25', '', 'trial     1', 'optim.lr  0.5']
    """
    lines = _padded([header, *rows], str.rjust)
    if max(map(len, lines)) <= width:
        return lines
    for most in range(len(rows), 0, -1):
        blocks = [rows[start : start + most] for start in range(0, len(rows), most)]
        turned = [_padded([*zip(header, *block, strict=True)], str.ljust) for block in blocks]
        if most == 1 or max(len(line) for block in turned for line in block) <= width:
            return [line for block in turned for line in ("", *block)][1:]
    return []


def _padded(rows: Sequence[Sequence[str]], pad: Callable[[str, int], str]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(pad, row, widths)).rstrip() for row in rows]
