"""The gRPC edge: hosts servicers, answers errors from one table, checks requests, reads what a call carries."""

# Where to begin:
#
# * A call: ``host`` serves, ``handlers`` wraps each method, ``context`` reads what the call carries, ``validation``
#   checks the request, ``commands`` does the rest; ``errors`` is the table of codes.
# * A query: ``read_model``, which waits by ``freshness`` for the positions in ``tokens``; ``watches`` tells changes.
# * The services of ``twinlog.v1``: ``inspection_service``, ``saga_service``, ``dead_letter_service``,
#   ``view_service``, ``history_service``, ``snapshot_service``.

from twinlog._aio.watched import Watched
from twinlog.log.past import Moment
from twinlog.log.saga_list import SagaCensus, SagaCount, SagaKey, SagaList, SelectedSagas
from twinlog.log.view_store import ViewMoment
from twinlog.model.saga_list import NOT_ENDED, ChosenSagas, SagaRow, saga_change
from twinlog.rpc import freshness, tokens
from twinlog.rpc.commands import Commands
from twinlog.rpc.context import Context, Incoming, call_metadata, time_left
from twinlog.rpc.errors import CODES, failure_of, status_of
from twinlog.rpc.handlers import Behavior, Method, Middleware
from twinlog.rpc.host import Limits, Server, serve
from twinlog.rpc.logged_event import decoded
from twinlog.rpc.moments import as_of, moment_of
from twinlog.rpc.paging import PageTokens
from twinlog.rpc.past import Past
from twinlog.rpc.read_model import ReadModel
from twinlog.rpc.registrations import Registration
from twinlog.rpc.saga_operations import FindSagas, FoundSaga, SagaOperations
from twinlog.rpc.timelines import causes_first
from twinlog.rpc.validation import Checks, Currencies
from twinlog.rpc.watcher import Change, WatchTooSlow
from twinlog.rpc.watches import WatchExpired

__all__ = [
    "CODES",
    "NOT_ENDED",
    "Behavior",
    "Change",
    "Checks",
    "ChosenSagas",
    "Commands",
    "Context",
    "Currencies",
    "FindSagas",
    "FoundSaga",
    "Incoming",
    "Limits",
    "Method",
    "Middleware",
    "Moment",
    "PageTokens",
    "Past",
    "ReadModel",
    "Registration",
    "SagaCensus",
    "SagaCount",
    "SagaKey",
    "SagaList",
    "SagaOperations",
    "SagaRow",
    "SelectedSagas",
    "Server",
    "ViewMoment",
    "WatchExpired",
    "WatchTooSlow",
    "Watched",
    "as_of",
    "call_metadata",
    "causes_first",
    "decoded",
    "failure_of",
    "freshness",
    "moment_of",
    "saga_change",
    "serve",
    "status_of",
    "time_left",
    "tokens",
]
