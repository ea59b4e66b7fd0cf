"""The contract worker, as `backends.serving.parent` wants an engine."""

from tests.runtime.contract_worker import main

__all__ = ["import_all", "main", "prepare"]


def prepare():
    pass


def import_all():
    pass


if __name__ == "__main__":
    main()
