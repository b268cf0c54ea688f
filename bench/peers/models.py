"""The table a bare endpoint writes to: a deployment's ordinary columns, without constraints, history or indexes."""

from django.db import models


class Deployed(models.Model):
    service = models.CharField(max_length=50)
    environment = models.CharField(max_length=16)
    version = models.CharField(max_length=64)
    commit_sha = models.CharField(max_length=40)
    commit_message = models.CharField(max_length=500)
    triggered_by = models.CharField(max_length=150)
    github_run_id = models.CharField(max_length=64)
    status = models.CharField(max_length=16, default="in_progress")
    started_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "peers"
        db_table = "bench_deployed"

    def __str__(self) -> str:
        return self.version
