"""The gate: whether what a deployment brought is healthy. Samples in, a verdict with its evidence out.

No data is never a pass. A failure needs an answer that was bad; silence alone is inconclusive, for it may be ours.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean

PASSED, FAILED, INCONCLUSIVE = "passed", "failed", "inconclusive"
HEALTHY, DEGRADED, UNHEALTHY, UNKNOWN = "healthy", "degraded", "unhealthy", "unknown"
BY_VERSION, BY_AGE, ALL = "version", "age", "all"

SHOWN = 5  # names in one sentence
INTERVAL = timedelta(seconds=10)  # between two looks at the same instance
BASELINE = timedelta(minutes=15)  # before the deployment: what "not worse than before" is measured against
BROKEN_OFF_AFTER = timedelta(seconds=30)  # a look lasts at most some 20: an instance has 10 to answer, the address too
STUCK_AFTER = timedelta(minutes=2)  # past the window's end: two ticks have had it looked at again
# An instance that is unhealthy this many times as often in a row as it would have to be healthy fails at once.
PATIENCE_FACTOR = 2


@dataclass(frozen=True, slots=True)
class Policy:
    """What a workload demands of a deployment."""

    samples: int = 3  # healthy ones in a row, from each instance
    window: timedelta = timedelta(minutes=3)
    error_rate_margin: float = 0.02  # a share: 0.02 = two requests of a hundred more than before
    response_margin: float = 0.5  # a share of the former response time: 0.5 = half as long again
    response_floor_ms: float = 100  # a slower answer below this many milliseconds is not held against anyone


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance the gate could look at."""

    instance: str
    version: str | None  # the last one it reported
    started_at: datetime | None  # of the process, or of its registration
    mute: bool = False  # it answers since the gate began, without saying its version


@dataclass(frozen=True, slots=True)
class Choice:
    """The instances the gate looks at, and by what they were chosen."""

    instances: tuple[str, ...]
    basis: str
    remarks: tuple[str, ...] = ()  # sentences about the choice


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one instance. None = not measured."""

    instance: str
    at: datetime
    status: str
    response_ms: float | None = None
    error_rate: float | None = None
    answered: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """Means over several samples; None where nothing was measured."""

    samples: int = 0
    error_rate: float | None = None
    response_ms: float | None = None
    degraded: bool = False  # most of them were


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the gate saw of one instance."""

    instance: str
    samples: int
    healthy_in_a_row: int
    needed: int
    last_status: str
    last_why: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`verdict` is empty while the gate has to go on looking. `reasons` are sentences for people."""

    verdict: str
    reasons: tuple[str, ...]
    basis: str
    evidence: tuple[Evidence, ...] = ()
    before: Figures = Figures()
    after: Figures = Figures()


def same_version(reported: str | None, deployed: str, commit: str) -> bool:
    """Whether an instance runs what was deployed: the same version with or without v, or the same commit, if short."""
    if not reported:
        return False
    said = reported.lower()
    if said.removeprefix("v") == deployed.lower().removeprefix("v"):
        return True
    return len(said) >= 7 and bool(commit) and (commit.startswith(said) or said.startswith(commit))


def choose(candidates: Sequence[Candidate], *, version: str, commit: str, since: datetime) -> Choice:
    """The instances that run the version; if none says so, those younger than the deployment; else all.

    Beside those that run it, one that answers without saying its version is looked at too, and a young one that has
    said nothing yet: they may be the new version that fails. An older one that does not answer may have gone.
    """
    younger = [row for row in candidates if row.started_at is not None and row.started_at >= since]
    matching = [row for row in candidates if same_version(row.version, version, commit)]
    if matching:
        silent = [row for row in younger if row.version is None]
        chosen = [row for row in candidates if row in matching or row.mute or row in silent]
        return Choice(_names(chosen), BY_VERSION, _left_out(candidates, chosen))
    if not candidates:
        return Choice((), ALL)
    said = sorted({row.version for row in candidates if row.version})
    remark = f"No instance says that it runs {version}" + (f"; they say {', '.join(said[:SHOWN])}." if said else ".")
    if younger:
        looked = f"{remark} Those younger than the deployment were looked at."
        return Choice(_names(younger), BY_AGE, (looked, *_left_out(candidates, younger)))
    return Choice(_names(candidates), ALL, (f"{remark} All were looked at.",))


def _names(rows: Sequence[Candidate]) -> tuple[str, ...]:
    return tuple(row.instance for row in rows)


def _left_out(candidates: Sequence[Candidate], chosen: Sequence[Candidate]) -> tuple[str, ...]:
    others = [f"{row.instance} ({row.version or 'no version'})" for row in candidates if row not in chosen]
    if not others:
        return ()
    more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    return (f"Not looked at: {', '.join(others[:SHOWN])}{more}.",)


def next_look(planned: datetime, now: datetime) -> datetime:
    """When the gate looks again: on the beat it began with, however late it is."""
    return planned + INTERVAL * max(1, (now - planned) // INTERVAL + 1)


def is_stuck(started: datetime, window: timedelta, planned: datetime, now: datetime) -> bool:
    """Whether the look that had to bring the verdict has begun and broken off, again and again.

    `planned`: the next look, which moves on when one begins, so one that lies behind the window's end says that a look
    has begun which saw it.
    """
    end = started + window
    return planned > end + INTERVAL and now >= max(end + STUCK_AFTER, planned + BROKEN_OFF_AFTER)


def figures(samples: Sequence[Sample]) -> Figures:
    """Means of what was measured."""
    rates = [sample.error_rate for sample in samples if sample.error_rate is not None]
    times = [sample.response_ms for sample in samples if sample.response_ms is not None and sample.answered]
    return Figures(
        samples=len(samples),
        error_rate=fmean(rates) if rates else None,
        response_ms=fmean(times) if times else None,
        degraded=sum(sample.status == DEGRADED for sample in samples) * 2 > len(samples),
    )


def judge(
    policy: Policy,
    choice: Choice,
    samples: Sequence[Sample],
    *,
    before: Figures,
    started: datetime,
    now: datetime,
    other_faults: Sequence[str] = (),
) -> Verdict:
    """The verdict on the samples taken since `started`, when the window began.

    `other_faults` are sentences of blocking checks beside the samples; while there is one the gate does not pass, and
    at the window's end it fails.
    """
    window = [sample for sample in samples if started <= sample.at <= started + policy.window]
    by_instance = {name: _of(name, window) for name in choice.instances}
    evidence = tuple(_evidence(name, rows, policy) for name, rows in by_instance.items())
    settled = [sample for rows in by_instance.values() for sample in rows[-policy.samples :]]
    after = figures(settled)

    def verdict(word: str, *reasons: str) -> Verdict:
        return Verdict(word, (*reasons, *choice.remarks), choice.basis, evidence, before, after)

    doomed = [_streak(name, rows, policy) for name, rows in by_instance.items()]
    if early := tuple(filter(None, doomed)):
        return verdict(FAILED, *early)
    short = [row for row in evidence if row.healthy_in_a_row < policy.samples]
    worse = () if short else _worse(policy, before, after)
    if evidence and not short and not worse and not other_faults:
        return verdict(PASSED, *_praise(policy, evidence, before, after))
    if now < started + policy.window:
        return verdict("", *_still_open(short, worse, other_faults, evidence))
    return _at_the_end(policy, by_instance, evidence, before, (*worse, *other_faults), verdict)


def _of(name: str, samples: Sequence[Sample]) -> list[Sample]:
    """The samples of one instance that say something, oldest first."""
    return sorted((row for row in samples if row.instance == name and row.status != UNKNOWN), key=lambda row: row.at)


def _evidence(name: str, rows: Sequence[Sample], policy: Policy) -> Evidence:
    streak = 0
    for row in reversed(rows):
        if row.status != HEALTHY:
            break
        streak += 1
    last = rows[-1] if rows else None
    return Evidence(name, len(rows), streak, policy.samples, last.status if last else UNKNOWN, last.why if last else "")


def _streak(name: str, rows: Sequence[Sample], policy: Policy) -> str:
    """Why an instance is given up before the window's end, or an empty text."""
    needed = policy.samples * PATIENCE_FACTOR
    last = rows[-needed:]
    if len(last) < needed or any(row.status != UNHEALTHY for row in last):
        return ""
    return f"{name} was unhealthy {needed} times in a row{_because(last[-1].why)}."


def _because(why: str) -> str:
    return f" ({why})" if why else ""


def _worse(policy: Policy, before: Figures, after: Figures) -> tuple[str, ...]:
    """How the deployment is worse than what was there; what was not measured on both sides is not compared."""
    sentences = []
    if before.error_rate is not None and after.error_rate is not None:
        limit = before.error_rate + policy.error_rate_margin
        if after.error_rate > limit:
            sentences.append(
                f"The error rate rose from {100 * before.error_rate:.2f} % to {100 * after.error_rate:.2f} %, "
                f"more than the margin of {100 * policy.error_rate_margin:.2f} points."
            )
    if before.response_ms is not None and after.response_ms is not None:
        limit = max(before.response_ms * (1 + policy.response_margin), policy.response_floor_ms)
        if after.response_ms > limit:
            sentences.append(
                f"The response time rose from {before.response_ms:.0f} ms to {after.response_ms:.0f} ms; "
                f"{limit:.0f} ms are allowed."
            )
    return tuple(sentences)


def _praise(policy: Policy, evidence: Sequence[Evidence], before: Figures, after: Figures) -> tuple[str, ...]:
    count = f"{len(evidence)} instances" if len(evidence) > 1 else "the instance"
    reasons = [f"{policy.samples} healthy samples in a row from {count}."]
    if before.error_rate is None or after.error_rate is None:
        reasons.append("The error rate was not compared: it is not known for both before and after.")
    if before.response_ms is None or after.response_ms is None:
        reasons.append("The response time was not compared: it is not known for both before and after.")
    return tuple(reasons)


def _still_open(
    short: Sequence[Evidence], worse: Sequence[str], faults: Sequence[str], evidence: Sequence[Evidence]
) -> tuple[str, ...]:
    waiting = tuple(f"{row.instance}: {row.healthy_in_a_row} of {row.needed} healthy samples so far." for row in short)
    return (*waiting, *worse, *faults) if evidence else ("No instance is known yet.", *faults)


def _at_the_end(
    policy: Policy,
    by_instance: Mapping[str, Sequence[Sample]],
    evidence: Sequence[Evidence],
    before: Figures,
    faults: Sequence[str],
    verdict: Callable[..., Verdict],
) -> Verdict:
    """The window is over without a pass: failed where an answer was bad, inconclusive where there was none."""
    bad, unclear = [], []
    for row in evidence:
        rows = by_instance[row.instance]
        if row.healthy_in_a_row >= policy.samples:
            continue
        if not rows:
            unclear.append(f"{row.instance} gave no sample.")
        elif all(sample.status == HEALTHY for sample in rows):
            unclear.append(f"{row.instance} gave {row.samples} healthy samples of the {row.needed} needed.")
        elif before.degraded and all(sample.status != UNHEALTHY for sample in rows):
            unclear.append(f"{row.instance} is degraded, as the workload was before the deployment.")
        elif row.last_status == HEALTHY:
            unclear.append(
                f"{row.instance} was healthy at the end, but only {row.healthy_in_a_row} times in a row "
                f"of the {row.needed} needed."
            )
        else:
            bad.append(f"{row.instance} is {row.last_status}{_because(row.last_why)}.")
    if not evidence:
        unclear.append("No instance of this workload is known, so nothing was sampled.")
    if bad or faults:
        return verdict(FAILED, *bad, *faults, *unclear)
    return verdict(INCONCLUSIVE, *unclear)
