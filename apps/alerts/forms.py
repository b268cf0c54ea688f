"""What the console asks people about routes and maintenance windows. Addresses are write-only."""

from typing import Any

from django import forms
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminTextInputWidget,
    UnfoldAdminTimeWidget,
    UnfoldBooleanWidget,
)

from apps.alerts.channels import MAX_URL
from apps.alerts.choices import AlertKind
from apps.alerts.models import WEEKDAYS, WRONG_ORDER, MaintenanceWindow, Route
from apps.core.choices import Environment
from apps.core.models import MAX_REASON


class ChoicesField(forms.MultipleChoiceField):
    """Several of a few words, ticked; kept as a list."""

    widget = UnfoldAdminCheckboxSelectMultipleWidget

    def __init__(self, *, number: bool = False, **words: Any) -> None:
        self.number = number
        super().__init__(required=False, **words)

    def prepare_value(self, value: Any) -> Any:
        return [str(one) for one in value] if isinstance(value, list) else value

    def clean(self, value: Any) -> list[Any]:
        chosen = super().clean(value)
        return [int(one) for one in chosen] if self.number else list(chosen)


class SlugsField(forms.CharField):
    """Short names, separated by commas; kept as a list."""

    def __init__(self, **words: Any) -> None:
        super().__init__(required=False, widget=UnfoldAdminTextInputWidget(), **words)

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        return [word.strip() for word in super().clean(value).split(",") if word.strip()]


class NoteForm(forms.Form):
    """What the next person who looks should know."""

    note = forms.CharField(
        max_length=MAX_REASON,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="What you found, what you are doing. Shown on the alert.",
    )


class RouteForm(forms.ModelForm):
    """A route, with its address, which can be written and never read."""

    url = forms.CharField(
        label="Apprise address",
        required=False,
        max_length=MAX_URL,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password", "spellcheck": "false"}),
        help_text="Such as mailto://…, slack://… or json://host/path; docs/alerts.md has more. Never shown again; "
        "empty: it stays as it is",
    )
    environments = ChoicesField(choices=Environment.choices, help_text="None ticked: all")
    kinds = ChoicesField(choices=AlertKind.choices, help_text="None ticked: all")
    services = SlugsField(help_text="Short names of services, separated by commas; empty: all")

    class Meta:
        model = Route
        fields = (
            *("name", "enabled", "url", "minimum_severity", "environments", "services", "kinds"),
            *("reminder_minutes", "send_recoveries"),
        )


class WindowForm(forms.ModelForm):
    """A maintenance window."""

    weekdays = ChoicesField(
        number=True,
        choices=list(enumerate(WEEKDAYS)),
        label="Days",
        help_text="Of a weekly window",
    )
    start_time = forms.TimeField(
        label="Begins at",
        widget=UnfoldAdminTimeWidget(format="%H:%M"),
        help_text="As the clocks there show it, such as 22:30",
    )
    freeze_deployments = forms.BooleanField(
        required=False, widget=UnfoldBooleanWidget(), help_text="Nothing is deployed meanwhile"
    )

    class Meta:
        model = MaintenanceWindow
        fields = (
            *("name", "note", "recurrence", "first_day", "start_time", "time_zone", "minutes", "weekdays", "last_day"),
            *("environment", "service", "subject", "freeze_deployments"),
        )

    def clean(self) -> dict[str, Any] | None:
        """Says what the database would refuse with its own words."""
        values = super().clean()
        first, last = self.cleaned_data.get("first_day"), self.cleaned_data.get("last_day")
        if first and last and last < first:
            self.add_error("last_day", WRONG_ORDER)
        return values
