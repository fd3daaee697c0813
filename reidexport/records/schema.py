"""The JSON Schema of all records, for programs in other languages.

After a change of a record::

python -m reidexport.records.schema > docs/records.schema.json
"""

import json
import sys

from reidexport.records.reading import ANY_RECORD


def schema_text() -> str:
    """The schema as it is committed: draft 2020-12."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | ANY_RECORD.json_schema(mode="serialization"), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
