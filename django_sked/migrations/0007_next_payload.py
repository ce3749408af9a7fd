from django.db import migrations, models


def believe_what_is_stored(apps, schema_editor):
    """Until now a stateful recurrence with a success was taken for one whose receiver had said what comes next."""
    rows = apps.get_model("django_sked", "Recurrence").objects.using(schema_editor.connection.alias)
    rows.filter(stateful=True, successes__gt=0).update(has_next_payload=True)


class Migration(migrations.Migration):
    """The default is the database's, too: workers of the release before do not know the column."""

    dependencies = [
        ("django_sked", "0006_edit_permission"),
    ]

    operations = [
        migrations.AddField(
            model_name="recurrence",
            name="has_next_payload",
            field=models.BooleanField(db_default=False, default=False, editable=False),
        ),
        migrations.RunPython(
            believe_what_is_stored, migrations.RunPython.noop, hints={"model_name": "recurrence"}
        ),
    ]
