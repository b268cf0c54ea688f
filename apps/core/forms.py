"""What the console asks people in every app."""

from django import forms
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.core.models import MAX_REASON


class ReasonForm(forms.Form):
    """Why something is done."""

    reason = forms.CharField(
        max_length=MAX_REASON,
        widget=UnfoldAdminTextInputWidget(),
        help_text="For the audit trail, and for whoever asks later.",
    )
