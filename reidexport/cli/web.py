"""``reidexport web``: a page to search a gallery with."""

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

from typer import Option

from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.output import log
from reidexport.cli.shared_options import GalleryArgument, GalleryArtifactOption, RunOptions, open_gallery


@with_option_groups
def web(
    gallery: GalleryArgument,
    artifact: GalleryArtifactOption = None,
    k: Annotated[int, Option("-k", min=1, help="Gallery images to show for each query, at first.")] = 10,
    host: Annotated[str, Option(help="Where to listen; no other machine reaches 127.0.0.1.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0: any free one.")] = 8000,
    *,
    run: RunOptions,
) -> None:
    """Serve a page to search a gallery with, on this machine, until Ctrl-C.

    With --artifact it searches for images of your own, too.
    """
    from reidexport.gallery.web.searcher import Searcher
    from reidexport.gallery.web.server import page_server

    with open_gallery(gallery) as known, run.open(artifact) if artifact else nullcontext() as session:
        searcher = Searcher(known, session)
        searcher.warm_up()
        server = page_server(searcher, Path(gallery).name, host=host, port=port, num_matches=k)
        if not server.is_local:
            log("Other machines can reach this page, unencrypted: whoever has its address sees the images.")
        print(server.url, flush=True)
        log("Open this address in a browser; Ctrl-C ends it.")
        with suppress(KeyboardInterrupt):
            server.run()
