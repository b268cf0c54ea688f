"""What the console asks people about backups. URLs are write-only: a page never carries one back."""

from typing import Any

from django import forms
from django.db.models import QuerySet
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from apps.backups.models import BACKED_UP
from apps.core.choices import Environment
from apps.inventory.models import DEFAULT_SERVICE, Database, Service

MAX_URL = 2000  # characters; the longest URL anybody has a use for
MAX_RATE = 100_000  # MB/s; no disk is that fast


class SecretURLField(forms.CharField):
    """A database URL: typed unseen, and never put back into the page, not even when it was wrong."""

    def __init__(self, **words: Any) -> None:
        widget = UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password", "spellcheck": "false"})
        super().__init__(max_length=MAX_URL, widget=widget, **words)


class RateField(forms.IntegerField):
    """A limit for dumps in MB/s."""

    def __init__(self, **words: Any) -> None:
        super().__init__(
            label="Limit (MB/s)",
            required=False,
            min_value=1,
            max_value=MAX_RATE,
            widget=UnfoldAdminIntegerFieldWidget(),
            help_text="How fast a dump may read. Empty: as fast as it goes.",
            **words,
        )


class AddDatabaseForm(forms.Form):
    """A database to back up from now on."""

    name = forms.SlugField(
        max_length=50,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Short: letters, digits, - and _. It names the database in commands, metrics and alerts.",
    )
    environment = forms.ChoiceField(
        choices=[(name.value, name.label) for name in Environment if name in BACKED_UP],
        widget=UnfoldAdminSelectWidget(),
    )
    service = forms.ModelChoiceField(
        queryset=Service.objects.all(), to_field_name="slug", widget=UnfoldAdminSelectWidget(), empty_label=None
    )
    url = SecretURLField(
        label="URL",
        help_text="mysql://user:password@host:3306/schema, postgresql://… or sqlite:////path. Kept encrypted, never "
        "shown again. Privileges, versions and clients are checked before anything is kept.",
    )
    replica_url = SecretURLField(
        label="Replica URL", required=False, help_text="Dump from this replica instead, to spare the main server."
    )
    scratch_url = SecretURLField(
        label="Scratch URL",
        required=False,
        help_text="A server for restore drills. Empty: a drill makes a scratch schema on the same server and drops it.",
    )
    max_rate_mb = RateField()

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self.fields["service"].initial = DEFAULT_SERVICE
        self.fields["environment"].initial = Environment.PRODUCTION


class ChangeDatabaseForm(forms.Form):
    """What may change of a registered database."""

    url = SecretURLField(label="New URL", required=False, help_text="Leave empty to keep the present one.")
    replica_url = SecretURLField(
        label="New replica URL", required=False, help_text="Leave empty to keep the present one, or none."
    )
    drop_replica = forms.BooleanField(label="Use no replica any more", required=False, widget=UnfoldBooleanWidget())
    scratch_url = SecretURLField(
        label="New scratch URL", required=False, help_text="Leave empty to keep the present one, or none."
    )
    drop_scratch = forms.BooleanField(
        label="Use no scratch server any more", required=False, widget=UnfoldBooleanWidget()
    )
    max_rate_mb = RateField()

    def __init__(self, *args: Any, database: Database, **words: Any) -> None:
        super().__init__(*args, **words)
        self.fields["max_rate_mb"].initial = database.max_rate_mb
        if not database.replica_url_sealed:
            del self.fields["drop_replica"]
        if not database.scratch_url_sealed:
            del self.fields["drop_scratch"]

    def clean(self) -> dict[str, Any]:
        for what in ("replica", "scratch"):
            if self.cleaned_data.get(f"drop_{what}") and self.cleaned_data.get(f"{what}_url"):
                self.add_error(f"drop_{what}", "Either give a new URL or use none: both at once is not clear.")
        return self.cleaned_data


class SchemaForm(forms.Form):
    """A new schema on the server of a registered database."""

    server = forms.ModelChoiceField(
        queryset=Database.objects.none(),
        label="On the server of",
        widget=UnfoldAdminSelectWidget(),
        empty_label=None,
        help_text="The account Pulsewatch uses there must be allowed to create the schema.",
    )
    schema = forms.CharField(
        max_length=200,
        label="New schema",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="It is created. One that exists and is not empty is left alone, and the restore refused.",
    )

    def __init__(self, *args: Any, servers: QuerySet[Database], **words: Any) -> None:
        super().__init__(*args, **words)
        self.fields["server"].queryset = servers


class TableForm(SchemaForm):
    """One table of a backup, into a new schema."""

    table = forms.ChoiceField(widget=UnfoldAdminSelectWidget())
    field_order = ("table", "server", "schema")

    def __init__(self, *args: Any, tables: list[str], **words: Any) -> None:
        super().__init__(*args, **words)
        self.fields["table"].choices = [(name, name) for name in tables]


class TargetForm(forms.Form):
    """Which registered database a restore goes over."""

    target = forms.ModelChoiceField(
        queryset=Database.objects.none(),
        to_field_name="name",
        label="Database to overwrite",
        widget=UnfoldAdminSelectWidget(),
        empty_label=None,
    )

    def __init__(self, *args: Any, targets: QuerySet[Database], **words: Any) -> None:
        super().__init__(*args, **words)
        self.fields["target"].queryset = targets


class TypedNameForm(forms.Form):
    """The name of what is about to be lost, typed by hand."""

    typed = forms.CharField(
        max_length=100,
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, name: str, **words: Any) -> None:
        super().__init__(*args, **words)
        self._name = name
        self.fields["typed"].label = f"Type {name} to confirm"

    def clean_typed(self) -> str:
        typed: str = self.cleaned_data["typed"]
        if typed != self._name:
            raise forms.ValidationError(f"Nothing was overwritten: this is not the name. Type {self._name}.")
        return typed
