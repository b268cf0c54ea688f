"""Addresses, property-tested."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.inventory.rules import (
    JsonCondition,
    http_url_fault,
    json_condition_fault,
    path_fault,
    read_json_condition,
    read_statuses,
    repository_fault,
    statuses_fault,
)


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


@pytest.mark.parametrize("path", ["/", "/api/orders?limit=1&x=%20", "/~ana/", "/ä"])
def test_paths_with_a_query_are_accepted(path: str):
    assert path_fault(path) == ""


@pytest.mark.parametrize("path", ["", "api", "//evil.example/x", "/a b", "/a#b", "/a\nb", "/50%", "/%zz", "http://a/"])
def test_what_could_lead_elsewhere_or_be_read_otherwise_is_no_path(path: str):
    assert path_fault(path)


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("200", ((200, 200),)),
        ("200-299", ((200, 299),)),
        (" 200 , 301 - 308,404", ((200, 200), (301, 308), (404, 404))),
    ],
)
def test_expected_statuses_are_codes_and_ranges(text: str, ranges: tuple[tuple[int, int], ...]):
    assert read_statuses(text) == ranges
    assert statuses_fault(text) == ""


@pytest.mark.parametrize("text", ["", "ok", "99", "600", "200,", "200-", "2xx", "200 299", "٢٠٠", "-200"])
def test_anything_else_is_refused_with_an_example(text: str):
    assert "such as 200" in statuses_fault(text)


def test_a_range_that_is_upside_down_says_how_it_should_stand():
    assert statuses_fault("299-200") == "The range 299-200 is upside down: write 200-299."


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("$", JsonCondition(())),
        (" $.a.b[0] ", JsonCondition(("a", "b", 0))),
        ('$["a b"][ -1 ]', JsonCondition(("a b", -1))),
        ('$.status == "ok"', JsonCondition(("status",), "==", "ok")),
        ("$.n<100", JsonCondition(("n",), "<", 100)),
        ("$.n >= -1.5e3", JsonCondition(("n",), ">=", -1500.0)),
        ("$.up != false", JsonCondition(("up",), "!=", False)),
        ("$.error == null", JsonCondition(("error",), "==", None)),
    ],
)
def test_a_json_condition_is_a_place_and_a_comparison(text: str, condition: JsonCondition):
    assert read_json_condition(text) == condition
    assert json_condition_fault(text) == ""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "must begin with $"),
        ("status == 1", "must begin with $"),
        ("$.a..b", "from character 4 on"),
        ("$.*", "from character 2 on"),
        ("$.a[0:2]", "from character 4 on"),
        ("$.a = 1", "from character 4 on"),
        ("$.a == ", "from character 4 on"),
        ("$.a == ok", "texts stand in quotes"),
        ("$.a == NaN", "texts stand in quotes"),
        ('$["\\x"]', "texts stand in quotes"),
        ("$.a == [1]", "a text, a number, true, false or null only"),
        ('$.a < "1"', "needs a number"),
        ("$.a >= true", "needs a number"),
        ("$.a == 1e999", "too large"),
        ("$" + ".a" * 21, "deeper than 20"),
    ],
)
def test_a_condition_that_cannot_be_read_names_the_place(text: str, fault: str):
    assert fault in json_condition_fault(text)


@given(st.text(max_size=40) | st.text(max_size=30).map("$.{}".format) | st.text(max_size=20).map("$.a == {}".format))
def test_any_text_is_a_condition_or_is_refused_in_a_sentence(text: str):
    fault = json_condition_fault(text)
    assert fault == "" or fault.endswith((".", "quotes."))
