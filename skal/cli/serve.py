"""`skal label serve`: the page on which people label."""

from typing import Annotated

from pydantic import BeforeValidator as Check

from skal.cli.label import Debug, Project, _open, label
from skal.experiment.options import Options, whole


@label.command
def serve(
    project: Project = ".",
    *,
    host: str = "127.0.0.1",
    port: str | None = None,
    token_file: str | None = None,
    host_name: list[str] | None = None,
    goal: str | None = None,
    browser: bool = True,
    debug: Debug = False,
):
    """Open a page in the browser on which people label.

    Parameters
    ----------
    host : str
        Address to listen at; for a team that of this machine, with --token-file, and
        behind a proxy with TLS: the page itself does not encrypt.
    port : str
        By default 8760, or any that is free.
    token_file : str
        A file whose first line is the secret that the address of the page must hold.
    host_name : list of str
        Names by which others call the page, as that of a proxy.
    goal : str
        How many labels are wanted; by default all.
    browser : bool
        Whether to open a browser.
    """
    from skal.annotate.serving import Server
    from skal.annotate.settings import Count

    class _Numbers(Options):
        port: Annotated[int, Check(whole(0, 65535))] | None = None
        goal: Count | None = None

    numbers = _Numbers(port=port, goal=goal)
    server = Server(
        _open(project),
        host=host,
        port=numbers.port,
        token_file=token_file,
        names=host_name or (),
        goal=numbers.goal,
    )
    print(
        f"label at {server.address}\nCtrl-C ends it; all answers are kept", flush=True
    )
    if browser:
        server.open_browser()
    try:
        server.run()
    except KeyboardInterrupt:
        print("ended; skal label status, predict and export tell what came of it")
