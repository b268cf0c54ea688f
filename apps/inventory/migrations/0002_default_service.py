"""Service `app`, the default everywhere, so that a team with one application never meets the word."""

from django.db import migrations


def make_default_service(apps, schema_editor):
    apps.get_model("inventory", "Service").objects.get_or_create(slug="app", defaults={"name": "Application"})


class Migration(migrations.Migration):
    dependencies = [("inventory", "0001_initial")]

    # Going back leaves the row: workloads may hang on it by then.
    operations = [migrations.RunPython(make_default_service, migrations.RunPython.noop)]
