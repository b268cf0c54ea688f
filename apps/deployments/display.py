"""States of deployments in the words of the console: badges, how far one has come, what to do next."""

from datetime import datetime, timedelta

from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from apps.core.display import Progress, moment, span
from apps.deployments.choices import DeploymentKind, DeploymentStatus, GateVerdict, ItemState, ValidationStatus
from apps.deployments.models import Deployment, Gate
from apps.deployments.rules import gate as rules

WORKER = "celery -A pulsewatch worker -Q fast"
# So long after its time a look, or a rollback that waits, says that no worker takes it: the tick has sent its message
# again by then.
PATIENCE = timedelta(minutes=2)

STATUS_COLOURS = {
    DeploymentStatus.QUEUED: "info",
    DeploymentStatus.IN_PROGRESS: "info",
    DeploymentStatus.COMPLETED: "success",
    DeploymentStatus.FAILED: "danger",
    DeploymentStatus.CANCELLED: "",
    DeploymentStatus.ROLLED_BACK: "success",
}
VERDICT_COLOURS = {
    GateVerdict.PASSED: "success",
    GateVerdict.FAILED: "danger",
    GateVerdict.INCONCLUSIVE: "warning",
}
ITEM_COLOURS = {
    ItemState.PASSED: "success",
    ItemState.FAILED: "danger",
    ItemState.OPEN: "warning",
    ItemState.NOT_APPLICABLE: "",
}
VARIABLE_COLOURS = {
    ValidationStatus.VALID: "success",
    ValidationStatus.INVALID: "danger",
    ValidationStatus.NOT_VALIDATED: "warning",
}
CHOSEN_BY = {
    rules.BY_VERSION: "It looks at the instances that say they run this version.",
    rules.BY_AGE: "No instance says it runs this version, so it looks at those that started after the deployment.",
    rules.ALL: "No instance says it runs this version or started after the deployment, so it looks at all there are.",
}

Label = tuple[str, str, str]  # text, colour, what the mouse shows


def status_label(row: Deployment) -> Label:
    """The badge of a deployment's status; the gate's look is named, for it is what people wait for."""
    gate = gate_of(row)
    if row.status == DeploymentStatus.IN_PROGRESS and gate is not None and gate.verdict is None:
        return ("gate is looking", "info", f"{gate.looks} looks so far")
    if row.rolled_back_by_id:
        return (row.get_status_display(), "", f"undone by {row.rolled_back_by_id}")
    return (row.get_status_display(), STATUS_COLOURS[DeploymentStatus(row.status)], "")


def verdict_label(row: Deployment) -> Label | None:
    """The badge of the gate's verdict; None without one."""
    gate = gate_of(row)
    if gate is None or gate.verdict is None:
        return None
    return (gate.get_verdict_display(), VERDICT_COLOURS[GateVerdict(gate.verdict)], "")


def remarks(row: Deployment) -> list[Label]:
    """What is unusual about a deployment."""
    found = []
    if row.kind == DeploymentKind.ROLLBACK:
        found.append(("rollback", "primary", f"undoes {row.undoes_id}"))
    if row.rolled_back_by_id:
        found.append(("rolled back", "warning", f"by {row.rolled_back_by_id}"))
    if row.observed:
        found.append(("reported by webhook", "info", "told after the fact: it took no lock and passed no gate"))
    if row.conflict:
        found.append(("conflict", "danger", row.conflict))
    if row.override_reason:
        found.append(("overridden", "warning", row.override_reason))
    if row.archived:
        found.append(("archived", "", "older than 90 days"))
    return found


def gate_of(row: Deployment) -> Gate | None:
    """The gate of a deployment, None when there is none (yet)."""
    gate: Gate | None = getattr(row, "gate", None)
    return gate


def progress(row: Deployment, now: datetime) -> Progress | None:
    """What somebody who waits wants to know; None once it has ended."""
    if not row.is_open:
        return None
    gate = gate_of(row)
    if gate is not None and gate.verdict is None:
        return _looking(gate, now)
    since = f"for {span(now - row.started_at)}"
    if row.kind == DeploymentKind.ROLLBACK:
        waiting = row.status == DeploymentStatus.QUEUED
        late = waiting and now - row.created_at > PATIENCE
        return Progress(
            "Waits for a worker" if waiting else f"Asking the platform ({row.workload.get_platform_display()})",
            detail=since,
            warning=_nobody(f"has taken it {since}") if late else "",
        )
    ends = f"it fails by itself at {moment(row.open_until)} if nobody finishes it"
    if row.status == DeploymentStatus.QUEUED:
        return Progress("Waits for CI to begin", detail=f"{since}; {ends}")
    return Progress(f"{row.triggered_by} brings it out", detail=f"{since}; {ends}")


def _looking(gate: Gate, now: datetime) -> Progress:
    gone = now - gate.started_at
    late = now - gate.next_look_at
    return Progress(
        "The gate looks at the instances",
        detail=f"{gate.looks} looks in {span(round(gone.total_seconds()))}; the verdict comes within "
        f"{span(gate.window_seconds)} of its start",
        percent=min(99, max(0, round(100 * gone.total_seconds() / gate.window_seconds))),
        warning=_nobody(f"has looked for {span(late)}") if late > PATIENCE else "",
    )


def _nobody(what: str) -> str:
    return f"No worker of queue “fast” {what}. Is one running? {WORKER}"


def samples_url(instance: str) -> str:
    """Where the samples of an instance are listed."""
    return f"{reverse('admin:health_healthcheck_changelist')}?{urlencode({'q': instance})}"


def outside(url: str | None) -> SafeString | str:
    """An address elsewhere as a link."""
    if not url:
        return ""
    link = '<a class="text-primary-600 dark:text-primary-500" href="{}" rel="noreferrer">{}</a>'
    return format_html(link, url, url)


def percent(share: float | None) -> str:
    """A share in percent, to two places, as the gate's reasons say it."""
    return "not measured" if share is None else f"{100 * share:.2f} %"


def milliseconds(value: float | None) -> str:
    """A response time."""
    return "not measured" if value is None else f"{value:.0f} ms"


def next_steps(gate: Gate) -> list[str]:
    """What to do after a gate that could not decide, by what it did not see."""
    seen = gate.evidence.get("instances", [])
    if not seen:
        return ["Register the workload's instances under Instances, or let CI push their samples: nobody is looked at."]
    steps = []
    silent = [one["instance"] for one in seen if not one["samples"]]
    few = [one["instance"] for one in seen if one["samples"] and one["last_status"] == rules.HEALTHY]
    ill = [one["instance"] for one in seen if one["samples"] and one["last_status"] != rules.HEALTHY]
    if silent:
        steps.append(
            f"{_named(silent)} gave no sample: is it up, and does Pulsewatch reach its URL, or do its samples arrive?"
        )
    if few:
        steps.append(
            f"{_named(few)} was healthy, not often enough in a row: look at the newest samples, and give the "
            "workload a longer gate window if they come slower than the gate wants them."
        )
    if ill:
        steps.append(f"{_named(ill)} was already degraded before: look at the newest samples and decide yourself.")
    return [*steps, "If it is well, leave it as it is. If not, roll back, or deploy the next version."]


def _named(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
