"""Somebody's OpenAI-like server, with a child that leaves its session behind."""

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, READY_S = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
STARTED = time.monotonic()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        is_ready = time.monotonic() - STARTED >= READY_S
        self.answer(
            200 if is_ready else 503, {"env": os.environ.get("GREETING"), "cwd": os.getcwd()}
        )

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.answer(200, {"model": body["model"], "key": self.headers.get("authorization")})

    def log_message(self, *_):
        pass


subprocess.Popen(["sleep", "1000"], start_new_session=True)
print("serving on", PORT, flush=True)
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
