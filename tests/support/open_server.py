"""A server that answers as an inference server does: `open_server.py PORT open|key`. It prints its port."""

from __future__ import annotations

import http.server
import json
import sys

OPEN = {"/v1/models": json.dumps({"object": "list", "data": [{"id": "model"}]})}
KEY = {"/openapi.json": json.dumps({"paths": {"/invocations": {}}})}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        mode = sys.argv[2]
        body = (OPEN if mode == "open" else KEY).get(self.path)
        self.send_response(200 if body else 401 if self.path.startswith("/v1") else 404)
        self.end_headers()
        self.wfile.write((body or "").encode())

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    with http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()
