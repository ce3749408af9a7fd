"""Settings of the example shop. What matters for django-sked is the first half."""

from __future__ import annotations

import os
from datetime import timedelta

import django

from config.settings import databases, sinks, stores
from django_sked.retry import Exponential

INSTALLED_APPS = [
    "shop",
    "django_sked",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]

DATABASES = {"default": databases.chosen()}

# All of it is optional: without SKED, messages are kept in the default database, with the defaults.
SKED = stores.chosen(
    # A digest need not come to the millisecond, and may be cancelled until the last one.
    QUEUES={"mail": {"concurrency": 4}, "reports": {"concurrency": 1, "lookahead": 0}},
    OPTIONS={
        "max_attempts": 5,
        "retry": Exponential(base=2, cap=timedelta(hours=1)),
        "retention": {"delivered": timedelta(days=30)},
        "around_delivery": ["shop.hooks.channel_of_message"],
        # The code of a gift card is for whoever gets it, and for nobody who looks at the admin or a log.
        "redact": ["code"],
        # With SHOP_KEYS, Fernet keys with spaces between them, payloads are stored encrypted.
        "payload_cipher": os.environ.get("SHOP_KEYS", "").split() or None,
    },
)
SKED_SINKS = sinks.chosen()

# With SHOP_MESSAGES: we ask the backend, not the table, and what is atomic goes to the "books".
SILENCED_SYSTEM_CHECKS = ["django_sked.W003", "django_sked.W006"]

# Django has tasks since 6.0, and leaves it to others to run them: shop/tasks.py.
if django.VERSION >= (6, 0):
    INSTALLED_APPS.append("django_sked.contrib.tasks")
    TASKS = {"default": {"BACKEND": "django_sked.contrib.tasks.SkedTaskBackend", "QUEUES": ["default", "reports"]}}

USE_TZ = True
TIME_ZONE = "Europe/Berlin"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s.%(msecs)03d  %(message)s", "datefmt": "%H:%M:%S"}},
    "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "plain"}},
    "loggers": {
        "shop": {"handlers": ["stdout"], "level": "INFO"},
        # shop/facts.py tells the same in its own words.
        "django_sked": {"handlers": ["stdout"], "level": "CRITICAL"},
        "django_sked.worker": {"level": "INFO"},
        # The page reloads itself every two seconds; nobody wants to read that.
        "django.server": {"level": "WARNING"},
    },
}

# The rest is what `startproject` writes.

SECRET_KEY = "a secret that everybody knows: for the example only"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
ROOT_URLCONF = "config.urls"
STATIC_URL = "static/"
LOGIN_URL = "admin:login"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# Neither the shop nor the admin needs inline scripts or styles.
if django.VERSION >= (6, 0):
    from django.utils.csp import CSP

    MIDDLEWARE.append("django.middleware.csp.ContentSecurityPolicyMiddleware")
    SECURE_CSP = {"default-src": [CSP.SELF]}
