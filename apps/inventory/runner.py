"""What a worker needs unsealed: a workload's platform with its secret, an endpoint's headers, a database's URL."""

import json
from urllib.parse import urlsplit

from apps.core import vault
from apps.core.errors import Invalid, KeyUnknown, Tampered
from apps.inventory.addresses import Address, parse_url
from apps.inventory.models import Database, Endpoint, Workload
from apps.inventory.platforms import platform_for, scaler_for
from apps.inventory.platforms.base import Platform, PlatformError, Scaler


def platform_of(workload: Workload) -> Platform:
    """The platform that rolls out this workload's versions. Raises PlatformError when it cannot be used."""
    return platform_for(workload.platform, workload.platform_settings, unseal_secret(workload))


def scaler_of(workload: Workload) -> Scaler | None:
    """What scales this workload; None where a person does it. Raises PlatformError when it cannot be used."""
    return scaler_for(workload.platform, workload.platform_settings, unseal_secret(workload))


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


def headers_of(endpoint: Endpoint) -> dict[str, str]:
    """The headers a check sends. Raises Invalid when they cannot be unsealed, or were given for another address."""
    if not endpoint.headers_sealed:
        return {}
    try:
        found: dict[str, str] = json.loads(vault.unseal(endpoint.headers_sealed, purpose=headers_purpose(endpoint)))
    except (KeyUnknown, Tampered) as error:
        raise Invalid(
            "The headers were given for another base URL of the workload, or under another BACKUP_KEYSET: enter them "
            "again.",
            field="headers",
        ) from error
    return found


def headers_purpose(endpoint: Endpoint) -> str:
    """What headers are sealed for: this endpoint while it is asked at this scheme, host and port."""
    where = urlsplit(endpoint.workload.base_url)
    return f"endpoint:{endpoint.pk}:headers:{where.scheme}://{where.netloc.lower()}"


def address_of(database: Database) -> Address:
    """Where a registered database is and how to sign in. Raises Invalid when its URL cannot be unsealed or read."""
    try:
        return parse_url(vault.unseal(database.url_sealed, purpose=f"database:{database.name}:url"))
    except (KeyUnknown, Tampered) as error:
        raise Invalid(
            "The URL was sealed under another BACKUP_KEYSET: enter it again, or start with that keyset.", field="url"
        ) from error
