"""The policies every installation begins with. They only advise until a workload has a platform that scales."""

from django.db import migrations

PRODUCTION = {
    "min_instances": 2,
    "max_instances": 10,
    "target_cpu_percent": 70.0,
    "target_memory_percent": 75.0,
    "scale_up_threshold": 0.80,
    "scale_down_threshold": 0.40,
    "scale_up_cooldown_seconds": 300,
    "scale_down_cooldown_seconds": 600,
    "evaluation_period_seconds": 300,
    "datapoints_to_trigger": 2,
}


def make_policies(apps, schema_editor):
    service = apps.get_model("inventory", "Service").objects.filter(slug="app").first()
    if service is None:  # it was removed or renamed: then nobody waits for its policies
        return
    policies = apps.get_model("scaling", "ScalingPolicy").objects
    for environment, bounds in (("production", {}), ("staging", {"min_instances": 1, "max_instances": 3})):
        policies.get_or_create(
            service=service,
            environment=environment,
            defaults={"id": f"policy_{environment}", **PRODUCTION, **bounds},
        )


class Migration(migrations.Migration):
    dependencies = [
        ("scaling", "0001_policies_decisions_and_events"),
        ("inventory", "0002_default_service"),
    ]

    operations = [migrations.RunPython(make_policies, migrations.RunPython.noop)]
