"""A page to search a gallery with, served on this machine."""

from reidexport.gallery.web.searcher import Searcher
from reidexport.gallery.web.server import PageServer, page_server

__all__ = ["PageServer", "Searcher", "page_server"]
