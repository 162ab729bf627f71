"""What is refused at start, and what is not even loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stack.topology import ROOT
from tests.erasure.guests import M
from tests.erasure.messages import declare
from twinlog import Saga, Step, saga_aggregate
from twinlog.log import keys
from twinlog.log.keys import NoCipher, require_cipher
from twinlog.model.personal import personal_types
from twinlog.service import mistakes

_LOADED = "import sys, twinlog, {modules}; twinlog.Service; print('cryptography' in sys.modules)"


def test_without_personal_fields_nothing_is_loaded() -> None:
    program = _LOADED.format(
        modules="twinlog.service.process, twinlog.v1.saga_pb2, shop.orders.v1.events_pb2"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.stdout.strip() == "False", done.stderr


def test_without_what_encrypts_the_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "find_spec", lambda _name: None)
    require_cipher([])
    with pytest.raises(
        NoCipher, match=r"CustomerCreated has personal fields.*pip install 'twinlog\[erasure\]'"
    ):
        require_cipher(["shop.customers.v1.CustomerCreated"])


def test_the_types_that_a_program_knows_are_found() -> None:
    import shop.customers.v1.events_pb2  # noqa: F401

    assert "shop.customers.v1.CustomerCreated" in personal_types()
    assert "shop.customers.v1.CreditReserved" not in personal_types()


def test_a_saga_that_keeps_what_is_nobodys_is_refused() -> None:
    def saga(event: str) -> list[str]:
        made = Saga(
            "welcome",
            version=1,
            starts_with=M[event],
            steps=[Step("greet", done=M["Noted"])],
            partition_key=lambda _event: "one",
            id=lambda _event: "one",
            sources={"guests": [M[event]]},
        )
        return list(mistakes.in_sagas([saga_aggregate(made)], []))

    [kept, *_] = saga("GuestNamed")
    assert "keeps tests.guests.v1.GuestNamed" in kept and "(twinlog.v1.subject)" in kept
    assert not any("keeps" in each for each in saga("RoomBooked"))


def test_an_answer_that_is_stored_has_no_personal_fields() -> None:
    declare(
        "tests.answers.v1",
        services={"Guests": [("Register", "RegisterRequest", "Guest"), ("Get", "GetRequest", "Guest")]},
        RegisterRequest=[("request_id", "text")],
        GetRequest=[("id", "text")],
        Guest=[("name", "personal")],
    )
    served = (object(), lambda _servicer, _server: None, "tests.answers.v1.Guests")
    found = list(mistakes.in_registrations([served]))
    assert len(found) == 1
    assert "tests.answers.v1.Guests.Register is given a request_id" in found[0]
