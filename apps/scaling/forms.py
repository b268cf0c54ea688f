"""What the console asks people about scaling."""

from datetime import timedelta
from typing import Any

from django import forms
from django.forms import ModelForm, modelform_factory
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from apps.core.forms import ReasonForm
from apps.core.models import MAX_REASON
from apps.scaling.backtest import LONGEST, SETTABLE
from apps.scaling.models import MAX_INSTANCES, ScalingPolicy
from apps.scaling.rules.policy import faults
from apps.scaling.services import TARGETS

_LABELS = {"scale_up_threshold": "Scale-up threshold", "scale_down_threshold": "Scale-down threshold"}
_WIDGETS = {
    forms.BooleanField: UnfoldBooleanWidget,
    forms.IntegerField: UnfoldAdminIntegerFieldWidget,
    forms.FloatField: UnfoldAdminDecimalFieldWidget,
    forms.TypedChoiceField: UnfoldAdminSelectWidget,
    forms.ModelChoiceField: UnfoldAdminSelectWidget,
}


def _with_widget(field: Any, **words: Any) -> forms.Field:
    made: forms.Field = field.formfield(**words)
    widget = _WIDGETS.get(type(made))
    if widget is None:
        return made
    if isinstance(made, forms.FloatField):
        return field.formfield(**words | {"widget": widget(attrs={"step": "any"})})
    return field.formfield(**words | {"widget": widget()})


class _Settings(ModelForm):
    """Names every setting that cannot be, beside its field."""

    def clean(self) -> dict[str, Any]:
        # Without Django's own look at the constraints, whose words are for programmers: this one says the same.
        if not self.errors:
            tried = ScalingPolicy(**{name: self.cleaned_data[name] for name in SETTABLE if name in self.fields})
            for field, message in faults(tried.rule()).items():
                if field in self.fields:
                    self.add_error(field, message)
        return self.cleaned_data


SettingsForm = modelform_factory(
    ScalingPolicy, form=_Settings, fields=("enabled", *SETTABLE), formfield_callback=_with_widget, labels=_LABELS
)
NewPolicyForm = modelform_factory(
    ScalingPolicy,
    form=_Settings,
    fields=("service", "environment", "enabled", *SETTABLE),
    formfield_callback=_with_widget,
    labels=_LABELS,
)
_Tried = modelform_factory(
    ScalingPolicy,
    form=_Settings,
    fields=[name for name in SETTABLE if name not in TARGETS],
    formfield_callback=_with_widget,
    labels=_LABELS,
)


class BacktestForm(_Tried):  # type: ignore[valid-type, misc]  # a base made above
    """Settings to try, and on how many days."""

    days = forms.IntegerField(
        min_value=1,
        max_value=LONGEST,
        initial=7,
        widget=UnfoldAdminIntegerFieldWidget(),
        help_text=f"Of the recorded past, up to {LONGEST}",
    )


class PauseForm(forms.Form):
    """For how long a policy changes nothing, and why."""

    until = forms.TypedChoiceField(
        label="For",
        coerce=lambda hours: timedelta(hours=int(hours)),
        choices=[("1", "1 hour"), ("4", "4 hours"), ("24", "a day"), ("72", "3 days"), ("168", "a week")],
        initial="4",
        widget=UnfoldAdminSelectWidget(),
        help_text="Then it goes on by itself",
    )
    reason = forms.CharField(
        max_length=MAX_REASON,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Shown on the policy and in each decision meanwhile.",
    )


class ScaleForm(ReasonForm):
    """How many instances there are to be, and why."""

    to = forms.IntegerField(
        label="Instances", min_value=1, max_value=MAX_INSTANCES, widget=UnfoldAdminIntegerFieldWidget()
    )
    field_order = ("to", "reason")
