from django.db import migrations, models


class Migration(migrations.Migration):
    """Both may be empty: workers of the release before do not know them, nor do their recurrences need them."""

    dependencies = [
        ("django_sked", "0007_next_payload"),
    ]

    operations = [
        migrations.AddField(
            model_name="recurrence",
            name="since_tick_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name="recurrence",
            name="runs",
            field=models.JSONField(blank=True, editable=False, null=True),
        ),
    ]
