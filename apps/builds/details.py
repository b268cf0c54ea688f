"""What the pages of a build and a diagnostic show, and which buttons a person has there."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from apps.builds.choices import BuildStatus, DiagnosticStatus, Severity
from apps.builds.models import Build, Diagnostic, DiagnosticReport
from apps.core.display import badge, badges, linked, moment, page_of, size
from apps.core.pages import button

BUILD_COLOURS = {
    BuildStatus.PENDING: "info",
    BuildStatus.BUILDING: "info",
    BuildStatus.SUCCESS: "success",
    BuildStatus.FAILED: "danger",
    BuildStatus.CANCELLED: "warning",
}
SEVERITY_COLOURS = {
    Severity.CRITICAL: "danger",
    Severity.HIGH: "danger",
    Severity.MEDIUM: "warning",
    Severity.LOW: "info",
}
STATE_COLOURS = {
    DiagnosticStatus.IDENTIFIED: "danger",
    DiagnosticStatus.IN_PROGRESS: "info",
    DiagnosticStatus.RESOLVED: "success",
    DiagnosticStatus.DEFERRED: "warning",
}
MOVES = {
    DiagnosticStatus.IN_PROGRESS: ("Take into work", "taken into work"),
    DiagnosticStatus.DEFERRED: ("Defer", "deferred"),
    DiagnosticStatus.RESOLVED: ("Mark as resolved", "marked as resolved"),
}
RECENT = 10  # deployments listed on the page of their build


def of_build(request: HttpRequest, build: Build) -> dict[str, Any]:
    """The page of a build."""
    reports = build.reports.select_related("source")
    deployments = build.deployments.order_by("-id")[:RECENT]
    return {
        "title": f"Build of {build.service}/{build.environment}",
        "badges": badges([(build.get_build_status_display(), BUILD_COLOURS[BuildStatus(build.build_status)], "")]),
        "lead": _outcome(build),
        "log": build.error_log,
        "actions": [button("Diagnostics it showed", _diagnostics_of(build), "primary")],
        "sections": (
            {
                "heading": "What it is",
                "facts": (
                    ("Build", build.pk),
                    ("Service", linked(build.service)),
                    ("Environment", build.get_environment_display()),
                    ("Branch", build.branch),
                    ("Commit", build.commit_sha),
                    ("Run", _outside(build.run_url)),
                    ("Reported by", build.requested_by),
                ),
            },
            {
                "heading": "How it went",
                "facts": (
                    ("Attempted", moment(build.created_at)),
                    ("Building since", moment(build.started_at)),
                    ("Ended", moment(build.completed_at)),
                    ("Build time", seconds(build.build_time)),
                    ("Bundle", size(build.bundle_size)),
                    ("Command", build.build_command),
                    ("Node.js", build.node_version),
                    ("TypeScript", build.typescript_version),
                    ("Astro", build.astro_version),
                ),
            },
        ),
        "lists": (
            {
                "heading": "Reports of diagnostics",
                "headers": ("Tool", "Errors", "Warnings", "Notes", "New", "Known", "Back", "Resolved", "Remark"),
                "rows": [
                    {
                        "cells": (
                            *(one.source.tool, one.errors, one.warnings, one.notes),
                            *(one.added, one.carried, one.reopened, one.resolved, _remark(one)),
                        )
                    }
                    for one in reports
                ],
                "empty": "No tool has reported anything about this build.",
            },
            {
                "heading": "Deployments",
                "headers": ("Deployment", "Version", "Environment", "Status", "Began"),
                "rows": [
                    {
                        "url": page_of(row),
                        "cells": (
                            row,
                            row.version,
                            row.get_environment_display(),
                            row.get_status_display(),
                            moment(row.started_at),
                        ),
                    }
                    for row in deployments
                ],
                "empty": "It was not deployed."
                if build.over
                else "It is not over: only a successful build is deployed.",
            },
        ),
    }


def of_diagnostic(request: HttpRequest, row: Diagnostic) -> dict[str, Any]:
    """The page of a diagnostic."""
    may_move = request.user.has_perm("builds.change_diagnostic")
    return {
        "badges": badges(
            [
                (row.get_severity_display(), SEVERITY_COLOURS[Severity(row.severity)], "severity"),
                (row.get_status_display(), STATE_COLOURS[DiagnosticStatus(row.status)], ""),
            ]
        ),
        "log": row.error_message,
        "actions": [
            button(title, f"{reverse('admin:builds_diagnostic_move')}?{urlencode({'status': status, 'id': row.pk})}")
            for status, (title, _) in MOVES.items()
            if may_move and status != row.status
        ],
        "sections": (
            {
                "heading": "What it is",
                "facts": (
                    ("Diagnostic", row.pk),
                    ("Where", row.place),
                    ("Code", row.error_code),
                    ("Level", row.get_level_display()),
                    ("Category", row.get_category_display()),
                    ("Service", linked(row.service)),
                    ("Environment", row.get_environment_display()),
                    ("Source", str(row.source)),
                ),
            },
            {
                "heading": "History",
                "facts": (
                    ("First seen", moment(row.created_at)),
                    ("First build", linked(row.first_build)),
                    ("Last build", linked(row.last_build)),
                    ("Resolved", moment(row.resolved_at)),
                    ("Notes", row.resolution_notes),
                ),
            },
        ),
    }


def seconds(length: float | None) -> str:
    """A build time, always in seconds: so two compare at a glance."""
    return "-" if length is None else f"{length:,.1f} s"


def build_label(build: Build) -> SafeString:
    """The badge of a build's status."""
    return badge(build.get_build_status_display(), BUILD_COLOURS[BuildStatus(build.build_status)])


def _outcome(build: Build) -> str:
    found = f"{_count(build.error_count, 'error')}, {_count(build.warning_count, 'warning')}"
    if not build.over:
        return f"It runs since {moment(build.started_at or build.created_at)}."
    return f"{found}; only a successful build is deployed." if not build.deployable else f"{found}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _diagnostics_of(build: Build) -> str:
    query = urlencode({"state": "all", "last_build__id__exact": build.pk})
    return f"{reverse('admin:builds_diagnostic_changelist')}?{query}"


def _outside(url: str) -> SafeString | str:
    link = '<a class="text-primary-600 dark:text-primary-500" href="{}" rel="noreferrer">{}</a>'
    return format_html(link, url, url) if url else ""


def _remark(report: DiagnosticReport) -> str:
    late = ["It came after the report of a newer build."] if report.outdated else []
    part = [] if report.complete else ["Not complete: it resolved nothing."]
    return " ".join([*late, *part, *report.doubts])
