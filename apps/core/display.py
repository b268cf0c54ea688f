"""Figures in the words of the console: sizes, durations, times, badges, links."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.admin.utils import quote
from django.db.models import Model
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString


@dataclass(frozen=True, slots=True)
class Progress:
    """How far something that runs has come. `percent` is None where nobody knows."""

    headline: str
    detail: str = ""
    percent: int | None = None
    warning: str = ""


def size(count: int | None) -> str:
    """Bytes in decimal units, as disks and clouds count them."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:  # what rounds to 1000 is one of the next unit
            return f"{value:.3g} {unit}" if unit != "B" else f"{count} B"
        value /= 1000
    return f"{value:,.2f} TB"


def share(ratio: float | None) -> str:
    """A ratio in percent, small ones with their digits; empty when it is not known."""
    return "" if ratio is None else f"{100 * ratio:.2g} %" if ratio < 0.1 else f"{100 * ratio:.0f} %"


def span(length: timedelta | float | None, *, units: int = 2) -> str:
    """A duration in at most two units, or in the largest alone."""
    if length is None:
        return "-"
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    total = round(seconds)
    parts: list[tuple[int, str]] = []
    for name, length_of in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, total = divmod(total, length_of)
        if count or parts:
            parts.append((count, name))
    return " ".join(f"{count} {name}" for count, name in parts[:units] if count)


def moment(when: datetime | None) -> str:
    """A time of day with its zone: Pulsewatch speaks UTC."""
    return f"{when:%Y-%m-%d %H:%M} UTC" if when else "-"


def badge(text: str, colour: str = "", title: str = "") -> SafeString:
    """A small label, as Unfold draws it."""
    return render_to_string("unfold/helpers/label.html", {"text": text, "type": colour, "label_title": title})


def badges(labels: Iterable[tuple[str, str, str]]) -> SafeString:
    """Labels side by side: text, colour, what the mouse shows."""
    return format_html_join(" ", "{}", ((badge(*label),) for label in labels))


def page_of(row: Model) -> str:
    """The address of a row's page in the console."""
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[quote(row.pk)])


def linked(row: Model, text: str = "") -> SafeString:
    """A row as a link to its page, and words after it."""
    link = format_html('<a class="text-primary-600 dark:text-primary-500" href="{}">{}</a>', page_of(row), str(row))
    return format_html("{}, {}", link, text) if text else link


def unbroken(*parts: str) -> SafeString:
    """Text that wraps between its parts only."""
    return format_html_join(" ", '<span class="whitespace-nowrap">{}</span>', ((part,) for part in parts))
