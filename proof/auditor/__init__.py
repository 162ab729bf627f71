"""Audits the shop: that logs, twins, views, consumers, orders, credit and sagas agree, event by event."""

from proof.auditor.auditor import Auditor, CannotAudit, audit, open_auditor
from twinlog.audit import Figures, Report, Violation

__all__ = ["Auditor", "CannotAudit", "Figures", "Report", "Violation", "audit", "open_auditor"]
