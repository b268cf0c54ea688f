"""How many samples a decision's windows were made from, and when the first of them began."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("scaling", "0003_totals_of_what_is_forgotten"),
    ]

    operations = [
        migrations.AddField(
            model_name="scalingdecision",
            name="looked_from",
            field=models.DateTimeField(null=True, verbose_name="start of its windows"),
        ),
        migrations.AddField(
            model_name="scalingdecision",
            name="samples",
            field=models.PositiveIntegerField(help_text="How many raw samples its windows were made from", null=True),
        ),
    ]
