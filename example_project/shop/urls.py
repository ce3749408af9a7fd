from __future__ import annotations

from django.urls import path

from shop import views, webhooks

app_name = "shop"
urlpatterns = [
    path("", views.index, name="index"),
    path("accounts/webhook/", webhooks.accounts, name="accounts"),
    path("orders/place/", views.place_order, name="place_order"),
    path("parcels/redrive/", views.redrive_parcels, name="redrive_parcels"),
    path("invoices/<int:pk>/<str:action>/", views.change_invoice, name="change_invoice"),
]
