"""Grafana dashboards and Prometheus alert rules, as tables that are written as files.

Each expression is made from the metrics themselves, so none can name one that there is not.
"""
