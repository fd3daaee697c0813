"""What documents say about records."""

from typing import get_args

import pytest

from reidexport.records.base import Record
from reidexport.records.reading import AnyRecord
from reidexport.records.schema import schema_text
from tests import ROOT


def test_the_committed_schema_is_that_of_the_records() -> None:
    """docs/records.schema.json is what the classes say now."""
    assert (ROOT / "docs/records.schema.json").read_text() == schema_text(), (
        "Run: python -m reidexport.records.schema > docs/records.schema.json"
    )


@pytest.mark.parametrize("record", get_args(get_args(AnyRecord)[0]))
def test_every_kind_is_listed(record: type[Record]) -> None:
    """With its class and the command that writes it."""
    name = f"{record.__module__.removeprefix('reidexport.records.')}.{record.__name__}"
    row = f"| `{record.model_fields['kind'].default}` | `{name}` | `{record.command}` |"
    assert row in (ROOT / "docs/records.md").read_text().splitlines()
