"""Bulk embedding on a Ray cluster: images from many places in, a folder of Parquet files out.

The work is planned once, as numbered shards (``sources``, ``plan``). Ray Data hands shard numbers to a pool of actors
(``cluster``, ``run``); each reads its shard's images (``reading``), embeds them, and writes one Parquet file
(``worker``). A file appears whole, under its shard's number: what exists is done, and nothing else needs to be
remembered.
"""
