"""A table for receivers to write to; without migrations, so it is made with the test databases."""

from __future__ import annotations

from django.db import models


class Note(models.Model):
    """What a receiver did."""

    text = models.CharField(max_length=200)

    def __str__(self) -> str:
        return self.text
