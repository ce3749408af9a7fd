"""Durable, punctual, changeable scheduled messages for Django."""

from __future__ import annotations

from django_sked.signals import current_message

__version__ = "0.1.0"

__all__ = ["__version__", "current_message"]
