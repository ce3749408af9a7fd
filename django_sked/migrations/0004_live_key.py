from django.db import migrations, models


class WithPartialIndexes:
    """Only where the database has partial indexes; elsewhere the constraint stays as it is, over all rows."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.features.supports_partial_indexes:
            super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.features.supports_partial_indexes:
            super().database_backwards(app_label, schema_editor, from_state, to_state)


class RemoveConstraint(WithPartialIndexes, migrations.RemoveConstraint):
    pass


class AddConstraint(WithPartialIndexes, migrations.AddConstraint):
    pass


class Migration(migrations.Migration):
    dependencies = [
        ("django_sked", "0003_workflows"),
    ]

    operations = [
        RemoveConstraint(model_name="scheduledmessage", name="sked_message_live_key"),
        AddConstraint(
            model_name="scheduledmessage",
            constraint=models.UniqueConstraint(
                condition=models.Q(("live_key__isnull", False)),
                fields=("live_key",),
                name="sked_message_live_key",
            ),
        ),
    ]
