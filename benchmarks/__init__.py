"""Measurements that are more than a command's ``--json``."""
