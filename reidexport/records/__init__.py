"""What the commands write as JSON, one class for each kind of file.

:mod:`reidexport.records.reading` reads and writes any of them; ``docs/records.md`` lists them.
"""
