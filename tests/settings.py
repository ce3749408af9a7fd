"""Settings for the tests: one database per vendor, `default` being SQLite unless SKED_TEST_DB names another, and the
stores of messages that are no databases.

SKED_TEST_DB    the vendor of `default`: sqlite, postgresql or mariadb; the others are aliases named like themselves
SKED_TEST_ONLY  the vendors to have at all, with commas; without it, all of them (MariaDB and Redis where they are
                installed); redis, valkey and valkey_cluster are aliases of SKED only
SKED_TEST_CIPHER
                anything: every store has a payload_cipher

pytest-django reads this module before any fixture exists, so the servers are started from here.
"""

from __future__ import annotations

import os
from typing import Any

import django

from tests import servers

_MAKERS = {"sqlite": servers.sqlite, "postgresql": servers.postgresql, "mariadb": servers.mariadb}
_STORES = {"redis": servers.redis, "valkey": servers.valkey, "valkey_cluster": servers.valkey_cluster}
_DEFAULT = os.environ.get("SKED_TEST_DB", "sqlite")
#: The vendors this run was asked for, in contrast to those it could find.
SKED_TEST_VENDORS = [_DEFAULT] + [
    vendor
    for vendor in os.environ.get("SKED_TEST_ONLY", ",".join([*_MAKERS, *_STORES])).split(",")
    if vendor != _DEFAULT
]
_ENTRIES = {vendor: _MAKERS[vendor]() for vendor in SKED_TEST_VENDORS if vendor in _MAKERS}

DATABASES: dict[str, dict[str, Any]] = {
    "default" if vendor == _DEFAULT else vendor: entry for vendor, entry in _ENTRIES.items() if entry is not None
}
# None needs another: a run of the tests of one database makes that one only.
for _entry in DATABASES.values():
    _entry.setdefault("TEST", {})["DEPENDENCIES"] = []
#: What each alias claims to be; tests/unit/test_settings.py asks the servers.
SKED_TEST_ALIASES = {"default" if vendor == _DEFAULT else vendor: vendor for vendor in _ENTRIES}
# The models of contrib apps live in `default` only: nothing but our own tables is tested elsewhere.
DATABASE_ROUTERS = ["tests.routers.OnlyOurs"]

# One alias per store, and one store per alias: two aliases on one table are refused.
SKED: dict[str, dict[str, Any]] = {
    alias: {
        "BACKEND": "django_sked.backends.database.DatabaseBackend",
        **({} if alias == "default" else {"OPTIONS": {"database": alias}}),
    }
    for alias in DATABASES
}
SKED["memory"] = {"BACKEND": "django_sked.backends.memory.MemoryBackend"}
#: The aliases whose messages are on a server that is no database, with their entries; None where it is not installed.
SKED_TEST_STORES = {vendor: _STORES[vendor]() for vendor in SKED_TEST_VENDORS if vendor not in _MAKERS}
SKED |= {alias: store for alias, store in SKED_TEST_STORES.items() if store is not None}

# Every store with everything encrypted that can be: the same tests, the same answers.
if os.environ.get("SKED_TEST_CIPHER"):
    for _setting in SKED.values():
        _setting["OPTIONS"] = _setting.get("OPTIONS", {}) | {"payload_cipher": [b"0" * 43 + b"="]}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_sked",
    "django_sked.contrib.tasks",
    *([] if django.VERSION >= (6, 0) else ["django_tasks"]),
    "tests.testapp",
]
# Those of tests/tasks have one for each alias of SKED.
TASKS = {"default": {"BACKEND": "django_sked.contrib.tasks.SkedTaskBackend", "QUEUES": []}}
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    # In the language of the browser, which is English for who does not say.
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
_CONTEXT_PROCESSORS = [
    "django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": _CONTEXT_PROCESSORS},
    }
]
# The admin must work under a strict policy: no inline script or style.
if django.VERSION >= (6, 0):
    from django.utils.csp import CSP

    MIDDLEWARE.append("django.middleware.csp.ContentSecurityPolicyMiddleware")
    _CONTEXT_PROCESSORS.append("django.template.context_processors.csp")
    SECURE_CSP = {
        "default-src": [CSP.SELF],
        "script-src": [CSP.SELF, CSP.NONCE],
        "style-src": [CSP.SELF, CSP.NONCE],
    }

if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}

ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["*"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
# Neither UTC nor a fixed offset: a local time taken for an instant shows.
TIME_ZONE = "Europe/Berlin"
