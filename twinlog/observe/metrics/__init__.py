"""Prometheus metrics, one concern a module.

Hot paths add to plain numbers (:mod:`~twinlog.observe.metrics.tallies`); all else is sampled when somebody scrapes,
from what the process knows or asks its servers then. So nothing is paid while nobody scrapes.
"""
