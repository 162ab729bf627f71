"""Runs the service: `python -m projector`."""

from projector.app import SPEC, wire
from twinlog import run

run(SPEC, wire)
