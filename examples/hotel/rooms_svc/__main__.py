from twinlog import run

from rooms_svc.app import SPEC, wire

run(SPEC, wire)
