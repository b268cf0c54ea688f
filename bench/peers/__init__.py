"""What Pulsewatch's probes are measured against, served by the same gunicorn with the same configuration."""
