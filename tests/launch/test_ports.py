"""Ports that are free, and sentences for those that are not."""

import socket

import pytest

from rlt.errors import ConfigError
from rlt.launch.ports import free_ports, is_free, ports_from


def test_free_ports_are_distinct_and_can_be_bound():
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))


def test_a_promised_port_is_not_given_again(monkeypatch):
    (port,) = free_ports(1)
    monkeypatch.setattr("rlt.launch.ports._LOW", port)
    monkeypatch.setattr("rlt.launch.ports._HIGH", port + 1)
    assert free_ports(1) == [port]
    with pytest.raises(ConfigError, match="no 1 free ports"):
        free_ports(1, besides=[port])


def test_a_listening_port_is_not_free():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        assert not is_free(taken, "127.0.0.1")
        with pytest.raises(ConfigError, match=f"port {taken} on 127.0.0.1 is taken"):
            ports_from(taken, 1)
    assert ports_from(taken, 1) == [taken]


def test_ports_end_at_65535():
    with pytest.raises(ConfigError, match="no room for 3 servers"):
        ports_from(65534, 3)
