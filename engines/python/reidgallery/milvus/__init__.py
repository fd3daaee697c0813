"""Galleries in Milvus, in a file (milvus-lite) or on a server."""
