"""Requests for certificates: what a certification authority would take, or a refusal that says why not."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from helpers.support import Api, World, kind_of

PATH = "/api/v1/keys/certified/certificate-request"


@pytest.fixture(scope="module")
def alice(shared_world: World) -> Api:
    api = shared_world.user("certified-alice")
    assert api.post("/api/v1/keys", {"type": "ec-p256", "key_id": "certified"}).status_code == 201
    return api


def requested(alice: Api, **body: Any) -> x509.CertificateSigningRequest:
    answer = alice.post(PATH, body)
    assert answer.status_code == 200, answer.json
    made = x509.load_pem_x509_csr(answer.json["certificate_request"].encode())
    assert made.is_signature_valid
    return made


def test_names_without_a_subject_are_critical(alice: Api) -> None:
    """RFC 5280, section 4.2.1.6."""
    for body in ({"dns_names": ["a.example.org"]}, {"subject": "", "dns_names": ["a.example.org"]}):
        made = requested(alice, **body)
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert (len(made.subject), names.critical) == (0, True)
        assert names.value.get_values_for_type(x509.DNSName) == ["a.example.org"]
    made = requested(alice, subject="CN=a", dns_names=["a.example.org"])
    assert not made.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


def test_neither_subject_nor_names_is_refused(alice: Api) -> None:
    answer = alice.post(PATH, {})
    assert (answer.status_code, kind_of(answer)) == (422, "validation-failed")
    assert "subject, dns_names" in answer.json["detail"]


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (f"CN={'a' * 65}", "65 characters; X.520 allows it 1 to 64"),
        (f"O={'a' * 65}", "65 characters; X.520 allows it 1 to 64"),
        ("C=DEU", "3 characters; X.520 allows it 2 to 2"),
        ("CN=", "0 characters; X.520 allows it 1 to 64"),
        ("C=ä", "C has a character that X.520 does not allow it"),
        ("DC=ü", "DC has a character that X.520 does not allow it"),
        ("2.5.4.5=@", "2.5.4.5 has a character that X.520 does not allow it"),
        ("shop", "not as RFC 4514 has it"),
    ],
)
def test_a_subject_that_no_certificate_can_carry_is_refused_with_the_reason(
    alice: Api, subject: str, words: str
) -> None:
    answer = alice.post(PATH, {"subject": subject})
    assert (answer.status_code, kind_of(answer)) == (422, "validation-failed")
    assert words in answer.json["detail"]


@pytest.mark.parametrize("name", ["192.0.2.1", "127.1", "2130706433", "*.0.2.1", "a.0x7f", "[::1]", "::1", "a.1"])
def test_an_address_is_no_name_of_a_host(alice: Api, name: str) -> None:
    """Some programs take such a name for the address, which the request then would have vouched for."""
    answer = alice.post(PATH, {"dns_names": ["shop.example.org", name]})
    assert (answer.status_code, kind_of(answer)) == (422, "validation-failed")
    assert requested(alice, dns_names=["1.example.org", "0x7f.example.org", "4.3.2.in-addr.arpa"])


def test_the_longest_common_name(alice: Api) -> None:
    assert str(next(iter(requested(alice, subject=f"CN={'a' * 64}").subject)).value) == "a" * 64


@given(
    st.builds(
        "{}={}".format,
        st.sampled_from(["CN", "C", "DC", "UID", "STREET", "2.5.4.46", "2.5.4.45", "1.2.3"]),
        st.text(),
    )
)
@hypothesis_settings(max_examples=150, deadline=None)
def test_any_subject_has_a_request_or_a_refusal(alice: Api, subject: str) -> None:
    assert alice.post(PATH, {"subject": subject}).status_code in (200, 422)
