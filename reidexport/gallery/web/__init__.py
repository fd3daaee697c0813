"""A page to search a gallery with, served on this machine."""
