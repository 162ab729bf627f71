"""The console's settings."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict

from twinlog.service import logging as logs
from twinlog.service.settings import Address, OptionalAddress, Services


class ConsoleSettings(BaseSettings):
    """The settings of the console; the environment has a field under its upper-case name."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    console_address: Address = "127.0.0.1:50050"
    """Where the console serves. It asks for no login: whoever reaches it may do all that it can."""
    twinlog_services: Services = ""
    """The services that it shows, as name=host:port with commas."""
    console_pages: str = ""
    """Modules that add pages of a domain, with commas; each has PAGES."""
    metrics_address: OptionalAddress = ""
    """Where Prometheus gets the console's own metrics, as host:port; empty: there are none."""
    log_level: logs.Level = "info"
    """What is logged: debug, info, warning or error."""
    log_format: logs.Format = "auto"
    """How it is logged: pretty, json, or auto, which is pretty on a terminal."""
