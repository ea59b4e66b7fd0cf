"""Somebody's server for sound: tells, in events, what form it was given."""

import hashlib
import json
import sys
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        parts = BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()
        fields = {part.get_param("name", header="content-disposition"): part for part in parts}
        told = {name: part.get_payload(decode=True) for name, part in fields.items()}
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.event({"type": "transcript.text.delta", "delta": told["model"].decode()})
        text = f"{told['model'].decode()} {hashlib.sha256(told['file']).hexdigest()}"
        self.event({"type": "transcript.text.done", "text": text})
        self.wfile.write(b"0\r\n\r\n")

    def event(self, value):
        data = f"data: {json.dumps(value)}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
