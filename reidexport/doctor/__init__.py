"""What this machine can do with reidexport, what is broken, and what to install for more.

Every check is a function of what it judges, so that any machine can be described to it; ``examine_this_machine``
describes the one it runs on. Nothing heavy is imported: versions come from package metadata, GPUs from the driver.
"""

from reidexport.doctor.examination import examine, examine_this_machine
from reidexport.records.checks import Examination, Finding

__all__ = ["Examination", "Finding", "examine", "examine_this_machine"]
