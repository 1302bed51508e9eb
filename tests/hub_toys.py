"""A hub of the tests' own: a server on this machine that keeps repositories of models in memory."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"


class Hub:
    """What the server holds: every commit of every repository, and what was asked of it."""

    def __init__(self):
        self.commits = {}  # repository -> [(sha, {path: bytes}, summary)], the oldest first
        self.private = {}
        self.asked = []
        self.address = ""

    def files(self, repo, revision="main"):
        commits = self.commits[repo]
        if revision == "main":
            return commits[-1][1] if commits else {}
        return next(files for sha, files, _ in commits if sha == revision)

    def sha(self, repo):
        return self.commits[repo][-1][0] if self.commits[repo] else "0" * 40

    def commit(self, repo, lines):
        files, summary = dict(self.files(repo)), ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                summary = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise NotImplementedError(line["key"])
        sha = hashlib.sha1(json.dumps([summary, sorted(files), len(self.commits[repo])]).encode()).hexdigest()
        self.commits[repo].append((sha, files, summary))
        return sha


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if path.startswith("/api/models/"):
            return self.about(path.removeprefix("/api/models/"))
        repo, _, rest = path.strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if repo not in self.hub.commits or name not in self.hub.files(repo, revision):
            return self.fail(404, "EntryNotFound")
        data = self.hub.files(repo, revision)[name]
        sha = self.hub.sha(repo) if revision == "main" else revision
        etag = f'"{hashlib.sha1(data).hexdigest()}"'
        return self.answer(data, {"ETag": etag, "X-Repo-Commit": sha, "Accept-Ranges": "none"})

    do_HEAD = do_GET  # noqa: N815

    def about(self, path):
        repo, _, what = path.partition("/revision/")
        repo, _, tree = repo.partition("/tree/")
        if repo not in self.hub.commits:
            return self.fail(404, "RepoNotFound")
        if self.hub.private[repo] and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.fail(401, "RepoNotFound")
        revision = what or tree or "main"
        if revision not in ("main", *(sha for sha, _, _ in self.hub.commits[repo])):
            return self.fail(404, "RevisionNotFound")
        files = self.hub.files(repo, revision)
        if tree:
            rows = [
                {"type": "file", "path": p, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                for p, d in files.items()
            ]
            return self.answer(rows)
        sha = self.hub.sha(repo) if revision == "main" else revision
        return self.answer({"id": repo, "sha": sha, "siblings": [{"rfilename": p} for p in files]})

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"POST {path}")
        body = self.body()
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.fail(401, "", "Invalid username or password.")
        if path == "/api/repos/create":
            wanted = json.loads(body)
            repo = f"{wanted['organization'] or 'me'}/{wanted['name']}"
            if repo in self.hub.commits:
                return self.fail(
                    409, "", "You already created this model repo", url=f"{self.hub.address}/{repo}"
                )
            self.hub.commits[repo] = []
            self.hub.private[repo] = wanted.get("visibility") == "private" or wanted.get("private", False)
            return self.answer({"url": f"{self.hub.address}/{repo}", "name": repo})
        repo, _, rest = path.removeprefix("/api/models/").partition("/preupload/")
        if rest:
            files = json.loads(body)["files"]
            return self.answer({
                "files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            })  # fmt: skip
        repo, _, _ = path.removeprefix("/api/models/").partition("/commit/")
        sha = self.hub.commit(repo, [json.loads(line) for line in body.splitlines()])
        return self.answer({
            "success": True, "commitOid": sha, "commitUrl": f"{self.hub.address}/{repo}/commit/{sha}",
        })  # fmt: skip

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, content, headers=None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def fail(self, status, code, message="no", **more):
        data = json.dumps({"error": message, **more}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@contextmanager
def serving(monkeypatch, cache):
    """Put the server in the place of the hub, with an empty cache."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    at = "huggingface_hub.constants"
    monkeypatch.setattr(f"{at}.ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(f"{at}.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(f"{at}.HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
