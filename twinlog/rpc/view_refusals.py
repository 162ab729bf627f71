"""Why an operation on the builds of a view is refused."""

from __future__ import annotations

from twinlog.model.errors import FailedPrecondition, NotFound


class ViewUnknown(NotFound):
    """There is no view {view} here; the views are {views}."""

    reason = "VIEW_UNKNOWN"


class ViewVersionUnknown(NotFound):
    """View {view} is not declared in version {version} here; deploy the program that declares it."""

    reason = "VIEW_VERSION_UNKNOWN"


class ViewBuildUnknown(NotFound):
    """View {view} has no build {build}; its builds are {builds}."""

    reason = "VIEW_BUILD_UNKNOWN"


class ViewBuildLive(FailedPrecondition):
    """Build {build} of view {view} is the live one; switch to another one first."""

    reason = "VIEW_BUILD_LIVE"


class ViewBuildDropped(FailedPrecondition):
    """Build {build} of view {view} was dropped; rebuild the view."""

    reason = "VIEW_BUILD_DROPPED"


class ViewBuildBehind(FailedPrecondition):
    """Build {build} of view {view} is not as far as the live one: {behind}. Wait until it is ready, then try again."""

    reason = "VIEW_BUILD_BEHIND"


class ViewBuildDiffers(FailedPrecondition):
    """Build {build} of view {view} differs from the live one: {differences}. Look at `twinlog views compare {view}`; if
    that is meant, confirm the differences."""

    reason = "VIEW_BUILD_DIFFERS"


class ViewBuildHasDeadLetters(FailedPrecondition):
    """Build {build} of view {view} has set events aside that the live one has not: {events}. Replay or discard them, or
    confirm that they may wait."""

    reason = "VIEW_BUILD_HAS_DEAD_LETTERS"


class ViewNeverSwitched(FailedPrecondition):
    """View {view} has no build that was live before; there is nothing to switch back to."""

    reason = "VIEW_NEVER_SWITCHED"
