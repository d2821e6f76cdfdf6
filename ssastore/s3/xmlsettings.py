"""The XML of settings that S3 gives back. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssastore.s3.xmltext import document, element


def cors(rules: Sequence[Mapping[str, Any]]) -> bytes:
    """The answer of GetBucketCors; rules as in ``cors.Rule``."""

    def listed(name: str, values: Sequence[str]) -> str:
        return "".join(element(name, value) for value in values)

    return document(
        "CORSConfiguration",
        *[
            f"<CORSRule>{element('ID', rule['id'])}{listed('AllowedHeader', rule['headers'])}"
            f"{listed('AllowedMethod', rule['methods'])}{listed('AllowedOrigin', rule['origins'])}"
            f"{listed('ExposeHeader', rule['exposed'])}"
            f"{element('MaxAgeSeconds', rule['max_age_s'])}</CORSRule>"
            for rule in rules
        ],
    )


def request_payment() -> bytes:
    """The answer of GetBucketRequestPayment: who owns the bucket pays."""
    return document("RequestPaymentConfiguration", element("Payer", "BucketOwner"))


def accelerate() -> bytes:
    """The answer of GetBucketAccelerateConfiguration where nothing was set."""
    return document("AccelerateConfiguration")


def logging_status() -> bytes:
    """The answer of GetBucketLogging where nothing was set."""
    return document("BucketLoggingStatus")


def notifications() -> bytes:
    """The answer of GetBucketNotificationConfiguration where nothing was set."""
    return document("NotificationConfiguration")


def tagging(tags: Mapping[str, str]) -> bytes:
    """The answer of GetObjectTagging and GetBucketTagging."""
    listed = "".join(
        f"<Tag>{element('Key', key)}{element('Value', value)}</Tag>" for key, value in tags.items()
    )
    return document("Tagging", f"<TagSet>{listed}</TagSet>")
