from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("deployments", "0002_rollback_permission"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="deployment",
            index=models.Index(fields=["kind"], name="idx_deployments_kind"),
        ),
        migrations.AddIndex(
            model_name="deployment",
            index=models.Index(fields=["environment", "kind"], name="idx_deployments_environment_kind"),
        ),
        migrations.AddIndex(
            model_name="deployment",
            index=models.Index(fields=["workload", "kind"], name="idx_deployments_workload_kind"),
        ),
        migrations.AddIndex(
            model_name="deployment",
            index=models.Index(fields=["archived"], name="idx_deployments_archived"),
        ),
    ]
