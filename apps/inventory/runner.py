"""What a worker needs of a workload: the platform it runs on, with its secret unsealed."""

from apps.core import vault
from apps.core.errors import KeyUnknown, Tampered
from apps.inventory.models import Workload
from apps.inventory.platforms import platform_for
from apps.inventory.platforms.base import Platform, PlatformError


def platform_of(workload: Workload) -> Platform:
    """The platform that rolls out this workload's versions. Raises PlatformError when it cannot be used."""
    return platform_for(workload.platform, workload.platform_settings, unseal_secret(workload))


def unseal_secret(workload: Workload) -> str:
    """The platform's secret, empty when there is none. Raises PlatformError when it cannot be unsealed."""
    if not workload.platform_secret_sealed:
        return ""
    try:
        return vault.unseal(workload.platform_secret_sealed, purpose=secret_purpose(workload))
    except (KeyUnknown, Tampered) as error:
        raise PlatformError(
            f"The platform secret of {workload} cannot be read with the present BACKUP_KEYSET: enter it again, "
            "or start with the keyset it was sealed with."
        ) from error


def secret_purpose(workload: Workload) -> str:
    """What the secret is sealed for: this row and nothing else."""
    return f"workload:{workload.pk}:platform_secret"
