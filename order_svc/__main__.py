"""Runs the service: `python -m order_svc`."""

from order_svc.app import SPEC, wire
from twinlog import run

run(SPEC, wire)
