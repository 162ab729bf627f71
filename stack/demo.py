"""The demo: real orders in both modes, and what became of them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from shop.orders.v1.order_pb2 import OrderState
from shop.orders.v1.order_service_pb2 import GetSagaModeRequest, SetSagaModeRequest
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION, SagaMode
from stack import burst as load
from stack import timeline
from stack.balance import Balance, balance
from stack.clients import Clients, connect, retried
from stack.console import console, say
from stack.shop import Shop
from stack.stories import STORIES, Scene
from twinlog import Money
from twinlog.dev import Misconfigured
from twinlog.testing.internals import NANOS_PER_UNIT

MODES = {SAGA_MODE_CHOREOGRAPHY: "choreography", SAGA_MODE_ORCHESTRATION: "orchestration"}
_HOW = {
    SAGA_MODE_CHOREOGRAPHY: "each service reacts to the other's log",
    SAGA_MODE_ORCHESTRATION: "the saga orchestrator tells each service what to do",
}
_MOST_SINGLE_ORDERS = 50
_ORDERS_PER_CUSTOMER = 40


async def demo(shop: Shop) -> bool:
    """Runs the demo; returns whether the money balances. Raises Unexpected and BurstUnfinished."""
    balances: list[Balance] = []
    async with connect(shop) as clients:
        before = (await retried(clients.orders.GetSagaMode, GetSagaModeRequest())).saga_mode
        scenes = [Scene(clients, shop.supervisor, mode) for mode in MODES]
        for scene in scenes:
            await _set_mode(clients, scene.mode)
            await _tell(scene)
        for scene in scenes:
            await _set_mode(clients, scene.mode)
            customer_ids = await _burst(shop, scene)
            balances.append(await balance(shop.postgres_url, clients, {*customer_ids, *scene.customer_ids}))
            _show(balances[-1])
        await _set_mode(clients, before)
    return all(each.holds for each in balances)


def orders_of_a_burst() -> int:
    """DEMO_ORDERS, or else 2,000. Raises Misconfigured."""
    given = os.environ.get("DEMO_ORDERS", "2000")
    if not given.isdecimal() or not int(given):
        raise Misconfigured(
            f"DEMO_ORDERS={given} is wrong: must be how many orders run at once, such as 2000"
        )
    return int(given)


async def _set_mode(clients: Clients, mode: SagaMode.ValueType) -> None:
    await retried(clients.orders.SetSagaMode, SetSagaModeRequest(saga_mode=mode))


async def _tell(scene: Scene) -> None:
    _heading(f"{MODES[scene.mode].capitalize()}: {_HOW[scene.mode]}")
    for number, story in enumerate(STORIES, 1):
        title = f"{number}/{len(STORIES)}  {story.__doc__}"
        with console.status(title) if console.is_terminal else nullcontext():
            entries = await story(scene)
        say(f"\n[bold]{title}[/] [green]✓[/]")
        for line in timeline.table(entries):
            console.print(line)
    say(f"\nOne order at a time, CreateOrder to APPROVED in the view: median {await _latency(scene):.1f} ms")


async def _latency(scene: Scene) -> float:
    """The median latency of an order that is alone, in milliseconds: of no more orders than a burst has."""
    orders = min(orders_of_a_burst(), _MOST_SINGLE_ORDERS)
    customer_id = await scene.customer(Money(orders * NANOS_PER_UNIT, "EUR"))
    times = []
    for _ in range(orders):
        started = time.perf_counter()
        await scene.ended(await scene.order(customer_id, Money(NANOS_PER_UNIT, "EUR")))
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


async def _burst(shop: Shop, scene: Scene) -> Sequence[str]:
    """Runs and shows a burst, of $DEMO_ORDERS orders; returns the ids of its customers."""
    orders = orders_of_a_burst()
    customers = max(1, orders // _ORDERS_PER_CUSTOMER)
    _heading(f"{orders:,} orders of {customers} customers at once, in {MODES[scene.mode]}")
    with _progress(orders) as progress:
        figures = await load.burst(shop, scene.mode, orders=orders, customers=customers, progress=progress)
    states = ", ".join(
        f"{count:,} {OrderState.Name(state).removeprefix('ORDER_STATE_')}"
        for state, count in sorted(figures.states.items())
    )
    say(f"{states}")
    say(
        f"[bold]{figures.sagas_per_second:,.0f} sagas/s[/]: accepted in {figures.accepted_seconds:.2f} s, all ended in "
        f"the view after {figures.seconds:.2f} s"
    )
    return figures.customer_ids


@contextmanager
def _progress(total: int) -> Iterator[load.Progress]:
    """Shows a bar on a terminal, elsewhere a line for each quarter."""
    if not console.is_terminal:
        quarters = iter((total // 4, total // 2, total * 3 // 4, total))
        yield _by_quarters(list(quarters))
        return
    columns = TextColumn("{task.description}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, refresh_per_second=8) as bars:
        accepted_bar, ended_bar = (
            bars.add_task("accepted", total=total),
            bars.add_task("ended   ", total=total),
        )

        def show(accepted: int, ended: int) -> None:
            bars.update(accepted_bar, completed=accepted)
            bars.update(ended_bar, completed=ended)

        yield show


def _by_quarters(marks: list[int]) -> load.Progress:
    def show(accepted: int, ended: int) -> None:
        while marks and ended >= marks[0]:
            say(f"  {marks.pop(0):>5,} ended")

    return show


def _show(sums: Balance) -> None:
    rows = {
        "credit reserved, by the log of customer_svc": sums.reserved_in_log,
        "orders approved, by the log of order_svc": sums.approved_in_log,
        "credit reserved, by the view": sums.reserved_in_view,
        "orders approved, by the view": sums.approved_in_view,
    }
    for what, nanos in rows.items():
        say(f"  {what:<44} {nanos / NANOS_PER_UNIT:>14,.2f} EUR")
    say("[green]✓ They balance.[/]" if sums.holds else "[bold red]✗ They do not balance.[/]")


def _heading(text: str) -> None:
    say(f"\n[bold blue]── {text} {'─' * max(0, 95 - len(text))}[/]")
