"""Commands on galleries: search, store, forget, draw, serve a page."""
