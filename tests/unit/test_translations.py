"""Catalogues of translations are whole, and compiled from what they say: by `python -m tests.translations`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import django
import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from django.utils import translation

from django_sked import times
from django_sked.admin.board import number
from django_sked.admin.overview import length
from django_sked.admin.times import length as spelled
from django_sked.backends.backlog import Count
from tests import translations

LANGUAGES = translations.languages()
NOW = datetime(2027, 1, 3, 8, tzinfo=UTC)


@pytest.fixture
def german() -> Iterator[None]:
    with translation.override("de"):
        yield


def test_there_is_a_second_language() -> None:
    assert "de" in LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_catalogue_has_every_text_of_the_source(language: str) -> None:
    assert translations.untranslated(language) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_catalogue_has_no_text_that_the_source_has_not(language: str) -> None:
    known = {(message.id, message.context) for message in translations.source()}
    assert [message.id for message in translations.read(language) if (message.id, message.context) not in known] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_compiled_is_what_the_catalogue_says(language: str) -> None:
    assert translations.po(language).with_suffix(".mo").read_bytes() == translations.compiled(language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_the_same_places_to_fill_in(language: str) -> None:
    for message in translations.read(language):
        if not message.id:
            continue
        wanted = _places(translations.texts(message.id)[-1])
        for text in translations.texts(message.string):
            assert _places(text) == wanted, message.id


def _places(text: str) -> list[str]:
    return sorted(re.findall(r"%\(\w+\)[sd]|\{\}", text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_django_says_too_is_said_alike(language: str) -> None:
    """Catalogues of all apps are one to a project: a word of ours would take the place of Django's."""
    ours = translations.read(language)
    for path in Path(django.__file__).parent.rglob(f"locale/{language}/LC_MESSAGES/django.po"):
        with path.open("rb") as file:
            for theirs in read_po(file, locale=language):
                found = theirs.id and not theirs.context and ours.get(theirs.id)
                assert not found or found.context or found.string == theirs.string, theirs.id


def test_a_text_that_is_missing_or_guessed_or_half_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = translations.read("de")
    plural = ("%(count)d message was held", "%(count)d messages were held")
    catalog.delete("Overview")
    catalog["Timeline"].flags.add("fuzzy")
    catalog[plural].string = ("%(count)d Nachricht wird zurückgehalten", "")
    monkeypatch.setattr(translations, "read", lambda language: catalog)

    assert sorted(translations.untranslated("de")) == sorted(["Overview", "Timeline", str(plural)])


def test_texts_are_found_in_python_and_in_templates_of_every_form() -> None:
    found: Catalog = translations.source()

    for text in ("Cancel", "What fires next", "By %(filter_title)s", "Backend", "%(rate)s a minute"):
        assert found.get(text) is not None, text
    assert found.get("Messages", "scheduled") is not None
    assert found.get(("%(number)s more queue is not shown.", "%(number)s more queues are not shown.")) is not None


def test_a_new_language_begins_with_everything_to_be_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(translations, "LOCALES", tmp_path)

    assert translations.main("fr") == 1

    assert translations.languages() == ["fr"]
    assert f"{len(translations.source())} texts to be translated." in capsys.readouterr().out
    before = translations.po("fr").read_text()
    translations.main()
    assert translations.po("fr").read_text() == before


def test_instants_and_lengths_are_german(german: None) -> None:
    assert times.absolute(NOW) == "3. Jan 2027 09:00:00 CET"
    assert times.relative(NOW, NOW + timedelta(days=2)).replace("\xa0", " ") == "vor 2 Tagen"
    assert times.relative(NOW + timedelta(days=800), NOW).replace("\xa0", " ") == "in 2 Jahren, 2 Monaten"
    assert times.span(NOW, NOW + timedelta(days=2)).replace("\xa0", " ") == "2 Tage"
    assert spelled(timedelta(days=1, hours=2, seconds=30)) == "1 Tag 2 Stunden 30 Sekunden"


def test_numbers_are_german(german: None) -> None:
    assert number(Count(10_000, True)) == "10.000+"
    assert length(1.25) == "1,25 s"
