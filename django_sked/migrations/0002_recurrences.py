import datetime
import uuid
from importlib import import_module

from django.db import migrations, models

initial = import_module("django_sked.migrations.0001_initial")


def keep_text_exactly(apps, schema_editor):
    """As in 0001, for the new table, and for the one new column of JSON of the messages, which may be many."""
    initial.keep_text_exactly(apps, schema_editor, ["Recurrence"])
    connection = schema_editor.connection
    if connection.vendor == "mysql" and connection.mysql_is_mariadb:
        table = schema_editor.quote_name(apps.get_model("django_sked", "ScheduledMessage")._meta.db_table)
        schema_editor.execute(f"ALTER TABLE {table} MODIFY {schema_editor.quote_name('verdict')} longtext NULL")


class Migration(migrations.Migration):
    dependencies = [
        ("django_sked", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Recurrence",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False, verbose_name="id"
                    ),
                ),
                ("name", models.CharField(max_length=255, unique=True, verbose_name="name")),
                ("backend", models.CharField(default="default", max_length=64, verbose_name="backend")),
                ("event", models.CharField(blank=True, max_length=255, verbose_name="event")),
                ("payload", models.JSONField(blank=True, null=True, verbose_name="payload")),
                ("queue", models.CharField(default="default", max_length=64, verbose_name="queue")),
                ("priority", models.SmallIntegerField(default=0, verbose_name="priority")),
                ("metadata", models.JSONField(blank=True, default=dict, verbose_name="metadata")),
                ("max_attempts", models.PositiveSmallIntegerField(blank=True, null=True, verbose_name="most attempts")),
                ("retry_policy", models.JSONField(blank=True, null=True, verbose_name="retry policy")),
                ("timeout", models.DurationField(blank=True, null=True, verbose_name="timeout")),
                ("expires_in", models.DurationField(blank=True, null=True, verbose_name="expires in")),
                ("trigger", models.JSONField(verbose_name="trigger")),
                ("timezone", models.CharField(default="UTC", max_length=64, verbose_name="time zone")),
                ("start_at", models.DateTimeField(blank=True, null=True, verbose_name="start at")),
                ("end_at", models.DateTimeField(blank=True, null=True, verbose_name="end at")),
                (
                    "max_occurrences",
                    models.PositiveIntegerField(blank=True, null=True, verbose_name="most occurrences"),
                ),
                ("jitter", models.DurationField(default=datetime.timedelta(0), verbose_name="jitter")),
                (
                    "misfire",
                    models.CharField(
                        choices=[
                            ("latest", "make up for the latest"),
                            ("skip", "skip"),
                            ("all", "make up for all, up to a cap"),
                        ],
                        default="latest",
                        max_length=10,
                        verbose_name="missed ticks",
                    ),
                ),
                ("misfire_cap", models.PositiveIntegerField(default=100, verbose_name="cap of missed ticks")),
                (
                    "grace",
                    models.DurationField(default=datetime.timedelta(seconds=60), verbose_name="late, not missed"),
                ),
                (
                    "overlap",
                    models.CharField(
                        choices=[("allow", "allow"), ("skip", "skip"), ("queue", "queue one")],
                        default="allow",
                        max_length=10,
                        verbose_name="overlap",
                    ),
                ),
                ("stateful", models.BooleanField(default=False, verbose_name="stateful")),
                ("is_declared", models.BooleanField(default=False, editable=False, verbose_name="declared in code")),
                (
                    "orphaned_at",
                    models.DateTimeField(blank=True, editable=False, null=True, verbose_name="orphaned at"),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[("active", "active"), ("paused", "paused"), ("ended", "ended")],
                        default="active",
                        editable=False,
                        max_length=10,
                        verbose_name="status",
                    ),
                ),
                (
                    "reason",
                    models.CharField(blank=True, default="", editable=False, max_length=255, verbose_name="reason"),
                ),
                ("created_at", models.DateTimeField(editable=False, verbose_name="created at")),
                ("ended_at", models.DateTimeField(blank=True, editable=False, null=True, verbose_name="ended at")),
                (
                    "next_tick_at",
                    models.DateTimeField(blank=True, editable=False, null=True, verbose_name="next tick at"),
                ),
                ("look_at", models.DateTimeField(blank=True, db_index=True, editable=False, null=True)),
                (
                    "last_tick_at",
                    models.DateTimeField(blank=True, editable=False, null=True, verbose_name="last tick at"),
                ),
                (
                    "waiting_tick_at",
                    models.DateTimeField(blank=True, editable=False, null=True, verbose_name="waiting tick"),
                ),
                ("open", models.JSONField(blank=True, default=list, editable=False)),
                ("occurrences", models.PositiveIntegerField(default=0, editable=False, verbose_name="occurrences")),
                ("successes", models.PositiveIntegerField(default=0, editable=False, verbose_name="successes")),
                ("failures", models.PositiveIntegerField(default=0, editable=False, verbose_name="failures")),
                ("missed", models.PositiveBigIntegerField(default=0, editable=False, verbose_name="missed")),
                ("skipped", models.PositiveBigIntegerField(default=0, editable=False, verbose_name="skipped")),
                ("version", models.BigIntegerField(default=0, editable=False)),
            ],
            options={
                "verbose_name": "recurrence",
                "verbose_name_plural": "recurrences",
                "permissions": [
                    ("pause_recurrence", "Can pause and resume recurrences"),
                    ("run_recurrence", "Can run recurrences now and backfill them"),
                ],
            },
        ),
        migrations.AddField(
            model_name="scheduledmessage",
            name="local_time",
            field=models.CharField(blank=True, max_length=100, null=True, verbose_name="local time"),
        ),
        migrations.AddField(
            model_name="scheduledmessage",
            name="verdict",
            field=models.JSONField(blank=True, null=True, verbose_name="verdict"),
        ),
        initial.AddIndex(
            model_name="scheduledmessage",
            index=models.Index(
                condition=models.Q(("recurrence_id__isnull", False)),
                fields=["recurrence_id", "tick_at"],
                name="sked_message_recurrence",
            ),
            leading=(),
        ),
        # For `sked_sync`, now and then: without partial indexes not worth an entry for each message.
        initial.AddIndex(
            model_name="scheduledmessage",
            index=models.Index(
                condition=models.Q(("local_time__isnull", False)),
                fields=["local_time"],
                name="sked_message_local_time",
            ),
            instead="",
        ),
        migrations.RunPython(keep_text_exactly, migrations.RunPython.noop, atomic=False),
    ]
