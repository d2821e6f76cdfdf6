"""One gateway for all tests that leave it whole; each test has a bucket of its own."""

from __future__ import annotations

import base64
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from botocore import UNSIGNED

from tests.s3.gateways import SECRET_KEY, WRAPPING_KEY, Gateway
from tests.s3.raw import Site

_numbers = itertools.count(1)
_ENCRYPTION_KEYS = [WRAPPING_KEY.hex(), repr(WRAPPING_KEY), "k" * 31, base64.b64encode(b"k" * 30).decode()]
"The gateway's, and the customer's of ``test_encryption``, as far as it is any customer's."
_OTHERS = ("botocore", "boto3", "urllib3", "s3transfer", "asyncio")


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    with Gateway() as gateway:
        yield gateway


@pytest.fixture(scope="session")
def s3(gateway: Gateway) -> Any:
    """boto3 as anybody would make it."""
    return gateway.boto()


@pytest.fixture
def bucket(s3: Any) -> str:
    """A new, empty bucket."""
    name = f"bucket-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def people(gateway: Gateway) -> dict[str, Any]:
    """A client each: two users, and nobody."""
    made = {}
    for name in ("alice", "bob"):
        key = gateway.run(gateway.server._users.create(name))
        made[name] = gateway.boto(access_key=key.key_id, secret_key=key.secret)
    made["nobody"] = gateway.boto(config={"signature_version": UNSIGNED})
    return made


@pytest.fixture
def alice(people: dict[str, Any]) -> Any:
    return people["alice"]


@pytest.fixture
def bob(people: dict[str, Any]) -> Any:
    return people["bob"]


@pytest.fixture
def nobody(people: dict[str, Any]) -> Any:
    return people["nobody"]


@pytest.fixture
def mine(alice: Any) -> str:
    """A bucket of alice's with one object."""
    name = f"alices-{next(_numbers)}"
    alice.create_bucket(Bucket=name)
    alice.put_object(Bucket=name, Key="k", Body=b"data")
    return name


@pytest.fixture
def site(gateway: Gateway, bucket: str) -> Iterator[Site]:
    """A bucket with one object; that nothing else was stored is checked at the end."""
    site = Site(gateway, bucket)
    yield site
    site.check()


@pytest.fixture(autouse=True)
def logs_are_clean(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No request of any test may crash a handler, and no log line may hold a secret."""
    yield
    formatter = logging.Formatter()
    for record in caplog.get_records("call"):
        if record.name.startswith(_OTHERS):
            continue
        text = formatter.format(record) + repr(record.__dict__)
        assert record.exc_info is None, f"a traceback in the log: {text}"
        assert record.getMessage() != "request.crashed", text
        for secret in (SECRET_KEY, "Signature=", "X-Amz-Signature", *_ENCRYPTION_KEYS):
            assert secret not in text, f"{secret} in the log: {text}"
