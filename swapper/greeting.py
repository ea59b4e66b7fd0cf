"""What a person at a terminal is told when swapper serves: what to try next."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from swapper import __version__


def greet(models: Iterable[str], addresses: Sequence[str]) -> None:
    """Print it, where somebody reads it and there is a model to ask."""
    if not sys.stdout.isatty() and not os.environ.get("SWAPPER_GREET"):
        return
    url = next((a for a in addresses if a.startswith("http")), None)
    model = next(iter(models), None)
    if url is None or model is None:
        return
    words = {"url": url.rstrip("/"), "model": model, "command": _own_command()}
    print(GREETING.format(version=__version__, **words), flush=True)


def _own_command() -> str:
    """How this program is called here: it may not be on the PATH."""
    program = Path(sys.argv[0])
    if shutil.which(program.name):
        return program.name
    return os.path.relpath(program) if program.is_file() else "swapper"


GREETING = """
swapper {version} is ready on {url}

Ask a model something, in another terminal:

  curl {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "What is swapper?"}}]}}'

Or from Python (pip install openai):

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="none")
  for event in client.chat.completions.create(
      model="{model}", stream=True, messages=[{{"role": "user", "content": "What is swapper?"}}]
  ):
      print(event.choices[0].delta.content or "", end="", flush=True)

Or stay in the terminal:

  {command} run {model}
  {command} ps        what is loaded
  {command} list      all models

Ctrl-C ends it.
"""
