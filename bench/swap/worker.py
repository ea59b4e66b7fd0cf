"""Somebody's model server, played: so long to get ready, so long for an answer, so long to stop.

    python -I -S worker.py PORT MODEL STARTS_FILE READY_S ANSWER_S STOP_S

Every start adds a line with the model's name to STARTS_FILE, so that starts are counted by those who
are started. Answers any number of requests at once. Standard library only, started without `site`, so
that it is up as quickly as a Python program can be.
"""

import os
import signal
import socket
import sys
import threading
import time

STARTED = time.monotonic()


def main(port: str, model: str, starts: str, ready_s: str, answer_s: str, stop_s: str) -> None:
    with open(starts, "a") as file:
        file.write(f"{model}\n")
    signal.signal(signal.SIGTERM, lambda *_: stop(float(stop_s)))
    with socket.create_server(("127.0.0.1", int(port)), backlog=128) as server:
        while True:
            connection, _ = server.accept()
            arguments = connection, STARTED + float(ready_s), float(answer_s)
            threading.Thread(target=serve, args=arguments, daemon=True).start()


def stop(stop_s: float) -> None:
    time.sleep(stop_s)
    os._exit(0)


def serve(connection: socket.socket, ready_at: float, answer_s: float) -> None:
    """All requests of one connection."""
    with connection, connection.makefile("rb") as lines:
        while line := lines.readline():
            length = 0
            while header := lines.readline().strip():
                name, _, value = header.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            lines.read(length)
            if line.startswith(b"GET"):
                reply(connection, 200 if time.monotonic() >= ready_at else 503, b"{}")
            else:
                time.sleep(answer_s)
                reply(connection, 200, b'{"choices": [{"index": 0, "finish_reason": "stop"}]}')


def reply(connection: socket.socket, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)


if __name__ == "__main__":
    main(*sys.argv[1:])
