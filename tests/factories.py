"""Rows for tests."""

from datetime import UTC, datetime, timedelta

import factory
from django.contrib.auth.models import Group, User

from apps.alerts.models import Alert, Route
from apps.backups.models import BackupJob, BackupPlan, Restore
from apps.builds.models import Build, Diagnostic, DiagnosticSource
from apps.core import ids
from apps.deployments.models import Deployment
from apps.health.models import HealthCheck
from apps.inventory.models import Database, Endpoint, Instance, Service, Workload


def count_from(first: int) -> None:
    """Let every factory number its rows from here: two processes that fill one database would give the same names."""
    for made in factory.django.DjangoModelFactory.__subclasses__():
        made.reset_sequence(first)


class ServiceFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Service

    slug = factory.Sequence(lambda n: f"service-{n}")
    name = factory.LazyAttribute(lambda row: row.slug.capitalize())


class WorkloadFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Workload

    service = factory.SubFactory(ServiceFactory)
    environment = "production"


class InstanceFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Instance

    workload = factory.SubFactory(WorkloadFactory)
    name = factory.Sequence(lambda n: f"web-{n}")
    id = factory.LazyAttribute(lambda row: row.name)
    url = "http://127.0.0.1:9"


class EndpointFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Endpoint

    workload = factory.SubFactory(WorkloadFactory, base_url="http://127.0.0.1:9")
    endpoint_path = factory.Sequence(lambda n: f"/api/{n}")
    name = factory.LazyAttribute(lambda row: f"GET {row.endpoint_path}")


class HealthCheckFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = HealthCheck

    instance = factory.SubFactory(InstanceFactory)
    environment = factory.LazyAttribute(lambda row: row.instance.workload.environment)
    timestamp = factory.LazyFunction(lambda: datetime.now(UTC).replace(second=0, microsecond=0))
    measured_at = factory.SelfAttribute("timestamp")
    id = factory.LazyAttribute(lambda row: f"{ids.timestamped('health', row.timestamp)}_{ids.suffix()}")
    overall_status = "healthy"
    response_time_ms = 45
    database_status = "connected"
    redis_status = "connected"


class DatabaseFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Database

    name = factory.Sequence(lambda n: f"database-{n}")
    service = factory.SubFactory(ServiceFactory)
    environment = "production"
    engine = "mysql"
    host = "db.internal"
    port = 3306
    database_name = "shop"
    url_sealed = b"sealed"


class BackupPlanFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = BackupPlan

    database = factory.SubFactory(DatabaseFactory)
    last_slot = factory.LazyFunction(lambda: datetime.now(UTC))
    last_drill_slot = factory.SelfAttribute("last_slot")


class BackupJobFactory(factory.django.DjangoModelFactory):
    """A verified backup that began ten minutes ago."""

    class Meta:
        model = BackupJob

    database = factory.SubFactory(DatabaseFactory)
    started_at = factory.LazyFunction(lambda: datetime.now(UTC) - timedelta(minutes=10))
    id = factory.LazyAttribute(lambda row: f"{ids.timestamped('backup', row.started_at)}_{ids.suffix(6)}")
    backup_type = "full"
    environment = factory.LazyAttribute(lambda row: row.database.environment)
    status = "completed"
    triggered_by = "scheduled"
    completed_at = factory.LazyAttribute(lambda row: row.started_at + timedelta(seconds=42))
    duration_seconds = 42
    database_name = "shop"
    source = factory.LazyAttribute(lambda row: row.database.name if row.database else "shop")
    backup_bytes = 2_000_000
    compressed_bytes = 500_000
    compression_ratio = 0.25
    storage_location = "/srv/backups"
    object_path = factory.LazyAttribute(lambda row: f"{row.environment}/{row.id}.sql.zst.enc")
    sidecar_path = factory.LazyAttribute(lambda row: f"{row.environment}/{row.id}.json")
    storage_url = factory.LazyAttribute(lambda row: f"/srv/backups/{row.object_path}")
    integrity_check_passed = True
    integrity_check_at = factory.SelfAttribute("completed_at")
    retention_expires_at = factory.LazyAttribute(lambda row: row.started_at + timedelta(days=30))
    tables = factory.LazyFunction(lambda: {"customers": "c0ffee", "orders": "beef"})


class RestoreFactory(factory.django.DjangoModelFactory):
    """A drill that found all tables equal."""

    class Meta:
        model = Restore

    backup = factory.SubFactory(BackupJobFactory)
    kind = "drill"
    started_at = factory.LazyFunction(lambda: datetime.now(UTC) - timedelta(minutes=5))
    id = factory.LazyAttribute(lambda row: f"{ids.timestamped(row.kind, row.started_at)}_{ids.suffix(6)}")
    target = factory.LazyAttribute(lambda row: f"mysql://db.internal:3306/{row.schema}")
    target_database = factory.SelfAttribute("backup.database")
    schema = factory.Sequence(lambda n: f"pulsewatch_drill_{n}")
    status = "completed"
    completed_at = factory.LazyAttribute(lambda row: row.started_at + timedelta(seconds=64))
    restore_seconds = 61.5
    equal = True


class DeploymentFactory(factory.django.DjangoModelFactory):
    """A completed one; all of them are of one workload unless another is given."""

    class Meta:
        model = Deployment

    workload = factory.LazyFunction(
        lambda: (
            Workload.objects.filter(service__slug="app", environment="staging").first()
            or WorkloadFactory(service=Service.objects.get(slug="app"), environment="staging")
        )
    )
    service = factory.SelfAttribute("workload.service")
    environment = factory.SelfAttribute("workload.environment")
    started_at = factory.LazyFunction(lambda: datetime.now(UTC) - timedelta(minutes=10))
    created_at = factory.SelfAttribute("started_at")
    completed_at = factory.LazyAttribute(lambda row: row.started_at + timedelta(seconds=90))
    open_until = factory.LazyAttribute(lambda row: row.started_at + timedelta(hours=1))
    id = factory.Sequence(lambda n: f"deploy_20260301_0000{n:02}_{ids.suffix(4)}")
    version = factory.Sequence(lambda n: f"v1.{n}.0")
    status = "completed"
    triggered_by = "ana"
    commit_sha = "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678"
    commit_message = "Add a calendar"
    deployment_platform = "advisory"
    health_check_passed = True


class UserFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = User
        skip_postgeneration_save = True

    username = factory.Sequence(lambda n: f"person-{n}")
    is_staff = True

    @factory.post_generation
    def group(self, create, extracted, **kwargs):
        if extracted:
            self.groups.add(Group.objects.get(name=extracted))


class AlertFactory(factory.django.DjangoModelFactory):
    """An open one that began three minutes ago."""

    class Meta:
        model = Alert

    opened_at = factory.LazyFunction(lambda: datetime.now(UTC) - timedelta(minutes=3))
    id = factory.LazyAttribute(lambda row: f"{ids.timestamped('alert', row.opened_at)}_{ids.suffix(8)}")
    kind = "endpoint_down"
    subject = factory.Sequence(lambda n: f"endpoint:{n}")
    severity = "warning"
    title = factory.LazyAttribute(lambda row: f"{row.subject} is down")
    detail = "Refused 3 times in a row."
    environment = "production"


class RouteFactory(factory.django.DjangoModelFactory):
    """A route without an address."""

    class Meta:
        model = Route

    name = factory.Sequence(lambda n: f"route-{n}")
    channel = "JSON"


class BuildFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Build

    service = factory.SubFactory(ServiceFactory)
    environment = "production"
    branch = "main"
    created_at = factory.LazyFunction(lambda: datetime.now(UTC))
    started_at = factory.SelfAttribute("created_at")
    id = factory.LazyAttribute(lambda row: f"{ids.timestamped('build', row.created_at)}_{ids.suffix(4)}")
    build_status = "building"
    completed_at = factory.LazyAttribute(
        lambda row: None if row.build_status in ("pending", "building") else row.created_at
    )


class DiagnosticSourceFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = DiagnosticSource

    service = factory.SubFactory(ServiceFactory)
    environment = "production"
    branch = "main"
    tool = "tsc"


class DiagnosticFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Diagnostic

    last_build = factory.SubFactory(BuildFactory)
    first_build = factory.SelfAttribute("last_build")
    service = factory.SelfAttribute("last_build.service")
    environment = factory.SelfAttribute("last_build.environment")
    source = factory.SubFactory(
        DiagnosticSourceFactory,
        service=factory.SelfAttribute("..last_build.service"),
        environment=factory.SelfAttribute("..last_build.environment"),
        branch=factory.SelfAttribute("..last_build.branch"),
    )
    created_at = factory.LazyFunction(lambda: datetime.now(UTC))
    id = factory.LazyAttribute(lambda row: f"{ids.timestamped('diagnostic', row.created_at)}_{ids.suffix()}")
    fingerprint = factory.Sequence(lambda n: f"{n:032x}")
    file_path = "src/a.ts"
    line_number = 12
    column_number = 5
    error_code = "TS2322"
    error_message = "Type 'string' is not assignable to type 'number'."
    level = "error"
    category = "type_mismatch"
    severity = "high"
