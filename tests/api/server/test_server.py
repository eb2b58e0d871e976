import socket

import pytest

from xsam.api.server.server import AddressError, bind, url_of


def test_bind__takes_a_free_port_and_says_its_url() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}"


def test_bind__on_all_addresses_is_reached_on_loopback() -> None:
    with bind("0.0.0.0", 0) as listener:
        assert url_of(listener).startswith("http://127.0.0.1:")


def test_bind__a_taken_port_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=f"can't listen on 127.0.0.1 port {port}: .*in use.*--port"):
            bind("127.0.0.1", port)


def test_bind__an_address_of_another_machine_is_a_sentence() -> None:
    with pytest.raises(AddressError, match=r"can't listen on 192\.0\.2\.1 port 0"):
        bind("192.0.2.1", 0)


def test_bind__names_the_protocol_so_that_answers_are_not_held_back() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
