"""Somebody's server that needs GPUs: tells which of them it was shown. Runs out of memory as often as
the file named by its second argument has lines left."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAMES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps([os.environ.get(name) for name in NAMES]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def log_message(self, *_):
        pass


if len(sys.argv) > 2 and (failures := Path(sys.argv[2]).read_text().splitlines()):
    Path(sys.argv[2]).write_text("\n".join(failures[1:]))
    sys.exit("CUDA error: out of memory")
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
