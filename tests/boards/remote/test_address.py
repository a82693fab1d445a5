from __future__ import annotations

import pytest

from boardfit.boards.remote.address import Address, parse_address
from boardfit.errors import RemoteError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("local", Address("local")),
        ("ssh://kitchen", Address("ssh", host="kitchen")),
        ("ssh://pi@kitchen", Address("ssh", host="kitchen", user="pi")),
        ("ssh://pi@kitchen:2222", Address("ssh", host="kitchen", user="pi", port=2222)),
        ("ssh://pi@kitchen/", Address("ssh", host="kitchen", user="pi")),
        ("ssh://MyAlias", Address("ssh", host="MyAlias")),
        ("ssh://pi@10.0.0.7", Address("ssh", host="10.0.0.7", user="pi")),
        ("ssh://pi@[fe80::1]:22", Address("ssh", host="fe80::1", user="pi", port=22)),
        ("adb://emulator-5554", Address("adb", serial="emulator-5554")),
        ("adb://192.168.1.5:5555", Address("adb", serial="192.168.1.5:5555")),
        ("adb://R58M12ABCDE", Address("adb", serial="R58M12ABCDE")),
    ],
)
def test_an_address_is_read(text, expected):
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["local", "ssh://kitchen", "ssh://pi@kitchen:2222", "adb://10.0.0.9:5555"])
def test_an_address_is_written_as_it_was_read(text):
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kitchen",
        "pi@kitchen",
        "telnet://kitchen",
        "ssh://",
        "ssh://pi@",
        "ssh://-oProxyCommand=date",
        "ssh://-l@kitchen",
        "ssh://pi@kitchen:99999",
        "ssh://pi@kitchen:x",
        "ssh://pi@kitchen/home",
        "ssh://pi@kitchen;date",
        "ssh://pi@kitch en",
        "adb://",
        "adb://-d",
        "adb://a b",
    ],
)
def test_what_is_no_address_is_refused_with_the_forms(text):
    with pytest.raises(RemoteError, match="expected"):
        parse_address(text)


def test_a_password_is_refused_and_not_repeated():
    with pytest.raises(RemoteError, match="kitchen has a password in it") as caught:
        parse_address("ssh://pi:raspberry@kitchen")
    assert "raspberry" not in str(caught.value)
