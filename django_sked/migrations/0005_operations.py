from importlib import import_module

from django.db import migrations, models

initial = import_module("django_sked.migrations.0001_initial")


def keep_text_exactly(apps, schema_editor):
    """As in 0001, for the new tables, and for that of workers, which has a new column of JSON."""
    initial.keep_text_exactly(apps, schema_editor, ["QueueControl", "QueueMinute", "WorkerProcess"])


class Migration(migrations.Migration):
    dependencies = [
        ("django_sked", "0004_live_key"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="workerprocess",
            options={
                "default_permissions": ("view",),
                "permissions": [("drain_worker", "Can let workers finish and stop")],
                "verbose_name": "worker",
                "verbose_name_plural": "workers",
            },
        ),
        migrations.AddField(
            model_name="workerprocess",
            name="drain_requested_at",
            field=models.DateTimeField(blank=True, null=True, verbose_name="asked to drain"),
        ),
        migrations.AddField(
            model_name="workerprocess",
            name="threads",
            field=models.JSONField(blank=True, null=True, verbose_name="threads"),
        ),
        migrations.CreateModel(
            name="QueueControl",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("backend", models.CharField(default="default", max_length=64, verbose_name="backend")),
                ("queue", models.CharField(max_length=64, verbose_name="queue")),
                ("paused_at", models.DateTimeField(blank=True, null=True, verbose_name="paused at")),
                ("paused_until", models.DateTimeField(blank=True, null=True, verbose_name="paused until")),
                ("reason", models.CharField(blank=True, default="", max_length=255, verbose_name="reason")),
                ("by", models.CharField(blank=True, default="", max_length=150, verbose_name="by")),
                ("concurrency", models.PositiveSmallIntegerField(blank=True, null=True, verbose_name="concurrency")),
            ],
            options={
                "verbose_name": "queue",
                "verbose_name_plural": "queues",
                "permissions": [
                    ("pause_queue", "Can pause and resume queues"),
                    ("scale_queue", "Can change the concurrency of queues"),
                ],
                "default_permissions": (),
                "constraints": [models.UniqueConstraint(fields=("backend", "queue"), name="sked_queue_control")],
            },
        ),
        migrations.CreateModel(
            name="Overview",
            fields=[],
            options={
                "verbose_name": "overview",
                "verbose_name_plural": "overview",
                "proxy": True,
                "default_permissions": ("view",),
                "indexes": [],
                "constraints": [],
            },
            bases=("django_sked.queuecontrol",),
        ),
        migrations.CreateModel(
            name="QueueMinute",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("backend", models.CharField(max_length=64)),
                ("minute", models.PositiveIntegerField()),
                ("queue", models.CharField(max_length=64)),
                ("delivered", models.PositiveIntegerField(default=0)),
                ("failed", models.PositiveIntegerField(default=0)),
                ("late_0", models.PositiveIntegerField(default=0)),
                ("late_1", models.PositiveIntegerField(default=0)),
                ("late_2", models.PositiveIntegerField(default=0)),
                ("late_3", models.PositiveIntegerField(default=0)),
                ("late_4", models.PositiveIntegerField(default=0)),
                ("late_5", models.PositiveIntegerField(default=0)),
                ("late_6", models.PositiveIntegerField(default=0)),
                ("late_7", models.PositiveIntegerField(default=0)),
                ("late_8", models.PositiveIntegerField(default=0)),
                ("late_9", models.PositiveIntegerField(default=0)),
                ("late_10", models.PositiveIntegerField(default=0)),
                ("late_11", models.PositiveIntegerField(default=0)),
                ("late_12", models.PositiveIntegerField(default=0)),
                ("late_13", models.PositiveIntegerField(default=0)),
                ("late_14", models.PositiveIntegerField(default=0)),
                ("late_15", models.PositiveIntegerField(default=0)),
                ("late_16", models.PositiveIntegerField(default=0)),
                ("late_17", models.PositiveIntegerField(default=0)),
                ("late_18", models.PositiveIntegerField(default=0)),
            ],
            options={
                "verbose_name": "minute of a queue",
                "verbose_name_plural": "minutes of queues",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(fields=("backend", "minute", "queue"), name="sked_queue_minute")
                ],
            },
        ),
        migrations.RunPython(keep_text_exactly, migrations.RunPython.noop, atomic=False),
    ]
