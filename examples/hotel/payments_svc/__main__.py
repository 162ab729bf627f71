from twinlog import run

from payments_svc.app import SPEC, wire

run(SPEC, wire)
