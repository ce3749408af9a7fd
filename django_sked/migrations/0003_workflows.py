from importlib import import_module

import django_sked.ids
from django.db import migrations, models

initial = import_module("django_sked.migrations.0001_initial")


def keep_text_exactly(apps, schema_editor):
    """As in 0001, for the new tables."""
    initial.keep_text_exactly(apps, schema_editor, ["Dependency", "Workflow"])


class Migration(migrations.Migration):
    dependencies = [
        ("django_sked", "0002_recurrences"),
    ]

    operations = [
        migrations.CreateModel(
            name="Dependency",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("parent_id", models.UUIDField(verbose_name="parent")),
                ("child_id", models.UUIDField(verbose_name="child")),
                (
                    "condition",
                    models.CharField(
                        choices=[("success", "on success"), ("failure", "on failure"), ("finish", "on finish")],
                        max_length=8,
                        verbose_name="condition",
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[("new", "new"), ("open", "open"), ("met", "met"), ("unmet", "unmet")],
                        default="new",
                        max_length=8,
                        verbose_name="state",
                    ),
                ),
                ("is_end", models.BooleanField(default=False)),
            ],
            options={
                "verbose_name": "dependency",
                "verbose_name_plural": "dependencies",
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="Workflow",
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
                ("name", models.CharField(max_length=255, verbose_name="name")),
                ("backend", models.CharField(default="default", editable=False, max_length=64, verbose_name="backend")),
                ("metadata", models.JSONField(blank=True, default=dict, verbose_name="metadata")),
                ("created_at", models.DateTimeField(editable=False, verbose_name="created at")),
            ],
            options={
                "verbose_name": "workflow",
                "verbose_name_plural": "workflows",
                "default_permissions": ("view",),
            },
        ),
        migrations.AddField(
            model_name="scheduledmessage",
            name="release_delay",
            field=models.DurationField(blank=True, editable=False, null=True, verbose_name="delay after release"),
        ),
        migrations.AddField(
            model_name="scheduledmessage",
            name="release_expiry",
            field=models.DurationField(blank=True, editable=False, null=True, verbose_name="expires after release"),
        ),
        migrations.AddField(
            model_name="scheduledmessage",
            name="workflow_id",
            field=models.UUIDField(blank=True, null=True, verbose_name="workflow"),
        ),
        initial.AddIndex(
            model_name="scheduledmessage",
            index=models.Index(
                condition=models.Q(("workflow_id__isnull", False)), fields=["workflow_id"], name="sked_message_workflow"
            ),
            leading=(),
        ),
        migrations.AddIndex(
            model_name="dependency",
            index=models.Index(fields=["parent_id", "state"], name="sked_dependency_parent"),
        ),
        initial.AddIndex(
            model_name="dependency",
            index=models.Index(condition=models.Q(("state__in", ["new"])), fields=["id"], name="sked_dependency_new"),
            leading=("state",),
        ),
        migrations.AddConstraint(
            model_name="dependency",
            constraint=models.UniqueConstraint(fields=("child_id", "parent_id"), name="sked_dependency_edge"),
        ),
        migrations.AddIndex(
            model_name="workflow",
            index=models.Index(fields=["name", "created_at"], name="sked_workflow_name"),
        ),
        migrations.RunPython(keep_text_exactly, migrations.RunPython.noop, atomic=False),
    ]
