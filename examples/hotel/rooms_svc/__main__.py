import sys

from twinlog import run

from rooms_svc.app import main

sys.exit(run(main))
