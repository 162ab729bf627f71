import sys

from twinlog import run

from payments_svc.app import main

sys.exit(run(main))
