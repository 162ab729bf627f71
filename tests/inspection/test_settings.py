"""What a process shows of its settings."""

from __future__ import annotations

from pydantic import Field, SecretStr

from twinlog import Address, Settings
from twinlog.service.settings import shown

POSTGRES = "postgresql://me:hush-hush@db:5433,other/?sslpassword=hush-hush"
NATS = "nats://me:hush-hush@a:4222,b:4223"


class _Settings(Settings):
    my_address: Address = "127.0.0.1:1"
    my_key: str = ""
    my_word: str = "default"
    my_secret: SecretStr = SecretStr("hush-hush")
    my_hidden: str = Field("hush-hush", repr=False)
    my_number: int = 3


def test_secrets_stay_secret() -> None:
    told = shown(_Settings(postgres_url=POSTGRES, nats_url=NATS, my_key="hush-hush", my_number=4))
    assert "hush" not in str(told)
    assert told["POSTGRES_URL"] == "db:5433,other:5432"
    assert told["NATS_URL"] == "nats://a:4222,nats://b:4223"
    assert {name: told[name] for name in told if name.startswith("MY_")} == {
        "MY_ADDRESS": "127.0.0.1:1",
        "MY_KEY": "(set)",
        "MY_WORD": "default",
        "MY_SECRET": "**********",
        "MY_HIDDEN": "(set)",
        "MY_NUMBER": "4",
    }
    assert told["LOG_LEVEL"] == "info"
