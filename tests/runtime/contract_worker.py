"""A worker that keeps the contract and nothing else: scripted by its options, for the tests here.

Options: `progress` (list), `fail` ({kind, reason}), `exit` (status), `say` (list of lines),
`flood` (bytes of output), `ignore_term`, `stop_s` (how long it takes to end), `never_ready`,
`fork` (path: a daemonised child writes its number there), `dump` (path: environment and
descriptors are written there as JSON), `hang` (standard input is not watched).
"""

import argparse
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

DAEMON = """
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
open(sys.argv[1] + ".new", "w").write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(1000)
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen")
    parser.add_argument("--options")
    arguments = parser.parse_args()
    with open(arguments.options) as file:
        options = json.load(file)
    if not options.get("hang"):
        threading.Thread(target=exit_at_end_of_stdin, daemon=True).start()
    work(arguments.listen.removeprefix("unix:"), options)


def work(path, options):
    report = os.fdopen(int(os.environ["SWAPPER_REPORT_FD"]), "w", buffering=1)
    if "dump" in options:
        dump(options)
    for line in options.get("say", []):
        print(line, flush=True)
    for start in range(0, options.get("flood", 0), 64):
        os.write(1, b"%063d\n" % start)
    for fraction in options.get("progress", []):
        tell(report, event="loading", progress=fraction)
    if "fork" in options:
        subprocess.run([sys.executable, "-c", DAEMON, options["fork"]], check=True)
    if "fail" in options:
        tell(report, event="failed", **options["fail"])
        sys.exit(1)
    if "exit" in options:
        sys.exit(options["exit"])
    serve(path, options, report)


def serve(path, options, report):
    done = threading.Event()
    handler = signal.SIG_IGN if options.get("ignore_term") else lambda *_: done.set()
    signal.signal(signal.SIGTERM, handler)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    if not options.get("never_ready"):
        tell(report, event="ready", memory={"host": 4096}, context=64, capabilities=["chat"])
    done.wait()
    time.sleep(options.get("stop_s", 0))


def tell(report, **event):
    report.write(json.dumps(event) + "\n")


def dump(options):
    seen = {
        "env": dict(os.environ),
        "fds": sorted(int(n) for n in os.listdir("/proc/self/fd")),
        "options": options,
        "random": random.random(),
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "oom": Path("/proc/self/oom_score_adj").read_text().strip(),
    }
    with open(options["dump"] + ".new", "w") as file:
        json.dump(seen, file)
    os.rename(options["dump"] + ".new", options["dump"])


def exit_at_end_of_stdin():
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
