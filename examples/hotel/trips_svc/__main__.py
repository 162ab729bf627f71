import sys

from twinlog import run

from trips_svc.app import main

sys.exit(run(main))
