from twinlog import run

from trips_svc.app import SPEC, wire

run(SPEC, wire)
