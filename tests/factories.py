"""Rows for tests."""

from datetime import UTC, datetime

import factory
from django.contrib.auth.models import Group, User

from apps.core import ids
from apps.health.models import HealthCheck
from apps.inventory.models import Instance, Service, Workload


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
