"""Twinlog: event sourcing, CQRS and sagas over gRPC, Postgres and NATS JetStream.

Each service owns one append-only log; the log has one twin, a JetStream stream in which sequence n is
event n. Start reading at :mod:`twinlog.decider` and :mod:`twinlog.log`.
"""
