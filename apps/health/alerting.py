"""Tells alerts what is wrong with endpoints, databases, certificates and the prober itself, as levels."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial

from django.db.models import Max
from django.urls import NoReverseMatch, reverse

from apps.alerts import services as alerts
from apps.alerts.choices import AlertKind, Severity
from apps.alerts.services import Firing
from apps.core.choices import Environment
from apps.health.models import DatabaseState, EndpointState, ProbeSlice
from apps.health.rules.checks import FAILED, certificate_level
from apps.health.rules.schedule import MINUTE
from apps.health.watched import DATABASE, ENDPOINT, Watched
from apps.inventory.models import Database, Endpoint

PROBER = "prober:network"
RECENT = 3 * MINUTE  # a slice that has not been heard of for longer says nothing about now


def settle_targets(targets: Iterable[Watched], now: datetime) -> None:
    """Settle the alerts of these targets, whose status has just changed."""
    keys: dict[str, list[int]] = defaultdict(list)
    for one in targets:
        keys[one.kind].append(one.pk)
    if pks := keys[ENDPOINT]:
        subjects = [f"{ENDPOINT}:{pk}" for pk in pks]
        alerts.settle(AlertKind.ENDPOINT_DOWN, _endpoints_down(pks), now=now, subjects=subjects, again=_endpoints_again)
    if pks := keys[DATABASE]:
        names = Database.objects.filter(pk__in=pks).values_list("name", flat=True)
        subjects = [f"{DATABASE}:{name}" for name in names]
        alerts.settle(AlertKind.DATABASE_DOWN, _databases_down(pks), now=now, subjects=subjects, again=_databases_again)


def settle_mass_failure(now: datetime) -> None:
    """Settle the one alert that says that the fault is probably ours."""
    newest = ProbeSlice.objects.filter(beat_at__gt=now - RECENT).aggregate(at=Max("starts_at"))["at"]
    firing = []
    if newest and ProbeSlice.objects.filter(starts_at=newest, suspicious=True).exists():
        firing = [
            Firing(
                subject=PROBER,
                title="Nearly all targets fail at once",
                detail="At least nine of ten targets that were well fail within a minute, so the fault is probably not "
                "theirs: their status is unknown until they answer again. Look at the network and the name server of "
                "the machine that Pulsewatch's workers run on.",
                severity=Severity.CRITICAL,
            )
        ]
    elif not ProbeSlice.objects.filter(finished_at__gt=now - RECENT).exists():
        return  # nobody has looked of late: that proves no recovery
    alerts.settle(AlertKind.MASS_FAILURE, firing, now=now)


def settle_all(now: datetime) -> None:
    """Settle everything anew: once a minute, so that nothing stays untold when a process died in between."""
    alerts.settle(AlertKind.ENDPOINT_DOWN, _endpoints_down(), now=now, again=_endpoints_again)
    alerts.settle(AlertKind.DATABASE_DOWN, _databases_down(), now=now, again=_databases_again)
    alerts.settle(AlertKind.CERTIFICATE_EXPIRES, _certificates(now), now=now, again=partial(_certificates_again, now))
    settle_mass_failure(now)


# What is told is looked at again while its states are locked. A recovery that is stored later waits for the alert, and
# then closes it.


def _endpoints_again(subjects: Collection[str]) -> list[Firing]:
    return _endpoints_down(_locked_endpoints(subjects))


def _certificates_again(now: datetime, subjects: Collection[str]) -> list[Firing]:
    return list(_certificates(now, _locked_endpoints(subjects)))


def _databases_again(subjects: Collection[str]) -> list[Firing]:
    names = [subject.partition(":")[2] for subject in subjects]
    # In the order of their keys, as those who store checks lock them.
    pks = sorted(Database.objects.filter(name__in=names).values_list("pk", flat=True))
    list(DatabaseState.objects.select_for_update().filter(pk__in=pks).order_by("pk").values_list("pk"))
    return _databases_down(pks)


def _locked_endpoints(subjects: Collection[str]) -> list[int]:
    pks = sorted(int(subject.partition(":")[2]) for subject in subjects)
    list(EndpointState.objects.select_for_update().filter(pk__in=pks).order_by("pk").values_list("pk"))
    return pks


def _endpoints_down(pks: Sequence[int] | None = None) -> list[Firing]:
    down = EndpointState.objects.filter(status=FAILED, endpoint__in=Endpoint.objects.watched())
    if pks is not None:
        down = down.filter(pk__in=pks)
    return [_endpoint_down(state) for state in down.select_related("endpoint__workload__service")]


def _endpoint_down(state: EndpointState) -> Firing:
    endpoint = state.endpoint
    workload = endpoint.workload
    return Firing(
        subject=f"{ENDPOINT}:{endpoint.pk}",
        title=f"{endpoint.http_method} {endpoint.url} is down",
        detail=f"{_sentence(state.error_message)} Down since {state.since:%Y-%m-%d %H:%M} UTC, after "
        f"{endpoint.failures_before_down} failures in a row; checked every {endpoint.interval_seconds} s.",
        severity=_gravity(workload.environment),
        environment=workload.environment,
        service=workload.service.slug,
        path=_page("inventory_endpoint", endpoint.pk),
        runbook_url=workload.service.runbook_url,
    )


def _databases_down(pks: Sequence[int] | None = None) -> list[Firing]:
    down = DatabaseState.objects.filter(status=FAILED, database__watch=True)
    if pks is not None:
        down = down.filter(pk__in=pks)
    return [
        Firing(
            subject=f"{DATABASE}:{state.database.name}",
            title=f"Database {state.database.name} is down",
            detail=f"{_sentence(state.error_message)} Down since {state.since:%Y-%m-%d %H:%M} UTC, after "
            f"{state.database.failures_before_down} failures in a row; looked at every "
            f"{state.database.interval_seconds} s.",
            severity=_gravity(state.database.environment),
            environment=state.database.environment,
            service=state.database.service.slug,
            path=_page("inventory_database", state.database.pk),
            runbook_url=state.database.service.runbook_url,
        )
        for state in down.select_related("database__service")
    ]


def _certificates(now: datetime, pks: Sequence[int] | None = None) -> Iterable[Firing]:
    watched = Endpoint.objects.watched().filter(verify_tls=True)
    days = watched.aggregate(most=Max("certificate_warning_days"))["most"]
    if not days:
        return
    ending = EndpointState.objects.filter(tls_expires_at__lte=now + timedelta(days=days), endpoint__in=watched)
    if pks is not None:
        ending = ending.filter(pk__in=pks)
    for state in ending.select_related("endpoint__workload__service"):
        endpoint, ends = state.endpoint, state.tls_expires_at
        level = certificate_level(
            ends, now, warning_days=endpoint.certificate_warning_days, critical_days=endpoint.certificate_critical_days
        )
        if level and ends:
            yield Firing(
                subject=f"{ENDPOINT}:{endpoint.pk}",
                title=f"The certificate of {endpoint.url} ends soon",
                detail=f"It ends on {ends:%Y-%m-%d at %H:%M} UTC; after that every browser refuses the site. Renew it, "
                "and have the server load the new one.",
                severity=Severity.CRITICAL if level == "critical" else Severity.WARNING,
                environment=endpoint.workload.environment,
                service=endpoint.workload.service.slug,
                path=_page("inventory_endpoint", endpoint.pk),
                runbook_url=endpoint.workload.service.runbook_url,
            )


def _gravity(environment: str) -> str:
    """Nobody has to get up for what is not in production."""
    return Severity.CRITICAL if environment == Environment.PRODUCTION else Severity.WARNING


def _sentence(reason: str) -> str:
    return f"It {reason}." if reason else "It fails."


def _page(name: str, pk: int) -> str:
    try:
        return reverse(f"admin:{name}_change", args=[pk])
    except NoReverseMatch:  # a console without this page
        return ""
