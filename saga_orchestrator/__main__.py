"""Runs the service: `python -m saga_orchestrator`."""

from saga_orchestrator.app import SPEC, wire
from twinlog import run

run(SPEC, wire)
