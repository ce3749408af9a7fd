"""The catalogues of translations: `python -m tests.translations [LANGUAGE]`.

Brings every catalogue in django_sked/locale up to date with the texts of the source, writes its .mo, and names what is
still to be translated; ends with 1 while there is any. With a LANGUAGE that has no catalogue yet it begins one. Needs
none of the programs of gettext.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "django_sked"
LOCALES = PACKAGE / "locale"
_KEYWORDS = {
    **DEFAULT_KEYWORDS,
    **{f"{name}_lazy": DEFAULT_KEYWORDS[name] for name in ("gettext", "ngettext", "pgettext", "npgettext")},
}


def source() -> Catalog:
    """Every text of the package that is to be translated, each with the files it is in."""
    catalog = Catalog(project="django-sked", charset="utf-8")
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.html")]):
        text = path.read_text(encoding="utf-8")
        for id, context in _texts(path, text):
            catalog.add(id, locations=[(path.relative_to(ROOT).as_posix(), 0)], context=context)
    return catalog


def _texts(path: Path, text: str) -> list[tuple[str | tuple[str, ...], str | None]]:
    if path.suffix == ".html":
        # Calls between blanked words; parentheses around it all, since their indentation is none of Python.
        text = f"(\n{templatize(text)}\n)"
    found = extract("python", BytesIO(text.encode()), _KEYWORDS, options={"encoding": "utf-8"})
    return [(id, context) for _line, id, _comments, context in found]


def languages() -> list[str]:
    return sorted(path.parts[-3] for path in LOCALES.glob("*/LC_MESSAGES/django.po"))


def po(language: str) -> Path:
    return LOCALES / language / "LC_MESSAGES" / "django.po"


def read(language: str) -> Catalog:
    with po(language).open("rb") as file:
        return read_po(file, locale=language)


def compiled(language: str) -> bytes:
    """What django.mo must be: the same from the same catalogue, which has no dates."""
    out = BytesIO()
    catalog = read(language)
    catalog.creation_date = catalog.revision_date = datetime(2000, 1, 1, tzinfo=UTC)
    write_mo(out, catalog)
    return out.getvalue()


def untranslated(language: str) -> list[str]:
    """The texts of the source that this catalogue does not have in full, or only as a guess."""
    catalog = read(language)
    return [
        str(message.id)
        for message in source()
        if message.id and not _is_translated(catalog.get(message.id, message.context), catalog.num_plurals)
    ]


def _is_translated(message: Message | None, plurals: int) -> bool:
    if message is None or message.fuzzy:
        return False
    found = texts(message.string)
    return len(found) == (plurals if message.pluralizable else 1) and all(found)


def texts(value: Any) -> list[str]:
    """Of an id or a translation: one, or one for each plural form."""
    return [value] if isinstance(value, str) else [text or "" for text in value or ()]


def refresh(language: str) -> None:
    """Bring the catalogue up to date with the source; what it has stays, except texts that are gone."""
    path = po(language)
    path.parent.mkdir(parents=True, exist_ok=True)
    catalog = read(language) if path.exists() else Catalog(locale=language, project="django-sked", charset="utf-8")
    catalog.update(source(), no_fuzzy_matching=True)
    catalog.obsolete.clear()
    for message in catalog:
        if message.id:
            message.flags.discard("python-format")
            # As Django's own command marks them.
            message.flags |= {"python-format"} if re.search(r"%\(\w+\)", str(message.id)) else set()
    with path.open("wb") as file:
        write_po(file, catalog, width=0, include_lineno=False, omit_header=True)
    _put_header(path, catalog)
    path.with_suffix(".mo").write_bytes(compiled(language))


def _put_header(path: Path, catalog: Catalog) -> None:
    """Without a date: the same source makes the same catalogue."""
    lines = [
        f"Language: {catalog.locale}",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=UTF-8",
        "Content-Transfer-Encoding: 8bit",
        f"Plural-Forms: {catalog.plural_forms}",
    ]
    header = "".join(f'"{line}\\n"\n' for line in lines)
    path.write_text(f'msgid ""\nmsgstr ""\n{header}\n{path.read_text(encoding="utf-8")}', encoding="utf-8")


def main(*wanted: str) -> int:
    missing = 0
    for language in wanted or languages():
        refresh(language)
        for text in untranslated(language):
            print(f"{language}: {text}")
            missing += 1
    print(f"{missing} texts to be translated.")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
