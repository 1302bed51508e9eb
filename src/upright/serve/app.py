"""The application: the page, its files, and the JSON endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from hashlib import sha256
from importlib import resources
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from .._version import __version__
from .body import Uploads
from .guard import Guard
from .pool import GoneError, Pool
from .refused import RefusedError
from .schema import Answer, Failure, Health, Info
from .service import Ask, Service

PAGES = {"/": "index.html", "/docs": "docs.html"}
FILES = {
    "app.css": "text/css",
    "app.js": "text/javascript",
    "api.js": "text/javascript",
    "orbit.js": "text/javascript",
    "polar.js": "text/javascript",
    "stage.js": "text/javascript",
    "docs.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""All files of the page. They are read when the application is made: no request ever opens a file."""

_BODY = {
    "required": True,
    "description": "The bytes of a picture file, or a form with one file.",
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"picture": {"type": "string", "format": "binary"}},
                "required": ["picture"],
            }
        },
    },
}
_FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"model": Failure, "description": "The form cannot be read."},
    403: {"model": Failure, "description": "Asked by a page of another site."},
    408: {"model": Failure, "description": "The body came too slowly."},
    413: {"model": Failure, "description": "Too many bytes or pixels."},
    415: {"model": Failure, "description": "No picture in a known format."},
    421: {"model": Failure, "description": "Asked for under an unknown name of the host."},
    422: {"model": Failure, "description": "A damaged picture, or a parameter out of range."},
    500: {"model": Failure, "description": "The model failed."},
    503: {"model": Failure, "description": "All workers are busy; see the header Retry-After."},
    504: {"model": Failure, "description": "The answer took too long."},
}


def create_app(service: Service, *, hosts: Collection[str] = ()) -> FastAPI:
    """Make the application for a service.

    Args:
        service: What answers.
        hosts: Names under which the server may be asked for, without ports; empty: all.

    Returns:
        An ASGI application: run it by `upright.serve.serve`, or by any ASGI server.
    """
    pool, uploads = Pool(service.limits), Uploads(service.limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(pool.close)

    app = FastAPI(
        title="upright",
        version=__version__,
        summary="What a model says of a picture, bare and adapted, and how the picture lies.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.pool = pool
    _add_errors(app)
    _add_files(app)
    _add_prediction(app, service, pool, uploads)
    _add_information(app, service)
    app.add_middleware(Guard, hosts=hosts)
    return app


def _add_prediction(app: FastAPI, service: Service, pool: Pool, uploads: Uploads) -> None:
    @app.post(
        "/api/predict", tags=["prediction"], response_model=Answer, responses=_FAILURES,
        response_description="What both models say, and the pose.",
        openapi_extra={"requestBody": _BODY},
    )  # fmt: skip
    async def predict(
        request: Request,
        degrees: Annotated[
            float,
            Query(ge=-360, le=360, allow_inf_nan=False, description="Turn it first, counter-clockwise."),
        ] = 0.0,
        flip: Annotated[bool, Query(description="Flip it left-right before that.")] = False,
        square: Annotated[bool, Query(description="Take its centre square only.")] = False,
        top: Annotated[int, Query(ge=1, le=20, description="How many classes to name.")] = 5,
        bare: Annotated[bool, Query(description="Ask the bare model too.")] = True,
        canonical: Annotated[bool, Query(description="Return the picture as the model is shown it.")] = False,
    ) -> Response:
        """Say what the model sees on a picture, and how the picture lies."""
        data = await uploads.read(request)
        ask = Ask(degrees=degrees, flip=flip, square=square, top=top, bare=bare, canonical=canonical)

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        def work() -> bytes:
            return service.answer(data, ask).model_dump_json().encode()

        return Response(await pool.run(work, gone), media_type="application/json")


def _add_information(app: FastAPI, service: Service) -> None:
    info = service.info()

    @app.get("/api/info", tags=["information"], response_model=Info, response_description="What is served.")
    async def about() -> Info:
        """Say what is served, and within which limits."""
        return info

    @app.get("/healthz", tags=["information"], response_model=Health, response_description="It is there.")
    async def health() -> Health:
        """Say that the server is there."""
        return Health(status="ok")

    @app.get(
        "/api/examples/{name}", tags=["information"], response_class=Response,
        responses={
            200: {"content": {"image/jpeg": {}, "image/png": {}}, "description": "The picture."},
            404: {"model": Failure, "description": "There is none of that name."},
        },
    )  # fmt: skip
    async def example(name: str) -> Response:
        """Return one of the pictures to try things on."""
        found = service.examples.get(name)  # a name in a table: it is never made a path
        if found is None:
            raise RefusedError(404, "not_found", "there is no such picture; see /api/info")
        data, media = await asyncio.to_thread(found.file)
        return Response(data, media_type=media, headers={"Cache-Control": "private, max-age=3600"})


def _add_files(app: FastAPI) -> None:
    folder = resources.files("upright.serve").joinpath("page")
    entries = {path: (name, "text/html") for path, name in PAGES.items()}
    entries.update({f"/static/{name}": (name, media) for name, media in FILES.items()})
    for path, (name, media) in entries.items():
        app.add_api_route(
            path, _file(folder.joinpath(name).read_bytes(), media), methods=["GET", "HEAD"],
            include_in_schema=False,
        )  # fmt: skip


def _file(data: bytes, media: str) -> Any:
    tag = f'"{sha256(data).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}

    async def send(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=media, headers=headers)

    return send


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])
        return await refused(_, RefusedError(422, "bad_parameter", f"{name}: {first['msg']}"))

    @app.exception_handler(StarletteHTTPException)
    async def missing(_: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "wrong_method"}.get(error.status_code, "bad_request")
        made = JSONResponse(RefusedError(error.status_code, code, str(error.detail)).body, error.status_code)
        made.headers.update(error.headers or {})
        return made

    @app.exception_handler(GoneError)
    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it
