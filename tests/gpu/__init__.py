"""What every GPU path must show, on a machine that has one: ``python -m tests.gpu``, or ``make gpu-check``."""
