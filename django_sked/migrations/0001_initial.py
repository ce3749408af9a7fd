from __future__ import annotations

import django_sked.ids
import uuid
from django.db import migrations, models


class AddIndex(migrations.AddIndex):
    """An index whose condition asks for columns that are the same in all its rows.

    MySQL, MariaDB and Oracle leave the condition out: there those columns lead, so that the same queries are served,
    by the index of `instead` where it is given.
    """

    def __init__(self, model_name, index, leading=("status",), instead=None):
        super().__init__(model_name, index)
        self.leading = leading
        self.instead = instead

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.features.supports_partial_indexes:
            return super().database_forwards(app_label, schema_editor, from_state, to_state)
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.instead is None and self.allow_migrate_model(schema_editor.connection.alias, model):
            index = models.Index(fields=[*self.leading, *self.index.fields], name=self.index.name)
            schema_editor.add_index(model, index)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        if self.instead is None or schema_editor.connection.features.supports_partial_indexes:
            super().database_backwards(app_label, schema_editor, from_state, to_state)


def keep_text_exactly(apps, schema_editor, names=("ScheduledMessage", "WorkerProcess")):
    """On MySQL and MariaDB text would be kept in the database's default character set, which may know few characters,
    and be equal without regard to case or trailing spaces: "Mail" and "mail" are two queues."""
    connection = schema_editor.connection
    if connection.vendor != "mysql":
        return
    collation = "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"
    for name in names:
        model = apps.get_model("django_sked", name)
        changes = [f"CONVERT TO CHARACTER SET utf8mb4 COLLATE {collation}"]
        if connection.mysql_is_mariadb:
            # Without Django's CHECK (JSON_VALID(...)), which refuses what is nested deeper than 31 levels.
            changes += [
                f"MODIFY {schema_editor.quote_name(field.column)} longtext {'NULL' if field.null else 'NOT NULL'}"
                for field in model._meta.local_fields
                if isinstance(field, models.JSONField)
            ]
        for change in changes:
            schema_editor.execute(f"ALTER TABLE {schema_editor.quote_name(model._meta.db_table)} {change}")


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="WorkerProcess",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("backend", models.CharField(max_length=64, verbose_name="backend")),
                ("host", models.CharField(max_length=255, verbose_name="host")),
                ("pid", models.PositiveIntegerField(verbose_name="process id")),
                ("version", models.CharField(max_length=32, verbose_name="version")),
                ("queues", models.JSONField(default=dict, verbose_name="queues")),
                ("lease", models.FloatField(default=30.0, verbose_name="lease in seconds")),
                ("in_flight", models.PositiveIntegerField(default=0, verbose_name="in flight")),
                ("busy_with", models.UUIDField(blank=True, null=True, verbose_name="busy with")),
                ("busy_event", models.CharField(blank=True, default="", max_length=255, verbose_name="busy with event")),
                ("busy_since", models.DateTimeField(blank=True, null=True, verbose_name="busy since")),
                ("started_at", models.DateTimeField(verbose_name="started at")),
                ("beat_at", models.DateTimeField(verbose_name="last beat")),
                ("lease_until", models.DateTimeField(db_index=True, verbose_name="lease until")),
            ],
            options={
                "verbose_name": "worker",
                "verbose_name_plural": "workers",
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="ScheduledMessage",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=django_sked.ids.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                        verbose_name="id",
                    ),
                ),
                ("event", models.CharField(max_length=255, verbose_name="event")),
                ("queue", models.CharField(default="default", max_length=64, verbose_name="queue")),
                ("priority", models.SmallIntegerField(default=0, verbose_name="priority")),
                ("payload", models.JSONField(blank=True, null=True, verbose_name="payload")),
                ("metadata", models.JSONField(blank=True, default=dict, verbose_name="metadata")),
                ("schema_version", models.PositiveSmallIntegerField(default=1, verbose_name="schema version")),
                ("subject_type", models.CharField(blank=True, max_length=150, null=True, verbose_name="subject type")),
                ("subject_id", models.CharField(blank=True, max_length=64, null=True, verbose_name="subject id")),
                ("origin", models.UUIDField(blank=True, null=True, verbose_name="redelivered from")),
                ("due_at", models.DateTimeField(verbose_name="due at")),
                ("next_at", models.DateTimeField(blank=True, verbose_name="next at")),
                ("expires_at", models.DateTimeField(blank=True, null=True, verbose_name="expires at")),
                ("timeout", models.DurationField(blank=True, null=True, verbose_name="timeout")),
                ("created_at", models.DateTimeField(blank=True, verbose_name="created at")),
                ("finished_at", models.DateTimeField(blank=True, null=True, verbose_name="finished at")),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("blocked", "blocked"),
                            ("scheduled", "scheduled"),
                            ("claimed", "claimed"),
                            ("delivered", "delivered"),
                            ("dead", "dead"),
                            ("cancelled", "cancelled"),
                            ("expired", "expired"),
                        ],
                        default="scheduled",
                        max_length=10,
                        verbose_name="status",
                    ),
                ),
                ("held_at", models.DateTimeField(blank=True, null=True, verbose_name="held at")),
                ("parents_left", models.PositiveSmallIntegerField(default=0, verbose_name="parents left")),
                ("has_children", models.BooleanField(default=False, verbose_name="has children")),
                ("cancel_requested", models.BooleanField(default=False, verbose_name="cancel requested")),
                ("suspect", models.BooleanField(default=False, verbose_name="suspect")),
                ("reason", models.CharField(blank=True, default="", max_length=255, verbose_name="reason")),
                ("claimed_by", models.UUIDField(blank=True, null=True, verbose_name="claimed by")),
                ("claimed_at", models.DateTimeField(blank=True, null=True, verbose_name="claimed at")),
                ("token", models.BigIntegerField(default=0, verbose_name="token")),
                ("attempt", models.PositiveSmallIntegerField(default=0, verbose_name="attempts")),
                ("max_attempts", models.PositiveSmallIntegerField(default=5, verbose_name="most attempts")),
                ("crashes", models.PositiveSmallIntegerField(default=0, verbose_name="crashes")),
                ("unroutable", models.PositiveSmallIntegerField(default=0, verbose_name="times unroutable")),
                ("retry_policy", models.JSONField(blank=True, null=True, verbose_name="retry policy")),
                ("key", models.CharField(blank=True, max_length=200, null=True, verbose_name="key")),
                ("live_key", models.CharField(blank=True, editable=False, max_length=200, null=True)),
                ("delivered_to", models.JSONField(blank=True, default=dict, verbose_name="delivered to")),
                ("errors", models.JSONField(blank=True, default=list, verbose_name="errors")),
                ("result", models.JSONField(blank=True, null=True, verbose_name="result")),
                ("progress", models.PositiveSmallIntegerField(blank=True, null=True, verbose_name="progress")),
                ("recurrence_id", models.UUIDField(blank=True, null=True, verbose_name="recurrence")),
                ("tick_at", models.DateTimeField(blank=True, null=True, verbose_name="tick at")),
            ],
            options={
                "verbose_name": "scheduled message",
                "verbose_name_plural": "scheduled messages",
                "base_manager_name": "objects",
                "permissions": [
                    ("cancel_scheduledmessage", "Can cancel scheduled messages"),
                    ("reschedule_scheduledmessage", "Can reschedule scheduled messages"),
                    ("make_due_scheduledmessage", "Can make scheduled messages due"),
                    ("hold_scheduledmessage", "Can hold scheduled messages"),
                    ("resume_scheduledmessage", "Can resume held messages"),
                    ("redrive_scheduledmessage", "Can redrive dead messages"),
                    ("view_payload", "Can see payload, metadata and errors"),
                ],
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(
                        condition=models.Q(("finished_at__isnull", False)),
                        fields=["status", "finished_at"],
                        name="sked_message_finished",
                    ),
                    models.Index(condition=models.Q(("key__isnull", False)), fields=["key"], name="sked_message_key"),
                    models.Index(
                        condition=models.Q(("subject_id__isnull", False)),
                        fields=["subject_type", "subject_id"],
                        name="sked_message_subject",
                    ),
                    models.Index(fields=["due_at", "id"], name="sked_message_due"),
                ],
                "constraints": [models.UniqueConstraint(fields=("live_key",), name="sked_message_live_key")],
            },
        ),
        AddIndex(
            model_name="scheduledmessage",
            index=models.Index(
                condition=models.Q(("status", "scheduled"), ("suspect__in", [False])),
                fields=["queue", "priority", "next_at", "id"],
                name="sked_message_claim",
            ),
            leading=("status", "suspect"),
        ),
        AddIndex(
            model_name="scheduledmessage",
            index=models.Index(
                condition=models.Q(("status", "scheduled"), ("suspect__in", [True])),
                fields=["-priority", "next_at", "id", "queue"],
                name="sked_message_suspect",
            ),
            instead="sked_message_claim",
        ),
        AddIndex(
            model_name="scheduledmessage",
            index=models.Index(
                condition=models.Q(("status", "claimed")), fields=["claimed_by"], name="sked_message_holder"
            ),
        ),
        AddIndex(
            model_name="scheduledmessage",
            index=models.Index(
                condition=models.Q(("expires_at__isnull", False), ("finished_at__isnull", True)),
                fields=["expires_at"],
                name="sked_message_expiry",
            ),
        ),
        # Not atomic: MySQL and MariaDB refuse to change tables in a transaction; elsewhere the migration itself is one.
        migrations.RunPython(keep_text_exactly, migrations.RunPython.noop, atomic=False),
    ]
