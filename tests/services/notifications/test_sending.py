import base64
import hashlib
import hmac
import socket
from typing import Any

import pytest

from xsam.services.errors import InvalidRequestError
from xsam.services.notifications import sending
from xsam.services.notifications.outbox import Message
from xsam.services.notifications.sending import NotDeliveredError
from xsam.services.settings import NotificationSettings

PUBLIC = NotificationSettings(allowed_hosts=("hooks.example.com", "*.allowed.org"))
PRIVATE = NotificationSettings(allowed_hosts=("*",), allow_private_addresses=True)


def test_signature__is_that_of_standard_webhooks() -> None:
    """The example of the specification's own reference implementations."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    made = sending.signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_new_secret__is_another_each_time_and_signs() -> None:
    first, second = sending.new_secret(), sending.new_secret()
    assert first != second
    key = base64.b64decode(first.removeprefix("whsec_"))
    signed = base64.b64encode(hmac.new(key, b"id.1.body", hashlib.sha256).digest()).decode()
    assert sending.signature(first, "id", 1, b"body") == f"v1,{signed}"


@pytest.mark.parametrize(
    "url", ["https://hooks.example.com/a?b=c", "https://a.allowed.org:8443", "https://A.Allowed.ORG/"]
)
def test_check_url__lets_hosts_of_the_list_pass(url: str) -> None:
    sending.check_url(url, PUBLIC)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://hooks.example.com/", "allowed are https"),
        ("ftp://hooks.example.com/", "allowed are https"),
        ("https://", "allowed are https"),
        ("https://ann:secret@hooks.example.com/", "without user or password"),
        ("https://hooks.example.com:99999/", "Port out of range"),
        ("https://allowed.org/", "allowed are hooks.example.com, *.allowed.org"),
        ("https://hooks.example.com.evil.org/", "allowed are hooks.example.com"),
    ],
)
def test_check_url__says_what_is_allowed(url: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"url (is|names)") as caught:
        sending.check_url(url, PUBLIC)
    assert said in str(caught.value)


def test_check_url__without_a_list_names_the_setting() -> None:
    with pytest.raises(InvalidRequestError, match="XSAM_NOTIFICATIONS__ALLOWED_HOSTS"):
        sending.check_url("https://hooks.example.com/", NotificationSettings())


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "192.168.0.1",
        "::1",
        "fd00::1",
        "fe80::1%1",
        "::ffff:10.0.0.1",
        "0.0.0.0",
        "224.0.0.1",
    ],
)
def test_send__goes_to_no_private_address_whatever_its_name_was_before(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(0, 0, 0, "", ("93.184.216.34", port)), (0, 0, 0, "", (address, port))]

    def connect(*_: Any, **__: Any) -> None:
        raise AssertionError("it was connected to")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    message = Message("m1", "https://hooks.example.com/", sending.new_secret(), {}, 0)
    with pytest.raises(NotDeliveredError, match="no public address"):
        sending.send(message, PUBLIC)


def test_send__stops_when_the_operator_takes_a_host_off_the_list() -> None:
    message = Message("m1", "https://elsewhere.org/", sending.new_secret(), {}, 0)
    with pytest.raises(NotDeliveredError, match="allowed are hooks"):
        sending.send(message, PUBLIC)


def test_send__says_that_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(NotDeliveredError, match="ConnectionRefusedError"):
            sending.send(Message("m1", f"http://127.0.0.1:{port}/", sending.new_secret(), {}, 0), PRIVATE)
