from django.db import migrations


class Migration(migrations.Migration):
    """To deliver once more is a permission of its own. Nothing is altered in the table."""

    dependencies = [
        ("django_sked", "0008_runs_of_ticks"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="scheduledmessage",
            options={
                "base_manager_name": "objects",
                "default_permissions": ("view",),
                "permissions": [
                    ("cancel_scheduledmessage", "Can cancel scheduled messages"),
                    ("reschedule_scheduledmessage", "Can reschedule scheduled messages"),
                    ("edit_scheduledmessage", "Can change the payload of scheduled messages"),
                    ("make_due_scheduledmessage", "Can make scheduled messages due"),
                    ("hold_scheduledmessage", "Can hold scheduled messages"),
                    ("resume_scheduledmessage", "Can resume held messages"),
                    ("redrive_scheduledmessage", "Can redrive dead messages"),
                    ("redeliver_scheduledmessage", "Can deliver messages that have ended once more"),
                    ("view_payload", "Can see payload, metadata and errors"),
                ],
                "verbose_name": "scheduled message",
                "verbose_name_plural": "scheduled messages",
            },
        ),
    ]
