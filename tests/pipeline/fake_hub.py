"""A hub on 127.0.0.1 that fails as hubs do: python fake_hub.py FOLDER serves its files as every repository.

It prints its port. The repository's name says how it fails: limited (429 to everything), broken (503), gated (asks for
a licence to be accepted), cut (the weights end in the middle and the line is dead), cut-once (only the first time).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0" * 40
FOLDER = Path(sys.argv[1])
tries: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, code: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body) if length is None else length), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        for word, code in (("limited", 429), ("broken", 503)):
            if word in path:
                return self.answer(code, b'{"error": "not now"}')
        if "gated" in path:
            return self.answer(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="accept the licence")
        if path.startswith("/api/models/"):
            if "/tree/" in path:
                files = [{"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                         for file in sorted(FOLDER.iterdir()) if file.is_file()]  # fmt: skip
                return self.answer(200, json.dumps(files).encode(), Content_Type="application/json")
            names = [{"rfilename": file.name} for file in sorted(FOLDER.iterdir()) if file.is_file()]
            about = {"id": path.split("/")[3] + "/" + path.split("/")[4], "sha": COMMIT, "siblings": names}
            return self.answer(200, json.dumps(about).encode(), Content_Type="application/json")
        file = FOLDER / path.rpartition("/")[2]
        if not file.is_file():
            return self.answer(404, b"{}", X_Error_Code="EntryNotFound")
        body = file.read_bytes()
        about = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X_Repo_Commit": COMMIT}
        tries[path] += self.command == "GET"
        cut = "cut" in path and file.suffix == ".safetensors" and self.command == "GET"
        if cut and ("once" not in path or tries[path] == 1):
            self.close_connection = True
            return self.answer(200, body[: len(body) // 2], len(body), **about)
        return self.answer(200, body, **about)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
