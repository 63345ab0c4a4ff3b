"""Paths of pages below the one under which another application has mounted them, and the way back after a log-in."""

from __future__ import annotations

import re
from urllib.parse import quote

from starlette.requests import Request

#: A path, with its query, that no browser takes for the name of another server.
_OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")


#: Where a request's scope keeps the path.
_BASE = "ecs_queue.base_path"


def keep_base_path(request: Request) -> None:
    """Remember `base_path`: while a file is looked for, Starlette adds the path of the files to that of the mount."""
    request.scope[_BASE] = str(request.scope.get("root_path", "")).rstrip("/")


def base_path(request: Request) -> str:
    """Return the path under which another application has mounted this one; "" for none."""
    if _BASE not in request.scope:
        keep_base_path(request)
    return str(request.scope[_BASE])


def page_path(request: Request) -> str:
    """Return the path of a page, without `base_path`."""
    path, base = str(request.scope["path"]), base_path(request)
    return path[len(base) :] if base and path.startswith(f"{base}/") else path


def path_without_last_slash(request: Request) -> str:
    """Return the path with its query for one that ends with a slash; "" for another one, and for what is not a look."""
    path = page_path(request)
    if not path.endswith("/") or request.method not in ("GET", "HEAD"):
        return ""
    # One slash at the beginning: two would begin the name of another server.
    return f"/{quote(path.strip('/'))}{_query(request)}"


def login_path(request: Request, path: str) -> str:
    """Return the path of the log-in, from which a browser returns to what it asked for."""
    if request.method not in ("GET", "HEAD") or page_path(request) == path:
        return path
    return login_path_to(quote(page_path(request)) + _query(request), path)


def login_path_to(place: str, path: str) -> str:
    """Return the path of the log-in, from which a browser goes to this path."""
    return f"{path}?next={quote(place, safe='')}"


def own_path(text: str) -> str:
    """Return where a browser goes after the log-in: the path `text`, or the first page for what may lead elsewhere."""
    return text if _OWN_PATH.fullmatch(text) else "/"


def _query(request: Request) -> str:
    query = bytes(request.scope.get("query_string", b"")).decode("latin-1")
    return f"?{query}" if query else ""
