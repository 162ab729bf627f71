"""``python -m account_svc before``, ``during`` or ``after``: one version of the service."""

import sys
from functools import partial
from importlib import import_module

from twinlog import run

from account_svc.app import serve

version = import_module(f"account_svc.{sys.argv[1]}").VERSION
sys.exit(run(partial(serve, version)))
