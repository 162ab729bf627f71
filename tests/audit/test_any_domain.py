"""`twinlog audit` knows the shop from its programs only, and finds every fault that is no matter of orders and credit."""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proof.auditor import ledger
from stack.topology import NAMES
from tests.audit import faults
from tests.audit.faults import FAULTS, Fault
from tests.audit.world import World
from twinlog.audit import Auditor, Change, Domain, Findings, dead_letters, history, sagas, views
from twinlog.audit.project import open_auditor
from twinlog.audit.views import ViewAudit

pytestmark = pytest.mark.asyncio(loop_scope="package")

MAINS: Mapping[str, Any] = {name: importlib.import_module(f"{name}.app").main for name in NAMES}
OF_THE_SHOP = {
    ledger.TRANSITIONS,
    ledger.LIMIT,
    ledger.RESERVATIONS,
    ledger.SUMS,
    ledger.APPROVED,
    ledger.RELEASED,
    ledger.ANSWERED,
    ledger.AGREES,
    ledger.REASON,
}
"""What only the shop's ledger knows."""
