"""URLs of Postgres: checked, taken apart, and never shown, since they may hold a password."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, unquote, urlsplit, urlunsplit

from twinlog.log.hosts import NO_HOST, check_host, check_port

_PORT = 5432


def check_url(url: str) -> None:
    """Raises ValueError, without showing the URL, where it cannot be one."""
    try:
        parts = urlsplit(url)
    except ValueError:  # what it says may show the password, and differs from Python to Python
        raise ValueError(NO_HOST) from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("must start with postgresql://")
    if parts.fragment or parts.netloc.count("@") > 1 or parts.path.count("/") > 1:
        raise ValueError("must have its password percent-encoded (@ is %40, # is %23, / is %2F, ? is %3F)")
    query = {}
    if parts.query:
        try:
            query = parse_qs(parts.query, strict_parsing=True)
        except ValueError:
            raise ValueError("must have name=value&name=value after the ?") from None
    for hosts in (_hosts(url), *(each.split(",") for each in query.get("host", []))):
        for host in hosts:
            check_host(host)
    for ports in query.get("port", []):
        for port in ports.split(","):
            check_port(port)
    if "\0" in unquote(url):  # the protocol ends a text there: the server would refuse the rest without end
        raise ValueError("must have no NUL character, %00")


def address_of(url: str) -> str:
    """host:port of the server, or of several servers, separated by commas."""
    query = parse_qs(urlsplit(url).query)
    named = _hosts(url)
    hosts = named or query.get("host", ["localhost"])[-1].split(",")
    port = str(_PORT) if named else query.get("port", [str(_PORT)])[-1]  # asyncpg heeds it only then
    return ",".join(host if ":" in host.rpartition("]")[2] else f"{host}:{port}" for host in hosts)


def database_url(server_url: str, database: str) -> str:
    """The URL of a database on a server, or of a schema of one, as ``database/schema``, for :func:`connect`."""
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{quote(database)}"))


def entry_url(server_url: str) -> str:
    """The URL of a database that is there: the one that the URL names, else ``postgres``."""
    return server_url if database_of(server_url) else database_url(server_url, "postgres")


def database_of(url: str) -> str:
    """The name of the database; empty where there is none."""
    return unquote(urlsplit(url).path.removeprefix("/"))


def parted(database: str) -> tuple[str, str]:
    """The database and the schema of what is called ``database/schema``; empty: those that a session looks in."""
    name, _, schema = database.partition("/")
    return name, schema


def psql(database: str) -> str:
    """The command that opens a database, in its schema."""
    name, schema = parted(database)
    return f"PGOPTIONS='-c search_path={schema}' psql {name}" if schema else f"psql {name}"


def _hosts(url: str) -> list[str]:
    hosts = unquote(urlsplit(url).netloc.rpartition("@")[2])
    return hosts.split(",") if hosts else []
