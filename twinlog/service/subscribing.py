"""What is subscribed at a service, as the consumers that it comes to."""

from __future__ import annotations

from collections.abc import Sequence

from twinlog.consume import Consumer
from twinlog.consume.effects import EffectConsumer
from twinlog.consume.policies import PolicyConsumer
from twinlog.log.declarations import EFFECTS, POLICIES
from twinlog.model.clock import Clock
from twinlog.model.effects import Effects
from twinlog.model.errors import ConfigurationError
from twinlog.model.policies import Policies
from twinlog.model.saga_aggregate import SagaAggregate
from twinlog.model.saga_routing import saga_policies

Subscriber = Policies | Effects | SagaAggregate | Consumer


class UndeclaredSaga(ConfigurationError):
    """Saga {saga} is no aggregate of {service}, so its deadlines would never come: add it to the spec's aggregates."""

    reason = "UNDECLARED_SAGA"


def with_policies_of_sagas(
    subscribers: Sequence[Subscriber], service: str, sagas: Sequence[SagaAggregate], clock: Clock
) -> Sequence[Policies | Effects | Consumer]:
    """The same, with what routes a saga's events in its place. ``sagas``: those of the service's aggregates.

    Raises UndeclaredSaga.
    """
    found: list[Policies | Effects | Consumer] = []
    for subscriber in subscribers:
        if not isinstance(subscriber, SagaAggregate):
            found.append(subscriber)
            continue
        if subscriber.name not in {each.name for each in sagas}:
            raise UndeclaredSaga(saga=subscriber.current.name, service=service)
        found += saga_policies(subscriber, service, clock)
    return found


def acting(consumers: Sequence[Consumer]) -> dict[tuple[str, str], str]:
    """The logs of those that are policies and effects, by kind and name."""
    kinds = {PolicyConsumer: POLICIES, EffectConsumer: EFFECTS}
    return {(kind, each.name): each.source for each in consumers if (kind := kinds.get(type(each)))}
