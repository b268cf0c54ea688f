"""What Pulsewatch is measured against: bare and checked web applications, and another Django project's backups."""
