"""What a message belongs to: its workflow and its parents, with the way to their pages."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin import AdminSite
from django.db import router
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_sked.admin.places import address
from django_sked.dependencies import Condition, Link
from django_sked.models import ScheduledMessage, Workflow
from django_sked.states import label_of

#: Parents that a page names.
NAMED = 50


class Relations:
    """Mixed into the admin of messages."""

    admin_site: AdminSite

    @admin.display(description=gettext_lazy("workflow"))
    def workflow(self, message: ScheduledMessage) -> str:
        """Its name, with the way to its page; the id where it is gone."""
        if message.workflow_id is None:
            return "-"
        using = message.backend.database or router.db_for_read(Workflow)
        found = Workflow.objects.using(using).filter(pk=message.workflow_id).first()
        if found is None or not self.admin_site.is_registered(Workflow):
            return str(message.workflow_id if found is None else found.name)
        url = address(self.admin_site, "workflow_change", found.pk, backend=message.backend)
        return format_html('<a href="{}">{}</a>', url, found.name)

    @admin.display(description=gettext_lazy("waits for"))
    def parents_list(self, message: ScheduledMessage) -> str:
        """Its parents: which end of each it waits for, and what has become of them."""
        links = message.backend.links_to([message.pk]) if message.backend.supports_workflows else []
        if not links:
            return "-"
        named = links[:NAMED]
        parents = message.backend.find_many([link.parent for link in named])
        lines = [self._line(link, parents.get(link.parent), message) for link in named]
        if len(links) > NAMED:
            lines.append((_("and %(count)d more") % {"count": len(links) - NAMED},))
        return format_html('<ul class="sked-parents">{}</ul>', format_html_join("", "<li>{}</li>", lines))

    def _line(self, link: Link, parent: ScheduledMessage | None, message: ScheduledMessage) -> tuple[Any]:
        condition = Condition(link.condition).label if link.condition in Condition.values else _("after")
        if parent is None:
            return (format_html("{}: {} ({})", condition, link.parent, _("pruned")),)
        url = address(self.admin_site, "scheduledmessage_change", parent.pk, backend=message.backend)
        line = format_html('{}: <a href="{}">{}</a> ({})', condition, url, parent.event, label_of(parent.status))
        return (line,)
