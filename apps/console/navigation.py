"""The sidebar: what an operator looks for, in the order of looking."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse_lazy

_COLOURS = {"production": "danger", "staging": "warning", "development": "info"}
_DEPLOYMENTS = reverse_lazy("admin:deployments_deployment_changelist")
_DORA = reverse_lazy("admin:deployments_deployment_dora")
_VIEW_DEPLOYMENT = "deployments.view_deployment"


def environment_label(request: HttpRequest) -> list[str]:
    """The label beside the site's name and its colour."""
    return [settings.ENVIRONMENT.capitalize(), _COLOURS[settings.ENVIRONMENT]]


def _item(title: str, icon: str, view: str, permission: str) -> dict[str, Any]:
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{view}"),
        "permission": lambda request: request.user.has_perm(permission),
    }


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Unfold's navigation; what a user may not view is left out."""
    return [
        {
            "items": [
                {"title": "Overview", "icon": "dashboard", "link": reverse_lazy("admin:index")},
                _item("Alerts", "notifications", "alerts_alert_changelist", "alerts.view_alert"),
                _item("Health", "ecg_heart", "health_healthcheck_changelist", "health.view_healthcheck"),
                _item("Endpoints", "language", "inventory_endpoint_changelist", "inventory.view_endpoint"),
                _item("Notes", "sticky_note_2", "console_note_changelist", "console.view_note"),
            ]
        },
        {
            "title": "Alerting",
            "separator": True,
            "items": [
                _item("Routes", "alt_route", "alerts_route_changelist", "alerts.view_route"),
                _item("Deliveries", "outgoing_mail", "alerts_delivery_changelist", "alerts.view_delivery"),
                _item(
                    "Maintenance",
                    "construction",
                    "alerts_maintenancewindow_changelist",
                    "alerts.view_maintenancewindow",
                ),
            ],
        },
        {
            "title": "Backups",
            "separator": True,
            "items": [
                _item("Databases", "database", "inventory_database_changelist", "inventory.view_database"),
                _item("Backups", "backup", "backups_backupjob_changelist", "backups.view_backupjob"),
                _item(
                    "Restores and drills",
                    "settings_backup_restore",
                    "backups_restore_changelist",
                    "backups.view_restore",
                ),
                _item("Plans", "event_repeat", "backups_backupplan_changelist", "backups.view_backupplan"),
            ],
        },
        {
            "title": "Deployments",
            "separator": True,
            "items": [
                {
                    **_item("Deployments", "rocket_launch", "deployments_deployment_changelist", _VIEW_DEPLOYMENT),
                    # Not on the page of the figures, whose address begins with that of the list.
                    "active": lambda request: str(_DEPLOYMENTS) in request.path and str(_DORA) not in request.path,
                },
                _item("DORA", "monitoring", "deployments_deployment_dora", _VIEW_DEPLOYMENT),
                _item(
                    "Variable rules",
                    "rule_settings",
                    "deployments_environmentvariablerule_changelist",
                    "deployments.view_environmentvariablerule",
                ),
            ],
        },
        {
            "title": "Scaling",
            "separator": True,
            "items": [
                _item("Policies", "tune", "scaling_scalingpolicy_changelist", "scaling.view_scalingpolicy"),
                _item(
                    "Decisions", "psychology_alt", "scaling_scalingdecision_changelist", "scaling.view_scalingdecision"
                ),
                _item("Changes", "swap_vert", "scaling_scalingevent_changelist", "scaling.view_scalingevent"),
            ],
        },
        {
            "title": "Builds",
            "separator": True,
            "items": [
                _item("Builds", "construction", "builds_build_changelist", "builds.view_build"),
                _item("Diagnostics", "bug_report", "builds_diagnostic_changelist", "builds.view_diagnostic"),
            ],
        },
        {
            "title": "Inventory",
            "separator": True,
            "items": [
                _item("Services", "apps", "inventory_service_changelist", "inventory.view_service"),
                _item("Workloads", "deployed_code", "inventory_workload_changelist", "inventory.view_workload"),
                _item("Instances", "dns", "inventory_instance_changelist", "inventory.view_instance"),
            ],
        },
        {
            "title": "Safety",
            "separator": True,
            "items": [
                _item("Stop switch", "emergency_home", "core_stopswitch_changelist", "core.view_stopswitch"),
                _item("Webhook deliveries", "webhook", "api_webhookdelivery_changelist", "api.view_webhookdelivery"),
                _item("Audit trail", "history", "core_auditentry_changelist", "core.view_auditentry"),
            ],
        },
        {
            "title": "Access",
            "separator": True,
            "items": [
                _item("Users", "person", "auth_user_changelist", "auth.view_user"),
                _item("Groups", "group", "auth_group_changelist", "auth.view_group"),
                _item("API tokens", "key", "api_apitoken_changelist", "api.view_apitoken"),
                {"title": "API", "icon": "api", "link": reverse_lazy("api-v1:openapi-view")},
            ],
        },
    ]
