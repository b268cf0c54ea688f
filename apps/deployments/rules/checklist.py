"""What is checked before and after a deployment, and whether it may go on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from apps.core.errors import Invalid
from apps.deployments.rules import transitions

BEFORE, AFTER = "before", "after"
OPEN, PASSED, FAILED, NOT_APPLICABLE = "open", "passed", "failed", "not_applicable"
REPORTABLE = (PASSED, FAILED, NOT_APPLICABLE)


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a checklist. `reported`: CI may say how it went. `manual`: a named person may tick it."""

    key: str
    phase: str
    title: str
    blocking: bool = False
    reported: bool = False
    manual: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one item stands for one deployment."""

    key: str
    state: str
    detail: str = ""
    overridden: bool = False


ITEMS: Mapping[str, Item] = {
    item.key: item
    for item in (
        Item("migrations_run", BEFORE, "Database migrations run", blocking=True, reported=True),
        Item("variables_configured", BEFORE, "Environment variables configured", blocking=True),
        Item("secrets_present", BEFORE, "Secrets present", blocking=True),
        Item("images_tested", BEFORE, "Images built and tested", reported=True),
        Item("chart_valid", BEFORE, "Chart valid", reported=True),
        Item("config_ready", BEFORE, "ConfigMaps and Secrets ready", reported=True, manual=True),
        Item("network_policies", BEFORE, "Network policies defined", manual=True),
        Item("health_configured", BEFORE, "Health checks configured", blocking=True),
        Item("database_safe", BEFORE, "Database safe"),
        Item("pods_running", AFTER, "All instances running", blocking=True, reported=True),
        Item("services_accessible", AFTER, "Services accessible", blocking=True),
        Item("health_passing", AFTER, "Health checks passing", blocking=True),
        Item("logs_clean", AFTER, "Logs show no errors", manual=True),
        Item("database_connected", AFTER, "Database connections", blocking=True),
        Item("api_responding", AFTER, "API responding", blocking=True, reported=True),
        Item("front_end_loading", AFTER, "Front end loading", reported=True, manual=True),
    )
}


def check_reported(key: str, state: str) -> Item:
    """The item CI reports on. Raises Invalid for an unknown one, or one that is not CI's to say."""
    item = ITEMS.get(key)
    if item is None or not item.reported:
        known = ", ".join(item.key for item in ITEMS.values() if item.reported)
        raise Invalid(f"CI cannot report this item; it may report {known}.", field="checklist")
    if state not in REPORTABLE:
        raise Invalid(f"Report an item as one of {', '.join(REPORTABLE)}.", field="checklist")
    return item


def too_late(item: Item, *, status: str, undone: bool, archived: bool) -> str:
    """Why an item can be ticked no more, in a sentence; empty while it can.

    What is looked at before a deployment is settled while it is open; what is looked at after it, while it stands.
    """
    if status in transitions.OPEN:
        return ""
    if item.phase == BEFORE:
        return f"this is looked at before a deployment, and this one has ended as {status}."
    if status != transitions.COMPLETED:
        return f"this deployment has ended as {status}; what it brought does not run any more."
    if undone:
        return "this deployment was rolled back; what it brought does not run any more."
    return "this deployment is archived." if archived else ""


def blockers(standings: Iterable[Standing], *, phase: str, strict: bool = False,
             also: Iterable[str] = ()) -> tuple[str, ...]:  # fmt: skip
    """A sentence for each item that refuses: blocking, of this phase, failed, and not overridden.

    `strict`: a blocking item that nobody has settled refuses as well. `also` names items this workload makes blocking.
    """
    found = {standing.key: standing for standing in standings}
    made_blocking = set(also)
    sentences = []
    for item in ITEMS.values():
        if item.phase != phase or not (item.blocking or item.key in made_blocking):
            continue
        standing = found.get(item.key, Standing(item.key, OPEN))
        if standing.overridden:
            continue
        if standing.state == FAILED or (strict and standing.state == OPEN):
            sentences.append(f"{item.title}: {standing.detail or 'nobody has reported it'}.")
    return tuple(sentences)
