"""What shows that the promises hold: the auditor, the bench, chaos."""
