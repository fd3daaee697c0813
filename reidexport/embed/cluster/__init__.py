"""Bulk embedding on a Ray cluster: the shards of a plan are handed to a pool of actors, one after the other."""
