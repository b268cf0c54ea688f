"""Addresses, property-tested."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.inventory.rules import http_url_fault, repository_fault


@given(st.text() | st.text(max_size=30).map("http://{}".format))
def test_what_is_accepted_is_a_web_address_without_credentials(text: str):
    if not http_url_fault(text):
        parts = urlsplit(text)
        assert parts.scheme in ("http", "https")
        assert parts.hostname
        assert parts.port != 0
        assert "@" not in parts.netloc
        assert text.split() == [text]


@pytest.mark.parametrize("url", ["http://web:8000", "https://a.example.com/x?y", "http://[::1]:8000/"])
def test_hosts_containers_and_addresses_are_accepted(url: str):
    assert http_url_fault(url) == ""


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("ftp://a", "Enter a URL"),
        ("http://", "Enter a URL"),
        ("http://a:0", "Enter a URL"),
        ("http://[::1", "Enter a URL"),
        ("http://a:port", "Enter a URL"),
        ("http://a b", "Enter a URL"),
        ("http://ana@a", "Leave user"),
        ("http://:pw@a", "Leave user"),
        ("http://@a", "Leave user"),
    ],
)
def test_anything_else_says_why(url: str, fault: str):
    assert http_url_fault(url).startswith(fault)


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/acme/shop", "git@github.com:acme/shop.git", "ssh://git@github.com:22/acme/shop.git",
        "org-7@ghe.example.com:acme/shop",
    ],
)  # fmt: skip
def test_repositories_have_web_and_ssh_addresses(address: str):
    assert repository_fault(address) == ""


@pytest.mark.parametrize(
    "address",
    ["", "acme/shop", "git@github.com", "git@github.com:", "ssh://ana:pw@h/x", "https://t@github.com/a/b", "a@b:c d"],
)
def test_anything_else_is_no_repository(address: str):
    assert repository_fault(address).startswith("Enter the repository's address")
