"""Running the application: one process, a socket, and an orderly end."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection

import torch
import uvicorn

from .app import create_app
from .protocol import watched
from .service import Service

LOCAL = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine for itself."""


def listen(host: str = "127.0.0.1", port: int = 8000) -> socket.socket:
    """Return a listening socket.

    Args:
        host: An address or a name of this machine.
        port: The port; 0 takes one that is free.

    Raises:
        OSError: If the address is none of this machine's, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise OSError(f"there is no host {host!r}; give an address of this machine, such as 127.0.0.1") from (
            error
        )
    made = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(512)
    except OSError as error:
        made.close()
        raise OSError(
            f"cannot listen at {host}:{port}: {error.strerror}; give another --port, 0 takes a free one"
        ) from error
    return made


def address_of(listening: socket.socket) -> str:
    """Return the address that a browser takes."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(service: Service, *, hosts: Collection[str] = LOCAL) -> uvicorn.Server:
    """Return a `uvicorn.Server` for a service: ``run(sockets=[…])`` runs it, ``should_exit = True`` ends it.

    Args:
        service: What answers.
        hosts: Names under which the server may be asked for, without ports; empty: all.
    """
    limits = service.limits
    config = uvicorn.Config(
        create_app(service, hosts=hosts),
        http=watched(limits),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(limits.max_seconds) + 1,
    )
    return uvicorn.Server(config)


def serve(service: Service, listening: socket.socket, *, hosts: Collection[str] = LOCAL) -> None:
    """Serve until the process is told to stop (Ctrl-C, SIGTERM); answers that are due are given first.

    The threads of torch are shared out among the workers, for the whole process.

    Args:
        service: What answers.
        listening: Where; see `listen`.
        hosts: As for `make_server`.
    """
    server = make_server(service, hosts=hosts)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // service.limits.workers))
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:  # raised anew once all is in order
        pass
    finally:
        listening.close()
