from __future__ import annotations

import os
from importlib.util import find_spec

from django.contrib import admin
from django.urls import include, path

from django_sked.contrib import health

urlpatterns = [
    path("", include("shop.urls")),
    path("admin/", admin.site.urls),
    path("ready/", health.readiness(workers=True)),
]
# With django-sked[prometheus]; for a scraper with the token, and for who may view messages.
if find_spec("prometheus_client"):
    from django_sked.contrib import prometheus

    prometheus.connect()
    urlpatterns.append(path("metrics/", prometheus.view(token=os.environ.get("METRICS_TOKEN"))))
