"""What a state means, as far as every release can say it. Imports nothing, so that it runs in the tree of each."""

from __future__ import annotations

from typing import Any


def meaning(state: Any) -> dict[str, Any]:
    """As JSON; empty where there is nothing to tell."""
    match type(state).__name__:
        case "Order":
            return {"state": state.state.value, "customer": state.customer_id, "mode": state.saga_mode}
        case "Mode":
            return {"mode": state.saga_mode}
        case "Customer":
            return {"limit": state.limit, "reserved": state.reserved, "currency": state.currency}
        case "SagaInstance":
            steps = [step.value for step in state.steps]
            return {"status": state.status.value, "steps": steps, "reason": state.reason}
        case _:
            return {}
