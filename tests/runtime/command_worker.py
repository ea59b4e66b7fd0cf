"""A server nobody here wrote: answers GET /health, and behaves badly in the ways it is told.

    command_worker.py PORT [--daemon FILE] [--ignore-term] [--stop-s S] [--exit STATUS]
                           [--dump FILE] [--unhealthy-s S]

--daemon: a daemonised grandchild (two forks, a session of its own) writes its number to FILE.
"""

import argparse
import http.server
import json
import os
import signal
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--daemon")
parser.add_argument("--ignore-term", action="store_true")
parser.add_argument("--stop-s", type=float, default=0)
parser.add_argument("--exit", type=int)
parser.add_argument("--dump")
parser.add_argument("--unhealthy-s", type=float, default=0)
arguments = parser.parse_args()


def daemonise(path):
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with open(path + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".new", path)
    time.sleep(1000)
    os._exit(0)


def end(*_):
    time.sleep(arguments.stop_s)
    os._exit(0)


def limit(name):
    with open("/proc/self/limits") as file:
        return file.read().split(name)[1].split()[0]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        is_healthy = time.monotonic() > healthy_at
        self.send_response(200 if is_healthy and self.path == "/health" else 503)
        self.end_headers()
        self.wfile.write(json.dumps({"pid": os.getpid()}).encode())


if arguments.daemon:
    daemonise(arguments.daemon)
    while not os.path.exists(arguments.daemon):
        time.sleep(0.01)
if arguments.dump:
    with open("/proc/self/oom_score_adj") as file:
        oom = file.read().strip()
    seen = {"env": dict(os.environ), "fds": os.listdir("/proc/self/fd"), "oom": oom}
    seen |= {"core": limit("Max core file size"), "cwd": os.getcwd()}
    with open(arguments.dump, "w") as file:
        json.dump(seen, file)
if arguments.exit is not None:
    print("about to give up", flush=True)
    sys.exit(arguments.exit)
signal.signal(signal.SIGTERM, signal.SIG_IGN if arguments.ignore_term else end)
healthy_at = time.monotonic() + arguments.unhealthy_s
http.server.HTTPServer(("127.0.0.1", arguments.port), Handler).serve_forever()
