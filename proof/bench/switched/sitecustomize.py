"""Python runs this as it starts, where this folder is in PYTHONPATH: the metrics of this process get a switch."""

from proof.bench.switch import switch_metrics

switch_metrics()
