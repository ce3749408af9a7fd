"""The accounts, as another system would have them: they learn of orders by signed webhooks only."""

from __future__ import annotations

from config.settings import sinks
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from django_sked.contrib.sinks import verify_webhook
from shop.models import HistoryLine


@csrf_exempt
@require_POST
def accounts(request: HttpRequest) -> HttpResponse:
    """Write off an order that was not paid. One without a signature is answered 400, by Django; it may come twice."""
    said = verify_webhook(request, sinks.KEYS)
    HistoryLine.objects.get_or_create(
        message_id=said["idempotency_key"],
        defaults={"order_id": said["payload"]["order"], "event": "accounts: written off"},
    )
    return HttpResponse(status=204)
