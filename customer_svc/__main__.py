"""Runs the service: `python -m customer_svc`."""

from customer_svc.app import SPEC, wire
from twinlog import run

run(SPEC, wire)
