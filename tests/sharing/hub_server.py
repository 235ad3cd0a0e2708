"""A Hub of one process on loopback: the few calls that lebm makes, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "t" * 34


class Server:
    """Repositories in memory.

    Attributes:
        address: where it is.
        commits: for each repository, its commits in order, each a mapping of file names to bytes.
        calls: method and path of every request.
        tokens: every Authorization header that came.
        unknown: paths that it does not know.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.calls: list[str] = []
        self.tokens: list[str | None] = []
        self.unknown: list[str] = []

    def digest(self, repository: str, number: int) -> str:
        return hashlib.sha1(f"{repository}/{number}".encode()).hexdigest()

    def files(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and the files of a revision."""
        commits = self.commits[repository]
        for number in reversed(range(len(commits))):
            if revision == "main" or revision == self.digest(repository, number):
                return self.digest(repository, number), commits[number]
        return None


class _Handler(BaseHTTPRequestHandler):
    server: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *given: Any) -> None:
        pass

    def answer(self, status: int, body: Any = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub = self._noted()
        found = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/([\w.]+)", self.path)
        if found is not None:
            self.answer_file(hub, *found.groups())
        elif (repository := self.path.removeprefix("/api/models/")) in hub.commits:
            self.answer(200, {"id": repository})
        else:
            hub.unknown.append(self.path)
            self.answer(404)

    def answer_file(self, hub: Server, repository: str, revision: str, name: str) -> None:
        if repository not in hub.commits:
            self.answer(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif (commit := hub.files(repository, revision)) is None:
            self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        elif name not in commit[1]:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit[0])
        else:
            content = commit[1][name]
            tag = f'"{hashlib.sha1(content).hexdigest()}"'
            self.answer(200, content, X_Repo_Commit=commit[0], ETag=tag)

    def do_POST(self) -> None:
        hub = self._noted()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"warnings": [], "errors": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repository = f"{asked['organization']}/{asked['name']}"
            known = repository in hub.commits
            hub.commits.setdefault(repository, [{}])
            return self.answer(409 if known else 200, {"url": f"{hub.address}/{repository}"})
        found = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/(preupload|commit)/main", self.path)
        if found is None:
            hub.unknown.append(self.path)
            return self.answer(404)
        repository, call = found.groups()
        if call == "preupload":
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": modes})
        files = dict(hub.commits[repository][-1])
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        hub.commits[repository].append(files)
        digest = hub.digest(repository, len(hub.commits[repository]) - 1)
        address = f"{hub.address}/{repository}/commit/{digest}"
        return self.answer(200, {"success": True, "commitOid": digest, "commitUrl": address})

    def _noted(self) -> Server:
        hub: Server = self.server.hub
        hub.calls.append(f"{self.command} {self.path}")
        hub.tokens.append(self.headers.get("Authorization"))
        return hub


@contextmanager
def served() -> Iterator[Server]:
    """A running server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        hub = Server(f"http://127.0.0.1:{server.server_port}")
        server.hub = hub  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
